"""How far is work in the background, and how is it stopped? A bar with a button, beside all else."""

from __future__ import annotations

from typing import TypeVar

import streamlit as st

from clipsel_core.tasks import Task
from pages.parts import unreadable

SECONDS = 0.5

Value = TypeVar("Value")


def value_of(work: Task[Value], *, key: str, stopped: str = "Stopped.") -> Value | None:
    """What work ended with; None while it goes on, which the page shows, to be drawn anew after. Raises its error."""
    work.begin()
    if work.error:
        raise work.error
    if not work.finished:
        until_done(work, key=key, stopped=stopped)
    return work.value


def bar(work: Task, *, key: str, stopped: str = "Stopped.") -> None:
    """How far it is, with Stop; or that it was stopped, with Go on; nothing once it is done. stopped: says so."""
    if work.finished or work.error:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        if work.stopped:
            st.text(stopped)
            st.button("Go on", icon=":material/play_arrow:", key=f"{key} on", on_click=work.start)
        else:
            st.progress(work.share, work.note, width=420)
            st.button("Stop", icon=":material/stop:", key=f"{key} stop", on_click=work.stop)


def until_done(work: Task, *, key: str, stopped: str = "Stopped.") -> None:
    """The bar, watched: the page is drawn anew when the work ends or is stopped."""
    if work.finished:
        st.rerun()
    unreadable.fragment(_watch, run_every=SECONDS if work.active else None)(
        work, key, stopped, (work.active, work.stopped)
    )


def _watch(work: Task, key: str, stopped: str, drawn: tuple[bool, bool]) -> None:
    if (work.active, work.stopped) != drawn:
        st.rerun()
    bar(work, key=key, stopped=stopped)
