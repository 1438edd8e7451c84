"""How does a list of uids made elsewhere become a step? From a file of the run's folders, or uploaded into one."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

import streamlit as st

from clipsel_core.curation.recipes.recipe import AnyStep, Intersect, Subtract, Union
from clipsel_core.curation.recipes.uidlists import ENDINGS, read_uid_list
from clipsel_core.errors import ClipselError, UidError
from clipsel_core.runs.store import Run
from pages.parts import catalog, empty, recipes
from pages.parts.catalog import Entry

_FOLDER = "lists"
_KINDS: dict[str, type[Intersect] | type[Union] | type[Subtract]] = {
    "only those in": Intersect,
    "add those in": Union,
    "leave out those in": Subtract,
}


def known(run: Run) -> list[str]:
    """Lists at hand, as a recipe of the run names them: those saved with the recipes, uploaded or exported."""
    root = run.root.resolve()
    files = [
        file
        for folder in (run.recipes_dir, run.recipes_dir / _FOLDER, run.exports_dir)
        for file in sorted(folder.glob("[!.]*"))
        if file.suffix.lower() in ENDINGS.split(", ") and file.is_file() and file.resolve().is_relative_to(root)
    ]
    return [Path(os.path.relpath(file, run.recipes_dir)).as_posix() for file in files]


def store(run: Run, name: str, content: bytes) -> str:
    """Keeps an uploaded list beside the run's recipes, under a name of our own, and returns how recipes name it.

    name: the user's file name; only its ending and its harmless characters are used. The same content under the same
    name is stored once. Raises: UidError where it is no list of uids, RunError where the folder is a link that leads
    out of the run; nothing is kept then.
    """
    given = Path(name)
    suffix = given.suffix.lower()
    if suffix not in ENDINGS.split(", "):
        raise UidError(given.name, expected=f"a name ending in {ENDINGS}", found=given.suffix or "no ending")
    stem = re.sub(r"[^A-Za-z0-9]+", "-", given.stem).strip("-")[:40] or "list"
    safe = f"{stem}-{hashlib.sha256(content).hexdigest()[:12]}{suffix}"
    folder = run.recipes_dir / _FOLDER
    catalog.check_within(run.root, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as aside:
        file = Path(aside) / safe
        file.write_bytes(content)
        try:
            read_uid_list(file)
        except UidError as error:
            raise UidError(given.name, expected=error.expected, found=error.found, remedy=error.remedy) from error
        os.replace(file, folder / safe)
    return f"{_FOLDER}/{safe}"


def adder(entry: Entry, run: Run) -> None:
    """A panel that adds a step with a list."""
    upload = f"list upload {st.session_state.get('lists added', 0)}"
    with st.popover("Add a list", icon=":material/playlist_add:", key="lists", on_change="rerun"):
        st.segmented_control("Keep", list(_KINDS), default="only those in", required=True, key="list rule")
        files = known(run)
        where = "a list of this run" if files else "no list in this run's folders yet"
        st.selectbox("List", files, index=None, placeholder=where, key="list file", disabled=not files)
        endings = [ending.removeprefix(".") for ending in ENDINGS.split(", ")]
        st.file_uploader("Or upload one", endings, key=upload)
        st.caption("Uids as a .npy of dtype u8,u8, one a line in .txt, or a column uid in .csv or .parquet.")
        if "list failed" in st.session_state:
            empty.show_error(st.session_state.pop("list failed"), "This list cannot be used")
        ready = bool(st.session_state.get(upload) or st.session_state.get("list file"))
        st.button("Add", type="primary", key="add list", disabled=not ready, on_click=_add, args=(entry, run, upload))


def _add(entry: Entry, run: Run, upload: str) -> None:
    """Adds the uploaded list, or else the chosen one, as a step and closes the panel."""
    uploaded, kind = st.session_state.get(upload), _KINDS[st.session_state["list rule"]]
    try:
        name = store(run, uploaded.name, uploaded.getvalue()) if uploaded else st.session_state["list file"]
        step: AnyStep = kind.model_validate({kind.kind: name})
    except ClipselError as error:
        st.session_state["list failed"] = error
        return
    except OSError as error:
        st.session_state["list failed"] = empty.not_written(error, run.recipes_dir / _FOLDER)
        return
    recipes.add_step(entry, run, step)
    st.session_state["lists added"] = st.session_state.get("lists added", 0) + 1
    # What was added appears where the panel lies.
    st.session_state["lists"], st.session_state["list file"] = False, None
