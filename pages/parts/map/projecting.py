"""How does a run get its map? As a job, started where the map is missed."""

from __future__ import annotations

import streamlit as st

from clipsel_core.curation.exploring.projection import SAMPLE
from clipsel_core.runs.store import Run
from pages.parts import messages, state, words
from pages.parts.catalog import Entry
from pages.parts.jobs import jobs

_MOST = 1_000_000


def ask_for_map(entry: Entry, run: Run) -> None:
    """A note that there is no map yet, with the button that makes one; nothing while one is being made."""
    if jobs.at_work("project", run.root):
        return
    scored = state.scored_pairs(entry)
    with st.container(border=True):
        st.markdown("**No map yet**")
        st.caption("It lays similar images beside each other, so that whole regions can be looked at and chosen.")
        if scored:
            with st.container(horizontal=True, vertical_alignment="bottom"):
                most = min(scored, _MOST)
                st.number_input("Pairs on it", 1, most, min(SAMPLE, most), key="map sample", width=170)
                st.button("Make a map", type="primary", icon=":material/map:", on_click=_make, args=(run,))
        with st.expander("From the command line"):
            st.code(messages.command("project", run.root), language="bash", wrap_lines=True)


def _make(run: Run) -> None:
    sample = st.session_state["map sample"]
    jobs.launch("project", [run.root], {"sample": sample}, title=f"Map of {words.pairs(sample)}", about=run.root)
