"""What does a page say when it has nothing to show? What is missing, and the command that makes it."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from clipsel_core.errors import ClipselError, RunError
from clipsel_core.runs.store import Run


def show_empty(title: str, why: str, command: str = "") -> None:
    """A calm note in place of a chart. title and why are our own words; command is shown to be copied."""
    with st.container(border=True):
        st.markdown(f"**{title}**")
        st.caption(why)
        if command:
            st.code(command, language="bash", wrap_lines=True)


def no_runs(data: Path) -> None:
    """There is no run to open."""
    st.title("Nothing scored yet")
    st.write("A run is one scoring of one pool. Make the demo's, or score a pool of your own, then reload this page.")
    demo, own = st.columns(2, gap="medium")
    with demo:
        show_empty("Try the demo", "A small world of images and captions with its scores and its map.", _DEMO)
    with own:
        show_empty("Score your pool", "A folder with metadata/*.parquet and a .npz beside each.", _OWN)
    st.caption("Runs are looked for under this folder, and where the server is told when it starts:")
    st.code(f"{data}\nclipsel app RUN ...", language=None)


def show_unfinished(run: Run) -> None:
    """Says that what the page counts and exports is not the whole run's, where that is so."""
    if not run.finished:
        scored, planned = len(run.score_files), len(run.config.shards)
        st.warning(
            f"This run is unfinished: {scored:,} of {planned:,} shards are scored. Shares, counts and exports are of "
            "their pairs alone.",
            icon=":material/warning:",
        )


def show_error(error: Exception | str, title: str) -> None:
    """An error in its own words, as text: it may quote a file that somebody else wrote."""
    st.error(title, icon=":material/warning:")
    st.code(str(error), language=None, wrap_lines=True)


def not_written(error: Exception, where: object) -> ClipselError:
    """What is wrong with a file that cannot be written, in the words of all errors."""
    if isinstance(error, ClipselError):
        return error
    found = getattr(error, "strerror", None) or str(error)
    return RunError(where, expected="to write it", found=found, remedy="make room, or allow writing to its folder")


_DEMO = "clipsel demo data/demo"
_OWN = "clipsel inspect POOL\nclipsel score POOL data/myrun --target NAME=TARGET.npy"
