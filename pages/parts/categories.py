"""Which values does a category of a run have, and how many pairs each? Of its own columns, and of the pool's table."""

from __future__ import annotations

import numpy as np

from clipsel_core.curation.index.bitmaps import read_only
from clipsel_core.curation.index.metadata import Categories
from pages.parts import registry, state
from pages.parts.catalog import Entry


@state.per_run(8, spinner="Reading the column …")
def categories_of(entry: Entry, name: str) -> Categories:
    """A column's labels, most frequent first, and each pair's place among them; "" is the label of pairs without one.

    Raises: PoolFormatError where a column of the pool is not there or has more values than are told apart.
    """
    table, column = state.open_table(entry), registry.column_of(entry, name)
    if column.origin == "pool":
        return table.metadata.categories(name)
    labels = column.values if column.kind == "category" else ("false", "true")
    values = table.column(name)
    codes = np.where(np.isnan(values), len(labels), values).astype(np.int64)
    counts = np.bincount(codes, minlength=len(labels) + 1)
    order = [place for place in np.argsort(-counts, kind="stable").tolist() if counts[place]]
    place_of = np.full(len(counts), -1, np.int16)
    place_of[order] = np.arange(len(order))
    named = tuple((*labels, "")[place] for place in order)
    return Categories(named, read_only(place_of[codes]), counts[order])


@state.per_run(8, spinner="Looking for columns of few values …")
def category_names(entry: Entry) -> list[str]:
    """The columns that sort pairs into few kinds: the run's own first, then those of the pool's table."""
    own = [name for name, column in state.open_run(entry).columns.items() if column.kind in ("category", "flag")]
    metadata = state.open_table(entry).metadata
    pool = metadata.pool
    besides = {*own, *((pool.uid_column, pool.text_column, pool.url_column) if pool else ())}
    return [*own, *(name for name in metadata.category_columns() if name not in besides)]
