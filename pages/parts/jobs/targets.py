"""How is a run compared with one more target? With a file, or with pairs that somebody picked, as a job."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import streamlit as st

from clipsel_core import uids
from clipsel_core.errors import ClipselError, JobError
from clipsel_core.runs.config import NAME_PATTERN
from clipsel_core.runs.store import Run
from pages.parts import catalog, empty, facts, recipes, words
from pages.parts.catalog import Entry
from pages.parts.jobs import folders, forms, jobs

_EXPLAINED = "NormSim of every pair to it becomes a metric like the others: on sliders, in recipes and galleries."


def offer_kept_by_hand(entry: Entry, run: Run) -> None:
    """Offers to compare the run with the pairs kept by hand; nothing while none is."""
    picked = [uid for uid, kind in recipes.by_hand(entry, run).items() if kind == "keep"]
    if not picked or not run.finished:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        facts.show_note(f"{words.pairs(len(picked))} kept by hand.")
        if forms.button("More like these", "more like these", ":material/my_location:"):
            ask_for_pairs(run, uids.from_hex(picked), "picked")


@forms.form("Add a target")
def ask_for_file(run: Run) -> None:
    """The form of a target from a file, chosen, typed or uploaded."""
    facts.show_note(_EXPLAINED)
    known = [folders.shown(path) for path in folders.targets()]
    chosen = st.selectbox(
        "File",
        known,
        index=None,
        key=forms.key("File"),
        accept_new_options=True,
        placeholder="choose one, or type its path",
        **forms.STAYS,
    )
    uploaded = st.file_uploader("Or upload one", list(folders.TARGET_ENDINGS), key=forms.key("upload"))
    st.caption(f"Image embeddings by {run.config.arch}, width {run.config.width}, or uids of the pool.")
    wish = uploaded.name if uploaded else chosen or ""
    name = forms.ask_for_name(st, "Name", wish, lambda: folders.target_name(wish, _taken(run)) if wish.strip() else "")
    if not st.button("Compare", type="primary", key="add target", disabled=not wish):
        return

    def start() -> bool:
        if uploaded:
            catalog.check_within(run.root, _folder(run))
            return launch(run, name, folders.keep_upload(_folder(run), uploaded.name, uploaded.getvalue()))
        return launch(run, name, folders.target(wish))

    _leave_if_started(start)


@forms.form("More like these")
def ask_for_pairs(run: Run, names: np.ndarray, wish: str) -> None:
    """The form of a target of pairs of the run. names: (M,) their uids. wish: what the target might be called."""
    facts.show_note(f"{words.pairs(len(names))} become a target. {_EXPLAINED}")
    name = forms.ask_for_name(st, "Name", wish, lambda: folders.target_name(wish, _taken(run)))
    if not st.button("Compare", type="primary", key="add target"):
        return
    _leave_if_started(lambda: launch_with_pairs(run, name, names))


def launch_with_pairs(run: Run, name: str, names: np.ndarray) -> bool:
    """Compares the run with some of its own pairs, (M,) uids, as a job. Raises as `launch` and writing a file does."""
    _check_name(run, name)
    catalog.check_within(run.root, _folder(run))
    file = _folder(run) / f"{name}.npy"
    uids.write_subset(file, uids.unique(names))
    return launch(run, name, file)


def launch(run: Run, name: str, file: Path) -> bool:
    """Compares the run with a target's file as a job; whether it was started. Raises JobError on a bad name."""
    _check_name(run, name)
    title, options = f"Compare with {name}", {"target": [f"{name}={file}"]}
    return jobs.launch("add-target", [run.root], options, title=title, about=run.root) is not None


def _check_name(run: Run, name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise JobError("name", expected="up to 64 letters, digits, - and _", found=repr(name))
    if name in _taken(run):
        raise JobError(name, expected="a new target's name", found="one that the run has", remedy="choose another")


def _taken(run: Run) -> set[str]:
    """Names of the run's targets, and of those that are being added or were begun."""
    return {target.name for target in run.targets} | {folder.name for folder in (run.root / "added").glob("*")}


def _folder(run: Run) -> Path:
    return run.root / "targets"


def _leave_if_started(start: Callable[[], bool]) -> None:
    try:
        started = start()
    except (ClipselError, OSError) as error:
        empty.show_error(empty.not_written(error, "target"), "Not started")
        return
    if started:
        forms.leave()
    jobs.show_failure()
