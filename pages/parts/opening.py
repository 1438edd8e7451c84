"""Is the run open yet? Who looks first at a large one waits until its scores are in order: with a bar, and a way out.

What is read of the disk in a second or two is not worth a bar; `state` opens that in passing.
"""

from __future__ import annotations

import streamlit as st

from pages.parts import messages, progress_bars, state
from pages.parts.catalog import Entry

_WHY = "This is done once for these scores and kept beside the run, so that counts and galleries answer at once."


def wait_for(entry: Entry) -> None:
    """Shows how far it is and ends the page's script, where the index of the run on show is not there yet."""
    if not is_open(entry, "the run", stopped="Stopped: the run cannot be shown without."):
        st.stop()


def is_open(entry: Entry, called: str, *, stopped: str) -> bool:
    """Whether a run can be looked at; where its index is not there yet, shows how far that is.

    called: what the page calls the run. stopped: what is said once the building was stopped.
    """
    opening = state.opening(entry)
    if opening is None or not opening.builds or opening.table is not None:
        return True
    opening.work.begin()
    if opening.work.finished or opening.work.error:
        return True
    messages.show_title(f"Putting {called}'s scores in order")
    messages.show_note(_WHY)
    progress_bars.watch(opening.work, key="opening", stopped=stopped)
    return False
