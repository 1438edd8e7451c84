// What a step and those behind it would keep at each place of its thumb, in the browser: Python's count (live.py) of every
// place, read off its message. tests/browser/test_mirror.py holds the two together.

const floats = ["thresholds", "sampled"]

const read = (message) => {
  const bytes = message.slice()
  const view = new DataView(bytes.buffer)
  let start = 4 + view.getUint32(0, true)
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, start)))
  head.at = {}
  head.arrays.forEach(([name, length]) => {
    head.at[name] = new (floats.includes(name) ? Float32Array : Uint32Array)(bytes.buffer, start, length)
    start += 4 * length
  })
  head.layers = (head.layers ?? []).map((layer) => ({ ...layer, counts: Array.from(head.at[layer.counts]) }))
  return head
}

const threshold = (head, place) => (head.absolute ? head.start + place * head.pace : head.at.thresholds[place])

// Pairs left after the step and after each one behind it, as Python counted them where the step stands; none if it is off.
const leftAt = (head, place) => {
  if (place === head.place) return head.stands
  const steps = head.at.left.length / head.places
  return Array.from({ length: steps }, (_, step) => head.at.left[step * head.places + place])
}

// What is kept of the pairs that pass the other steps. The bin that the threshold cuts takes what the whole bins leave.
// A later share takes more or fewer of them than its present threshold would: the layer then has the right size, and is
// the right shape as far as the two metrics are independent.
const keptLayer = (head, place) => {
  const { others, fixed, shown } = head.at
  const bins = others.length
  const counts = Array.from(fixed)
  let left = shown[place]
  for (let step = 0; step < bins && left > 0; step += 1) {
    const bin = head.upward ? bins - 1 - step : step
    const part = Math.min(left, others[bin] - fixed[bin])
    counts[bin] += part
    left -= part
  }
  const sum = counts.reduce((total, count) => total + count, 0)
  return sum > 0 ? counts.map((count) => (count * leftAt(head, place).at(-1)) / sum) : counts
}
