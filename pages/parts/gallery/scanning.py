"""How is a search through all captions shown while it goes on? With a bar and a way to stop it.

Each step of the bar is a point where Streamlit may start the page anew, so a click anywhere is answered within a step,
and the next run of the page takes the search up again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from clipsel_core.counts import counted
from clipsel_core.curation.exploring.captions import CaptionScan
from pages.parts import words


@dataclass
class Search:
    """A scan, what was asked for, and whether somebody stopped it."""

    asked: tuple
    scan: CaptionScan
    stopped: bool = False

    @property
    def so_far(self) -> str:
        """Words behind a count that may still grow."""
        scan = self.scan
        return "" if scan.finished else f" in the first {words.count(scan.done)} of {counted(scan.total, 'captions')}"


def search(key: str, asked: tuple, make: Callable[[], CaptionScan]) -> Search:
    """This session's search under a key: the one that is going on, or a new one where something else is asked."""
    known = st.session_state.get(key)
    if known is None or known.asked != asked:
        known = st.session_state[key] = Search(asked, make())
    return known


def go_on(key: str, found: Search) -> None:
    """Carries a search to its end, or shows that it was stopped."""
    slot, scan = st.empty(), found.scan
    if scan.finished:
        return
    if found.stopped:
        with slot.container(horizontal=True, vertical_alignment="center"):
            st.text(f"Stopped: {words.count(scan.found)} match{found.so_far}.")
            st.button("Go on", icon=":material/play_arrow:", key=f"{key} on", on_click=_stop, args=(found, False))
        return
    with slot.container(horizontal=True, vertical_alignment="center"):
        bar = st.progress(scan.done / max(scan.total, 1), _said(found), width=420)
        st.button("Stop", icon=":material/stop:", key=f"{key} stop", on_click=_stop, args=(found, True))
    while not scan.finished:
        scan.step()
        bar.progress(scan.done / max(scan.total, 1), _said(found))
    slot.empty()


def _said(found: Search) -> str:
    scan = found.scan
    return f"{words.count(scan.done)} of {counted(scan.total, 'captions')} read, {words.count(scan.found)} match"


def _stop(found: Search, stopped: bool) -> None:
    found.stopped = stopped
