"""What do the pages know of a run's columns? Which can be chosen, what is said of each, its categories, and its spread.

The run's own columns are known at once. For those of the pool's table the files of all its shards are looked at, which
takes half a second of a thousand shards: pages of runs with many offer them once that was done, in the background.

Of a number there are fine counts, and the percentiles read off them; never the scores themselves.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import streamlit as st

from clipsel_core.curation.index import bitmaps, counts
from clipsel_core.curation.index.metadata import Categories, TooManyValues
from clipsel_core.errors import ClipselError
from clipsel_core.pool.conventions import NAMES_OF_PAIRS
from clipsel_core.runs.columns import IN_POOLS, MOST_CATEGORIES, Column, describe, parse_derived, words_of
from pages.parts import state, words
from pages.parts.catalog import Entry

# Pools of so many shards are looked at before a page is drawn; of others so long after the page was first asked for.
_FEW_SHARDS, _LATER_S = 16, 2.0
_KINDS = ("category", "flag", "text")


class _Columns:
    """The columns of a run: its own, and those of its pool's table, none until they were looked for.

    known: both. titles: how many of these have a title.
    """

    def __init__(self, entry: Entry) -> None:
        run = state.open_run(entry)
        self.own = run.columns
        self.pool: dict[str, Column] = {}
        self._take_in()
        self._entry, self._lock, self._looked = entry, threading.Lock(), False
        self.many = len(run.config.shards) > _FEW_SHARDS
        if self.many:
            later = threading.Timer(_LATER_S, self._look_ahead)
            later.daemon = True
            later.start()

    def _look_ahead(self) -> None:
        with suppress(ClipselError):  # Whoever asks for them is told.
            self.look()

    def look(self) -> None:
        """Looks for those of the pool, once; where the pool is not at hand it has none."""
        with self._lock:
            if not self._looked:
                table = state.open_table(self._entry)
                self.pool = {name: column for name, column in table.columns.items() if column.origin == "pool"}
                self._take_in()
                self._looked = True

    def _take_in(self) -> None:
        self.known = {**self.own, **self.pool}
        self.titles = Counter(column.shown for column in self.known.values())


@state.per_run(8)
def _columns(entry: Entry) -> _Columns:
    return _Columns(entry)


def column_of(entry: Entry, name: str) -> Column:
    """What is known of a column: of the run, of its pool's table, or made of others, whose name says how."""
    columns = _columns(entry)
    if name in columns.own:
        return columns.own[name]
    if parse_derived(name) is not None:
        said = "Made of other columns when it is asked for."
        return Column(name=name[:200], title=words_of(name, partial(title, entry)), measures=said, origin="mix")
    return columns.pool.get(name) or IN_POOLS.get(name) or describe(name)


def title(entry: Entry, name: str) -> str:
    """What people read instead of a column's name: its title, with its name where another column has the same."""
    return titles(entry)(name)


def titles(entry: Entry) -> Callable[[str], str]:
    """The same for many names."""
    columns = _columns(entry)

    def shown(name: str) -> str:
        found = columns.known.get(name) or column_of(entry, name)
        return found.shown if columns.titles[found.shown] < 2 else f"{found.shown} ({name})"

    return shown


def offered(entry: Entry, *kinds: str, keys: tuple[str, ...] = (), wait: bool = False) -> list[str]:
    """The columns that people may choose from, the run's own first. kinds: of columns; those of numbers where none.

    keys: of the widgets that offer them; what was chosen there, or is in the address, is looked for in the pool at
    once. wait: the same for whatever the pool has.
    """
    columns = _columns(entry)
    own = columns.own
    if wait or not columns.many or _asked(keys) - {*own, *(column.shown for column in own.values())}:
        columns.look()
    return [name for name, column in columns.known.items() if (column.kind in kinds if kinds else column.is_number)]


def _asked(keys: tuple[str, ...]) -> set[str]:
    """What these widgets are set to, in the session or the address."""
    said = [value for key in keys for value in (st.session_state.get(key), *st.query_params.get_all(key))]
    return {name for value in said for name in (value if isinstance(value, list | tuple) else [value]) if name}


def own_numbers(entry: Entry) -> list[str]:
    """The run's own columns that hold numbers: scores, and what was added."""
    return [name for name, column in _columns(entry).own.items() if column.is_number]


def unit_of(column: Column) -> str:
    """What its numbers are called beside an axis."""
    return column.unit or ("score" if column.origin in ("computed", "target", "mix") else "value")


def kind_columns(entry: Entry, *, keys: tuple[str, ...] = (), wait: bool = False) -> list[str]:
    """The columns that may sort pairs into kinds, without a look at their values. The rest as in offered."""
    names = offered(entry, *_KINDS, keys=keys, wait=wait)
    return [name for name in names if name not in _names_of_pairs(entry)]


