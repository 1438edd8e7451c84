"""How is all of a large run searched, not only its sample? As a job, whose result is kept beside the run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from clipsel_core.curation.exploring.searches import Nearest, SearchQuery, list_searches, read_nearest, read_query
from clipsel_core.curation.exploring.vectors import Side
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from pages.parts import empty, leading, state, words
from pages.parts.catalog import Entry
from pages.parts.jobs import jobs
from pages.parts.search import sample
from pages.parts.search.query import LONGEST_NAME, Query

SIDES: dict[str, Side] = {"images": "image", "captions": "text"}


@dataclass(frozen=True)
class Kept:
    """What an earlier search of the whole pool found, and how to say it."""

    nearest: Nearest
    name: str
    among: str


def offer(entry: Entry, run: Run, query: Query, side: Side, *, watch: bool = False) -> None:
    """Where only a sample was searched: a button that searches all of the run, or leads to what that found.

    watch: show how far it is, where no panel of jobs does.
    """
    if sample.rows_searched(entry) is None:
        return
    file, every = _file(run, query, side), words.pairs(len(state.open_table(entry)))
    if file.is_file():
        label = f"See the best of all {every}"
        leading.to_search(label, ":material/travel_explore:", key="see all", kept=file.name)
    elif job := jobs.making(file, run.root):
        if watch:
            jobs.watch(job)
    else:
        act = partial(_search, run, query, side, file)
        st.button(f"Search all {every}", icon=":material/travel_explore:", key="search all", on_click=act)
        jobs.show_failure()


def found_before(entry: Entry, run: Run, query: Query, side: Side) -> Nearest | None:
    """What a search of the whole pool found for this, None where there was none. Raises RunError on a damaged file."""
    file = _file(run, query, side)
    return read_nearest(file, state.open_table(entry)) if file.is_file() else None


def choose(entry: Entry, run: Run) -> Kept | None:
    """A field with the earlier searches of the whole pool; what the one found that somebody chooses to see."""
    files = list_searches(run)
    if not files:
        return None
    asked = {}
    for file in files:
        try:
            asked[file.name] = read_query(file)
        except ClipselError as error:
            empty.show_error(error, "An earlier search cannot be read")
    if not asked:
        return None
    named = {name: f"{_sides(said.side)} like {_quoted(said)}" for name, said in asked.items()}
    wanted, key = leading.kept()
    if st.session_state.setdefault(key, wanted) not in named:
        st.session_state[key] = None
    options: dict[str, Any] = {
        "format_func": named.__getitem__,
        "index": None,
        "placeholder": "see what a search of all pairs found",
    }
    shape: dict[str, Any] = {"width": 480, "label_visibility": "collapsed"}
    chosen = st.selectbox("Found in the whole pool", list(named), key=key, **shape, **options)
    leading.remember(chosen)
    if not chosen:
        return None
    file = (run.root / "searches" / chosen).absolute()
    found = read_nearest(file, state.open_table(entry))
    jobs.looked_at(file, run.root)
    return Kept(found, named[chosen][:1].lower() + named[chosen][1:], f"of {words.pairs(asked[chosen].pairs)}")


def _search(run: Run, query: Query, side: Side, file: Path) -> None:
    try:
        query.keep()
    except OSError as error:
        jobs.refuse(empty.not_written(error, error.filename or file))
        return
    options: dict[str, Any] = {**query.options, "side": side, "limit": sample.BEST, "out": file}
    jobs.launch("search", [run.root], options, title=f"{_sides(side)} like {query.name}", about=run.root)


def _file(run: Run, query: Query, side: Side) -> Path:
    """Where the result is kept: the same search, the same file."""
    digest = hashlib.sha256(repr((sorted(query.options.items()), side)).encode()).hexdigest()[:12]
    return (run.root / "searches" / f"{digest}.parquet").absolute()


def _sides(side: str) -> str:
    return next(name for name, known in SIDES.items() if known == side).capitalize()


def _quoted(asked: SearchQuery) -> str:
    query = asked.query[:LONGEST_NAME]
    return {"uid": f"pair {query[:8]}…", "image": f"picture {query}"}.get(asked.by, f"“{query}”")
