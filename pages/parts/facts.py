"""How do words that others wrote get onto a page? Escaped: as a title, a note, or a quiet list of names and values."""

from __future__ import annotations

import html
from collections.abc import Mapping

import streamlit as st


def show_facts(facts: Mapping[str, str]) -> None:
    """Draws a definition list."""
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    st.html(f'<dl class="facts">{rows}</dl>')


def show_title(text: str, note: str = "") -> None:
    """What a chart or a gallery shows, with a quiet note behind it."""
    behind = f" <span>{html.escape(note)}</span>" if note else ""
    st.html(f'<div class="shows"><b>{html.escape(text)}</b>{behind}</div>')


def show_note(text: str) -> None:
    """A quiet sentence."""
    st.html(f'<div class="note">{html.escape(text)}</div>')
