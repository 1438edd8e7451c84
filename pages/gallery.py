"""What do the pairs look like, from the best of any metric to the worst, kept or dropped, with certain words?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import streamlit as st

from clipsel_core.curation.exploring.captions import MOST_WORDS, CaptionScan
from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.ordering import Listing, ListOrder
from pages.parts import empty, facts, marginals, metrics, recipes, state, unreadable, views, words
from pages.parts.catalog import Entry
from pages.parts.gallery import pager, scanning
from pages.parts.jobs import forms
from pages.parts.pair import galleries

_ORDERS: dict[str, ListOrder] = {"highest": "descending", "lowest": "ascending", "random": "random", "near": "near"}
_SHOWN = ("all", "kept", "dropped")
_SIZES = (48, 96, 144, 200)
_MOST_SCORES = 4
_CARDS = "cards"


@dataclass(frozen=True)
class View:
    """What is listed and in which order. recipe: the draft's YAML, which says what is kept.

    centre: the score that "near" counts from. words: what captions must hold; read: captions looked at for them so far.
    """

    metric: str
    order: str
    shown: str
    size: int
    seed: int
    centre: float
    recipe: str
    words: tuple[str, ...]
    read: int = 0


def show(entry: Entry) -> None:
    st.title("Gallery")
    run, table = state.open_run(entry), state.require_table(entry)
    names = list(table.metrics)
    # On a phone the controls are folded behind the switch, so that the pairs come first; the style sheet decides that.
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="folded"):
        st.toggle("Sort and filter", key="unfold")
        summary = st.container()
    with st.container(key="foldable"):
        metric, order, centre, seed = _order_controls(entry, names)
        asked, shown, more, size = _card_controls(names, metric, searchable=bool(table.pool and table.pool.text_column))
        facts.show_note(_explain(metric, order, centre))
    with summary:
        facts.show_note(f"{metrics.title(metric)}, {order} first{'' if shown == 'all' else f', {shown}'}")
    search = _search(entry, asked)
    read = search.scan.done if search else 0
    view = View(metric, order, shown, size, seed, centre, recipes.draft_yaml(entry, run), asked, read)
    listing = _listed(entry, view, search)
    name = entry, replace(view, recipe="") if shown == "all" else view, state.scores_stamp(entry)
    listed = pager.SortedList(name, listing, _ORDERS[order], size, seed, centre)
    page = _pager(entry, view, listed, search)
    if not len(listing):
        _nothing(view)
        return
    forms.draw_target_button(entry, run)
    keeps = state.keeps(entry, view.recipe) if shown == "all" else None
    title = f"Pairs by {metrics.title(metric)}, {order} first"
    drawn: dict[str, Any] = {"title": title, "keeps": keeps, "more": more}
    galleries.draw_gallery(entry, listed, metric, key=_CARDS, page=page, pager_key="page", **drawn)


def _order_controls(entry: Entry, names: list[str]) -> tuple[str, str, float, int]:
    shared: dict[str, Any] = {"bind": "query-params", "on_change": pager.rewind, "args": ("page",)}
    seed, centre = 0, 0.0
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        metric = st.selectbox("Metric", names, format_func=metrics.title, key="metric", width=220, **shared)
        order = st.segmented_control("First", list(_ORDERS), default="highest", required=True, key="order", **shared)
        if order == "random":
            seed = st.number_input("Seed", 0, 2**31 - 1, key="seed", width=120, **shared)
        if order == "near":
            centre = _centre(entry, metric, shared)
    return metric, order, centre, int(seed)


def _centre(entry: Entry, metric: str, shared: dict) -> float:
    """The score to begin at, given as a percentile of the run or as itself."""
    by = st.segmented_control(
        "Near a", ("percentile", "score"), default="percentile", required=True, key="by", **shared
    )
    if by == "score":
        return st.number_input("Score", value=0.0, step=0.01, format="%.10g", key="score", width=130, **shared)
    percent = st.number_input("Percentile", 0.0, 100.0, 50.0, 1.0, "%.10g", "percentile", width=130, **shared)
    return marginals.marginal(entry, metric).quantile(percent)


def _card_controls(names: list[str], metric: str, *, searchable: bool) -> tuple[tuple[str, ...], str, list[str], int]:
    """Which pairs and what of them: words to look for, kept or dropped, further scores, cards a page."""
    shared: dict[str, Any] = {"bind": "query-params", "on_change": pager.rewind, "args": ("page",)}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        text = st.text_input(
            "Words in the caption",
            key="words",
            type="search",
            width=270,
            max_chars=200,
            disabled=not searchable,
            placeholder="all of these whole words" if searchable else "the pool has no captions here",
            help=f"Whole words, upper and lower case alike, in any order; {MOST_WORDS} at most. In scripts without "
            "blanks between words, such as Chinese, Japanese and Thai, also inside longer words.",
            **shared,
        )
        help_text = "Kept and dropped by the recipe on the Select page as it is now."
        shown = st.segmented_control("Show", _SHOWN, default="all", required=True, key="show", help=help_text, **shared)
        more = st.multiselect(
            "Also on the cards",
            names,
            format_func=metrics.title,
            key="scores",
            max_selections=_MOST_SCORES - 1,
            width=340,
            placeholder="other scores",
            bind="query-params",
        )
        size = st.selectbox("Cards", _SIZES, key="size", width=90, **shared)
    asked = tuple(dict.fromkeys(text.lower().split())) if searchable else ()
    if len(asked) > MOST_WORDS:
        facts.show_note(f"Only the first {MOST_WORDS} words are looked for: {' '.join(asked[:MOST_WORDS])}.")
    return asked[:MOST_WORDS], shown, [name for name in more if name != metric], size


def _explain(metric: str, order: str, centre: float) -> str:
    near = f"Nearest to {words.score(centre)} first. " if order == "near" else ""
    return near + metrics.describe(metric).help


def _search(entry: Entry, asked: tuple[str, ...]) -> scanning.Search | None:
    """The search for the asked words, carried on; None where no words are asked for."""
    if not asked:
        return None
    make = partial(CaptionScan.for_words, state.open_table(entry), list(asked))
    search = scanning.search("words search", (entry.root, state.scores_stamp(entry), asked), make)
    scanning.go_on("words search", search)
    return search


def _pager(entry: Entry, view: View, listed: pager.SortedList, search: scanning.Search | None) -> int:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        said = words.pairs(len(listed))
        if search is not None:
            said += " with these words" + (
                "" if view.shown == "all" else f", {words.count(search.scan.found)} in the pool"
            )
        page = pager.choose_page("page", listed, said)
        with st.container(key="keys", width="content"):
            facts.show_note("Arrows move, Enter opens, K keeps, D drops")
        st.space("stretch")
        if view.order in ("highest", "lowest") and len(listed):
            st.number_input(
                "Jump to percentile",
                min_value=0.0,
                max_value=100.0,
                value=None,
                format="%.10g",
                key="jump",
                placeholder="jump to percentile",
                label_visibility="collapsed",
                width=200,
                on_change=_jump,
                args=(entry, view, listed.listing),
            )
    return page


@unreadable.doing
def _jump(entry: Entry, view: View, listing: Listing) -> None:
    """Turns to the page where the pool's percentile lies among the pairs that are listed, and marks the card there."""
    percent = st.session_state.get("jump")
    if percent is None:
        return
    st.session_state["jump"] = None
    value = marginals.marginal(entry, view.metric).quantile(percent)
    below, above = (listing.place_of(value, way) for way in ("ascending", "descending"))
    # The first that has the score; where none has, the lowest above it.
    place = below if view.order == "lowest" else above - (below + above == len(listing))
    place = min(max(place, 0), max(len(listing) - 1, 0))
    pager.turn_to("page", view.size, place)
    views.get(views.Pairs).last = (entry.key, _CARDS), place


