"""What does Streamlit itself cost? A page with nothing but a slider in a fragment: its rerun does nothing at all.

streamlit run benchmarks/bare_fragment.py
"""

from __future__ import annotations

import streamlit as st


@st.fragment
def bare() -> None:
    """The smallest thing that answers."""
    st.slider("Threshold", 0.0, 0.5, key="bare")


if __name__ == "__main__":
    bare()
