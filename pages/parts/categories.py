"""Which values does a category of a run have, and how many pairs each? Of its own columns, and of the pool's table."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.metadata import MOST_CATEGORIES, Categories, TooManyValues
from clipsel_core.pool.conventions import NAMES_OF_PAIRS
from pages.parts import registry, state, words
from pages.parts.catalog import Entry

_KINDS = ("category", "flag", "text")


def kind_columns(entry: Entry, *, keys: tuple[str, ...] = (), wait: bool = False) -> list[str]:
    """The columns that may sort pairs into kinds, without a look at their values. The rest as in registry.offered."""
    names = registry.offered(entry, *_KINDS, keys=keys, wait=wait)
    return [name for name in names if name not in _names_of_pairs(entry)]


@state.per_run(8, spinner="Looking for columns that sort pairs …")
def category_names(entry: Entry) -> list[str]:
    """The columns that sort pairs into kinds: the run's own first, then those of the pool's table."""
    own = [name for name, column in state.open_run(entry).columns.items() if column.kind in ("category", "flag")]
    besides = {*own, *_names_of_pairs(entry)}
    return [*own, *(name for name in state.open_table(entry).metadata.category_columns() if name not in besides)]


def _names_of_pairs(entry: Entry) -> set[str | None]:
    """Columns of the pool's table that say something else of each pair."""
    pool = state.open_table(entry).metadata.pool
    return {pool.uid_column, pool.text_column, pool.url_column, *NAMES_OF_PAIRS} if pool else set()


@state.per_run(8, spinner="Reading the column …")
def find_categories(entry: Entry, name: str) -> Categories | None:
    """A column's labels, most frequent first, and each pair's place among them; "" is the label of pairs without one.

    None where it has more values than are told apart, or holds numbers of the run's own. Raises: PoolFormatError where
    a column of the pool is not there.
    """
    table, column = state.open_table(entry), registry.column_of(entry, name)
    if column.origin == "pool":
        try:
            return table.metadata.categories(name)
        except TooManyValues:
            return None
    if column.kind == "number":
        return None
    labels = column.values if column.kind == "category" else ("false", "true")
    values = table.column(name)
    codes = np.where(np.isnan(values), len(labels), values).astype(np.int64)
    counts = np.bincount(codes, minlength=len(labels) + 1)
    order = [place for place in np.argsort(-counts, kind="stable").tolist() if counts[place]]
    place_of = np.full(len(counts), -1, np.int16)
    place_of[order] = np.arange(len(order))
    named = tuple((*labels, "")[place] for place in order)
    return Categories(named, bitmaps.read_only(place_of[codes]), counts[order])


def bits_of(found: Categories, labels: Collection[str]) -> np.ndarray:
    """The bitmap of the pairs with one of these labels."""
    return bitmaps.pack(np.isin(found.codes, [found.labels.index(label) for label in labels]))


def value_text(label: str) -> str:
    """A label as people read it."""
    return label or "(none)"


def too_many(title: str) -> str:
    """What can be done with a column that has more values than are told apart."""
    return (
        f"{title} has many values: more than {words.number(MOST_CATEGORIES)}, which are not counted one by one. Select "
        "keeps pairs by words in it, by values that are typed, or by whether it is known."
    )
