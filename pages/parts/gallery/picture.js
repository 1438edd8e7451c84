// Shows one image of a pair, whole, or says that there is none. Where it is of an opened pair, that hears K, D and the
// arrows to the side, wherever the keyboard is, but for what needs them itself. Each press is told with the pair on show,
// and the queue of presses loses none. What is typed after an arrow that was not heard yet is for the pair that the arrow
// leads to, which Python knows.

// What hears the keyboard for a frame: one at a time, whether or not what was drawn before is told that it goes.
const hearing = new WeakMap()

const draw = (frame, data) => {
  if (frame.dataset.src === data.src && frame.firstChild) return
  frame.dataset.src = data.src
  const missing = (why) => {
    const note = document.createElement("div")
    note.className = "none"
    note.textContent = why
    frame.replaceChildren(note)
  }
  if (!data.src) return missing(data.lack)
  const image = document.createElement("img")
  image.className = "whole"
  image.alt = data.alt
  image.referrerPolicy = "no-referrer"
  putPicture(image, data.src, () => missing("no image"))
  frame.replaceChildren(image)
}

// What had the keyboard may have been drawn anew, and nobody has it: the dialog does not hear Escape by itself then.
const escape = (event) => {
  const dialog = document.querySelector('[role="dialog"]')
  if (!dialog || event.target !== document.body) return
  dialog.focus()
  dialog.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true, cancelable: true }))
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const frame = parentElement.querySelector(".frame")
  draw(frame, data)
  if (!data.uid) return
  hear(data.gallery, data.heard, setTriggerValue)
  const told = (event) => {
    if (event.key === "Escape" && frame.isConnected) return escape(event)
    const what = frame.isConnected && asked(event)
    if (!what) return
    event.preventDefault()
    // A key that is held down judges once: each further judgement would take back the one before.
    if (event.repeat && what.kind !== "turn") return
    const turns = unheard(data.gallery).some((said) => said.pair === data.pair && said.kind === "turn")
    press(data.gallery, { ...what, pair: data.pair, uid: turns ? "" : data.uid }, setTriggerValue)
  }
  // On the way down: what lies over a page lets no key out again.
  document.removeEventListener("keydown", hearing.get(frame), true)
  document.addEventListener("keydown", told, true)
  hearing.set(frame, told)
  // Whoever opened the pair tells what was typed since.
  document.dispatchEvent(new Event("clipsel-pair"))
  return () => document.removeEventListener("keydown", told, true)
}
