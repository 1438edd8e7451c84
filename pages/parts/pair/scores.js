// Draws the scores of a pair: a row for each metric with a small histogram, and the way from the cosine to what is left of it.

const scoreRow = (score) => {
  const row = make("div", "row")
  row.title = score.help
  const marks = score.at === null ? [] : [{ at: score.at, kind: "line" }]
  const picture = make("div", "picture")
  picture.append(plot({ title: score.title, height: 24, layers: [{ kind: "pool", counts: score.counts }], marks }, 160))
  picture.firstChild.setAttribute("preserveAspectRatio", "none")
  row.append(
    make("span", "name", score.title), make("span", "value", score.value), picture,
    make("span", "rank", score.rank), make("span", "percentile", score.percentile),
  )
  return row
}

const bar = (kind, from, to) => {
  const node = make("i", kind)
  node.style.left = `${from * 100}%`
  node.style.width = `${(to - from) * 100}%`
  return node
}

const fall = (data) => {
  const node = make("div", "fall")
  node.append(make("div", "head", data.title))
  data.steps.forEach((step) => {
    const track = make("div", "track")
    track.append(bar("zero", data.zero, data.zero), bar(step.kind, step.from, step.to))
    const row = make("div", "row")
    row.append(make("span", "name", step.title), make("span", "value", step.value), track)
    node.append(row)
  })
  node.append(make("div", "text", data.text))
  return node
}

export default function (component) {
  const { data, parentElement } = component
  const table = make("div", "table")
  table.append(make("div", "head", "Rank in the run, 1 is the highest, and percentile"), ...data.scores.map(scoreRow))
  parentElement.querySelector(".scores").replaceChildren(...(data.fall ? [fall(data.fall)] : []), table)
}
