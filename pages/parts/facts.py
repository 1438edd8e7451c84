"""How are names and values listed? As a quiet two-column list; values are escaped, never markup."""

from __future__ import annotations

import html
from collections.abc import Mapping

import streamlit as st


def show_facts(facts: Mapping[str, str]) -> None:
    """Draws a definition list."""
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    st.html(f'<dl class="facts">{rows}</dl>')
