// Draws one metric's histogram with the parts of plot.js.

const render = (root, data) => {
  const width = root.clientWidth || 600
  const box = make("div", data.marks.some((mark) => mark.text) ? "plot marked" : "plot")
  box.append(plot(data, width))
  data.marks.filter((mark) => mark.text).forEach((mark) => {
    box.append(place(make("span", mark.kind === "line" ? "mark threshold" : "mark", mark.text), mark.at))
  })
  follow(data, box)
  const title = make("div", "title", data.title)
  if (data.aside) title.append(make("span", "aside", data.aside))
  const parts = [title]
  if (data.note) parts.push(make("div", "note", data.note))
  root.replaceChildren(...parts, box, axis(data, width))
}

export default function (component) {
  const { data, parentElement } = component
  const root = parentElement.querySelector(".histogram")
  const marked = brushBins(component, root, data)
  const show = () => {
    root.dataset.width = root.clientWidth
    render(root, data)
    marked.repaint()
  }
  show()
  const observer = new ResizeObserver(() => {
    if (root.clientWidth && root.clientWidth !== Number(root.dataset.width)) show()
  })
  observer.observe(root)
  return () => {
    observer.disconnect()
    marked.stop()
  }
}
