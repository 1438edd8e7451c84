"""How does a drawing of our own get into a page? As a component made of the scripts and styles that lie here.

Streamlit sends a component's script and styles with every message to it. So the script that it is given only fetches
the real one, from a route of ours and once. Its address is beside the page's, which may lie behind a proxy's path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

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


def component(name: str, html: str, *, css: tuple[str, ...] = (), js: tuple[str, ...]) -> Callable[..., Any]:
    """A component with this markup. css, js: names of files, one behind the other as if they were one."""
    sheet = f"export const sheet = new CSSStyleSheet()\nsheet.replaceSync({json.dumps(_text(css))})\n"
    script = (sheet + _text(js)).encode()
    # Another script has another name, so that a browser may keep what it has fetched.
    file = f"{name}-{hashlib.sha256(script).hexdigest()[:16]}.js"
    _scripts[file] = script
    draw = st.components.v2.component(f"clipsel_{name}", html=html, js=_LOADER.replace("NAME", file))

    def drawn(*, data: dict[str, Any] | bytes, **shown: Any) -> Any:
        # A list might be a table to Streamlit, which imports pandas to find out; a tuple is the same to a browser.
        if isinstance(data, dict):
            data = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        return draw(data=data, **shown)

    return drawn


def read_script(file: str) -> bytes | None:
    """The script that a component fetches by this name; None where there is no such component."""
    return _scripts.get(file)


def _text(names: tuple[str, ...]) -> str:
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)
