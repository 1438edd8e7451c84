"""What do selections have in common, what sets two of them apart, and how far do two runs of one pool agree?"""

from __future__ import annotations

import streamlit as st

from pages.parts import messages, state
from pages.parts.catalog import Entry
from pages.parts.compare import runs, selections


def show(entry: Entry) -> None:
    st.title("Compare")
    state.require_table(entry)
    messages.show_unfinished(state.open_run(entry))
    views = {"Selections": selections.compare_selections, "Runs": runs.compare_runs}
    for tab, draw in zip(st.tabs(list(views), key="what", bind="query-params"), views.values(), strict=True):
        if tab.open:
            with tab:
                draw(entry)


show(state.current())
