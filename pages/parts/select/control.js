// One step's thumb with its histogram. While the thumb moves, its histogram and the counts of all steps are redrawn from what
// mirror.js reads off the last message, and Python is told nothing. It is told on release.

const score = (value) => (Math.abs(value) < 10 ? value.toFixed(4)
  : value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 }))

// As words.percentile says it: rounding makes nobody the first or the last.
const percentileOf = (percent) => {
  if (percent > 0 && percent < 0.05) return "<P0.1"
  return percent >= 99.95 && percent < 100 ? ">P99.9" : `P${percent.toFixed(1)}`
}

const amount = (head, place) => (head.start + place * head.pace).toFixed(head.digits) + head.suffix

// The same with no more digits than it needs, as the funnel has it; or what was typed.
const plain = ({ head, place, typed }) => (
  typed ?? String(Number((head.start + place * head.pace).toFixed(head.digits)))) + head.suffix

const title = (head, place) => {
  if (!head.on) return `${head.metric}: this step is off`
  if (!head.scored) return `${head.metric}: no pair of this run has a score`
  const found = threshold(head, place)
  if (Number.isNaN(found)) return `${head.metric}: this step keeps none`
  const passes = number.format(leftAt(head, place)[0])
  return `${head.metric} ${head.upward ? "≥" : "≤"} ${score(found)} keeps ${passes} of ${number.format(head.reaching)}`
}

const marks = (head, place) => {
  const found = threshold(head, place)
  const at = (found - head.low) / (head.high - head.low || 1)
  if (!head.on || Number.isNaN(found) || at < -1e-9 || at > 1 + 1e-9) return []
  const percentile = (100 * head.at.below[place]) / Math.max(head.scored, 1)
  return [{ at, text: `${score(found)} · ${percentileOf(percentile)}`, kind: "line" }]
}

// As words.percentage says it: only all of it is 100.0 %, and only nothing is 0.0 %.
const percentage = (part) => {
  if (part > 0 && part < 0.0005) return "under 0.1 %"
  return part >= 0.9995 && part < 1 ? "over 99.9 %" : `${(100 * part).toFixed(1)} %`
}

// The thumbs on the page. One is off its place from the first touch until Python's answer to the last move is there.
const thumbs = new Set()
const offPlace = (self) => self.moving || self.typed != null || self.place !== self.head.place

// Words that replace others in the same text node cost no new styles.
const say = (node, words) => {
  if (node.firstChild) node.firstChild.data = words
  else node.textContent = words
}

// The page's counts from a thumb's step on: the headline, the funnel's rows, the other cards. What only Python can count is
// said as "about".
const tell = (self) => {
  const { head, place } = self
  const left = leftAt(head, place)
  const funnel = document.querySelector(".funnel")
  // A thumb of another recipe than the one that is counted there, such as one that comes late, has nothing to say.
  if (!left.length || funnel?.dataset.recipe !== head.recipe) return
  const still = place === head.place && self.typed == null
  const exact = self.typed == null ? head.exact : 0
  const said = (count, step) => (still || step < exact ? "" : "about ") + number.format(count)
  const rows = funnel.querySelectorAll(".row")
  left.forEach((count, step) => {
    const row = rows[head.row + step]
    if (!row) return
    const before = step ? left[step - 1] : head.reaching
    const added = count > before ? `, adds ${said(count - before, step)}` : ""
    const note = row.querySelector(".note")
    const alone = step ? note.textContent.split("it would drop ")[1] : number.format(still ? head.drops : head.at.alone[place])
    say(note, `drops ${said(Math.max(before - count, 0), step)}${added}; alone it would drop ${alone}`)
    say(row.querySelector("b"), said(count, step))
    const part = head.total ? count / head.total : 0
    say(row.querySelector("i"), percentage(part))
    row.querySelector(".fill").style.width = `${(100 * part).toFixed(2)}%`
    if (!step) say(row.querySelector("span"), still ? head.words : head.rule.replace("{}", plain(self)))
  })
  thumbs.forEach((other) => { if (other !== self) other.hear(head.row, left, said, still) })
  const headline = document.querySelector(".headline")
  if (!headline) return
  const kept = left.at(-1)
  const share = percentage(head.total ? kept / head.total : 0)
  say(headline.querySelector("b"), said(kept, left.length - 1))
  say(headline.querySelector("span"), `${kept === 1 ? "pair" : "pairs"} kept · ${share} of ${number.format(head.total)}`)
}

