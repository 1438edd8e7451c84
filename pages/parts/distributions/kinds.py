"""Which columns of the metadata sort the pairs into kinds, and which pair is of which kind?"""

from __future__ import annotations

import numpy as np
import streamlit as st

from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.metadata import Categories
from pages.parts import empty, state
from pages.parts.catalog import Entry

LONGEST_LABEL = 80
_BLOCK = 1 << 22


def columns(entry: Entry) -> list[str]:
    """The metadata's columns of few distinct values; where there is none the page says so."""
    found = _columns(entry, state.scores_stamp(entry))
    if not found:
        empty.show_empty(
            "No column to split by",
            "Give the pool's parquet files a text column with at most 64 values, and each value has a row here.",
        )
    return found


def of(entry: Entry, column: str) -> Categories:
    """A column's labels and each pair's place among them."""
    return _categories(entry, column, state.scores_stamp(entry))


def label(kinds: Categories, place: int) -> str:
    """A kind's name, cut to what fits on a line."""
    return kinds.labels[place][:LONGEST_LABEL] or "(none)"


def kept(entry: Entry, column: str, recipe: str) -> np.ndarray:
    """How many pairs of each kind a recipe (YAML) keeps: (kinds,) int64."""
    return _kept(entry, column, recipe, state.recipe_stamp(entry, recipe))


@st.cache_resource(max_entries=16, show_spinner=False)
def _kept(entry: Entry, column: str, recipe: str, stamp: state.Stamp) -> np.ndarray:
    found, bits = of(entry, column), state.kept_bits(entry, recipe)
    counts = np.zeros(len(found.labels), np.int64)
    for start in range(0, len(found.codes), _BLOCK):
        codes = found.codes[start : start + _BLOCK]
        counts += np.bincount(codes[bitmaps.unpack(bits, len(codes), start)], minlength=len(counts))
    return counts


@st.cache_resource(max_entries=8, show_spinner="Looking for columns to split by …")
def _columns(entry: Entry, stamp: state.Stamp) -> list[str]:
    table = state.open_table(entry)
    own = {table.pool.uid_column, table.pool.text_column, table.pool.url_column} if table.pool else set()
    return [name for name in table.category_columns() if name not in own]


@st.cache_resource(max_entries=8, show_spinner="Reading the column …")
def _categories(entry: Entry, column: str, stamp: state.Stamp) -> Categories:
    return state.open_table(entry).categories(column)
