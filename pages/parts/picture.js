// Shows one image of a pair, whole, or says that there is none.

export default function (component) {
  const { data, parentElement } = component
  const frame = parentElement.querySelector(".frame")
  if (frame.dataset.src === data.src && frame.firstChild) return
  frame.dataset.src = data.src
  const missing = (why) => {
    const note = document.createElement("div")
    note.className = "none"
    note.textContent = why
    frame.replaceChildren(note)
  }
  if (!data.src) return missing(data.lack)
  const image = document.createElement("img")
  image.className = "whole"
  image.alt = data.alt
  image.onerror = () => missing("no image")
  image.referrerPolicy = "no-referrer"
  image.src = data.src
  frame.replaceChildren(image)
}
