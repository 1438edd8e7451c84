// Presses that Python has not heard yet, by gallery, with a number each. Every message holds all of them: of several that
// are sent before Python answers only the last one arrives. What an answer has not heard of is sent once more. A pair may
// be closed by then: each gallery sends what was pressed in the pair that lies open over it too.

const PATIENCE_MS = 1000
const OPENED = "opened pair"
// One for all components: each has its own copy of this file.
const queue = (window.clipselPresses ??= { unheard: new Map(), latest: 0 })
const resending = new Map()

const unheard = (gallery) => [...new Set([OPENED, gallery])].flatMap((name) => queue.unheard.get(name) ?? [])

const press = (gallery, said, send) => {
  // Later than all presses before it, also those of a page that this one took the place of.
  queue.latest = Math.max(queue.latest + 1, Math.round(performance.timeOrigin + performance.now()))
  queue.unheard.set(gallery, [...(queue.unheard.get(gallery) ?? []), { ...said, press: queue.latest }])
  send("pressed", unheard(gallery))
}

// heard: the number of the last press that was heard, by gallery.
const hear = (gallery, heard, send) => {
  for (const [name, number] of Object.entries(heard)) {
    queue.unheard.set(name, (queue.unheard.get(name) ?? []).filter((said) => said.press > number))
  }
  clearTimeout(resending.get(gallery))
  if (!unheard(gallery).length) return
  resending.set(gallery, setTimeout(() => { if (unheard(gallery).length) send("pressed", unheard(gallery)) }, PATIENCE_MS))
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
