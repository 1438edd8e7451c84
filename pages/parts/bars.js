// Draws how many pairs have each value, a bar a value, most first.

const bar = ({ label, count, share, width }) => {
  const row = make("div", "row")
  row.setAttribute("role", "option")
  const head = make("div", "label")
  head.append(make("span", "", label), make("b", "", count), make("i", "", share))
  const track = make("div", "track")
  const fill = make("div", "fill")
  fill.style.width = `${width}%`
  track.append(fill)
  row.append(head, track)
  return row
}

export default function (component) {
  const { data, parentElement } = component
  const root = parentElement.querySelector(".bars")
  const rows = data.rows.map(bar)
  root.replaceChildren(...rows)
  root.setAttribute("role", "listbox")
  root.setAttribute("aria-multiselectable", "true")
  root.setAttribute("aria-label", data.title)
  const at = (event) => {
    const below = rows.findIndex((row) => row.getBoundingClientRect().bottom >= event.clientY)
    return below < 0 ? rows.length - 1 : below
  }
  const paint = (ends) => rows.forEach((row, i) => row.setAttribute("aria-selected", Boolean(ends && ends[0] <= i && i <= ends[1])))
  const marked = brush(component, root, { chart: ".row", mark: data.mark, places: rows.length, at, paint, presses: true })
  marked.repaint()
  return () => marked.stop()
}
