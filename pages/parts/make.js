// Makes a node. Its text is put in as text, never as markup. Other scripts go on from here.

const make = (tag, className, text) => {
  const node = document.createElement(tag)
  if (className) node.className = className
  if (text !== undefined) node.textContent = text
  return node
}
