"""What do the pairs look like, from the best of any metric to the worst, kept or dropped, with certain words?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import streamlit as st

from clipsel_core.curation.exploring.captions import MOST_WORDS, CaptionScan
from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.ordering import Listing, ListOrder
from pages.parts import messages, progress_bars, recipes, registry, sessions, state, words
from pages.parts.catalog import Entry
from pages.parts.gallery import pager
from pages.parts.jobs import forms
from pages.parts.pair import galleries

_ORDERS: dict[str, ListOrder] = {"highest": "descending", "lowest": "ascending", "random": "random", "near": "near"}
_SHOWN = ("all", "kept", "dropped")
_NOTHING = {
    "kept": "The recipe on the Select page keeps no pair that has this score",
    "dropped": "The recipe on the Select page keeps every pair that has this score",
    "all": "No pair of this run has this score",
}
_SIZES = (48, 96, 144, 200)
_MOST_SCORES = 4
_CARDS = "cards"
_SHARED: dict[str, Any] = {"bind": "query-params", "on_change": pager.rewind, "args": ("page",)}


@dataclass
class _View:
    """What the controls ask for: the order of the pairs, which of them, and what is on their cards.

    centre: the score that "near" counts from. words: what captions must hold. low, high: between which the metric must
    lie. kind, values: a category, and those of its values of which each pair must have one. size: cards a page.
    """

    metric: str = ""
    order: str = "highest"
    seed: int = 0
    centre: float = 0.0
    words: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    kind: str | None = None
    values: tuple[str, ...] = ()
    shown: str = "all"
    more: tuple[str, ...] = ()
    size: int = _SIZES[0]


def show(entry: Entry) -> None:
    st.title("Gallery")
    run, table, view = state.open_run(entry), state.require_table(entry), _View()
    # On a phone the controls are folded behind the switch, so that the pairs come first; the style sheet decides that.
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="folded"):
        st.toggle("Sort and filter", key="unfold")
        summary = st.container()
    with st.container(key="foldable"):
        names = registry.offered(entry, keys=("metric", "scores"))
        _order_controls(entry, view, names)
        if view.kind is not None:
            _kind_controls(entry, view, view.kind)
        _card_controls(entry, view, names, searchable=bool(table.metadata.pool and table.metadata.pool.text_column))
        near = f"Nearest to {words.decimal(view.centre)} first. " if view.order == "near" else ""
        messages.show_note(near + registry.column_of(entry, view.metric).help)
    title = registry.title(entry, view.metric)
    with summary:
        messages.show_note(f"{title}, {view.order} first{'' if view.shown == 'all' else f', {view.shown}'}")
    recipe, scan = recipes.draft_yaml(entry, run), None
    if view.words:
        # Carried on from run to run of the page.
        make = partial(CaptionScan.for_words, table, list(view.words))
        scan, _ = progress_bars.search_captions(
            "words search", (entry.root, state.scores_stamp(entry), view.words), make
        )
    listed = _list_pairs(entry, view, "" if view.shown == "all" else recipe, scan)
    page = _pager(entry, view, listed, scan)
    if not len(listed):
        why = _NOTHING[view.shown]
        if view.words:
            why += " and these words in its caption, as whole words. Take a word away."
        elif view.values or view.low is not None or view.high is not None:
            why += " and is of what is asked for. Ask for more."
        else:
            why += ". Choose another metric." if view.shown == "all" else ". Show all, or move a thumb there."
        messages.show_empty("Nothing to show", why)
        return
    forms.draw_target_button(entry, run)
    keeps = state.keeps(entry, recipe) if view.shown == "all" else None
    drawn: dict[str, Any] = {"title": f"Pairs by {title}, {view.order} first", "keeps": keeps, "more": view.more}
    galleries.draw_gallery(entry, listed, view.metric, key=_CARDS, page=page, pager_key="page", **drawn)


def _order_controls(entry: Entry, view: _View, names: list[str]) -> None:
    titles = registry.titles(entry)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        view.metric = st.selectbox(
            "Metric",
            names,
            format_func=titles,
            key="metric",
            width=200,
            bind="query-params",
            on_change=_leave_interval,
        )
        ends: dict[str, Any] = {"value": None, "format": "%.10g", "width": 165, **_SHARED}
        view.low = st.number_input("From", key="from", placeholder="lowest", **ends)
        view.high = st.number_input("To", key="to", placeholder="highest", **ends)
        kinds = registry.kind_columns(entry, keys=("kind",))
        view.kind = st.selectbox(
            "Kind", kinds, None, titles, key="kind", placeholder="every kind", width=150, **_SHARED
        )
        view.order = st.segmented_control(
            "First", list(_ORDERS), default="highest", required=True, key="order", **_SHARED
        )
        if view.order == "random":
            view.seed = int(st.number_input("Seed", 0, 2**31 - 1, key="seed", width=120, **_SHARED))
        if view.order == "near":
            # Both in one line, also where this is another one.
            with st.container(horizontal=True, vertical_alignment="bottom", gap="small", width="content"):
                _centre_controls(entry, view)


def _centre_controls(entry: Entry, view: _View) -> None:
    """The score to begin at, given as a percentile of the run or as itself."""
    ways = ("percentile", "score")
    by = st.segmented_control("Near a", ways, default="percentile", required=True, key="by", **_SHARED)
    wide: dict[str, Any] = {"format": "%.10g", "width": 130, **_SHARED}
    if by == "score":
        view.centre = st.number_input("Score", value=0.0, step=0.01, key="score", **wide)
    else:
        percent = st.number_input("Percentile", 0.0, 100.0, 50.0, 1.0, key="percentile", **wide)
        view.centre = registry.marginal(entry, view.metric).quantile(percent)


def _leave_interval() -> None:
    """Another metric has other numbers."""
    st.session_state["from"] = st.session_state["to"] = None
    pager.rewind("page")


def _kind_controls(entry: Entry, view: _View, kind: str) -> None:
    """Which values of a category pairs must have one of."""
    found = registry.find_categories(entry, kind)
    if found is None:
        messages.show_note(registry.too_many_values(registry.title(entry, kind)))
        return
    title = words.as_markdown(registry.title(entry, kind))
    named: dict[str, Any] = {"format_func": registry.value_text, "placeholder": "all; type to find a value"}
    view.values = tuple(st.multiselect(f"Values of {title}", found.labels, key="value", **named, **_SHARED))


def _card_controls(entry: Entry, view: _View, names: list[str], *, searchable: bool) -> None:
    """Which pairs and what of them: words to look for, kept or dropped, further scores, cards a page."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
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
            **_SHARED,
        )
        view.shown = st.segmented_control(
            "Show",
            _SHOWN,
            default="all",
            required=True,
            key="show",
            help="Kept and dropped by the recipe on the Select page as it is now.",
            **_SHARED,
        )
        more = st.multiselect(
            "Also on the cards",
            names,
            format_func=registry.titles(entry),
            key="scores",
            max_selections=_MOST_SCORES - 1,
            width=340,
            placeholder="other scores",
            bind="query-params",
        )
        view.more = tuple(name for name in more if name != view.metric)
        view.size = st.selectbox("Cards", _SIZES, key="size", width=90, **_SHARED)
    asked = tuple(dict.fromkeys(text.lower().split())) if searchable else ()
    view.words = asked[:MOST_WORDS]
    if len(asked) > MOST_WORDS:
        messages.show_note(f"Only the first {MOST_WORDS} words are looked for: {' '.join(view.words)}.")


