"""How does a drawing of our own get into a page? As a component made of the scripts and styles that lie here.

Streamlit sends a component's script and styles with every message to it. So the script that it is given only fetches
the real one, from a route of ours and once. Its address is beside the page's, which may lie behind a proxy's path.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    from streamlit.components.v2 import ComponentRenderer

_HERE = Path(__file__).parent
_LOADER = """
const { default: draw, sheet } = await import(new URL("./scripts/NAME", document.baseURI).href)

export default (component) => {
  const root = component.parentElement.getRootNode()
  if (!root.adoptedStyleSheets.includes(sheet)) root.adoptedStyleSheets.push(sheet)
  return draw(component)
}
"""
_scripts: dict[str, bytes] = {}


def component(name: str, html: str, *, css: tuple[str, ...] = (), js: tuple[str, ...]) -> ComponentRenderer:
    """A component with this markup. css, js: names of files, one behind the other as if they were one."""
    sheet = f"export const sheet = new CSSStyleSheet()\nsheet.replaceSync({json.dumps(_text(css))})\n"
    script = (sheet + _text(js)).encode()
    # Another script has another name, so that a browser may keep what it has fetched.
    file = f"{name}-{hashlib.sha256(script).hexdigest()[:16]}.js"
    _scripts[file] = script
    return st.components.v2.component(f"clipsel_{name}", html=html, js=_LOADER.replace("NAME", file))


def read_script(file: str) -> bytes | None:
    """The script that a component fetches by this name; None where there is no such component."""
    return _scripts.get(file)


def _text(names: tuple[str, ...]) -> str:
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)
