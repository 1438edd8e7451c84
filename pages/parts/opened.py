"""Which pair lies open over the page? The session remembers: a page drawn anew, as when a job ends, keeps it open."""

from __future__ import annotations

import streamlit as st

# What is looked at, and which place of which gallery was looked at last; see pair.py.
OPENED, LEFT = "opened pair", "left pair"


def forget() -> None:
    """Leaves no pair open, as where another page is gone to; the page has to be drawn anew to show it."""
    st.session_state.pop(OPENED, None)
    st.session_state.pop(LEFT, None)
