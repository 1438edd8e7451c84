// Draws a page of pairs as a listbox: arrows move, Home and End jump, Enter and Space open, a click opens, K keeps and D
// drops by hand, Page Down and Page Up turn the page where there are several. Keys that are used here go no further.
// Everything that comes from the pool is put in with textContent or as a property, never as markup.

// Milliseconds after which a pair that was not opened is not waited for any more.
const OPENING_MS = 30000

const dialog = () => document.querySelector('[role="dialog"]')

const picture = (card) => {
  const frame = make("div", "frame")
  const missing = (why) => frame.append(make("div", "none", why))
  if (card.src) {
    const image = make("img")
    image.loading = "lazy"
    image.decoding = "async"
    image.alt = ""
    image.referrerPolicy = "no-referrer"
    putPicture(image, card.src, () => { image.remove(); missing("no image") })
    frame.append(image)
  } else missing(card.lack)
  if (card.badge) frame.append(make("span", card.badge.startsWith("kept") ? "badge kept" : "badge", card.badge))
  return frame
}

const said = (bar) => [`${bar.title} ${bar.value}`, bar.rank].filter(Boolean).join(", ")

const score = (bar, titled) => {
  const line = make("div", titled ? "score titled" : "score")
  if (titled) line.append(make("span", "title", bar.title))
  line.append(make("span", "value", bar.value), make("span", "rank", bar.rank))
  line.title = said(bar)
  const track = make("div", "bar")
  const fill = make("i")
  fill.style.width = `${bar.percentile ?? 0}%`
  track.append(fill)
  const node = make("div", "scored")
  node.append(line, track)
  return node
}

const words = (card) => {
  const text = make("div", "text")
  const caption = make("div", card.caption ? "caption" : "caption empty", card.caption || "no caption")
  caption.title = card.caption
  text.append(caption, ...card.bars.map((bar) => score(bar, card.bars.length > 1)))
  return text
}

const draw = (card, index) => {
  const node = make("div", "card")
  node.setAttribute("role", "option")
  node.setAttribute("aria-selected", "false")
  node.setAttribute("aria-label", [card.caption || "no caption", ...card.bars.map(said)].join(", "))
  node.dataset.index = index
  node.tabIndex = index === 0 ? 0 : -1
  node.append(picture(card), words(card))
  return node
}

// What a grid and each of its cards were drawn from.
const source = new WeakMap()

// Draws what has changed. A card that is the same stays: a click that began on it ends on it, its picture is kept.
const lay = (grid, cards) => {
  const before = [...grid.children]
  cards.forEach((card, index) => {
    const drawn = JSON.stringify(card)
    if (before[index] && source.get(before[index]) === drawn) return
    const node = draw(card, index)
    source.set(node, drawn)
    if (before[index]) before[index].replaceWith(node)
    else grid.append(node)
  })
  before.slice(cards.length).forEach((node) => node.remove())
  return [...grid.children]
}

const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: "row", ArrowUp: "-row", Home: "first", End: "last" }

const target = (key, index, nodes, grid) => {
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length
  const step = steps[key]
  const next = { row: index + columns, "-row": index - columns, first: 0, last: nodes.length - 1 }[step] ?? index + step
  return Math.min(Math.max(next, 0), nodes.length - 1)
}

const deepest = () => {
  let held = document.activeElement
  while (held?.shadowRoot?.activeElement) held = held.shadowRoot.activeElement
  return held
}

// Gives the keyboard to a card, unless somebody else has it.
const take = (nodes, place) => {
  nodes.forEach((node, index) => {
    node.tabIndex = index === place ? 0 : -1
    node.setAttribute("aria-selected", String(index === place))
  })
  const held = deepest()
  if (!held || held === document.body || nodes.includes(held)) nodes[place].focus({ preventScroll: true })
}

// A pair that is being opened hears no key before its picture is drawn: what is typed until then is typed again for it.
let holding
const holdKeys = (grid) => {
  const typed = []
  holding?.abort()
  const over = new AbortController()
  const { signal } = over
  holding = over
  const keydown = (event) => {
    if (event.key === "Escape") return over.abort()
    if (!asked(event, grid)) return
    typed.push({ key: event.key, repeat: event.repeat, cancelable: true })
    event.preventDefault()
    event.stopPropagation()
  }
  const drawn = () => {
    over.abort()
    typed.forEach((key) => document.dispatchEvent(new KeyboardEvent("keydown", key)))
  }
  document.addEventListener("keydown", keydown, { capture: true, signal })
  document.addEventListener("clipsel-pair", drawn, { signal })
  setTimeout(() => { if (!dialog()) over.abort() }, OPENING_MS)
}