def _listed(entry: Entry, view: View, search: scanning.Search | None) -> Listing:
    recipe = "" if view.shown == "all" else view.recipe
    asked = (view.words, view.read)
    return _listing(entry, view.metric, view.shown, recipe, asked, state.scores_stamp(entry), search)


@st.cache_resource(max_entries=8, show_spinner=False)
def _listing(
    entry: Entry,
    metric: str,
    shown: str,
    recipe: str,
    asked: tuple,
    stamp: state.Stamp,
    _search: scanning.Search | None,
) -> Listing:
    bits = None
    if shown != "all":
        kept = state.kept_bits(entry, recipe)
        bits = kept if shown == "kept" else bitmaps.first(len(state.open_table(entry))) & ~kept
    if _search is not None:
        bits = _search.scan.bits.copy() if bits is None else _search.scan.bits & bits
    return Listing.of(state.ranking(entry, metric), bits)


def _nothing(view: View) -> None:
    why = {
        "kept": "The recipe on the Select page keeps no pair that has this score",
        "dropped": "The recipe on the Select page keeps every pair that has this score",
        "all": "No pair of this run has this score",
    }[view.shown]
    if view.words:
        empty.show_empty("Nothing to show", f"{why} and these words in its caption, as whole words. Take a word away.")
    elif view.shown == "all":
        empty.show_empty("Nothing to show", f"{why}. Choose another metric.")
    else:
        empty.show_empty("Nothing to show", f"{why}. Show all, or move a thumb there.")


show(state.current())
