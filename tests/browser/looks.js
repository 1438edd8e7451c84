// What is wrong with how a page looks: words that are too faint, words over other words, and what is too small for a
// finger. Returns sentences, none where all is well. Looks into the components' shadow trees, too.
({ finger }) => {
  const parent = (node) => node.parentElement ?? node.getRootNode().host ?? null
  const line = (node) => { const all = []; for (let at = node; at; at = parent(at)) all.push(at); return all }
  const walk = (root, take) => {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT)
    while (walker.nextNode()) {
      take(walker.currentNode)
      if (walker.currentNode.shadowRoot) walk(walker.currentNode.shadowRoot, take)
    }
  }
  const opacity = (node) => line(node).reduce((all, one) => all * Number(getComputedStyle(one).opacity), 1)

  // Any CSS colour as red, green, blue and alpha, all from 0 to 1.
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true })
  const colour = (text) => {
    pen.clearRect(0, 0, 1, 1)
    pen.fillStyle = text
    pen.fillRect(0, 0, 1, 1)
    return [...pen.getImageData(0, 0, 1, 1).data].map((part) => part / 255)
  }
  const over = (top, alpha, below) => below.map((part, i) => top[i] * alpha + part * (1 - alpha))
  const light = (rgb) => {
    const [red, green, blue] = rgb.map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
  }
  const contrast = (one, other) => {
    const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b)
    return (bright + 0.05) / (dark + 0.05)
  }
  const ground = (node) => line(node).reverse().reduce((below, one) => {
    const [red, green, blue, alpha] = colour(getComputedStyle(one).backgroundColor)
    return alpha ? over([red, green, blue], alpha * opacity(one), below) : below
  }, [1, 1, 1])

  // What of a box is left by all that clips it.
  const shown = (box, node) => line(node).filter((one) => getComputedStyle(one).overflow !== "visible").reduce((left, one) => {
    const frame = one.getBoundingClientRect()
    return {
      left: Math.max(left.left, frame.left), right: Math.min(left.right, frame.right),
      top: Math.max(left.top, frame.top), bottom: Math.min(left.bottom, frame.bottom),
    }
  }, box)
  const seen = (box) => box.right - box.left > 2 && box.bottom - box.top > 2

  const wrong = new Set()
  const texts = []
  const root = document.querySelector('[role="dialog"]') ?? document.body
  walk(root, (node) => {
    const text = node.nodeType === Node.TEXT_NODE ? node.textContent.trim() : ""
    const holder = parent(node)
    if (!text || !holder || ["STYLE", "SCRIPT", "NOSCRIPT"].includes(holder.tagName)) return
    // Icons are letters of a font; on pictures the ground is not one colour; what is off is meant to be faint.
    if (line(holder).some((one) => one.matches('[data-testid="stIconMaterial"], .frame, .stage, :disabled, [aria-disabled="true"]'))) return
    const style = getComputedStyle(holder)
    const through = opacity(holder)
    if (!holder.checkVisibility({ visibilityProperty: true }) || through < 0.05) return
    const range = document.createRange()
    range.selectNodeContents(node)
    const boxes = [...range.getClientRects()].map((box) => shown(box, holder)).filter(seen)
    if (!boxes.length) return
    // What sticks to the screen's edge lies on what passes below it.
    if (!line(holder).some((one) => getComputedStyle(one).position === "sticky")) texts.push({ text, holder, boxes })
    const below = ground(holder)
    const ink = colour(holder.namespaceURI.endsWith("svg") ? style.fill : style.color)
    const found = contrast(over(ink, ink[3] * through, below), below)
    const size = parseFloat(style.fontSize)
    const wanted = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 600) ? 3 : 4.5
    if (found < wanted) wrong.add(`“${text.slice(0, 40)}” has a contrast of ${found.toFixed(2)}`)
  })
  texts.forEach((one, place) => texts.slice(place + 1).forEach((other) => {
    if (one.holder.contains(other.holder) || other.holder.contains(one.holder)) return
    const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4
    if (one.boxes.some((a) => other.boxes.some((b) => meet(a, b)))) wrong.add(`“${one.text}” lies on “${other.text}”`)
  }))
  const wide = document.documentElement.scrollWidth
  if (wide > innerWidth) wrong.add(`the page is ${wide} wide on a screen of ${innerWidth}`)
  if (finger) {
    walk(root, (node) => {
      const asked = "button, a[href], summary, [role=tab], [role=slider], [role=radio], label:has(input[type=checkbox])"
      if (node.nodeType !== Node.ELEMENT_NODE || !node.matches(asked) || node.disabled || opacity(node) < 0.05) return
      const { width, height, right, left } = node.getBoundingClientRect()
      // A box of a pixel is for the keyboard.
      if (width < 3 || height < 3 || right < 0 || left > innerWidth || (width >= finger && height >= finger)) return
      wrong.add(`“${(node.getAttribute("aria-label") ?? node.textContent).trim().slice(0, 40)}” is ${Math.round(width)} by ${Math.round(height)}`)
    })
  }
  return [...wrong]
}
