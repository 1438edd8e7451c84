"""What is this machine able to do, and which teachers does it have? What `doctor` says, asked once an hour.

That takes seconds, since it imports all packages: pages do not wait for it, and are drawn anew after.
"""

from __future__ import annotations

import json
from pathlib import Path

import streamlit as st

from clipsel_core.errors import ClipselError
from clipsel_core.jobs import control
from clipsel_core.tasks import Task
from pages.parts import catalog, messages, sessions

_SECONDS, _WATCHED_S = 3600, 0.5
_MARKS = {"ok": "✓", "absent": "–", "wrong": "✗"}


def draw_machine() -> None:
    """A closed panel; the machine is only examined for who opens it."""
    opened = st.expander("This machine: packages, devices, teachers", key="machine", on_change="rerun")
    if not opened.open:
        return
    with opened:
        try:
            found = findings()
        except ClipselError as error:
            messages.show_error(error, "The machine could not be examined")
            return
        if found is None:
            return
        wrong = [finding["name"] for finding in found if finding["state"] == "wrong"]
        if wrong:
            st.error(f"clipsel cannot work as it is: {', '.join(wrong)}", icon=":material/warning:")
        rows = [
            {
                "": _MARKS[one["state"]],
                "area": one["area"],
                "what": one["name"],
                "found": one["value"],
                "note": one["remedy"],
            }
            for one in found
        ]
        st.dataframe(rows, hide_index=True, width="stretch", height=420)


def downloaded_teachers() -> list[str]:
    """Teachers of open_clip that are on disk, "MODEL TAG" each; none while they are looked for, which the page says."""
    names = (one["name"] for one in findings() or () if one["area"] == "teachers" and one["state"] == "ok")
    return [name for name in names if not name.startswith("local-dir:")]


def findings() -> list[dict[str, str]] | None:
    """What `doctor --json` says; None while it is asked, which the page says.

    Raises: JobError where it does not answer.
    """
    task = _examination(catalog.data_folder().absolute())
    task.begin()
    # Asked first: one that ends in between has its error, or its value, by then.
    active = task.active
    if task.error:
        _examination.clear()
        raise task.error

    def watch() -> None:
        if not task.active:
            st.rerun()
        messages.show_note("Looking for packages, devices and downloaded teachers …")

    if active:
        sessions.fragment(watch, run_every=_WATCHED_S)()
    return task.value


@st.cache_resource(ttl=_SECONDS, max_entries=1, show_spinner=False)
def _examination(folder: Path) -> Task[list[dict[str, str]]]:
    """What asks `doctor`, once for all sessions. folder: where teachers of one's own are looked for."""
    return Task(lambda report: json.loads(control.ask("doctor", {"json": True, "folder": folder})))