// An opened pair lies over the page and has the keyboard; when it is closed, the card it was opened from has it again.
const takeBack = (grid, place) => {
  let opened = false
  const watch = new MutationObserver(() => {
    if (dialog()) { opened = true; return }
    if (!opened && grid.isConnected) return
    watch.disconnect()
    holding?.abort()
    setTimeout(() => {
      const nodes = [...grid.querySelectorAll(".card")]
      if (grid.isConnected && place < nodes.length) take(nodes, place)
    }, 50)
  })
  watch.observe(document.body, { childList: true, subtree: true })
}

// Where nobody has the keyboard, the arrows to the side lead to the page's first gallery: to the card that was looked at.
const lead = (grid) => {
  const led = (event) => {
    if (!["ArrowRight", "ArrowLeft"].includes(event.key) || event.ctrlKey || event.metaKey || event.altKey) return
    if (event.defaultPrevented || (document.activeElement ?? document.body) !== document.body) return
    if (dialog() || !grid.isConnected || !grid.getClientRects().length) return
    event.preventDefault()
    grid.querySelector('.card[tabindex="0"]')?.focus()
  }
  document.addEventListener("keydown", led)
  return () => document.removeEventListener("keydown", led)
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const tell = (kind, said) => press(data.gallery, { kind, ...said }, setTriggerValue)
  hear(data.gallery, data.heard, setTriggerValue)
  const judgements = { k: "keep", d: "drop" }
  const turns = data.turns ? { PageDown: 1, PageUp: -1 } : {}
  const grid = parentElement.querySelector(".grid")
  const leave = lead(grid)
  const drawn = JSON.stringify(data)
  if (source.get(grid) === drawn) return leave
  source.set(grid, drawn)
  grid.setAttribute("aria-label", data.label)
  grid.classList.toggle("small", data.small)
  grid.classList.toggle("several", data.cards.some((card) => card.bars.length > 1))
  // Judging a card draws it anew: the keyboard stays where it was.
  const held = grid.querySelector(".card:focus")
  const nodes = lay(grid, data.cards)
  const last = held ? Number(held.dataset.index) : nodes.findLastIndex((node) => node.tabIndex === 0)
  const place = Math.min(Math.max(last, 0), nodes.length - 1)
  nodes.forEach((node, index) => { node.tabIndex = index === place ? 0 : -1 })
  if (held) nodes[place]?.focus({ preventScroll: true })
  // A page that was drawn before is looked at again at the card that was looked at last.
  if (data.at != null && data.at !== Number(grid.dataset.at ?? -1)) {
    take(nodes, data.at)
    nodes[data.at].scrollIntoView({ block: "nearest" })
  }
  grid.dataset.at = data.at ?? -1

  const open = (node) => {
    nodes.forEach((other) => other.setAttribute("aria-selected", String(other === node)))
    if (!dialog()) holdKeys(grid)
    takeBack(grid, Number(node.dataset.index))
    tell("open", { uid: data.cards[node.dataset.index].uid })
  }
  grid.onclick = (event) => {
    const node = event.target.closest(".card")
    if (!node) return
    nodes.forEach((other) => { other.tabIndex = other === node ? 0 : -1 })
    open(node)
  }
  grid.onkeydown = (event) => {
    const node = event.target.closest(".card")
    if (!node) return
    if (event.key in steps) {
      const next = nodes[target(event.key, Number(node.dataset.index), nodes, grid)]
      nodes.forEach((other) => { other.tabIndex = other === next ? 0 : -1 })
      next.focus()
      next.scrollIntoView({ block: "nearest" })
    } else if (event.key === "Enter" || event.key === " ") open(node)
    else if (event.key in judgements && !event.ctrlKey && !event.metaKey && !event.altKey) {
      // A key that is held down is pressed once: each further judgement would take back the one before.
      if (!event.repeat) tell(judgements[event.key], { uid: data.cards[node.dataset.index].uid })
    } else if (event.key in turns) tell("turn", { by: turns[event.key] })
    else return
    event.preventDefault()
    event.stopPropagation()
  }
  return leave
}
