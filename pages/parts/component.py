"""How does a drawing of our own get into a page? As a component made of the scripts and styles that lie here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    from streamlit.components.v2 import ComponentRenderer

_HERE = Path(__file__).parent


def component(name: str, html: str, *, css: tuple[str, ...], js: tuple[str, ...]) -> ComponentRenderer:
    """A component with this markup. css, js: names of files, one behind the other as if they were one."""
    return st.components.v2.component(f"clipsel_{name}", html=html, css=_text(css), js=_text(js))


def _text(names: tuple[str, ...]) -> str:
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)
