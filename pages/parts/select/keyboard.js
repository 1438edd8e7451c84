// Gives the keyboard to a button once nobody has it, and again where it is lost while the page is still being drawn.
// Whoever presses a key or points somewhere has it from then on.

const PATIENCE_MS = 5000

const first = (keys) => keys.map((key) => document.querySelector(`.st-key-${key} button:enabled`)).find(Boolean)

const hand = (keys) => {
  const until = performance.now() + PATIENCE_MS
  const taken = new AbortController()
  for (const sign of ["keydown", "pointerdown"]) {
    document.addEventListener(sign, () => taken.abort(), { capture: true, signal: taken.signal })
  }
  const look = () => {
    if (taken.signal.aborted) return
    if (performance.now() > until) { taken.abort(); return }
    if ((document.activeElement ?? document.body) === document.body) first(keys)?.focus()
    requestAnimationFrame(look)
  }
  look()
}

export default function (component) {
  const { data, parentElement } = component
  const root = parentElement.querySelector(".keyboard")
  const before = root.dataset.turn
  root.dataset.turn = data.turn
  // What was asked for before the page was come to is over.
  if (before !== undefined && before !== root.dataset.turn) hand(data.keys)
}
