"""Where do two metrics disagree about who is good? Rank against rank, and the pairs that only one of them likes."""

from __future__ import annotations

import numpy as np
import streamlit as st

from clipsel_core.curation.ranks import Disagreement, Extreme, disagreement
from pages.parts import charts, empty, facts, metrics, pair, pairs, state, words
from pages.parts.catalog import Entry

_CELLS = 100
_TOP = 30
_CARDS = 12


def show(entry: Entry, names: list[str]) -> None:
    """Draws the two rankings against each other, and a gallery of either end."""
    left, right = st.columns(2)
    shared = {"options": names, "format_func": metrics.title, "bind": "query-params"}
    x = left.selectbox("One metric", key="one", index=_place(names, "clip_score", 0), **shared)
    y = right.selectbox("Another", key="other", index=_place(names, "s_cliploss", 1), **shared)
    if x == y:
        empty.show_empty("One metric agrees with itself", "Choose another one to compare it with.")
        return
    found = _ranked(entry, x, y, state.scores_stamp(entry))
    if not found.pairs:
        empty.show_empty("Nothing to rank", "No pair of this run has both scores.")
        return
    one, other = metrics.title(x), metrics.title(y)
    left, right = st.columns([3, 2], gap="large")
    with left:
        note = f"{words.pairs(found.pairs)}, stronger colour is more"
        facts.show_title(f"Rank by {other} against rank by {one}", note)
        charts.rank_density(found.counts, one, other)
    with right:
        _in_words(found, one, other)
    _gallery(entry, found.first_likes, x, y, f"{one} likes, {other} does not", "one")
    _gallery(entry, found.second_likes, x, y, f"{other} likes, {one} does not", "other")


def _place(names: list[str], name: str, otherwise: int) -> int:
    return names.index(name) if name in names else min(otherwise, len(names) - 1)


@st.cache_resource(max_entries=8, show_spinner="Ranking …")
def _ranked(entry: Entry, x: str, y: str, stamp: state.Stamp) -> Disagreement:
    return disagreement(state.metric_bins(entry, x), state.metric_bins(entry, y), bins=_CELLS)


def _in_words(found: Disagreement, one: str, other: str) -> None:
    top = found.counts[_CELLS - _TOP :]
    both = top[:, _CELLS - _TOP :].sum()
    facts.show_title("How far they agree")
    facts.show_facts(
        {
            "Rank correlation": f"{found.spearman:.4f} (Spearman)" if np.isfinite(found.spearman) else "none",
            f"Top {_TOP} % in common": words.share(int(both), int(top.sum())),
            f"{one} likes more": _largest(found.first_likes),
            f"{other} likes more": _largest(found.second_likes),
        }
    )
    facts.show_note(
        "On the diagonal both agree. A pair's percentile rank is the share of pairs below it, ties in the middle; the "
        "galleries below begin with the largest difference of the two ranks."
    )


def _largest(end: Extreme) -> str:
    if not len(end.rows):
        return "no pair"
    return f"by up to {abs(end.x[0] - end.y[0]):.1f} points of rank"


def _gallery(entry: Entry, end: Extreme, x: str, y: str, title: str, liked: str) -> None:
    """One end of the differences, a page at a time. liked: which of the two metrics likes them, one or other."""
    pages = max(1, -(-len(end.rows) // _CARDS))
    with st.container(horizontal=True, vertical_alignment="center"):
        facts.show_title(title, f"the {words.count(len(end.rows))} largest differences of rank, largest first")
        key, hidden = f"{liked} likes {x} {y}", "collapsed"
        page = st.number_input(f"Page of {title}", 1, pages, key=key, label_visibility=hidden, width=130)
    if not len(end.rows):
        empty.show_empty("No such pair", "In this direction the two metrics rank no pair apart.")
        return
    first = (page - 1) * _CARDS
    walk = pair.Walk(len(end.rows), lambda place: int(end.rows[place]), first=first)
    rows = end.rows[first : first + _CARDS]
    pairs.gallery(entry, rows, x, key=f"cards {liked}", label=f"{title}, page {page} of {pages}", more=[y], walk=walk)
