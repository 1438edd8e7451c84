// The parts of a histogram: layers of binned counts behind each other, marks on the score axis, a tip under the pointer.
// They get counts per bin, never rows, so their cost does not depend on the pool's size. Other scripts go on from here.

const SVG = "http://www.w3.org/2000/svg"
const number = new Intl.NumberFormat("en-US")

const draw = (tag, attributes) => {
  const node = document.createElementNS(SVG, tag)
  Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value))
  return node
}

const digits = (step) => Math.min(7, Math.max(0, Math.ceil(-Math.log10(step || 1) - 1e-9)))

const ticks = (low, high, wanted) => {
  const span = high - low
  if (!(span > 0)) return [low]
  const raw = span / wanted
  const power = 10 ** Math.floor(Math.log10(raw))
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw)
  const found = []
  for (let at = Math.ceil(low / step); at * step <= high + span * 1e-9; at += 1) found.push(at * step)
  return found
}

const place = (node, share) => {
  node.style.left = `${share * 100}%`
  if (share < 0.04) node.classList.add("first")
  if (share > 0.96) node.classList.add("last")
  return node
}

const outline = (counts, width, height, scale) => {
  const step = width / counts.length
  const points = counts.map((count, i) => {
    const y = (height - scale(count) * height).toFixed(2)
    return `L${(i * step).toFixed(2)},${y}L${((i + 1) * step).toFixed(2)},${y}`
  })
  return `M0,${height}${points.join("")}L${width},${height}Z`
}

const peak = (data) => Math.max(0, ...data.layers.flatMap((layer) => layer.counts))

const most = (data) => Math.max(1, peak(data))

const plot = (data, width) => {
  const height = data.height
  const top = most(data)
  const scale = data.log ? (n) => Math.log1p(n) / Math.log1p(top) : (n) => n / top
  const svg = draw("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": data.title })
  data.layers.forEach((layer) => {
    svg.append(draw("path", { class: layer.kind, d: outline(layer.counts, width, height, scale) }))
  })
  data.marks.forEach((mark) => {
    const x = mark.at * width
    svg.append(draw("line", { class: mark.kind, x1: x, x2: x, y1: mark.kind === "line" ? -4 : 0, y2: height }))
  })
  return svg
}

const axis = (data, width) => {
  const node = make("div", "axis")
  const span = data.high - data.low
  const found = ticks(data.low, data.high, Math.min(12, Math.max(3, Math.round(width / 60))))
  const places = digits(found.length > 1 ? found[1] - found[0] : 0.01)
  found.forEach((at) => {
    const tick = make("span", "tick", at.toFixed(places))
    tick.style.left = `${span > 0 ? (100 * (at - data.low)) / span : 50}%`
    node.append(tick)
  })
  const highest = `peak ${number.format(Math.round(peak(data)))} a bin${data.log ? ", log" : ""}`
  node.append(make("span", "unit", !data.legend ? highest : width < 420 ? data.unit : `${data.unit} · ${highest}`))
  const legend = make("div", "legend")
  data.layers.filter((layer) => data.legend && layer.name).forEach((layer) => {
    const entry = make("span")
    entry.append(make("i", layer.kind), make("b", "", layer.name))
    legend.append(entry)
  })
  node.append(legend)
  return node
}

const tip = (data, bin, bins) => {
  const width = (data.high - data.low) / bins
  const places = digits(width) + 1
  const node = make("div", "tip")
  const from = (data.low + bin * width).toFixed(places)
  node.append(make("div", "", `${from} to ${(data.low + (bin + 1) * width).toFixed(places)}`))
  data.layers.forEach((layer) => {
    node.append(make("div", "", `${layer.name || data.title}: ${number.format(Math.round(layer.counts[bin]))}`))
  })
  return node
}

const follow = (data, box) => {
  const bins = data.layers[0].counts.length
  let shown
  const clear = () => { shown?.remove(); shown = undefined }
  box.onpointerleave = clear
  box.onpointermove = (event) => {
    clear()
    const frame = box.getBoundingClientRect()
    const share = (event.clientX - frame.left) / frame.width
    const bin = Math.min(bins - 1, Math.max(0, Math.floor(share * bins)))
    shown = tip(data, bin, bins)
    shown.style.top = "4px"
    if (share < 0.6) shown.style.left = `calc(${share * 100}% + 12px)`
    else shown.style.right = `calc(${(1 - share) * 100}% + 12px)`
    box.append(shown)
  }
}
