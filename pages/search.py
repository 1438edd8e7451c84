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
from pages.parts import messages, recipes, registry, search_links, state, words
from pages.parts.catalog import Entry
from pages.parts.gallery import cards, pager
from pages.parts.jobs import jobs
from pages.parts.pair import galleries
from pages.parts.search import queries, results
from pages.parts.search.queries import Query
from pages.parts.search_links import PAIR, PICTURE, TEXT

_SIZES = (24, 48, 96, 192, 480, results.BEST)
_PAGE, _CARDS = "search_page", 48
_BEGINNING, _DRAW = 12, "beginning draw"


def show(entry: Entry) -> None:
    st.title("Search")
    run = state.open_run(entry)
    state.require_table(entry)
    by, side, size, metric = _controls(entry)
    try:
        earlier = results.choose_full_search(entry, run)
        jobs.draw_panel(run.root)
        if earlier is not None:
            best = earlier.nearest.first(size)
            title = f"The best {words.number(len(best))} of {words.number(len(earlier.nearest))} {earlier.name}"
            _show_found(entry, run, best, metric, title, earlier.among)
            return
        ask: dict[str, Callable[[], Query | None]] = {
            TEXT: partial(queries.ask_text, run),
            PICTURE: partial(queries.ask_picture, run),
            PAIR: partial(queries.ask_pair, entry),
        }
        query = ask[by]()
        if query is not None:
            vector = vector_of(state.open_table(entry), query.row, side) if query.vector is None else query.vector
            found = results.find_nearest(entry, vector, side, but=query.row).first(size)
            like = query.name if query.row < 0 else f"that of {query.name}"
            sides = {"image": "images", "text": "captions"}[side]
            title = f"{words.pairs(len(found))} whose {sides} are most like {like}"
            more = partial(results.offer_full_search, entry, run, query, side)
            _show_found(entry, run, found, metric, title, f"of {results.describe_sample(entry)}", more)
        elif not queries.is_asked(by):
            _show_beginning(entry, run, metric)
    except ClipselError as error:
        messages.show_error(error, "This search cannot be made")


def _controls(entry: Entry) -> tuple[str, Side, int, str]:
    shared: dict[str, Any] = {"bind": "query-params"}
    # Whoever asks something new wants to see that, not what was kept of an earlier search.
    anew: dict[str, Any] = {"on_change": search_links.leave_search, **shared}
    search_links.follow_link()
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
        side = st.segmented_control("Compare with", list(results.SIDES_BY_NAME), key="side", **said, **anew)
        names = registry.offered(entry, keys=("search_metric",))
        metric = st.selectbox(
            "Show beside", names, format_func=registry.titles(entry), key="search_metric", width=180, **shared
        )
        best: dict[str, Any] = {
            "format_func": words.number,
            "help": "How many pairs are listed; the buttons take all of them.",
        }
        size = st.selectbox("The best", _SIZES, index=2, key="search_size", width=110, **best, **shared)
    return by, results.SIDES_BY_NAME[side], size, metric


def _show_beginning(entry: Entry, run: Run, metric: str) -> None:
    """Before anything is asked: a few pairs drawn at random, the same until others are asked for."""

    def draw_others() -> None:
        st.session_state[_DRAW] = st.session_state.get(_DRAW, 0) + 1

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        messages.show_title("Or begin with a pair", "open one for its look-alikes")
        st.button("Others", icon=":material/shuffle:", key="other beginnings", on_click=draw_others)
    scored = len(state.open_table(entry))
    drawn = random.Random(st.session_state.get(_DRAW, 0)).sample(range(scored), min(_BEGINNING, scored))
    keeps = galleries.find_keeps(entry, recipes.draft_yaml(entry, run))
    listed = pager.RowList(np.array(drawn, np.int64), _BEGINNING)
    galleries.draw_gallery(entry, listed, metric, key="beginning", title="Pairs drawn at random", keeps=keeps)


def _show_found(
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
        messages.show_empty(
            "Nothing found", "No pair of the run has an embedding to compare with. Try images for captions."
        )
        return
    high, low = (words.decimal(float(found.similarity[end])) for end in (0, -1))
    messages.show_title(title, f"{among} · cosine {high} to {low}")
    # A list of them is named after what they are like.
    galleries.draw_actions(entry, run, found.rows, more, called=title[title.find("like ") :])
    keeps, listed = galleries.find_keeps(entry, recipes.draft_yaml(entry, run)), pager.RowList(found.rows, _CARDS)
    pager.rewind_on_change(_PAGE, found.rows.tobytes())
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.choose_page(_PAGE, listed)
    similarity = found.similarity[(page - 1) * _CARDS : page * _CARDS]
    also = [(replace(bar, rank=""),) for (bar,) in cards.cosine_bars(similarity)]
    shown: dict[str, Any] = {"title": title, "keeps": keeps, "also": also}
    galleries.draw_gallery(entry, listed, metric, key="found", page=page, pager_key=_PAGE, **shown)


show(state.current())
