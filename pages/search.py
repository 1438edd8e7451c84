"""Which pairs are most like a text, a picture or another pair?"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.exploring.searches import Nearest
from clipsel_core.curation.exploring.vectors import Side, vector_of
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from pages.parts import empty, facts, keeping, leading, metrics, recipes, state, words
from pages.parts.catalog import Entry
from pages.parts.gallery import cards, pager
from pages.parts.jobs import jobs
from pages.parts.leading import PAIR, PICTURE, TEXT
from pages.parts.pair import galleries
from pages.parts.search import query, sample, whole_pool
from pages.parts.search.query import Query

_SIZES = (24, 48, 96, 192, 480, sample.BEST)
_PAGE, _CARDS = "search_page", 48
_BEGINNING, _DRAW = 12, "beginning draw"


def show(entry: Entry) -> None:
    st.title("Search")
    run = state.open_run(entry)
    state.require_table(entry)
    by, side, size, metric = _controls(entry)
    try:
        kept = whole_pool.choose(entry, run)
        jobs.panel(run.root)
        if kept is not None:
            best = kept.nearest.first(size)
            title = f"The best {words.count(len(best))} of {words.count(len(kept.nearest))} {kept.name}"
            _gallery(entry, run, best, metric, title, kept.among)
            return
        asked = {TEXT: partial(query.of_text, run), PICTURE: partial(query.of_picture, run)}
        found = asked.get(by, partial(query.of_pair_asked, entry))()
        if found is not None:
            _results(entry, run, found, side, size, metric)
        elif not query.asked(by):
            _beginning(entry, run, metric)
    except ClipselError as error:
        empty.show_error(error, "This search cannot be made")


def _controls(entry: Entry) -> tuple[str, str, int, str]:
    shared: dict[str, Any] = {"bind": "query-params"}
    # Whoever asks something new wants to see that, not what was kept of an earlier search.
    anew: dict[str, Any] = {"on_change": leading.leave_kept, **shared}
    leading.follow()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        first: dict[str, Any] = {} if "by" in st.session_state else {"default": TEXT}
        by = st.segmented_control("Like", [TEXT, PICTURE, PAIR], key="by", required=True, **first, **anew)
        if by == TEXT:
            st.text_input("Text", key="q", placeholder="two red birds in the snow", max_chars=1000, width=260, **anew)
        elif by == PAIR:
            # Longer than any uid: what is pasted with too much must not be cut to another pair's.
            uid: dict[str, Any] = {"placeholder": "32 hex digits, or a UUID with dashes", "max_chars": 200}
            st.text_input("Uid of the pair", key="like", width=330, **uid, **anew)
        said: dict[str, Any] = {"default": "images", "required": True, "help": "Whose embeddings are compared with it."}
        side = st.segmented_control("Compare with", list(whole_pool.SIDES), key="side", **said, **anew)
        names = list(state.open_table(entry).metrics)
        metric = st.selectbox("Show beside", names, format_func=metrics.title, key="search_metric", width=180, **shared)
        best: dict[str, Any] = {
            "format_func": words.count,
            "help": "How many pairs are listed; the buttons take all of them.",
        }
        size = st.selectbox("The best", _SIZES, index=2, key="search_size", width=110, **best, **shared)
    return by, side, size, metric


def _beginning(entry: Entry, run: Run, metric: str) -> None:
    """Before anything is asked: a few pairs drawn at random, the same until others are asked for."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        facts.show_title("Or begin with a pair", "open one for its look-alikes")
        st.button("Others", icon=":material/shuffle:", key="other beginnings", on_click=_draw_others)
    scored = len(state.open_table(entry))
    drawn = random.Random(st.session_state.get(_DRAW, 0)).sample(range(scored), min(_BEGINNING, scored))
    keeps, listed = keeping.of(entry, recipes.draft_yaml(entry, run)), pager.RowList(np.array(drawn), _BEGINNING)
    galleries.draw_gallery(entry, listed, metric, key="beginning", title="Pairs drawn at random", keeps=keeps)


def _draw_others() -> None:
    st.session_state[_DRAW] = st.session_state.get(_DRAW, 0) + 1


def _results(entry: Entry, run: Run, asked: Query, side: str, size: int, metric: str) -> None:
    compared: Side = whole_pool.SIDES[side]
    vector = vector_of(state.open_table(entry), asked.row, compared) if asked.vector is None else asked.vector
    found = sample.most_alike(entry, vector, compared, but=asked.row).first(size)
    like = asked.name if asked.row < 0 else f"that of {asked.name}"
    title = f"{words.pairs(len(found))} whose {side} are most like {like}"
    more = partial(whole_pool.offer, entry, run, asked, compared)
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
        empty.show_empty(
            "Nothing found", "No pair of the run has an embedding to compare with. Try images for captions."
        )
        return
    high, low = (words.score(float(found.similarity[end])) for end in (0, -1))
    facts.show_title(title, f"{among} · cosine {high} to {low}")
    # A list of them is named after what they are like.
    galleries.draw_actions(entry, run, found.rows, more, called=title[title.find("like ") :])
    keeps, listed = keeping.of(entry, recipes.draft_yaml(entry, run)), pager.RowList(found.rows, _CARDS)
    pager.rewind_on_change(_PAGE, found.rows.tobytes())
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.choose_page(_PAGE, listed)
    similarity = found.similarity[(page - 1) * _CARDS : page * _CARDS]
    also = [(replace(bar, rank=""),) for (bar,) in cards.cosine_bars(similarity)]
    shown: dict[str, Any] = {"title": title, "keeps": keeps, "also": also}
    galleries.draw_gallery(entry, listed, metric, key="found", page=page, pager_key=_PAGE, **shown)


show(state.current())
