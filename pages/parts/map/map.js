// The map. Python sends the address of a picture of the part in view, labels, and single pairs where few are in view; this
// draws them, and tells Python the corners of what was drawn, which part is now in view, which pair the pointer rests on, and which was
// clicked. Words from the pool are put in as textContent.

const MODES = [["lasso", "Lasso"], ["box", "Box"], ["move", "Move"]]
const NEAR = 9
// Pictures that are kept, to be seen until a finer one is here.
const KEPT = 12
// Milliseconds until another part is asked for, until an answer counts as lost, and until a pointer rests.
const SOON = 40
const PATIENCE = 1500
const REST = 70

const build = (root) => {
  const tools = make("div", "tools")
  tools.setAttribute("role", "toolbar")
  const stage = make("div", "stage")
  stage.tabIndex = 0
  const canvas = make("canvas")
  const labels = make("div", "labels")
  const outline = document.createElementNS("http://www.w3.org/2000/svg", "svg")
  const tip = make("div", "tip")
  tip.hidden = true
  const clear = make("button", "clear", "Clear")
  clear.type = "button"
  const none = make("div", "none", "No pair in this part of the map. “Whole map” leads back.")
  stage.append(canvas, outline, labels, none, clear, tip)
  root.replaceChildren(tools, stage, make("div", "legend"))
  // A finger moves a map; it draws on one when told to.
  const mode = matchMedia("(pointer: coarse)").matches ? "move" : "lasso"
  const legend = root.lastChild
  const parts = { root, tools, stage, canvas, labels, outline, tip, legend, clear, none }
  return { ...parts, mode, trail: null, pictures: [], tips: new Map(), fingers: new Map() }
}

const button = (self, name, words, act, pressed) => {
  const node = make("button", "", words)
  node.type = "button"
  node.dataset.tool = name
  if (pressed !== undefined) node.setAttribute("aria-pressed", String(pressed))
  node.onclick = () => act(self)
  return node
}

const size = (self) => [self.stage.clientWidth, self.stage.clientHeight]

const drawTools = (self) => {
  const [width, height] = size(self)
  const step = (factor) => (me) => turn(me, zoomed(me.view, me.data.home, width, height, factor, width / 2, height / 2))
  const modes = MODES.map(([name, words]) => button(self, name, words, (me) => { me.mode = name; drawTools(me) }, self.mode === name))
  const group = make("span", "group")
  group.append(...modes)
  const views = make("span", "group")
  views.append(button(self, "in", "+", step(1.6)), button(self, "out", "−", step(1 / 1.6)), button(self, "home", "Whole map", whole))
  views.children[0].setAttribute("aria-label", "Zoom in")
  views.children[1].setAttribute("aria-label", "Zoom out")
  self.tools.replaceChildren(group, views, make("span", "said", self.data.said))
  self.clear.hidden = !self.data.shape
  self.stage.dataset.mode = self.mode
}

const whole = (self) => turn(self, fit(self.data.home, ...size(self)))

const drawLegend = (self) => {
  const { bar } = self.data
  const ramp = make("div", "ramp")
  ramp.style.background = `linear-gradient(to right, ${bar.colours.join(", ")})`
  const scale = make("div", "scale")
  bar.ticks.forEach(([text, at]) => {
    const node = make("span", at < 0.05 ? "first" : at > 0.95 ? "last" : "", text)
    node.style.left = `${at * 100}%`
    scale.append(node)
  })
  const range = make("div", "range")
  range.append(ramp, scale)
  self.legend.replaceChildren(make("span", "name", bar.title), range, make("i", "blank"), make("span", "name", bar.blank))
}

