"""Which pairs are most like a text or like another pair?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import streamlit as st

from clipsel_core.curation.neighbours import Nearest
from clipsel_core.curation.searches import Asked, read_asked, read_found, row_of, searches_of
from clipsel_core.curation.vectors import Side, vector_of
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from pages.parts import (
    cards,
    deck,
    empty,
    facts,
    fate,
    images,
    jobs,
    metrics,
    pairs,
    recipes,
    sample,
    state,
    teacher,
    words,
)
from pages.parts.catalog import Entry

_SIDES: dict[str, Side] = {"images": "image", "captions": "text"}
_SIZES = (24, 48, 96, 192)
_WHOLE_POOL = 1_000
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Query:
    """What is searched for. name: in words. options: as the command line takes it. row: the pair's, -1 for a text."""

    vector: np.ndarray
    name: str
    options: dict[str, str]
    row: int = -1


@dataclass(frozen=True)
class _Kept:
    """What an earlier search found, and how to say it."""

    nearest: Nearest
    name: str
    among: str


def show(entry: Entry) -> None:
    st.title("Search")
    run = state.open_run(entry)
    state.require_table(entry)
    by, side, size, metric = _controls(entry)
    try:
        kept = _kept_search(entry, run)
        jobs.panel(run.root)
        if kept is not None:
            best = kept.nearest.first(size)
            title = f"The best {words.count(len(best))} of {words.count(len(kept.nearest))} {kept.name}"
            _gallery(entry, run, best, metric, title, kept.among)
            return
        query = _query_of_text(run) if by == "a text" else _query_of_pair(entry)
        if query is not None:
            _results(entry, run, query, side, size, metric)
    except ClipselError as error:
        empty.show_error(error, "This search cannot be made")


def _controls(entry: Entry) -> tuple[str, str, int, str]:
    shared = {"bind": "query-params"}
    _follow_link()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        first = {} if "by" in st.session_state else {"default": "a text"}
        by = st.segmented_control("Like", ["a text", "a pair"], key="by", required=True, **first, **shared)
        if by == "a text":
            st.text_input("Text", key="q", placeholder="two red birds in the snow", max_chars=1000, width=330, **shared)
        else:
            st.text_input("Uid of the pair", key="like", placeholder="32 hex digits", max_chars=32, width=330, **shared)
        said = {"default": "images", "required": True, "help": "Whose embeddings are compared with it."}
        side = st.segmented_control("Compare with", list(_SIDES), key="side", **said, **shared)
        names = list(state.open_table(entry).metrics)
        metric = st.selectbox("Show beside", names, format_func=metrics.title, key="search_metric", width=180, **shared)
        size = st.selectbox("Cards", _SIZES, index=1, key="search_size", width=90, **shared)
    return by, side, size, metric


def _follow_link() -> None:
    """A link that names a pair asks for its look-alikes, whatever was asked before."""
    linked = st.query_params.get("like")
    if linked and linked != st.session_state.get("linked pair"):
        st.session_state.update({"by": "a pair", "like": linked, "linked pair": linked})


def _query_of_text(run: Run) -> Query | None:
    missing = teacher.missing(run)
    if missing:
        st.markdown("**Texts cannot be searched for in this run**")
        facts.show_note(missing)
        st.caption("Search by a pair needs no teacher: its uid is in every opened pair.")
        return None
    text = st.session_state.get("q", "").strip()
    if not text:
        facts.show_note("The teacher compares the text with images or captions; its words need not occur in them.")
        return None
    vector = teacher.vector_of_text(run, text)
    options = {"text": text, "vector": str(teacher.kept_file(run, text).absolute())}
    return Query(vector, f"“{text[:_LONGEST_NAME]}”", options)


