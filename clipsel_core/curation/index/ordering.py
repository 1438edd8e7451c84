"""Which pairs come first: the exact top k of a metric, and pages of an ordering, without sorting the whole pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from clipsel_core import uids


def count_of_fraction(fraction: Fraction, pairs: int) -> int:
    """floor(fraction * pairs) without rounding: 29/100 of 100 is 29, where 0.29 * 100 in floats is 28.999..."""
    return fraction.numerator * pairs // fraction.denominator


@dataclass(frozen=True)
class Shares:
    """Fractions with one denominator, ascending. parts: (P,) int64. whole: what they are parts of.

    >>> Shares.evenly(4).counts(10)
    array([ 0,  2,  5,  7, 10])
    """

    parts: np.ndarray
    whole: int

    @classmethod
    def evenly(cls, whole: int) -> Shares:
        """0, 1 / whole, 2 / whole and so on to 1."""
        return cls(np.arange(whole + 1), whole)

    def __len__(self) -> int:
        return len(self.parts)

    def counts(self, pairs: int) -> np.ndarray:
        """floor(share * pairs) of each, without rounding: (P,) int64."""
        return self.parts * pairs // self.whole


def counts_of_fraction(fraction: Fraction, pairs: np.ndarray) -> np.ndarray:
    """floor(fraction * pairs) of each number of pairs, (P,) int64, without rounding: (P,) int64."""
    exact = fraction.numerator * int(pairs.max(initial=0)) < 2**63
    found = (pairs if exact else pairs.astype(object)) * fraction.numerator // fraction.denominator
    return found.astype(np.int64)


def keep_top(
    values: np.ndarray, allowed: np.ndarray, k: int, uids_at: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, float | None]:
    """The k allowed pairs with the highest values; equal values go to the smaller uid; NaN is never kept.

    values: (N,) float32. allowed: (N,) bool. uids_at: from (M,) rows to (M,) UID_DTYPE; asked only for the pairs that
        tie at the threshold.
    Returns: (N,) bool, with fewer than k set where fewer are allowed; and the lowest value kept, None where none is.
    """
    candidates = allowed & ~np.isnan(values)
    count = int(np.count_nonzero(candidates))
    k = min(k, count)
    if k == 0:
        return np.zeros(len(values), bool), None
    if k == count:
        return candidates, float(values[candidates].min())
    chosen = values[candidates]
    chosen.partition(count - k)
    threshold = chosen[count - k]
    kept = candidates & (values > threshold)
    wanted = k - int(np.count_nonzero(kept))
    ties = np.flatnonzero(candidates & (values == threshold))
    if len(ties) > wanted:
        ties = ties[uids.argsort(uids_at(ties))[:wanted]]
    kept[ties] = True
    return kept, float(threshold)


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