const paint = (self) => {
  const [width, height] = size(self)
  if (!width || !self.view) return
  const ratio = window.devicePixelRatio || 1
  const { canvas } = self
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio)
    canvas.height = Math.round(height * ratio)
  }
  const pen = canvas.getContext("2d")
  pen.setTransform(ratio, 0, 0, ratio, 0, 0)
  pen.clearRect(0, 0, width, height)
  pen.globalAlpha = self.data.points.x.length ? 0.35 : 1
  self.pictures.forEach(({ image, span }) => {
    const [left, top] = toScreen(self.view, width, height, span[0], span[3])
    const [right, bottom] = toScreen(self.view, width, height, span[1], span[2])
    pen.clearRect(left, top, right - left, bottom - top)
    pen.drawImage(image, left, top, right - left, bottom - top)
  })
  pen.globalAlpha = 1
  paintPoints(self, pen, width, height)
  paintShape(self, width, height)
}

const paintPoints = (self, pen, width, height) => {
  const { points } = self.data
  const radius = points.x.length > 400 ? 2.5 : 4
  self.at = points.x.map((x, i) => toScreen(self.view, width, height, x, points.y[i]))
  self.at.forEach(([px, py], i) => {
    pen.beginPath()
    pen.arc(px, py, i === self.under ? radius + 3 : radius, 0, 7)
    pen.fillStyle = points.colour[i]
    pen.fill()
  })
}

const paintShape = (self, width, height) => {
  const drawn = self.trail ?? (self.data.shape && self.data.shape.x.map((x, i) => [x, self.data.shape.y[i]]))
  self.outline.replaceChildren()
  if (!drawn) return
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polygon")
  line.setAttribute("points", drawn.map(([x, y]) => toScreen(self.view, width, height, x, y).join()).join(" "))
  self.outline.append(line)
}

const level = (self) => {
  const zoom = self.view.scale / fit(self.data.home, ...size(self)).scale
  return self.data.labels[Math.min(zoom < 1.8 ? 0 : zoom < 4 ? 1 : 2, self.data.labels.length - 1)] ?? []
}

const draw = (self) => {
  paint(self)
  placeLabels(self.labels, level(self), self.view, ...size(self))
}

// Another view: drawn at once from what is here, and finer when Python has answered.
const turn = (self, view) => {
  self.view = view
  hide(self)
  cancelAnimationFrame(self.frame)
  self.frame = requestAnimationFrame(() => draw(self))
  ask(self)
}

// One question at a time: the next one waits for the answer, and asks for what is in view then.
const ask = (self) => {
  if (self.later) return
  const wait = self.asked ? Math.max(SOON, self.asked + PATIENCE - performance.now()) : SOON
  self.later = setTimeout(() => {
    self.later = 0
    self.asked = performance.now()
    self.tell("moved", spanOf(self.view, ...size(self)))
  }, wait)
}

const answered = (self) => {
  self.asked = 0
  if (!self.later) return
  clearTimeout(self.later)
  self.later = 0
  ask(self)
}

const load = (self, data) => {
  const next = new Image()
  const wanted = () => nameOf(data) === self.shown
  next.onload = () => { if (wanted()) lay(self, next, data) }
  // Pictures are kept for a while only: it is drawn again.
  next.onerror = () => setTimeout(() => { if (wanted()) { self.shown = ""; ask(self) } }, PATIENCE)
  next.src = data.image
}

// Finer pictures lie on coarser ones, the newest on top. Those in other colours go.
const lay = (self, image, { colouring, span }) => {
  const wide = ({ span: [left, right] }) => right - left
  const others = self.pictures.filter((old) => old.colouring === colouring).slice(1 - KEPT)
  self.pictures = [...others.sort((one, other) => wide(other) - wide(one)), { image, colouring, span }]
  draw(self)
}

const tellDrawn = (self, trail) => {
  self.trail = trail
  paint(self)
  const detail = trail ? { x: trail.map((at) => at[0]), y: trail.map((at) => at[1]) } : { x: [], y: [] }
  // Python does not draw the map anew for it.
  self.data = { ...self.data, shape: trail && detail }
  drawTools(self)
  document.dispatchEvent(new CustomEvent("clipsel-lasso", { detail }))
}

const hide = (self) => {
  self.under = undefined
  self.tip.hidden = true
  self.stage.style.cursor = ""
  clearTimeout(self.resting)
}

