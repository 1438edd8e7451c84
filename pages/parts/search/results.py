"""Which pairs are most like a query? Those of a sample, found at once; those of all by a job, kept beside the run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.exploring.projection import SAMPLE, draw_sample
from clipsel_core.curation.exploring.searches import (
    Nearest,
    SearchQuery,
    list_searches,
    nearest,
    read_nearest,
    read_query,
)
from clipsel_core.curation.exploring.vectors import HeldVectors, PoolVectors, Side, Vectors
from clipsel_core.errors import ClipselError
from clipsel_core.leases import may_be_held
from clipsel_core.places import Place
from clipsel_core.runs.store import Run
from pages.parts import messages, search_links, state, words
from pages.parts.catalog import Entry
from pages.parts.jobs import jobs
from pages.parts.search.queries import LONGEST_NAME, Query

SIDES_BY_NAME: dict[str, Side] = {"images": "image", "captions": "text"}
# The most that a search lists.
BEST = 1_000
# Embeddings or captions that are gone through at once, without being asked.
AT_ONCE = 200_000
# Larger samples are read from the pool's files each time, through the system's cache.
_MOST_HELD_BYTES = 1 << 27


@dataclass(frozen=True)
class FullSearch:
    """What an earlier search of the whole pool found. name, among: it, and the pairs that were searched, in words."""

    nearest: Nearest
    name: str
    among: str


def find_nearest(entry: Entry, query: np.ndarray, side: Side, *, but: int = -1) -> Nearest:
    """The sample's pairs most like a query, best first, BEST at most. query: (D,) floats. Raises as `nearest` does.

    but: the row of the pair that asks, which is not among them.
    """
    return _nearest(entry, query.astype(np.float32).tobytes(), side).without(but).first(BEST)


def describe_sample(entry: Entry) -> str:
    """Which pairs are searched at once, in words."""
    rows = _sampled_rows(entry)
    if rows is None:
        return f"all {words.pairs(len(state.open_table(entry)))}"
    what = "on the map" if state.find_map(entry) is not None else "drawn at random"
    return f"the {words.pairs(len(rows))} {what}"


@state.per_map(8)
def _sampled_rows(entry: Entry) -> np.ndarray | None:
    """The pairs that are searched at once, (M,) int64, ascending: on the map, or a seeded sample; None for all."""
    table, places = state.open_table(entry), state.find_map(entry)
    if len(table) <= AT_ONCE:
        return None
    return places.rows if places is not None else draw_sample(table, SAMPLE, seed=0)


@state.per_map(4, spinner="Reading embeddings …")
def _vectors(entry: Entry, side: Side) -> Vectors:
    table, rows = state.open_table(entry), _sampled_rows(entry)
    stored = PoolVectors(table, side, rows)
    if 2 * stored.rows * stored.width > _MOST_HELD_BYTES:
        return stored
    return HeldVectors(np.arange(len(table)) if rows is None else rows, stored.read())


@state.per_map(64)
def _nearest(entry: Entry, query: bytes, side: Side) -> Nearest:
    return nearest(np.frombuffer(query, np.float32), _vectors(entry, side), limit=BEST + 1)


def offer_full_search(entry: Entry, run: Run, query: Query, side: Side, *, watch: bool = False) -> None:
    """Where only a sample was searched: a button that searches all of the run, or leads to what that found.

    watch: show how far it is, where no panel of jobs does.
    """
    if _sampled_rows(entry) is None:
        return
    file, every = _file(run, query, side), words.pairs(len(state.open_table(entry)))

    def search_all() -> None:
        try:
            if query.keep is not None:
                query.keep()
        except OSError as error:
            jobs.refuse(messages.not_written(error, error.filename or file))
            return
        options: dict[str, Any] = {**query.options, "side": side, "limit": BEST, "out": file}
        jobs.launch("search", [run.root], options, title=f"{_side_in_words(side)} like {query.name}", about=run.root)

    # Asked first: a search that ends in between has left its file by then.
    job = jobs.at_work(f"--out={file}", run.root)
    if file.exists():
        label = f"See the best of all {every}"
        search_links.draw_link(label, ":material/travel_explore:", key="see all", kept=file.name)
    elif job:
        if watch:
            jobs.draw_search(job)
    elif may_be_held(run.root):
        st.button(f"Search all {every}", icon=":material/travel_explore:", key="search all", on_click=search_all)
        jobs.show_failure()


def read_full_search(entry: Entry, run: Run, query: Query, side: Side) -> Nearest | None:
    """What a search of the whole pool found for this, None where there was none. Raises RunError on a damaged file."""
    file = _file(run, query, side)
    return read_nearest(file, state.open_table(entry)) if file.exists() else None


def choose_full_search(entry: Entry, run: Run) -> FullSearch | None:
    """A field with the earlier searches of the whole pool; what the one found that somebody chooses to see."""
    asked: dict[str, SearchQuery] = {}
    for file in list_searches(run):
        try:
            asked[file.name] = read_query(file)
        except ClipselError as error:
            messages.show_error(error, "An earlier search cannot be read")
    if not asked:
        return None
    named = {}
    for name, search in asked.items():
        query = search.query[:LONGEST_NAME]
        quoted = {"uid": f"pair {query[:8]}…", "image": f"picture {query}"}.get(search.by, f"“{query}”")
        named[name] = f"{_side_in_words(search.side)} like {quoted}"
    key = search_links.field_key()
    if st.session_state.setdefault(key, search_links.search_on_show()) not in named:
        st.session_state[key] = None
    chosen = st.selectbox(
        "Found in the whole pool",
        list(named),
        index=None,
        format_func=named.__getitem__,
        key=key,
        placeholder="see what a search of all pairs found",
        label_visibility="collapsed",
        width=480,
    )
    search_links.note_search(chosen)
    if not chosen:
        return None
    file = (run.root / "searches" / chosen).absolute()
    found = read_nearest(file, state.open_table(entry))
    jobs.looked_at(file, run.root)
    name = named[chosen][:1].lower() + named[chosen][1:]
    return FullSearch(found, name, f"of {words.pairs(asked[chosen].pairs)}")


def _file(run: Run, query: Query, side: Side) -> Place:
    """Where the result is kept: the same search, the same file."""
    digest = hashlib.sha256(repr((sorted(query.options.items()), side)).encode()).hexdigest()[:12]
    return (run.root / "searches" / f"{digest}.parquet").absolute()


def _side_in_words(side: str) -> str:
    return next(name for name, known in SIDES_BY_NAME.items() if known == side).capitalize()