@state.per_run(8, spinner="Looking for columns that sort pairs …")
def category_names(entry: Entry) -> list[str]:
    """The columns that sort pairs into kinds: the run's own first, then those of the pool's table."""
    own = [name for name, column in _columns(entry).own.items() if column.kind in ("category", "flag")]
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
    table, column = state.open_table(entry), column_of(entry, name)
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


def bits_of_labels(found: Categories, labels: Collection[str]) -> np.ndarray:
    """The bitmap of the pairs with one of these labels."""
    return bitmaps.pack(np.isin(found.codes, [found.labels.index(label) for label in labels]))


def value_text(label: str) -> str:
    """A label as people read it."""
    return label or "(none)"


def too_many_values(title: str) -> str:
    """What can be done with a column that has more values than are told apart."""
    return (
        f"{title} has many values: more than {words.number(MOST_CATEGORIES)}, which are not counted one by one. Select "
        "keeps pairs by words in it, by values that are typed, or by whether it is known."
    )


@dataclass(frozen=True)
class Marginal:
    """Counts of a metric's scored pairs in 65,408 equal bins. below[i]: pairs under edges[i]."""

    edges: np.ndarray
    below: np.ndarray

    @property
    def pairs(self) -> int:
        """Pairs that have a score."""
        return int(self.below[-1])

    @cached_property
    def alike(self) -> bool:
        """Whether several pairs have a score, and all the same: then no percentile says anything."""
        return self.pairs > 1 and np.count_nonzero(np.diff(self.below)) == 1

    def pairs_below(self, value: float) -> int:
        """Scored pairs below a value, exact to one fine bin: those in the value's own bin do not count."""
        bin_of = int(np.searchsorted(self.edges, value, side="right")) - 1
        return int(self.below[min(max(bin_of, 0), len(self.edges) - 2)])

    def percentile(self, value: float) -> float:
        """The percentage of scored pairs below a value, exact to one fine bin."""
        return 100 * self.pairs_below(value) / max(self.pairs, 1)

    def quantile(self, percent: float) -> float:
        """The score below which a percentage of the pairs lies, exact to one fine bin; NaN where none has a score."""
        if not self.pairs:
            return float("nan")
        bin_of = int(np.searchsorted(self.below, percent / 100 * self.pairs, side="right")) - 1
        return float(self.edges[min(max(bin_of, 0), len(self.edges) - 1)])

    def coarse(self, bins: int) -> tuple[np.ndarray, np.ndarray]:
        """The same counts in fewer bins, a power of two up to 128 of them: edges (bins + 1,), counts (bins,)."""
        step = (len(self.edges) - 1) // bins
        return self.edges[::step], np.diff(self.below[::step])


@state.per_run(96)
def marginal(entry: Entry, metric: str) -> Marginal:
    """The spread of a metric over the run."""
    return marginal_of_bits(entry, metric, None)


def thumb_scale(entry: Entry, metric: str) -> tuple[float, float, float]:
    """The range of a metric and a decimal step of a 500th of it or less, so that thresholds are short numbers."""
    low, high = state.open_table(entry).extent(metric)
    pace = float(10.0 ** np.floor(np.log10((high - low) / 500)))
    shown = digits_of(pace)
    return round(float(np.floor(low / pace) * pace), shown), round(float(np.ceil(high / pace) * pace), shown), pace


def digits_of(pace: float) -> int:
    """How many digits numbers have behind the point that are so far apart."""
    return max(0, round(-np.log10(pace)))


def short_quantiles(entry: Entry, metric: str, percents: tuple[float, ...]) -> list[float]:
    """The scores below which these percentages of the pairs lie, as short numbers; 0 where no pair has a score."""
    spread, shown = marginal(entry, metric), digits_of(thumb_scale(entry, metric)[2])
    return [round(float(np.nan_to_num(spread.quantile(percent))), shown) for percent in percents]


def marginal_of_bits(entry: Entry, metric: str, bits: np.ndarray | None) -> Marginal:
    """The spread of a metric over the pairs of a bitmap; over all pairs where it is None."""
    ranking = state.ranking(entry, metric)
    counts = ranking.everything if bits is None else ranking.spread(bits).fine
    return Marginal(np.linspace(ranking.low, ranking.high, len(counts) + 1), np.concatenate([[0], np.cumsum(counts)]))


def marginal_of_values(values: np.ndarray, like: Marginal) -> Marginal:
    """The spread of some scores, (M,) floats, in the bins of another's, so that the two can be compared."""
    span = float(like.edges[0]), float(like.edges[-1])
    found = counts.histogram(values, len(like.edges) - 1, span).counts
    return Marginal(like.edges, np.concatenate([[0], np.cumsum(found)]))