// Points are those of the last answer: none is under the pointer while another part is asked for.
const hover = (self, px, py) => {
  if (self.asked) return
  let best = NEAR * NEAR
  let found
  ;(self.at ?? []).forEach(([x, y], i) => {
    const far = (x - px) ** 2 + (y - py) ** 2
    if (far < best) { best = far; found = i }
  })
  if (found === self.under) return
  hide(self)
  self.under = found
  paint(self)
  if (found === undefined) return
  self.stage.style.cursor = "pointer"
  if (self.tips.has(found)) showTip(self, self.tips.get(found))
  else self.resting = setTimeout(() => self.tell("pointed", found), REST)
}

// What is on show, in one word: a tip that comes late may be of what was seen before.
const nameOf = ({ colouring, image, span }) => [colouring, image, ...span].join(" ")

const hear = (self) => (event) => {
  const { tip } = event.detail
  if (nameOf(event.detail) !== self.shown) return
  self.tips.set(tip.place, tip)
  if (self.under === tip.place) showTip(self, tip)
}

const showTip = (self, { place, caption, value, src }) => {
  self.tip.replaceChildren()
  if (src) {
    const image = make("img")
    image.alt = ""
    image.referrerPolicy = "no-referrer"
    putPicture(image, src, () => image.remove())
    self.tip.append(image)
  }
  self.tip.append(make("div", "caption", caption || "no caption"), make("div", "value", value))
  self.tip.hidden = false
  const [width, height] = size(self)
  const [x, y] = self.at[place]
  self.tip.style.left = x < width / 2 ? `${x + 14}px` : ""
  self.tip.style.right = x < width / 2 ? "" : `${width - x + 14}px`
  self.tip.style.top = y < height / 2 ? `${y + 8}px` : ""
  self.tip.style.bottom = y < height / 2 ? "" : `${height - y + 8}px`
}

const listen = (self) => {
  const { stage } = self
  const at = (event) => {
    const frame = stage.getBoundingClientRect()
    return [event.clientX - frame.left, event.clientY - frame.top]
  }
  const plane = (point) => toPlane(self.view, ...size(self), ...point)
  stage.onwheel = (event) => {
    event.preventDefault()
    turn(self, zoomed(self.view, self.data.home, ...size(self), Math.exp(-event.deltaY * 0.0018), ...at(event)))
  }
  stage.onpointerdown = (event) => {
    if (event.button > 1 || event.target.closest(".tip, .clear")) return
    stage.setPointerCapture(event.pointerId)
    const point = at(event)
    if (event.pointerType === "touch") self.fingers.set(event.pointerId, point)
    if (self.fingers.size === 2) return pinch(self)
    self.held = { start: point, last: point, moving: self.mode === "move" || event.button === 1 || event.shiftKey, view: self.view }
    hide(self)
    if (!self.held.moving) self.trail = [plane(point)]
  }
  stage.onpointermove = (event) => {
    const point = at(event)
    if (self.fingers.has(event.pointerId)) self.fingers.set(event.pointerId, point)
    if (self.pinched) return spread(self)
    if (!self.held) return hover(self, ...point)
    const [dx, dy] = [point[0] - self.held.start[0], point[1] - self.held.start[1]]
    if (self.held.moving) {
      const { view } = self.held
      if (self.view === view && Math.hypot(dx, dy) < 4) return
      return turn(self, inside({ ...view, x: view.x - dx / view.scale, y: view.y + dy / view.scale }, self.data.home))
    }
    if (self.mode === "box") {
      const corners = [self.held.start, [point[0], self.held.start[1]], point, [self.held.start[0], point[1]]]
      self.trail = corners.map(plane)
    } else if (Math.hypot(point[0] - self.held.last[0], point[1] - self.held.last[1]) > 4 && self.trail.length < 2000) {
      self.trail.push(plane(point))
      self.held.last = point
    }
    paint(self)
  }
  stage.onpointerup = (event) => {
    const held = self.held
    self.held = null
    lift(self, event)
    // A finger that hardly moved has pointed at something, whatever it may draw or move.
    if (!held || (held.moving && (event.pointerType !== "touch" || self.view !== held.view))) return
    const end = at(event)
    const far = self.mode === "box" ? Math.hypot(end[0] - held.start[0], end[1] - held.start[1]) > 6 : self.trail?.length > 2
    if (far && self.trail) return tellDrawn(self, self.trail)
    self.trail = null
    hover(self, ...end)
    if (self.under !== undefined) self.tell("opened", self.under)
    else paint(self)
  }
  stage.onpointercancel = (event) => { lift(self, event); self.held = self.trail = null; paint(self) }
  stage.onpointerleave = () => { if (self.under !== undefined) { hide(self); paint(self) } }
  // Where a finger drew just before, browsers leave out the click; the keyboard makes clicks alone.
  self.clear.onpointerup = () => tellDrawn(self, null)
  self.clear.onclick = (event) => { if (!event.detail) tellDrawn(self, null) }
  stage.ondblclick = () => { if (self.data.shape) tellDrawn(self, null) }
  stage.onkeydown = (event) => key(self, event)
}

