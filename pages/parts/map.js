// The map. Python sends a picture of the part in view, labels, and single pairs where few are in view; this draws them, and
// tells Python the corners of what was drawn, which part is now in view, and which pair was clicked. Words from the pool are
// put in as textContent.

const MODES = [["lasso", "Lasso"], ["box", "Box"], ["move", "Move"]]
const NEAR = 9

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
  stage.append(canvas, outline, labels, tip)
  root.replaceChildren(tools, stage, make("div", "legend"))
  return { root, tools, stage, canvas, labels, outline, tip, legend: root.lastChild, mode: "lasso", trail: null, image: new Image() }
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
  self.tools.replaceChildren(group, views)
  if (self.data.shape) self.tools.append(button(self, "clear", "Clear", (me) => tellDrawn(me, null)))
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
  if (self.image.complete && self.image.naturalWidth && self.span) {
    const [left, top] = toScreen(self.view, width, height, self.span[0], self.span[3])
    const [right, bottom] = toScreen(self.view, width, height, self.span[1], self.span[2])
    pen.globalAlpha = self.data.points.x.length ? 0.35 : 1
    pen.drawImage(self.image, left, top, right - left, bottom - top)
    pen.globalAlpha = 1
  }
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
  clearTimeout(self.later)
  self.later = setTimeout(() => self.tell("moved", spanOf(self.view, ...size(self))), 180)
}

const tellDrawn = (self, trail) => {
  self.trail = trail
  paint(self)
  self.tell("drawn", trail ? { x: trail.map((at) => at[0]), y: trail.map((at) => at[1]) } : { x: [], y: [] })
}

const hide = (self) => { self.under = undefined; self.tip.hidden = true }

const hover = (self, px, py) => {
  let best = NEAR * NEAR
  let found
  ;(self.at ?? []).forEach(([x, y], i) => {
    const far = (x - px) ** 2 + (y - py) ** 2
    if (far < best) { best = far; found = i }
  })
  if (found === self.under) return
  self.under = found
  paint(self)
  self.tip.hidden = found === undefined
  if (found === undefined) return
  const { points } = self.data
  self.tip.replaceChildren()
  if (points.src[found]) {
    const image = make("img")
    image.alt = ""
    image.onerror = () => image.remove()
    image.referrerPolicy = "no-referrer"
    image.src = points.src[found]
    self.tip.append(image)
  }
  self.tip.append(make("div", "caption", points.caption[found] || "no caption"), make("div", "value", points.value[found]))
  const [width, height] = size(self)
  const [x, y] = self.at[found]
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
    if (event.button > 1 || event.target.closest(".tip")) return
    stage.setPointerCapture(event.pointerId)
    const point = at(event)
    self.held = { start: point, last: point, moving: self.mode === "move" || event.button === 1 || event.shiftKey, view: self.view }
    hide(self)
    if (!self.held.moving) self.trail = [plane(point)]
  }
  stage.onpointermove = (event) => {
    const point = at(event)
    if (!self.held) return hover(self, ...point)
    const [dx, dy] = [point[0] - self.held.start[0], point[1] - self.held.start[1]]
    if (self.held.moving) {
      const { view } = self.held
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
    if (!held || held.moving) return
    const end = at(event)
    const far = self.mode === "box" ? Math.hypot(end[0] - held.start[0], end[1] - held.start[1]) > 6 : self.trail.length > 2
    if (far) return tellDrawn(self, self.trail)
    self.trail = null
    hover(self, ...end)
    if (self.under !== undefined) self.tell("opened", self.under)
    else paint(self)
  }
  stage.onpointercancel = () => { self.held = self.trail = null; paint(self) }
  stage.onpointerleave = () => { if (self.under !== undefined) { hide(self); paint(self) } }
  stage.ondblclick = () => { if (self.data.shape) tellDrawn(self, null) }
  stage.onkeydown = (event) => key(self, event)
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
  const next = new Image()
  next.onload = () => { self.image = next; self.span = data.span; draw(self) }
  next.src = data.image
  draw(self)
  let width = self.stage.clientWidth
  const observer = new ResizeObserver(() => {
    if (!self.stage.clientWidth || self.stage.clientWidth === width) return
    width = self.stage.clientWidth
    draw(self)
  })
  observer.observe(self.stage)
  return () => { observer.disconnect(); clearTimeout(self.later) }
}
