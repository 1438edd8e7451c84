"""How does a page with many controls show on a phone? With them folded behind a switch, so that what is asked for comes
first; where there is room they are simply there. Which of the two is decided by the style sheet, not by the server."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

_SWITCH, _CONTROLS = "unfold", "foldable"


def controls(label: str) -> tuple[DeltaGenerator, DeltaGenerator]:
    """Room for a page's controls, and beside their switch room for a word on what is shown. label: of the switch.

    One such pair a page.
    """
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="folded"):
        st.toggle(label, key=_SWITCH)
        summary = st.container()
    return st.container(key=_CONTROLS), summary