// The picture of a place: as Python counted it where the step stands, as the message foresees it elsewhere.
const pictured = (head, place) => {
  if (place === head.place) return head
  const layers = head.layers.map((layer) => (layer.kind === "kept" && head.on ? { ...layer, counts: keptLayer(head, place) } : layer))
  return { ...head, title: title(head, place), layers, marks: marks(head, place) }
}

const show = (root, head) => {
  const width = root.clientWidth || 600
  root.dataset.width = width
  const box = make("div", "plot marked")
  box.append(plot(head, width))
  head.marks.forEach((mark) => box.append(place(make("span", "mark threshold", mark.text), mark.at)))
  follow(head, box)
  root.replaceChildren(make("div", "title", head.title), make("div", "note", head.note), box, axis(head, width))
}

const redraw = (root, head, at, scale) => {
  const now = pictured(head, at)
  const box = root.querySelector(".plot")
  const width = Number(root.dataset.width)
  say(root.querySelector(".title"), now.title)
  const solid = box.querySelector("path.kept")
  solid.setAttribute("d", outline(now.layers[2].counts, width, now.height, scale))
  box.querySelectorAll("line, .mark").forEach((node) => node.remove())
  now.marks.forEach((mark) => {
    const x = mark.at * width
    box.querySelector("svg").append(draw("line", { class: "line", x1: x, x2: x, y1: -4, y2: now.height }))
    box.append(place(make("span", "mark threshold", mark.text), mark.at))
  })
  follow(now, box)
}

const bar = (head) => {
  const track = make("div", "track")
  track.tabIndex = 0
  track.setAttribute("role", "slider")
  track.setAttribute("aria-label", head.label)
  track.setAttribute("aria-orientation", "horizontal")
  track.setAttribute("aria-valuemin", 0)
  track.append(make("div", "rail"), make("div", "done"), make("div", "thumb"), make("output", "amount"))
  track.lastChild.title = "Click, or type a number"
  return track
}

const decimal = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d{1,2})?$/i

// A field in the amount's place. Enter, or leaving it, takes what it holds, digit for digit; Escape does not. What is no
// number, or out of the range, is never taken: after Enter the field stays and says so.
const type = (box, head, words, take) => {
  const field = make("input", "typed")
  const { least, most } = head
  field.setAttribute("aria-label", `${head.label}, typed`)
  field.inputMode = "decimal"
  field.value = words
  let left = false
  const leave = (taken, back) => {
    if (left) return
    const said = field.value.replace("%", "").replace(",", ".").trim()
    const fits = decimal.test(said) && Number(said) >= (least ?? -Infinity) && Number(said) <= (most ?? Infinity)
    if (taken && back && said !== "" && !fits) {
      field.setCustomValidity(most === null ? "A number, please." : `A number from ${least} to ${most}, please.`)
      field.reportValidity()
      return
    }
    left = true
    field.remove()
    take(taken && fits ? said : null, back)
  }
  field.oninput = () => field.setCustomValidity("")
  field.onkeydown = (event) => {
    event.stopPropagation()
    if (event.key !== "Enter" && event.key !== "Escape") return
    event.preventDefault()
    leave(event.key === "Enter", true)
  }
  field.onblur = () => leave(true, false)
  box.append(field)
  field.focus()
  if (words.length > 1) field.select()
}

const PATIENCE_MS = 1000

const jumps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 20, PageDown: -20 }

