"""Which pairs does a page of an ordering show? Without sorting the whole pool.

A gallery's listing works on the bins of its metric: they say in which few bins a page's pairs lie, and only those are
sorted. So a page far on in an ordered list costs as much as the first. Equal scores come in the order of the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.ranking import NO_SCORE, Ranking, Spread

ListOrder = Literal["ascending", "descending", "random", "near"]


def page_of(keys: np.ndarray, rows: np.ndarray, offset: int, limit: int) -> np.ndarray:
    """Places offset to offset + limit of the rows in ascending order of their keys; equal keys in the order of rows.

    keys: (M,) numbers without NaN, one a row. rows: (M,) ascending. Returns at most `limit` of the rows.
    """
    stop = min(offset + limit, len(keys))
    if offset >= stop:
        return rows[:0]
    ends = np.partition(keys, (offset, stop - 1))[[offset, stop - 1]]
    near = np.flatnonzero((keys >= ends[0]) & (keys <= ends[1]))
    before = int(np.count_nonzero(keys < ends[0]))
    order = near[np.argsort(keys[near], kind="stable")]
    return rows[order[offset - before : stop - before]]


def shuffled_keys(rows: np.ndarray, seed: int) -> np.ndarray:
    """A key for each row that looks random and depends on nothing but row and seed: sorting by it is a shuffle.

    So a gallery in random order keeps its order when pairs join or leave it. The mixing is that of SplitMix64.
    """
    mixed = rows.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@dataclass(frozen=True)
class Listing:
    """The scored pairs of a bitmap, to be read page by page. below: (bins + 1,) int64, the listed pairs in all bins
    before each."""

    ranking: Ranking
    bits: np.ndarray
    below: np.ndarray

    @classmethod
    def of(cls, ranking: Ranking, bits: np.ndarray | None = None) -> Listing:
        """The listing of a metric over a bitmap, or over all pairs; those without a score are not listed."""
        fine = ranking.everything if bits is None else ranking.spread(bits).fine
        bits = bitmaps.first(len(ranking.codes)) if bits is None else bits
        return cls(ranking, bits, np.concatenate([[0], np.cumsum(fine)]))

    def __len__(self) -> int:
        return int(self.below[-1])

    def page(
        self, order: ListOrder, *, offset: int = 0, limit: int = 48, seed: int = 0, centre: float = 0.0
    ) -> np.ndarray:
        """Row numbers from place `offset` of an ordering on, `limit` at most: (M,) int64.

        order: by score; "random", a shuffle by seed that leaves each pair its place relative to the others whatever
            the mask; or "near", by distance of the score from the centre.
        """
        stop = min(offset + limit, len(self))
        if offset >= stop:
            return np.empty(0, np.int64)
        if order == "random":
            rows, keys = self._shuffled(stop, seed)
            return page_of(keys, rows, offset, limit)
        if order == "near":
            rows = self._rows(*self._around(centre, stop))
            return page_of(np.abs(self.ranking.values[rows] - np.float32(centre)), rows, offset, limit)
        first, last = (offset, stop - 1) if order == "ascending" else (len(self) - stop, len(self) - 1 - offset)
        first, last = (int(np.searchsorted(self.below, place, side="right")) - 1 for place in (first, last))
        rows = self._rows(first, last)
        values = self.ranking.values[rows]
        if order == "ascending":
            return page_of(values, rows, offset - int(self.below[first]), limit)
        return page_of(-values, rows, offset - (len(self) - int(self.below[last + 1])), limit)

    def place_of(self, value: float, order: Literal["ascending", "descending"]) -> int:
        """How many listed pairs stand before a score in an ordering: those below it, or above it if descending."""
        score, above = np.array([value], np.float32), order == "descending"
        rank = self.ranking.ranks_of_scores(score, above=above)
        found = int(
            self.ranking.counts_from(partial(bitmaps.holds, self.bits), Spread.of(np.diff(self.below)), rank)[0]
        )
        return found if above else len(self) - found

    def _rows(self, first: int, last: int) -> np.ndarray:
        """The listed pairs in the bins from first to last, ascending: (M,) int64."""
        return self.ranking.rows_in(self.bits, np.arange(max(first, 0), min(last, len(self.below) - 2) + 1))

    def _shuffled(self, wanted: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Listed rows with a small enough key, so many at least, and their keys.

        Keys are spread evenly over 64 bits, so that a bound which all but surely leaves enough is known beforehand.
        """
        bound = (wanted + 8 * math.sqrt(wanted) + 64) / len(self)

        def find(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            listed = bitmaps.unpack(self.bits, stop - start, start) & (self.ranking.codes[start:stop] != NO_SCORE)
            rows = np.flatnonzero(listed) + start
            keys = shuffled_keys(rows, seed)
            small = slice(None) if bound >= 1 else keys < np.uint64(bound * 2**64)
            return rows[small], keys[small]

        parts = bitmaps.in_parts(find, len(self.ranking.codes))
        rows, keys = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
        return (rows, keys) if len(rows) >= wanted else self._shuffled(len(self), seed)

    def _around(self, centre: float, wanted: int) -> tuple[int, int]:
        """Bins that surely hold the pairs nearest to a score: first and last.

        A window of whole bins that holds as many reaches no farther than its own width; two bins more on each side
        hold whatever is as near, rounding included.
        """
        middle, last = int(self.ranking.codes_of(np.array([centre], np.float32))[0]), len(self.below) - 2
        low, high = 0, last
        while low < high:
            reach = (low + high) // 2
            inside = self.below[min(middle + reach, last) + 1] - self.below[max(middle - reach, 0)]
            low, high = (low, reach) if inside >= wanted else (reach + 1, high)
        return middle - low - 2, middle + low + 2
