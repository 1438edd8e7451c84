// A plane that can be zoomed and moved: where a place of the map lies on the screen, and back. Both axes have one scale, and
// up is up. Names of places are put where they do not cover each other.

const MOST_ZOOM = 300
// Names stand a little above the peak that they name, so that it stays visible.
const LIFT = 20

const fit = ([left, right, bottom, top], width, height) => ({
  x: (left + right) / 2,
  y: (bottom + top) / 2,
  scale: Math.min(width / (right - left), height / (top - bottom)),
})

const toScreen = (view, width, height, x, y) => [width / 2 + (x - view.x) * view.scale, height / 2 - (y - view.y) * view.scale]

const toPlane = (view, width, height, px, py) => [view.x + (px - width / 2) / view.scale, view.y - (py - height / 2) / view.scale]

const zoomed = (view, home, width, height, factor, px, py) => {
  const [x, y] = toPlane(view, width, height, px, py)
  const least = fit(home, width, height).scale
  const scale = Math.min(Math.max(view.scale * factor, least), least * MOST_ZOOM)
  return inside({ scale, x: x - (px - width / 2) / scale, y: y + (py - height / 2) / scale }, home)
}

// The middle of the view stays on the map, so that nobody gets lost.
const inside = (view, [left, right, bottom, top]) => ({
  ...view,
  x: Math.min(Math.max(view.x, left), right),
  y: Math.min(Math.max(view.y, bottom), top),
})

const spanOf = (view, width, height) => {
  const [left, bottom] = toPlane(view, width, height, 0, height)
  const [right, top] = toPlane(view, width, height, width, 0)
  return [left, right, bottom, top]
}

const apart = (a, b) => a.right < b.left || b.right < a.left || a.bottom < b.top || b.bottom < a.top

// Earlier labels go first; a later one that would touch them, or the edge, is left out.
const placeLabels = (box, labels, view, width, height) => {
  const taken = []
  box.replaceChildren()
  labels.forEach(([text, x, y]) => {
    const [px, py] = toScreen(view, width, height, x, y)
    if (px < 0 || px > width || py < 0 || py > height) return
    const node = make("span", "label", text)
    box.append(node)
    const half = node.offsetWidth / 2 + 4
    const rise = node.offsetHeight / 2 + 2
    const at = Math.min(Math.max(px, half), width - half)
    const up = Math.min(Math.max(py - LIFT, rise), height - rise)
    const frame = { left: at - half, right: at + half, top: up - rise, bottom: up + rise }
    if (!taken.every((other) => apart(frame, other))) return node.remove()
    taken.push(frame)
    node.style.left = `${at}px`
    node.style.top = `${up}px`
  })
}
