// Hands what a point of the map says of itself to the map beside it, which knows by the picture whether it is still meant.

export default function ({ data }) {
  if (data.tip) document.dispatchEvent(new CustomEvent("clipsel-tip", { detail: data }))
}
