"""How many pairs of a set lie above any score, exactly and quickly? The interactive index of one metric.

Each pair gets a 16-bit bin of its score once. A count above a threshold is then the suffix sum over whole bins plus the
pairs of the one bin that the threshold cuts, which are compared by their scores. So a thousand thresholds cost about as
much as one, no set is ever sorted, and nothing is rounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from clipsel_core.curation import counts

T = TypeVar("T")

COARSE = 128
_BINS = 511 * COARSE
_NO_SCORE = 65_535
_BLOCK = 1 << 20


@dataclass(frozen=True)
class MetricBins:
    """A metric's scores and their bins. values: (N,) float32. codes: (N,) uint16, ascending with the score.

    low, high: the span of the finite scores. everything: (65408,) int64, what counts() gives for all pairs.
    """

    values: np.ndarray
    codes: np.ndarray
    low: float
    high: float
    everything: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> MetricBins:
        """The index of a metric. values: (N,) float32; NaN lies above no threshold."""
        low, high = counts.extent(values)
        codes = np.empty(len(values), np.uint16)

        def fill(part: slice) -> None:
            codes[part] = _codes(values[part], low, high)

        _in_parts(fill, len(values))
        return cls(values, codes, low, high, _counts(codes, None))

    def counts(self, mask: np.ndarray) -> np.ndarray:
        """Scored pairs of a mask, (N,) bool, in each of the fine bins: (65408,) int64."""
        return _counts(self.codes, mask)

    def edges(self) -> np.ndarray:
        """The scores between the coarse bins: (129,) float64."""
        return np.linspace(self.low, self.high, COARSE + 1)

    def above(
        self, mask: np.ndarray, fine: np.ndarray, thresholds: np.ndarray, inside: Scores | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """How many scored pairs of a mask lie above each threshold, and how many at or above it: two (T,) int64.

        fine: what counts(mask) gives. thresholds: (T,) float32 without NaN.
        """
        codes = _codes(thresholds, self.low, self.high)
        inside = inside or self.scores_in(mask, codes)
        higher = _suffix_sums(fine)[codes + 1]
        end = np.searchsorted(inside.codes, codes, side="right")
        more = end - np.searchsorted(inside.values, thresholds, side="right")
        same = end - np.searchsorted(inside.values, thresholds, side="left")
        return higher + more, higher + same

    def highest(self, mask: np.ndarray, fine: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, Scores]:
        """The score at each rank from the top of a mask's scored pairs: (T,) float32, NaN where the rank is 0.

        ranks: (T,) int64, at most as many as there are scored pairs. Also returns the scores it had to look at.
        """
        suffix = _suffix_sums(fine)
        codes = np.maximum(len(suffix) - 1 - np.searchsorted(suffix[::-1], np.maximum(ranks, 1), side="left"), 0)
        inside = self.scores_in(mask, codes)
        end = np.searchsorted(inside.codes, codes, side="right")
        found = np.full(len(ranks), np.nan, np.float32)
        asked = ranks > 0
        found[asked] = inside.values[(end - ranks + suffix[codes + 1])[asked]]
        return found, inside

    def scores_in(self, mask: np.ndarray, codes: np.ndarray) -> Scores:
        """The scores of a mask's pairs in certain bins, ascending."""
        rows = self.rows_in(mask, codes)
        values = np.sort(self.values[rows])
        return Scores(values, _codes(values, self.low, self.high))

    def rows_in(self, mask: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """The row numbers of a mask's pairs in certain bins, ascending: (M,) int64."""
        wanted = np.zeros(_NO_SCORE + 1, bool)
        wanted[codes] = True

        def find(part: slice) -> np.ndarray:
            return np.flatnonzero(mask[part] & wanted[self.codes[part]]) + part.start

        return np.concatenate([np.empty(0, np.int64), *_in_parts(find, len(self.codes))])

    def codes_of(self, thresholds: np.ndarray) -> np.ndarray:
        """The bins that thresholds, (T,) float32 without NaN, lie in: (T,) int64."""
        return _codes(thresholds, self.low, self.high)


@dataclass(frozen=True)
class Scores:
    """Scores in ascending order and the bins they lie in. values: (M,) float32. codes: (M,) int64."""

    values: np.ndarray
    codes: np.ndarray


def coarse(fine: np.ndarray) -> np.ndarray:
    """Fine counts in 128 bins for drawing: (128,) int64."""
    return fine.reshape(COARSE, -1).sum(1)


def _counts(codes: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    def count(part: slice) -> np.ndarray:
        return np.bincount(codes[part] if mask is None else codes[part][mask[part]], minlength=_NO_SCORE + 1)

    return sum(_in_parts(count, len(codes)), np.zeros(_NO_SCORE + 1, np.int64))[:_BINS]


def _suffix_sums(fine: np.ndarray) -> np.ndarray:
    """Pairs in a bin or in one above it: (bins + 1,) int64, the last one 0."""
    return np.concatenate([np.cumsum(fine[::-1])[::-1], [0]])


def _codes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The bin of each score. Rounding may move an edge, but never changes the order of two scores."""
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.float32(min(_BINS / (high - low), float(np.finfo(np.float32).max)))
        position = (values - np.float32(low)) * scale
        codes = np.clip(np.nan_to_num(position, nan=0.0), 0, _BINS - 1).astype(np.int64)
    codes[np.isnan(values)] = _NO_SCORE
    return codes


def _in_parts(work: Callable[[slice], T], length: int) -> list[T]:
    parts = [slice(start, min(start + _BLOCK, length)) for start in range(0, length, _BLOCK)]
    if len(parts) < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return list(threads.map(work, parts))
