"""How far is work, and how is it stopped? A bar with a button, beside all else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import streamlit as st

from clipsel_core.curation.exploring.captions import CaptionScan
from clipsel_core.errors import counted
from clipsel_core.tasks import Task
from pages.parts import messages, sessions, state, words
from pages.parts.catalog import Entry

SECONDS = 0.5
Value = TypeVar("Value")


def draw_bar(task: Task, *, key: str, stopped: str = "Stopped.") -> None:
    """How far it is, with Stop; or that it was stopped, with Go on; nothing once it is done. stopped: says so."""
    if task.finished or task.error:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        if task.stopped:
            st.text(stopped)
            st.button("Go on", icon=":material/play_arrow:", key=f"{key} on", on_click=task.start)
        else:
            st.progress(task.share, task.note, width=420)
            st.button("Stop", icon=":material/stop:", key=f"{key} stop", on_click=task.stop)


def value_of(task: Task[Value], *, key: str, stopped: str = "Stopped.") -> Value | None:
    """What a task ended with; None while it goes on, which the page shows, to be drawn anew after. Raises its error."""
    task.begin()
    if task.error:
        raise task.error
    if not task.finished:
        watch(task, key=key, stopped=stopped)
    return task.value


def watch(task: Task, *, key: str, stopped: str = "Stopped.") -> None:
    """The bar of a task that was begun, watched: the page is drawn anew when it ends or is stopped."""
    drawn = task.active, task.stopped
    if not any(drawn):
        # It ended since the page asked for its value.
        st.rerun()

    def draw() -> None:
        if (task.active, task.stopped) != drawn:
            st.rerun()
        draw_bar(task, key=key, stopped=stopped)

    sessions.fragment(draw, run_every=SECONDS if task.active else None)()


def is_open(entry: Entry, called: str, *, stopped: str) -> bool:
    """Whether a run can be looked at; where its index is not there yet, shows how far that is.

    What is read of the disk in a second or two is not worth a bar; `state` opens that in passing. called: what the page
    calls the run. stopped: what is said once the building was stopped.
    """
    opening = state.opening(entry)
    if opening is None or not opening.builds or opening.table is not None:
        return True
    opening.work.begin()
    if opening.work.finished or opening.work.error:
        return True
    messages.show_title(f"Putting {called}'s scores in order")
    messages.show_note(
        "This is done once for these scores and kept beside the run, so that counts and galleries answer at once."
    )
    watch(opening.work, key="opening", stopped=stopped)
    return False


@dataclass
class CaptionSearch:
    """A session's search through all captions: what was asked for, its scan, and whether somebody stopped it."""

    asked: tuple = ()
    scan: CaptionScan | None = None
    stopped: bool = False


def search_captions(key: str, asked: tuple, make: Callable[[], CaptionScan]) -> tuple[CaptionScan, str]:
    """Carries a search to its end, with a bar and a button that stops it, or shows that it was stopped.

    Returns the scan, and words to stand behind a count that may still grow. key: tells the session's searches apart; a
    new one is made where something else is asked for. Each step of the bar is a point where Streamlit may start the
    page anew, so a click anywhere is answered within a step, and the next run of the page takes the search up again.
    """
    search, slot = sessions.get(CaptionSearch, key), st.empty()
    scan = search.scan
    if scan is None or search.asked != asked:
        search.asked, search.stopped = asked, False
        scan = search.scan = make()

    def so_far() -> str:
        return f"{words.number(scan.done)} of {counted(scan.total, 'captions')} read, {words.number(scan.found)} match"

    def stop(stopped: bool) -> None:
        search.stopped = stopped

    if scan.finished:
        return scan, ""
    behind = f" in the first {words.number(scan.done)} of {counted(scan.total, 'captions')}"
    with slot.container(horizontal=True, vertical_alignment="center"):
        if search.stopped:
            st.text(f"Stopped: {words.number(scan.found)} match{behind}.")
            st.button("Go on", icon=":material/play_arrow:", key=f"{key} on", on_click=stop, args=(False,))
            return scan, behind
        bar = st.progress(scan.done / max(scan.total, 1), so_far(), width=420)
        st.button("Stop", icon=":material/stop:", key=f"{key} stop", on_click=stop, args=(True,))
    while not scan.finished:
        scan.step()
        bar.progress(scan.done / max(scan.total, 1), so_far())
    slot.empty()
    return scan, ""
