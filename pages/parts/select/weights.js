// A mix while a slider of one of its weights is dragged: its histogram as a sample of the pairs has it, which came with the
// message. Python, which hears of the weight when it is let go, counts all pairs.

const weighed = (head, weights) => {
  const { sampled, pool } = head.at
  const size = sampled.length / weights.length
  const sums = []
  for (let pair = 0; pair < size; pair += 1) {
    const sum = weights.reduce((total, weight, k) => total + weight * sampled[k * size + pair], 0)
    if (!Number.isNaN(sum)) sums.push(sum)
  }
  const low = Math.min(...sums)
  const high = Math.max(...sums)
  if (!(high > low)) return null
  const counts = new Array(pool.length).fill(0)
  sums.forEach((sum) => { counts[Math.min(counts.length - 1, Math.floor(((sum - low) / (high - low)) * counts.length))] += 1 })
  const layers = [{ kind: "pool", name: "pool", counts: counts.map((count) => (count * head.scored) / sums.length) }]
  return { ...head, title: `${head.metric}, about: as ${number.format(sums.length)} pairs have it`, low, high, layers, marks: [] }
}

// draw: of what weighed() gives. still: draws the mix as it was. Returns what ends it.
const followWeights = (head, draw, still) => {
  const listening = new AbortController()
  const stop = () => listening.abort()
  if (!head.weights?.length || !head.at.sampled) return stop
  const slider = (key) => document.querySelector(`.${CSS.escape(key)}`)
  const observer = new MutationObserver(() => {
    const now = head.weights.map(([key, weight]) => {
      const dragged = slider(key)?.querySelector('[data-dragging="true"] input')
      return dragged ? Number(dragged.getAttribute("value")) : weight
    })
    const found = now.some((weight, k) => Math.abs(weight - head.weights[k][1]) > 1e-9) && weighed(head, now)
    if (found) draw(found)
    else if (found === false) still()
  })
  document.addEventListener("pointerdown", (event) => {
    const pressed = head.weights.map(([key]) => slider(key)).find((node) => node?.contains(event.target))
    observer.disconnect()
    if (pressed) observer.observe(pressed, { subtree: true, attributes: true, attributeFilter: ["value"] })
  }, { capture: true, signal: listening.signal })
  return () => {
    stop()
    observer.disconnect()
  }
}
