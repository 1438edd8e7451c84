"""How is a pool scored from the dashboard? A form that is checked as the command line checks it, then a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from clipsel_core.counts import counted
from clipsel_core.errors import ClipselError, PoolFormatError
from clipsel_core.jobs.control import Option
from clipsel_core.pool.layout import Pool
from clipsel_core.pool.teachers import read_teachers
from clipsel_core.runs.config import RunConfig
from clipsel_core.runs.store import Run
from pages.parts import catalog, commands, empty, facts, state, words
from pages.parts.jobs import folders, forms, jobs

_USUAL = RunConfig.model_fields
_BAD_ROWS = {
    "error": "stop at the first",
    "skip": "set them aside",
    "scale": "scale them to unit length; set aside what has no length",
}


@forms.form("Score a pool", width="medium")
def ask() -> None:
    """The form of a new run; starts it and closes where nothing is wrong."""
    known = [folders.shown(path) for path in folders.pools()]
    begin = about if (about := forms.about()) in known else next(iter(known), None)
    chosen = st.selectbox(
        "Pool",
        known,
        None,
        key=forms.beginning_with(begin, "Pool"),
        accept_new_options=True,
        placeholder="choose one, or type its path",
        **forms.STAYS,
    )
    if not chosen:
        st.caption(f"Pools are looked for in {catalog.data_folder()}; make one of images and captions first.")
        return
    try:
        pool = _open(folders.inside(chosen))
    except ClipselError as error:
        empty.show_error(error, "This pool cannot be scored")
        return
    facts.show_note(f"{words.pairs(pool.rows)} in {counted(len(pool.shards), 'shards')}")
    key = forms.beginning_with(next(iter(pool.archs)), f"Teacher of {pool.root}")
    # One that has gone from the pool is refused when it is started, not exchanged for another.
    archs = list(dict.fromkeys([*pool.archs, st.session_state[key]]))
    arch = st.selectbox("Teacher", archs, key=key, help="Whose embeddings are scored.", **forms.STAYS)
    files, uploads = _ask_for_targets(arch)
    options = _ask_for_numbers(pool, arch)
    wish = f"{pool.root.name}-{arch}"
    name = forms.ask_for_name(st, "Name of the run", (pool.root, arch), lambda: folders.free_name(wish))
    if st.button("Check and start", type="primary", icon=":material/play_arrow:", key="start scoring"):
        _start(pool, name, {"arch": arch, **options}, files, uploads)


def go_on(run: Run) -> None:
    """Starts the scoring of an unfinished run again, as it was begun."""
    arguments = commands.score_options(run)
    jobs.launch("score", [run.pool_root, run.root], arguments, title=f"Score {run.root.name}", about=run.root)


def _open(root: Path) -> Pool:
    pool = state.pool_at(root)
    if not pool.archs:
        raise PoolFormatError(root, expected="embeddings", found="none", remedy="make a pool with a teacher's")
    return pool


def _ask_for_targets(arch: str) -> tuple[list[str], list]:
    known = [folders.shown(path) for path in folders.targets()]
    files = st.multiselect(
        "Targets",
        known,
        key=forms.key("Targets"),
        accept_new_options=True,
        placeholder="none: CLIPScore and s-CLIPLoss only",
        help=f"Files of image embeddings by {arch}, or of uids of the pool. NormSim compares every pair with them.",
        **forms.STAYS,
    )
    with st.expander("Upload a target"):
        uploads = st.file_uploader(
            "Target",
            list(folders.TARGET_ENDINGS),
            key=forms.key("Target"),
            accept_multiple_files=True,
            label_visibility="collapsed",
        )
    return files, list(uploads or [])


def _ask_for_numbers(pool: Pool, arch: str) -> dict[str, Option]:
    """tau, B, K and the seed; what is left as it is, is left to the command."""
    tau, own, told = _temperature(pool, arch)
    with st.expander("Temperature, batches, seed, bad rows"):
        left, right = st.columns(2)
        help_text = f"The teacher's: {tau:g} is {told}."
        # Each pool and teacher has its own; what it begins with stays, whatever other runs come and go.
        key = forms.beginning_with(tau, f"Temperature of {arch} of {pool.root}")
        shown: dict[str, Any] = {"format": "%.10g", "help": help_text, "key": key}
        chosen = left.number_input("Temperature τ", 0.001, 1.0, step=0.001, **shown, **forms.STAYS)
        usual = {"B": _USUAL["batch_size"].default, "K": _USUAL["divisions"].default, "Seed": 0}
        keys = {name: forms.beginning_with(value, name) for name, value in usual.items()}
        size = right.number_input("Pairs in a batch, B", 1, None, step=1024, key=keys["B"], **forms.STAYS)
        divisions = left.number_input("Random divisions, K", 1, 1000, key=keys["K"], **forms.STAYS)
        seed = right.number_input("Seed", 0, None, key=keys["Seed"], **forms.STAYS)
        bad_rows = st.selectbox(
            "Rows without a usable embedding",
            list(_BAD_ROWS),
            key=forms.key("bad rows"),
            format_func=_BAD_ROWS.__getitem__,
            help="Usable is a row of unit length. Overview says how many were set aside or scaled.",
            **forms.STAYS,
        )
    options: dict[str, Option] = {"batch-size": int(size), "divisions": int(divisions), "seed": int(seed)}
    fields = {"batch-size": "batch_size", "divisions": "divisions", "seed": "seed"}
    options = {name: value for name, value in options.items() if value != _USUAL[fields[name]].default}
    on_bad_rows = bad_rows if bad_rows != _USUAL["on_bad_rows"].default else None
    return {**options, "temperature": chosen if chosen != own else None, "on-bad-rows": on_bad_rows}


def _temperature(pool: Pool, arch: str) -> tuple[float, float, str]:
    """The tau to begin with, the one that the command takes by itself, and whose the first is, in words."""
    teacher, usual = read_teachers(pool.root).get(arch), _USUAL["temperature"].default
    if teacher:
        return teacher.temperature, teacher.temperature, "as the pool knows it of this teacher"
    for entry in catalog.entries():
        try:
            run = state.open_run(entry)
        except ClipselError:
            # Said where it is opened.
            continue
        if run.config.arch == arch and run.pool_root.resolve() == pool.root.resolve():
            return run.config.temperature, usual, f"that of {entry.label}, as the pool does not know its teacher's"
    return usual, usual, "OpenAI's; the pool does not know its teacher's"


def _start(pool: Pool, name: str, options: dict[str, Option], files: list[str], uploads: list) -> None:
    def check(kept: list[Path]) -> str:
        options["target"] = named([*paths, *kept])
        with st.spinner("Checking pool, targets and options …"):
            return jobs.check("score", [pool.root, run], options)

    try:
        run = folders.new(name)
        paths = [folders.target(text) for text in files]
        given = [(upload.name, upload.getvalue()) for upload in uploads]
        wrong = folders.check_uploads(catalog.data_folder() / "targets", given, check)
    except (ClipselError, OSError) as error:
        wrong = str(empty.not_written(error, catalog.data_folder()))
    if wrong:
        empty.show_error(wrong, "Not started")
    elif jobs.launch("score", [pool.root, run], options, title=f"Score {name}", about=run):
        forms.leave()
    else:
        jobs.show_failure()


def named(files: list[Path]) -> list[str]:
    """NAME=FILE for each target, named after its file."""
    names: list[str] = []
    for file in files:
        names.append(folders.target_name(file.name, names))
    return [f"{name}={file}" for name, file in zip(names, files, strict=True)]
