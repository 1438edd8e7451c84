"""Which pairs are searched while somebody waits? All of a small run, else those on the map, else a seeded sample."""

from __future__ import annotations

import numpy as np
import streamlit as st

from clipsel_core.curation.exploring.projection import SAMPLE, draw_sample
from clipsel_core.curation.exploring.searches import Nearest, nearest
from clipsel_core.curation.exploring.vectors import HeldVectors, PoolVectors, Side, Vectors
from pages.parts import state, words
from pages.parts.catalog import Entry

# The most that a search lists.
BEST = 1_000
# Embeddings or captions that are gone through at once, without being asked.
AT_ONCE = 200_000
# Larger samples are read from the pool's files each time, through the system's cache.
_MOST_HELD_BYTES = 1 << 27


def rows_searched(entry: Entry) -> np.ndarray | None:
    """Row numbers of the pairs that are searched at once: (M,) int64, ascending; None for the whole run."""
    return _rows(entry, state.map_stamp(entry))


def in_words(entry: Entry) -> str:
    """Which pairs these are, for people."""
    rows = rows_searched(entry)
    if rows is None:
        return f"all {words.pairs(len(state.open_table(entry)))}"
    what = "on the map" if state.find_map(entry) is not None else "drawn at random"
    return f"the {words.pairs(len(rows))} {what}"


def most_alike(entry: Entry, query: np.ndarray, side: Side, *, but: int = -1) -> Nearest:
    """The sample's pairs most like a query, best first, BEST at most. query: (D,) floats. Raises as `nearest` does.

    but: the row of the pair that asks, which is not among them.
    """
    found = _nearest(entry, query.astype(np.float32).tobytes(), side, state.map_stamp(entry))
    return found.without(but).first(BEST)


@st.cache_resource(max_entries=8, show_spinner=False)
def _rows(entry: Entry, stamp: state.Stamp) -> np.ndarray | None:
    table, places = state.open_table(entry), state.find_map(entry)
    if len(table) <= AT_ONCE:
        return None
    return places.rows if places is not None else draw_sample(table, SAMPLE, seed=0)


@st.cache_resource(max_entries=4, show_spinner="Reading embeddings …")
def _vectors(entry: Entry, side: Side, stamp: state.Stamp) -> Vectors:
    table, rows = state.open_table(entry), _rows(entry, stamp)
    stored = PoolVectors(table, side, rows)
    if 2 * stored.rows * stored.width > _MOST_HELD_BYTES:
        return stored
    return HeldVectors(np.arange(len(table)) if rows is None else rows, stored.read())


@st.cache_resource(max_entries=64, show_spinner=False)
def _nearest(entry: Entry, query: bytes, side: Side, stamp: state.Stamp) -> Nearest:
    return nearest(np.frombuffer(query, np.float32), _vectors(entry, side, stamp), limit=BEST + 1)
