// Copies the page's address, which has the draft in it. Where the browser keeps the clipboard to itself (a server that is
// reached by http under another name), the address is shown, selected, to be copied by hand.

const CALM_MS = 1800

export default function (component) {
  const { data, parentElement } = component
  const button = parentElement.querySelector("button")
  const field = parentElement.querySelector("input")
  if (!button.textContent) button.textContent = "Copy link"
  const address = () => {
    const url = new URL(window.location.href)
    // The address itself does not name the first run of the list, which may be another one on another day.
    url.searchParams.set("run", data.run)
    return url.toString()
  }
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(address())
      field.hidden = true
      button.textContent = "Copied"
      setTimeout(() => { button.textContent = "Copy link" }, CALM_MS)
    } catch {
      field.value = address()
      field.hidden = false
      field.select()
    }
  }
}