// Two fingers hold two places of the map, and move and zoom it such that these stay under them.
const pinch = (self) => {
  self.held = self.trail = null
  self.pinched = { view: self.view, ...grip(self) }
  paint(self)
}

const grip = (self) => {
  const [[ax, ay], [bx, by]] = self.fingers.values()
  return { x: (ax + bx) / 2, y: (ay + by) / 2, apart: Math.max(Math.hypot(ax - bx, ay - by), 1) }
}

const spread = (self) => {
  const { view, x, y, apart } = self.pinched
  const now = grip(self)
  const moved = { ...view, x: view.x - (now.x - x) / view.scale, y: view.y + (now.y - y) / view.scale }
  turn(self, zoomed(moved, self.data.home, ...size(self), now.apart / apart, now.x, now.y))
}

const lift = (self, event) => {
  self.fingers.delete(event.pointerId)
  if (self.fingers.size < 2) self.pinched = null
}

const key = (self, event) => {
  const [width, height] = size(self)
  const pan = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key]
  const factor = { "+": 1.6, "=": 1.6, "-": 1 / 1.6 }[event.key]
  if (pan) {
    const by = 0.15 * Math.min(width, height) / self.view.scale
    turn(self, inside({ ...self.view, x: self.view.x + pan[0] * by, y: self.view.y + pan[1] * by }, self.data.home))
  } else if (factor) turn(self, zoomed(self.view, self.data.home, width, height, factor, width / 2, height / 2))
  else if (event.key === "0") whole(self)
  else if (event.key === "Escape" && self.data.shape) tellDrawn(self, null)
  else return
  event.preventDefault()
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const root = parentElement.querySelector(".map")
  const fresh = !root.firstChild
  const self = (parentElement.clipsel = fresh ? build(root) : parentElement.clipsel)
  self.tell = (name, value) => setTriggerValue(name, value)
  self.data = data
  self.stage.setAttribute("aria-label", data.label)
  if (fresh) listen(self)
  if (!self.held) self.trail = null
  // Back from another page the map shows the part that it showed before.
  self.view ??= fit(data.span, ...size(self))
  drawTools(self)
  drawLegend(self)
  self.none.hidden = data.seen > 0
  if (nameOf(data) !== self.shown) {
    self.shown = nameOf(data)
    self.tips.clear()
    hide(self)
    answered(self)
    load(self, data)
  }
  draw(self)
  document.removeEventListener("clipsel-tip", self.hear)
  self.hear = hear(self)
  document.addEventListener("clipsel-tip", self.hear)
  let width = self.stage.clientWidth
  const observer = new ResizeObserver(() => {
    if (!self.stage.clientWidth || self.stage.clientWidth === width) return
    width = self.stage.clientWidth
    draw(self)
  })
  observer.observe(self.stage)
  return () => {
    observer.disconnect()
    document.removeEventListener("clipsel-tip", self.hear)
    clearTimeout(self.later)
    self.later = self.asked = 0
  }
}
