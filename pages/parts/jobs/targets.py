"""How is a run compared with one more target? With a file, or with pairs that somebody picked, as a job."""

from __future__ import annotations

import io
import re
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

    _start(run, name, [(uploaded.name, uploaded.getvalue())] if uploaded else [], wish)


@forms.form("More like these")
def ask_for_pairs(run: Run, names: np.ndarray, wish: str) -> None:
    """The form of a target of pairs of the run. names: (M,) their uids. wish: what the target might be called."""
    facts.show_note(f"{words.pairs(len(names))} become a target. {_EXPLAINED}")
    name = forms.ask_for_name(st, "Name", wish, lambda: folders.target_name(wish, _taken(run)))
    if not st.button("Compare", type="primary", key="add target"):
        return
    file = io.BytesIO()
    np.save(file, uids.unique(names), allow_pickle=False)
    _start(run, name, [(f"{name}.npy", file.getvalue())])


def _start(run: Run, name: str, uploads: list[tuple[str, bytes]], typed: str = "") -> None:
    """Compares the run with an uploaded file, or else the one that was typed, as a job, where nothing is wrong."""
    folder, options = run.root / "targets", {}

    def check(kept: list[Path]) -> str:
        options["target"] = [f"{name}={kept[0] if kept else folders.target(typed)}"]
        with st.spinner("Checking run, target and pool …"):
            return jobs.check("add-target", [run.root], options)

    try:
        _check_name(run, name)
        catalog.check_within(run.root, folder)
        wrong = folders.check_uploads(folder, uploads, check)
    except (ClipselError, OSError) as error:
        wrong = str(empty.not_written(error, "target"))
    if wrong:
        empty.show_error(wrong, "Not started")
    elif jobs.launch("add-target", [run.root], options, title=f"Compare with {name}", about=run.root):
        forms.leave()
    else:
        jobs.show_failure()


def _check_name(run: Run, name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise JobError("name", expected="up to 64 letters, digits, - and _", found=repr(name))
    if name in _taken(run):
        raise JobError(name, expected="a new target's name", found="one that the run has", remedy="choose another")


def _taken(run: Run) -> set[str]:
    """Names of the run's targets, and of those that are being added or were begun."""
    return {target.name for target in run.targets} | {folder.name for folder in (run.root / "added").glob("*")}
