// A part of a chart that is marked: by press and drag, or with the arrows. Escape takes it away, and so does a click. The page
// shows the pairs in it. Places are bins or bars. Other scripts go on from here.

const DRAGGED_PX = 4
// What was marked is said again where a run of the page ended before it took it.
const SAID_AGAIN_MS = 2000, GIVEN_UP_MS = 10_000
const arrows = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }

// root: what hears the pointer and the keyboard. chart: the part of it that can be marked, by its selector. mark: as Python has
// it. places: how many there are. at: the place nearest to the pointer. paint: draws the first and the last place, none where
// there is no mark. presses: whether a click marks a place. Returns what draws the mark again, and what ends it all.
const brush = (component, root, { chart, mark, places, at, paint, presses }) => {
  const { parentElement, setStateValue } = component
  const self = (parentElement.clipselMark ??= { ends: null, from: null, turn: 0 })
  // What Python has, unless it has not heard what was marked since.
  if (self.from === null && mark.heard >= self.turn) self.ends = mark.first === undefined ? null : [mark.first, mark.last]
  const set = (ends) => {
    self.ends = ends
    paint(ends, self.from !== null)
  }
  const say = () => {
    setStateValue("marked", { turn: self.turn, ends: self.ends })
    wait()
  }
  const wait = () => {
    clearTimeout(self.again)
    const since = performance.timeOrigin + performance.now() - self.turn
    if (self.heard < self.turn && since < GIVEN_UP_MS) self.again = setTimeout(say, SAID_AGAIN_MS)
  }
  const tell = () => {
    self.turn = performance.timeOrigin + performance.now()
    say()
  }
  self.heard = mark.heard
  wait()
  const drop = () => {
    self.from = null
    if (!self.ends) return
    set(null)
    tell()
  }
  root.onpointerdown = (event) => {
    if (event.button !== 0 || !event.target.closest(chart)) return
    root.setPointerCapture(event.pointerId)
    Object.assign(self, { from: at(event), x: event.clientX, y: event.clientY, before: self.ends, dragged: false })
  }
  root.onpointermove = (event) => {
    if (self.from === null) return
    self.dragged ||= Math.hypot(event.clientX - self.x, event.clientY - self.y) > DRAGGED_PX
    if (self.dragged) set([self.from, at(event)].sort((one, other) => one - other))
  }
  root.onpointerup = () => {
    if (self.from === null) return
    const pressed = self.from
    self.from = null
    if (!self.dragged && (!presses || (self.ends?.[0] === pressed && self.ends[1] === pressed))) return drop()
    set(self.dragged ? self.ends : [pressed, pressed])
    tell()
  }
  // A finger that went on to scroll the page marked nothing.
  root.onpointercancel = () => {
    if (self.from === null) return
    self.from = null
    set(self.before)
  }
  root.onkeydown = (event) => {
    const by = arrows[event.key]
    if (!by || event.ctrlKey || event.metaKey || event.altKey) return
    event.preventDefault()
    const start = presses ? 0 : Math.round(places * 0.45)
    const [first, last] = self.ends ?? [start - by, start - by + (presses ? 0 : Math.round(places / 16))]
    const shift = Math.max(-first, Math.min(by, places - 1 - last))
    set(event.shiftKey ? [first, Math.max(first, Math.min(last + by, places - 1))] : [first + shift, last + shift])
    self.untold = true
  }
  root.onkeyup = root.onblur = () => {
    if (!self.untold) return
    self.untold = false
    tell()
  }
  const listening = new AbortController()
  const escape = (event) => {
    if (event.key === "Escape" && !document.querySelector('[role="dialog"]')) drop()
  }
  document.addEventListener("keydown", escape, { signal: listening.signal })
  root.tabIndex = 0
  return { repaint: () => set(self.ends), stop: () => listening.abort() }
}

// The same of a histogram. As charts.py has the ends: short decimals, those of the whole span rounded outwards.
const brushBins = (component, root, data) => {
  const bins = data.layers[0]?.counts.length ?? 1
  const width = (data.high - data.low) / bins
  const shown = digits(width) + 1
  const end = (place) => {
    const round = { 0: Math.floor, [bins]: Math.ceil }[place] ?? Math.round
    const value = place === bins ? data.high : data.low + place * width
    return (round(value * 10 ** shown) / 10 ** shown).toFixed(shown)
  }
  const paint = (ends, moving) => {
    const box = root.querySelector(".plot")
    box?.querySelectorAll(".part, .tip").forEach((node) => node.remove())
    if (!box || !ends) return
    const part = make("div", "part")
    Object.assign(part.style, {
      left: `${(100 * ends[0]) / bins}%`, width: `${(100 * (ends[1] + 1 - ends[0])) / bins}%`, height: `${data.height}px`,
    })
    box.append(part)
    if (!moving) return
    const pairs = data.layers[data.of].counts.slice(ends[0], ends[1] + 1).reduce((sum, count) => sum + count, 0)
    const count = number.format(Math.round(pairs))
    const said = make("div", "tip", `${end(ends[0])} to ${end(ends[1] + 1)} · about ${count} ${count === "1" ? "pair" : "pairs"}`)
    said.style.top = "4px"
    const share = ends[0] / bins
    said.style[share < 0.6 ? "left" : "right"] = `${100 * (share < 0.6 ? share : 1 - (ends[1] + 1) / bins)}%`
    box.append(said)
  }
  root.setAttribute("role", "group")
  root.setAttribute("aria-label", `${data.title}. Arrows mark a part, with Shift a wider one; Escape takes the mark away.`)
  const at = (event) => {
    const frame = root.querySelector(".plot").getBoundingClientRect()
    return Math.min(bins - 1, Math.max(0, Math.floor(((event.clientX - frame.left) / (frame.width || 1)) * bins)))
  }
  return brush(component, root, { chart: ".plot", mark: data.mark, places: bins, at, paint, presses: false })
}