export default function (component) {
  const { parentElement, setStateValue } = component
  const root = parentElement.querySelector(".histogram")
  const box = parentElement.querySelector(".thumb-box")
  const self = (parentElement.clipsel ??= { place: 0, told: null, moving: false })
  const head = (self.head = read(component.data))
  const counted = Boolean(head.at.left)
  // An answer to an older move must not pull the thumb back from where it has gone since.
  const behind = self.told !== null && head.heard < self.told && performance.now() - self.since < 10_000
  if (!self.moving && !behind) {
    self.place = head.place
    self.told = null
    self.typed = null
  }
  // A run of the page that ended before it took the move has not heard it. As state of the component it comes with whatever
  // is said next; where nothing is, it is said again.
  clearTimeout(self.again)
  if (behind) self.again = setTimeout(() => setStateValue("moved", self.said), PATIENCE_MS)
  const track = box.querySelector(".track") ?? bar(head)
  if (!track.isConnected) box.replaceChildren(track)
  track.setAttribute("aria-valuemax", head.places - 1)
  if (counted) thumbs.add(self)
  else thumbs.delete(self)
  const scale = counted && (() => { const top = most(head); return (n) => n / top })()

  const set = () => {
    const share = head.places > 1 ? self.place / (head.places - 1) : 0
    // The place that Python has may stand for an amount between two places, which is shown as it is.
    const moved = self.place === head.place ? head.amount : amount(head, self.place)
    const words = self.typed == null ? moved : self.typed + head.suffix
    box.style.setProperty("--share", share)
    track.querySelector(".amount").textContent = words
    track.setAttribute("aria-valuenow", self.place)
    track.setAttribute("aria-valuetext", counted ? `${words}, ${pictured(head, self.place).title}` : words)
  }
  const move = (place) => {
    const next = Math.min(Math.max(Math.round(place), 0), head.places - 1)
    if (next === self.place && self.typed == null) return
    self.place = next
    self.typed = null
    self.untold = true
    set()
    if (!counted) return
    redraw(root, head, next, scale)
    tell(self)
  }
  const release = () => {
    self.moving = false
    if (!self.untold) return
    self.untold = false
    clearTimeout(self.again)
    self.since = performance.now()
    // Later than all moves before it, also those of a page that this one took the place of.
    self.told = performance.timeOrigin + self.since
    self.said = { place: self.place, typed: self.typed, move: self.told }
    setStateValue("moved", self.said)
  }
  const under = (event) => {
    const frame = track.querySelector(".rail").getBoundingClientRect()
    return ((event.clientX - frame.left) / (frame.width || 1)) * (head.places - 1)
  }
  self.take = (said, back) => {
    if (said !== null) {
      // Drawn as the nearest place until Python, which is told what was typed, has counted.
      move((Number(said) - head.start) / head.pace)
      self.typed = said
      self.untold = true
      set()
      if (counted) tell(self)
      release()
    }
    if (back) track.focus()
  }
  const ask = (words) => {
    if (!box.querySelector(".typed")) type(box, head, words, (said, back) => self.take(said, back))
  }
  track.onpointerdown = (event) => {
    if (event.button !== 0) return
    if (event.target.closest(".amount")) {
      event.preventDefault()
      return ask(track.querySelector(".amount").textContent)
    }
    track.setPointerCapture(event.pointerId)
    self.moving = true
    self.from = self.place
    move(under(event))
  }
  track.onpointermove = (event) => { if (self.moving) move(under(event)) }
  track.onpointerup = release
  // A finger that went on to scroll the page did not mean the thumb.
  track.onpointercancel = () => { move(self.from); self.untold = self.moving = false }
  track.onkeydown = (event) => {
    if (/^[-.\d]$/.test(event.key) && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault()
      return ask(event.key)
    }
    const place = { Home: 0, End: head.places - 1 }[event.key] ?? self.place + (jumps[event.key] ?? NaN)
    if (Number.isNaN(place)) return
    event.preventDefault()
    self.moving = true
    move(place)
  }
  track.onkeyup = release
  track.onblur = release

  // Another thumb moves: what reaches this step changes, and what it keeps. Its histogram is dimmed until it is drawn anew.
  self.hear = (row, left, said, still) => {
    const step = head.row - row
    root.querySelector(".plot")?.classList.toggle("dimmed", !still)
    if (!head.on || step <= 0) return
    const counts = `${said(left[step], step)} of ${said(left[step - 1], step - 1)}`
    say(root.querySelector(".title"), still ? pictured(head, self.place).title : `${head.says} keeps ${counts}`)
  }
  const marked = counted && brushBins(component, root, head)
  const picture = () => {
    show(root, pictured(head, self.place))
    marked.repaint()
  }
  set()
  if (counted) {
    picture()
    // In answer to an older move, what was drawn gives way to the thumb that has moved on.
    tell([...thumbs].find(offPlace) ?? self)
  } else root.replaceChildren()
  const unfollow = followWeights(head, (found) => show(root, found), picture)
  const observer = new ResizeObserver(() => {
    if (counted && root.clientWidth && root.clientWidth !== Number(root.dataset.width)) picture()
  })
  observer.observe(root)
  return () => {
    observer.disconnect()
    unfollow()
    thumbs.delete(self)
    if (counted) marked.stop()
  }
}
