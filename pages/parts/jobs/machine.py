"""What is this machine able to do, and which teachers does it have? What `doctor` says, asked once an hour."""

from __future__ import annotations

import json

import streamlit as st

from clipsel_core.errors import ClipselError
from clipsel_core.jobs import control
from pages.parts import catalog, messages

_SECONDS = 3600
_MARKS = {"ok": "✓", "absent": "–", "wrong": "✗"}


def draw_machine() -> None:
    """A closed panel; only who opens it waits for the answer."""
    opened = st.expander("This machine: packages, devices, teachers", key="machine", on_change="rerun")
    if not opened.open:
        return
    with opened:
        try:
            found = findings()
        except ClipselError as error:
            messages.show_error(error, "The machine could not be examined")
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


def teachers() -> list[str]:
    """Teachers of open_clip that are on disk, "MODEL TAG" each."""
    names = (one["name"] for one in findings() if one["area"] == "teachers" and one["state"] == "ok")
    return [name for name in names if not name.startswith("local-dir:")]


@st.cache_data(ttl=_SECONDS, max_entries=1, show_spinner="Examining the machine …")
def findings() -> list[dict[str, str]]:
    """What `doctor --json` says. Raises JobError where it does not answer."""
    return json.loads(control.ask("doctor", {"json": True, "folder": catalog.data_folder().absolute()}))
