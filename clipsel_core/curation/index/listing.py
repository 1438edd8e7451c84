"""Which pairs does a gallery list, in which order, and at which place does a score stand?

A listing works on the bins of its metric: they say in which few bins a page's pairs lie, and only those are sorted. So
a page far on in an ordered list costs as much as the first. Equal scores come in the order of the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clipsel_core.curation.index import binning, bitmaps, ordering, passes
from clipsel_core.curation.index.bins import MetricBins

ListOrder = Literal["ascending", "descending", "random", "near"]


@dataclass(frozen=True)
class Listing:
    """The scored pairs of a bitmap, to be read page by page. below: (bins + 1,) int64, the listed pairs in all bins
    before each."""

    bins: MetricBins
    bits: np.ndarray
    below: np.ndarray

    @classmethod
    def of(cls, bins: MetricBins, bits: np.ndarray | None = None) -> Listing:
        """The listing of a metric over a bitmap, or over all pairs; those without a score are not listed."""
        fine = bins.everything if bits is None else bins.spread(bits).fine
        bits = bitmaps.first(len(bins.codes)) if bits is None else bits
        return cls(bins, bits, np.concatenate([[0], np.cumsum(fine)]))

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
            return ordering.page_of(keys, rows, offset, limit)
        if order == "near":
            rows = self._rows(*self._around(centre, stop))
            return ordering.page_of(np.abs(self.bins.values[rows] - np.float32(centre)), rows, offset, limit)
        first, last = (offset, stop - 1) if order == "ascending" else (len(self) - stop, len(self) - 1 - offset)
        first, last = (int(np.searchsorted(self.below, place, side="right")) - 1 for place in (first, last))
        rows = self._rows(first, last)
        values = self.bins.values[rows]
        if order == "ascending":
            return ordering.page_of(values, rows, offset - int(self.below[first]), limit)
        return ordering.page_of(-values, rows, offset - (len(self) - int(self.below[last + 1])), limit)

    def place_of(self, value: float, order: Literal["ascending", "descending"]) -> int:
        """How many listed pairs stand before a score in an ordering: those below it, or above it if descending."""
        fine = np.diff(self.below)
        above, not_below = self.bins.above(self.bits, fine, np.array([value], np.float32))
        return len(self) - int(not_below[0]) if order == "ascending" else int(above[0])

    def _rows(self, first: int, last: int) -> np.ndarray:
        """The listed pairs in the bins from first to last, ascending: (M,) int64."""
        return self.bins.rows_in(self.bits, np.arange(max(first, 0), min(last, len(self.below) - 2) + 1))

    def _shuffled(self, wanted: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Listed rows with a small enough key, so many at least, and their keys.

        Keys are spread evenly over 64 bits, so that a bound which all but surely leaves enough is known beforehand.
        """
        bound = (wanted + 8 * math.sqrt(wanted) + 64) / len(self)

        def find(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            listed = bitmaps.unpack(self.bits, stop - start, start) & (self.bins.codes[start:stop] != binning.NO_SCORE)
            rows = np.flatnonzero(listed) + start
            keys = ordering.shuffled_keys(rows, seed)
            small = slice(None) if bound >= 1 else keys < np.uint64(bound * 2**64)
            return rows[small], keys[small]

        parts = passes.in_parts(find, len(self.bins.codes))
        rows, keys = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
        return (rows, keys) if len(rows) >= wanted else self._shuffled(len(self), seed)

    def _around(self, centre: float, wanted: int) -> tuple[int, int]:
        """Bins that surely hold the pairs nearest to a score: first and last.

        A window of whole bins that holds as many reaches no farther than its own width; two bins more on each side
        hold whatever is as near, rounding included.
        """
        middle, last = int(self.bins.codes_of(np.array([centre], np.float32))[0]), len(self.below) - 2
        low, high = 0, last
        while low < high:
            reach = (low + high) // 2
            inside = self.below[min(middle + reach, last) + 1] - self.below[max(middle - reach, 0)]
            low, high = (low, reach) if inside >= wanted else (reach + 1, high)
        return middle - low - 2, middle + low + 2
