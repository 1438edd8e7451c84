"""How do row numbers become cards? Images by address, captions as text, scores with their percentiles."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from clipsel_core import uids
from pages.parts import marginals, metrics, recipes, state, unreadable, words
from pages.parts.catalog import Entry
from pages.parts.gallery import cards, images, records
from pages.parts.gallery.records import LONGEST_TEXT

_UID = re.compile(r"[0-9a-f]{32}")

Bars = Sequence[tuple[cards.Bar, ...]]


def deck(entry: Entry, rows: np.ndarray, bars: Bars, kept: state.Keeps | None = None) -> list[cards.Card]:
    """The cards of these rows, in their order. bars: a tuple a card. kept: says of rows which are, for the badge."""
    table = state.open_table(entry)
    names = uids.to_hex(table.uids_at(rows)).to_pylist()
    told = records.of(entry, rows, images.columns(entry))
    marks = [None] * len(rows) if kept is None else kept(rows)
    pictures, hand = images.sources(entry, names, told.get("url")), recipes.by_hand(entry, state.open_run(entry))
    lack = images.lack(entry)
    return [
        cards.Card(
            uid=name,
            src=picture,
            caption=caption[:LONGEST_TEXT],
            bars=shown,
            badge=_badge(mark, hand.get(name)),
            lack=lack,
        )
        for mark, name, picture, caption, shown in zip(marks, names, pictures, told["caption"], bars, strict=True)
    ]


def score_bars(entry: Entry, rows: np.ndarray, names: Sequence[str]) -> Bars:
    """What some metrics say of these rows, with the percentile in the run."""
    table = state.open_table(entry)
    spreads = [marginals.marginal(entry, name) for name in names]
    columns = [
        [_bar(name, float(value), spread) for value in table.take(name, rows)]
        for name, spread in zip(names, spreads, strict=True)
    ]
    return list(zip(*columns, strict=True))


def cosine_bars(similarity: np.ndarray) -> Bars:
    """How alike each of these is to the pair that was asked for. similarity: (M,) cosines."""
    return [(cards.Bar("cosine", words.score(value), "cosine", 100 * abs(float(value))),) for value in similarity]


@unreadable.doing
def heed(
    entry: Entry, key: str, opened: Callable[[str], None], turned: Callable[[int], None] = lambda by: None
) -> None:
    """Does what was asked of a gallery, in order: K and D go into the recipe.

    opened: told the uid of a pair to open. turned: told by how many pages to turn.
    """
    run, table = state.open_run(entry), state.open_table(entry)
    for press in cards.presses(key):
        if press.kind == "turn":
            turned(press.by)
        elif not _UID.fullmatch(press.uid) or table.rows_of(uids.from_hex([press.uid]))[0] < 0:
            continue
        elif press.kind == "open":
            opened(press.uid)
        else:
            recipes.judge(entry, run, press.uid, press.kind)


def _bar(name: str, value: float, spread: marginals.Marginal) -> cards.Bar:
    percentile = spread.percentile(value) if np.isfinite(value) else None
    rank = "not scored" if percentile is None else "all alike" if spread.alike else words.percentile(percentile)
    return cards.Bar(metrics.title(name), words.score(value), rank, percentile)


def _badge(kept: bool | None, hand: str | None) -> str:
    if hand:
        return "kept by hand" if hand == "keep" else "dropped by hand"
    return "" if kept is None else ("kept" if kept else "dropped")
