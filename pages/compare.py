"""What do selections have in common, what sets two of them apart, and how far do two runs of one pool agree?"""

from __future__ import annotations

import streamlit as st

from pages.parts import empty, state
from pages.parts.catalog import Entry
from pages.parts.compare import contenders, rivals


def show(entry: Entry) -> None:
    st.title("Compare")
    state.require_table(entry)
    empty.show_unfinished(state.open_run(entry))
    selections, runs = st.tabs(["Selections", "Runs"], key="what", bind="query-params")
    with selections:
        if selections.open:
            contenders.show(entry)
    with runs:
        if runs.open:
            rivals.show(entry)


show(state.current())
