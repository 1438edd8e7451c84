// Presses that Python has not heard yet, by gallery, with a number each. Every message holds all of them: of several that
// are sent before Python answers only the last one arrives. What an answer has not heard of is sent once more.

const PATIENCE_MS = 1000
const unheard = new Map()
const resending = new Map()
let latest = 0

const press = (gallery, said, send) => {
  // Later than all presses before it, also those of a page that this one took the place of.
  latest = Math.max(latest + 1, Math.round(performance.timeOrigin + performance.now()))
  unheard.set(gallery, [...(unheard.get(gallery) ?? []), { ...said, press: latest }])
  send("pressed", unheard.get(gallery))
}

const hear = (gallery, heard, send) => {
  const left = (unheard.get(gallery) ?? []).filter((said) => said.press > heard)
  unheard.set(gallery, left)
  clearTimeout(resending.get(gallery))
  if (left.length) resending.set(gallery, setTimeout(() => send("pressed", unheard.get(gallery)), PATIENCE_MS))
}

const PRESSES = { k: { kind: "keep" }, d: { kind: "drop" }, ArrowLeft: { kind: "turn", by: -1 }, ArrowRight: { kind: "turn", by: 1 } }
const WRITTEN_IN = "input, textarea, select, [contenteditable], [role=listbox]"
const WALKED_IN = `${WRITTEN_IN}, canvas, [role=tablist], [role=slider], [role=grid]`

// What a key asks of an opened pair; nothing where it is another key, or one that what has the keyboard needs itself.
// opener: the cards that it was opened from, which may have the keyboard still.
const asked = (event, opener) => {
  const said = PRESSES[event.key]
  if (!said || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return undefined
  const theirs = said.by ? WALKED_IN : WRITTEN_IN
  return event.composedPath().some((node) => node !== opener && node.matches?.(theirs)) ? undefined : said
}