def _list_pairs(entry: Entry, view: _View, recipe: str, scan: CaptionScan | None) -> pager.SortedList:
    """The pairs that have a score, of those that the recipe keeps or drops, and with the words found so far."""

    def find() -> Listing:
        bits = None
        if view.shown != "all":
            kept = state.kept_bits(entry, recipe)
            bits = kept if view.shown == "kept" else bitmaps.first(len(state.open_table(entry))) & ~kept
        if scan is not None:
            bits = scan.bits.copy() if bits is None else scan.bits & bits
        found = registry.find_categories(entry, view.kind) if view.kind and view.values else None
        if found is not None:
            of_kind = registry.bits_of_labels(found, view.values)
            bits = of_kind if bits is None else of_kind & bits
        ranking = state.ranking(entry, view.metric)
        if view.low is not None or view.high is not None:
            low, high = -inf if view.low is None else view.low, inf if view.high is None else view.high
            bits = ranking.between(bitmaps.first(len(ranking.codes)) if bits is None else bits, low, high)
        return Listing.of(ranking, bits)

    asked = view.words, scan.done if scan else 0, view.low, view.high, view.kind, view.values
    # Of all pairs, whatever the recipe keeps.
    recipe = recipe if view.shown != "all" else ""
    name = entry, view.metric, view.shown, recipe, asked, state.recipe_stamp(entry, recipe)
    return pager.sort_pairs(name, find, _ORDERS[view.order], view.size, seed=view.seed, centre=view.centre)


def _pager(entry: Entry, view: _View, listed: pager.SortedList, scan: CaptionScan | None) -> int:
    said = words.pairs(len(listed))
    if scan is not None:
        in_all = "" if view.shown == "all" else f", {words.number(scan.found)} in the pool"
        said = f"{said} with these words{in_all}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.choose_page("page", listed, said)
        with st.container(key="keys", width="content"):
            messages.show_note("Arrows move, Enter opens, K keeps, D drops")
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


@sessions.callback
def _jump(entry: Entry, view: _View, listing: Listing) -> None:
    """Turns to the page where the pool's percentile lies among the pairs that are listed, and marks the card there."""
    percent = st.session_state.get("jump")
    if percent is None:
        return
    st.session_state["jump"] = None
    value = registry.marginal(entry, view.metric).quantile(percent)
    below, above = (listing.place_of(value, way) for way in ("ascending", "descending"))
    # The first that has the score; where none has, the lowest above it.
    place = below if view.order == "lowest" else above - (below + above == len(listing))
    place = min(max(place, 0), max(len(listing) - 1, 0))
    pager.turn_to("page", view.size, place)
    sessions.get(sessions.Pairs).last = (entry.key, _CARDS), place


show(state.current())
