"""How is a set of pairs shown? As a gallery of cards; the one that is clicked opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import streamlit as st

from pages.parts import state
from pages.parts.catalog import Entry
from pages.parts.gallery import cards, deck
from pages.parts.pair import pair


def gallery(
    entry: Entry,
    rows: np.ndarray,
    metric: str,
    *,
    key: str,
    label: str,
    kept: state.Keeps | None = None,
    more: Sequence[str] = (),
    also: deck.Bars = (),
    walk: pair.Walk | None = None,
    turned: Callable[[int], None] | None = None,
) -> None:
    """Draws pairs as cards with a metric and perhaps more of them, and opens the one that is clicked.

    kept: says of rows which are, for the badge. also: bars behind the metrics, a tuple a row. walk: the longer list
    that these rows are a page of, where there is one: an opened pair's Previous and Next go through it. turned: told
    by how many pages the keyboard asks to turn; None where there are no others.
    """
    bars = deck.score_bars(entry, rows, [metric, *more])
    if also:
        bars = [(*first, *last) for first, last in zip(bars, also, strict=True)]
    drawn = deck.deck(entry, rows, bars, kept)
    names = [card.uid for card in drawn]
    pressed = partial(deck.heed, entry, key, partial(_ask_for, key), turned or (lambda by: None))
    walk = walk or pair.Walk.of_rows(rows)
    left = pair.left_at(entry, gallery=key)
    at = left - walk.first if left is not None and 0 <= left - walk.first < len(rows) else None
    cards.show_cards(drawn, key=key, label=label, pressed=pressed, turns=turned is not None, at=at)
    opened = st.session_state.pop(_asked_for(key), None)
    if opened in names:
        pair.open_pair(entry, walk, walk.first + names.index(opened), gallery=key)
    else:
        pair.stay_open(entry, gallery=key)


def _ask_for(key: str, uid: str) -> None:
    """Has the gallery open a pair when it is drawn next."""
    st.session_state[_asked_for(key)] = uid


def _asked_for(key: str) -> str:
    return f"to open in {key}"
