"""What do the pairs of any set look like? Its gallery, by a metric from either end, page by page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from pages.parts import empty, facts, metrics, pairs, state, words
from pages.parts.catalog import Entry

_PAGE = 48
_PARTS = ("only this one", "both", "only the other")
_BARE = {"label_visibility": "collapsed"}
_ORDERS = {"highest": "descending", "lowest": "ascending", "random": "random"}


def choose_part(counts: Sequence[int], *, key: str) -> int:
    """Asks which of three parts to see: only this one's pairs, both's, only the other's. counts: pairs of each."""
    labels = [f"{name} · {words.count(count)}" for name, count in zip(_PARTS, counts, strict=True)]
    return st.segmented_control(
        "Pairs", [0, 1, 2], default=0, required=True, key=key, format_func=labels.__getitem__, **_BARE
    )


def show(entry: Entry, mask: np.ndarray, *, key: str, title: str, usual: str = "s_cliploss") -> None:
    """Draws the pairs of a mask, (N,) bool. usual: the metric that they are ordered by at first."""
    table, listed = state.open_table(entry), int(np.count_nonzero(mask))
    if not listed:
        empty.show_empty("Nothing to show", "There is no such pair.")
        return
    names = list(table.metrics)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        first = names.index(usual) if usual in names else 0
        metric = st.selectbox("By", names, first, metrics.title, key=f"{key} metric", width=220)
        order = st.segmented_control("First", list(_ORDERS), default="highest", required=True, key=f"{key} order")
        pages = -(-listed // _PAGE)
        page = int(st.number_input(f"Page of {words.count(pages)}", 1, pages, key=f"{key} page", width=140))
    facts.show_title(title, words.pairs(listed))
    rows = table.page(metric, _ORDERS[order], offset=(page - 1) * _PAGE, limit=_PAGE, mask=mask)
    if len(rows):
        pairs.gallery(entry, rows, metric, key=f"{key} cards", label=title)
    else:
        facts.show_note(f"None of them has a {metrics.title(metric)}.")
