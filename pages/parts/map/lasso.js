// Hears what is drawn on the map beside it: told by the map itself, it would draw the map alone anew.

export default function ({ parentElement, setTriggerValue }) {
  document.removeEventListener("clipsel-lasso", parentElement.hear)
  parentElement.hear = ({ detail }) => setTriggerValue("drawn", detail)
  document.addEventListener("clipsel-lasso", parentElement.hear)
  return () => document.removeEventListener("clipsel-lasso", parentElement.hear)
}
