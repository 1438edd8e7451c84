// Notes when a person let go of something and when the page came to rest after it: `settling` in the page's own clock.

(() => {
  if (window.settling) return
  const self = (window.settling = { from: null, ran: false, done: null, changed: 0, counted: null, stood: null })
  // What Python counted: our funnel, which comes as a new node, or the plain page's number. What our funnel says moves with
  // the thumb and proves nothing.
  const count = () => (
    document.querySelector(".funnel") ?? document.querySelector('[data-testid="stMetricValue"]')?.textContent)
  const numbers = () => [...document.querySelectorAll('.headline, .funnel, [data-testid="stMetricValue"]')]
    .map((node) => node.textContent).join()
  let before, said
  const start = () => {
    before = count()
    said = numbers()
    const from = performance.now()
    Object.assign(self, { from, ran: false, done: null, changed: 0, counted: null, stood: from })
  }
  for (const kind of ["keyup", "pointerup"]) document.addEventListener(kind, start, true)
  const running = () => document.querySelector('[data-testid="stApp"]')?.dataset.testScriptState === "running"
  new MutationObserver((records) => {
    if (self.from === null) return
    const now = performance.now()
    if (self.counted === null && count() !== before) self.counted = now
    const shown = numbers()
    if (shown !== said) [self.stood, said] = [now, shown]
    const states = records.some((record) => record.type === "attributes")
    if (states && running()) Object.assign(self, { ran: true, done: null })
    else if (states && self.ran) self.done = now
    if (records.some((record) => record.target.closest?.('[data-testid="stMain"]'))) self.changed = now
  }).observe(document, {
    subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["data-test-script-state"],
  })
  // A run of some milliseconds may never be drawn as running; then the count that it brought says that it was.
  const ended = () => self.done !== null || (self.counted !== null && !running())
  self.rested = () => ended() && performance.now() - Math.max(self.done, self.changed) > 200
  self.toCount = () => (self.counted === null ? self.took() : self.counted - self.from)
  // Until the numbers are the final ones.
  self.toFinal = () => self.stood - self.from
  self.took = () => Math.max(self.done, self.changed) - self.from
  // The cards of a gallery lie in a shadow root; filled is when they are there and each in view shows its picture.
  const cards = () => [...document.querySelectorAll("*")].flatMap((node) => (
    node.shadowRoot ? [...node.shadowRoot.querySelectorAll(".card")] : []))
  const inView = (node) => {
    const box = node.getBoundingClientRect()
    let [top, bottom] = [0, window.innerHeight]
    for (let up = node; up; up = up.parentElement ?? up.getRootNode().host) {
      if (getComputedStyle(up).overflowY === "visible") continue
      const frame = up.getBoundingClientRect();
      [top, bottom] = [Math.max(top, frame.top), Math.min(bottom, frame.bottom)]
    }
    return box.bottom > top && box.top < bottom
  }
  self.first = () => cards()[0]?.querySelector(".caption")?.textContent ?? ""
  self.filled = (count, before) => {
    const found = cards()
    const shown = found.length >= count && self.first() !== before && found.slice(0, count).every((card) => {
      const picture = card.querySelector("img")
      return picture && ((picture.complete && picture.naturalWidth > 0) || !inView(picture))
    })
    return shown ? performance.now() - self.from : null
  }
  // Time to redraw: the work of one pointermove, the layout that it asks for included.
  self.drag = (track, moves) => {
    const box = track.getBoundingClientRect()
    const at = (share) => ({ clientX: box.x + share * box.width, clientY: box.y + box.height / 2, button: 0, pointerId: 1 })
    track.setPointerCapture = () => {}
    track.dispatchEvent(new PointerEvent("pointerdown", at(0.2)))
    const times = []
    for (let move = 0; move < moves; move += 1) {
      const start = performance.now()
      track.dispatchEvent(new PointerEvent("pointermove", at(0.2 + (0.6 * move) / moves)))
      document.body.getBoundingClientRect()
      times.push(performance.now() - start)
    }
    track.dispatchEvent(new PointerEvent("pointercancel", at(0.2)))
    return times.sort((a, b) => a - b)[Math.floor(moves / 2)]
  }
})()