def _query_of_pair(entry: Entry) -> Query | None:
    uid = st.session_state.get("like", "").strip().lower()
    if not uid:
        facts.show_note("Open a pair anywhere, then its look-alikes; or put its uid here.")
        return None
    table = state.open_table(entry)
    row = row_of(table, uid)
    with st.container(horizontal=True, vertical_alignment="center", key="asked pair"):
        with st.container(width=110):
            cards.show_picture(images.sources(entry, [uid], np.array([row]))[0], key="asked picture")
        st.text(str(table.metadata(np.array([row]), ("caption",)).iloc[0, 0])[: deck.LONGEST_TEXT] or "no caption")
    return Query(np.empty(0), f"pair {uid[:8]}…", {"uid": uid}, row)


def _results(entry: Entry, run: Run, query: Query, side: str, size: int, metric: str) -> None:
    vector = query.vector if query.row < 0 else vector_of(state.open_table(entry), query.row, _SIDES[side])
    found = sample.most_alike(entry, vector, _SIDES[side], size + 1).without(query.row).first(size)
    like = query.name if query.row < 0 else f"that of {query.name}"
    title = f"{words.pairs(len(found))} whose {side} are most like {like}"
    more = partial(_offer_all, entry, run, query, side) if sample.rows_searched(entry) is not None else None
    _gallery(entry, run, found, metric, title, f"of {sample.in_words(entry)}", more)


def _gallery(
    entry: Entry,
    run: Run,
    found: Nearest,
    metric: str,
    title: str,
    among: str,
    more: Callable[[], None] | None = None,
) -> None:
    """The pairs found, with buttons for all of them. more: draws another button beside these."""
    if not len(found):
        empty.show_empty("Nothing found", "No pair of the run could be compared.")
        return
    high, low = (words.score(float(found.similarity[end])) for end in (0, -1))
    facts.show_title(title, f"{among} · cosine {high} to {low}")
    fate.actions(entry, run, found.rows, more)
    kept = state.kept_mask(entry, recipes.draft_yaml(entry, run))
    also = [(replace(bar, rank=""),) for (bar,) in deck.cosine_bars(found.similarity)]
    pairs.gallery(entry, found.rows, metric, key="found", label=title, kept=kept, also=also)


def _offer_all(entry: Entry, run: Run, query: Query, side: str) -> None:
    label = f"Search all {words.pairs(len(state.open_table(entry)))}"
    act = partial(_search_all, run, query, side)
    st.button(label, icon=":material/travel_explore:", key="search all", on_click=act)


def _search_all(run: Run, query: Query, side: str) -> None:
    """Starts the search of the whole pool as a job; its result is kept beside the run."""
    digest = hashlib.sha256(repr((sorted(query.options.items()), side)).encode()).hexdigest()[:12]
    out = (run.root / "searches" / f"{digest}.parquet").absolute()
    options = {**query.options, "side": _SIDES[side], "limit": _WHOLE_POOL, "out": out}
    jobs.launch("search", [run.root], options, title=f"{side.capitalize()} like {query.name}", about=run.root)


def _kept_search(entry: Entry, run: Run) -> _Kept | None:
    """What an earlier search found in the whole pool, where somebody chooses to see it."""
    files = searches_of(run)
    if not files:
        return None
    try:
        asked = {file.name: read_asked(file) for file in files}
    except ClipselError as error:
        empty.show_error(error, "An earlier search cannot be read")
        return None
    named = {name: f"{_sides(said.side)} like {_quoted(said)}" for name, said in asked.items()}
    options = {"format_func": named.__getitem__, "index": None, "placeholder": "see what a search of all pairs found"}
    chosen = st.selectbox(
        "Found in the whole pool", list(named), key="kept search", width=480, label_visibility="collapsed", **options
    )
    if not chosen:
        return None
    found = read_found(run.root / "searches" / chosen, state.open_table(entry))
    return _Kept(found, named[chosen][:1].lower() + named[chosen][1:], f"of {words.pairs(asked[chosen].pairs)}")


def _sides(side: str) -> str:
    return next(name for name, known in _SIDES.items() if known == side).capitalize()


def _quoted(asked: Asked) -> str:
    query = asked.query[:_LONGEST_NAME]
    return f"pair {query[:8]}…" if asked.by == "uid" else f"“{query}”"


show(state.current())
