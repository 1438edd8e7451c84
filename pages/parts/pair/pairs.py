"""How is a set of pairs shown? As a gallery of cards; the one that is clicked opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

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
    turned: Callable[[], None] | None = None,
) -> None:
    """Draws pairs as cards with a metric and perhaps more of them, and opens the one that is clicked.

    kept: says of rows which are, for the badge. also: bars behind the metrics, a tuple a row. walk: the longer list
    that these rows are a page of, where there is one: an opened pair's Previous and Next go through it. turned: called
    when the keyboard asks for another page.
    """
    bars = deck.score_bars(entry, rows, [metric, *more])
    if also:
        bars = [(*first, *last) for first, last in zip(bars, also, strict=True)]
    drawn = deck.deck(entry, rows, bars, kept)
    names = [card.uid for card in drawn]
    judged = partial(deck.judge, entry, key, frozenset(names))
    walk = walk or pair.Walk.of_rows(rows)
    left = pair.left_at(entry, gallery=key)
    at = left - walk.first if left is not None and 0 <= left - walk.first < len(rows) else None
    opened = cards.show_cards(drawn, key=key, label=label, judged=judged, turned=turned, at=at)
    if opened in names:
        pair.open_pair(entry, walk, walk.first + names.index(opened), gallery=key)
    else:
        pair.stay_open(entry, gallery=key)
