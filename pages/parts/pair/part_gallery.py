"""What do the pairs of any set look like? Its gallery, by a metric from either end, page by page.

A page has one such gallery at a time, so that the link can hold how it is sorted and where it is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.index.listing import Listing, ListOrder
from pages.parts import empty, facts, metrics, state, words
from pages.parts.catalog import Entry
from pages.parts.gallery import pager
from pages.parts.gallery.leafing import Leaves
from pages.parts.pair import booklet

Bits = Callable[[], np.ndarray]

_PAGE = 48
_PARTS = ("only this one", "both", "only the other")
_ORDERS: dict[str, ListOrder] = {"highest": "descending", "lowest": "ascending", "random": "random"}
_METRIC, _ORDER, _AT = "sort", "end", "at"


def choose_part(counts: Sequence[int], *, key: str) -> int:
    """Asks which of three parts to see: only this one's pairs, both's, only the other's. counts: pairs of each."""
    part = st.segmented_control(
        "Pairs", _PARTS, default=_PARTS[0], required=True, key=key, bind="query-params", on_change=rewind
    )
    place = _PARTS.index(part)
    said = " · ".join(f"{name} {words.count(count)}" for name, count in zip(_PARTS, counts, strict=True))
    facts.show_note(said)
    return place


def rewind() -> None:
    """Goes back to the first page: for whatever changes what is shown."""
    pager.rewind(_AT)


def sort_by(metric: str) -> None:
    """Sorts by a metric from now on, from its first page."""
    st.session_state[_METRIC] = metric
    rewind()


def show(
    entry: Entry,
    listed: int,
    bits: Bits,
    *,
    name: Hashable,
    title: str,
    usual: str = "s_cliploss",
) -> None:
    """Draws so many pairs, those of a bitmap, which is asked for when they are not known by their name yet.

    name: tells them from others. usual: what they are sorted by at first.
    """
    if not listed:
        empty.show_empty("Nothing to show", "No pair lies in this part. Choose another one.")
        return
    names = list(state.open_table(entry).metrics)
    shared: dict[str, Any] = {"bind": "query-params", "on_change": rewind}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        # The usual one first: what a page begins with is not in its link.
        names.sort(key=lambda name: name != usual)
        metric = st.selectbox("By", names, format_func=metrics.title, key=_METRIC, width=220, **shared)
        order = st.segmented_control("First", list(_ORDERS), default="highest", required=True, key=_ORDER, **shared)
    listing = _listing(entry, metric, name, state.scores_stamp(entry), bits)
    facts.show_title(title, words.pairs(listed))
    if not len(listing):
        facts.show_note(f"None of them has a {metrics.title(metric)}.")
        return
    leaves = Leaves((entry, metric, name, state.scores_stamp(entry)), listing, _ORDERS[order], _PAGE)
    _leaf(entry, leaves, metric, title)


def _leaf(entry: Entry, leaves: Leaves, metric: str, title: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.show(_AT, booklet.pages_of(leaves))
    booklet.show(entry, leaves, page, metric, key=_AT, gallery="part cards", title=title)


@st.cache_resource(max_entries=2, show_spinner=False)
def _listing(entry: Entry, metric: str, name: Hashable, stamp: state.Stamp, _bits: Bits) -> Listing:
    return Listing.of(state.metric_bins(entry, metric), _bits())
