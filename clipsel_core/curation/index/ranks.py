"""Where do two metrics disagree about a pair's rank?

A pair's percentile rank by a metric is the share of the pairs below it plus half of those that tie with it, which is
what average ranks come to. Only pairs that have both metrics count.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from clipsel_core import tasks
from clipsel_core.curation.index import concordance, ordering, passes
from clipsel_core.curation.index.bins import MetricBins
from clipsel_core.curation.index.saving import save
from clipsel_core.files import write_atomically
from clipsel_core.tasks import Report, silent

_BITS = 16
_SIGNS = {"first": 0, "second": 1}
_MOST_KEPT = 4
_log = logging.getLogger(__name__)


End = Literal["first", "second"]


@dataclass(frozen=True)
class Disagreement:
    """Two metrics' ranks side by side. pairs: those that have both metrics, M.

    counts: (bins, bins) int64, pairs by percentile rank of the first metric and of the second.
    spearman: correlation of the ranks in [-1, 1], NaN where a metric is the same for all pairs.
    gaps: (N,) int32, by how much the first metric ranks a pair higher, in 1 / (2 M); 0 also for pairs that lack one.
    """

    pairs: int
    counts: np.ndarray
    spearman: float
    gaps: np.ndarray

    @cached_property
    def _shift(self) -> int:
        """By how many bits the size of a gap is shifted to find its bin."""
        return max(0, (2 * self.pairs).bit_length() - _BITS)

    @cached_property
    def _above(self) -> np.ndarray:
        """Pairs in each bin of sizes or above it, by sign: (2, bins) int64."""
        sizes = concordance.gap_sizes(self.gaps, self._shift, 1 << _BITS)
        return np.cumsum(sizes[:, ::-1], axis=1)[:, ::-1]

    def listed(self, end: End) -> int:
        """Pairs that this metric ranks higher than the other one does."""
        return int(self._above[_SIGNS[end], 0])

    def points(self, rows: np.ndarray) -> np.ndarray:
        """How far apart the ranks of some pairs are, in percent of the pairs: (len(rows),) float64."""
        return np.abs(self.gaps[rows]) * (50 / max(self.pairs, 1))

    def page(self, end: End, *, offset: int = 0, limit: int = 48) -> np.ndarray:
        """The pairs that one metric ranks higher than the other, from a place on, the largest difference first.

        Returns rows, (M,) int64, `limit` at most; equal differences come in the order of the rows.
        """
        above, listed = self._above[_SIGNS[end]], self.listed(end)
        stop = min(offset + limit, listed)
        if offset >= stop:
            return np.empty(0, np.int64)
        # Bins hold the sizes from `above` falling: the last bin that has more pairs in it or above than a place.
        first, last = (int(np.searchsorted(-above, -place, side="left")) - 1 for place in (offset, stop - 1))
        low, high = max(1, last << self._shift), ((first + 1) << self._shift) - 1
        bounds = (low, high) if end == "first" else (-high, -low)

        def find(start: int, stop: int) -> np.ndarray:
            gaps = self.gaps[start:stop]
            return np.flatnonzero((gaps >= bounds[0]) & (gaps <= bounds[1])) + start

        rows = np.concatenate(passes.in_parts(find, len(self.gaps)))
        before = int(above[first + 1]) if first + 1 < len(above) else 0
        return ordering.page_of(-np.abs(self.gaps[rows]), rows, offset - before, limit)


def kept(found: Disagreement, folder: Path, name: str) -> Disagreement:
    """The same with its gaps mapped from a file, 4 bytes a pair less in memory. name: of the two metrics there.

    Only the few that were looked at last are kept. Where the folder cannot be written to, they stay in memory.
    """
    path = folder / f"gaps-{name}.npy"
    try:
        if not path.exists():
            write_atomically(path, lambda aside: save(aside, found.gaps))
        for other in sorted(folder.glob("gaps-*.npy"), key=lambda file: file.stat().st_mtime)[:-_MOST_KEPT]:
            if other != path:
                other.unlink(missing_ok=True)
        gaps = np.load(path, mmap_mode="r", allow_pickle=False)
        return replace(found, gaps=passes.read_only(gaps))
    except (OSError, ValueError) as error:
        _log.warning("ranks are not kept in %s: %s", folder, error)
        return found


def disagreement(x: MetricBins, y: MetricBins, *, bins: int = 128, report: Report = silent) -> Disagreement:
    """How two metrics of a run rank the same pairs. bins: cells of the density along each axis."""
    report(0, 10)
    both = ~(np.isnan(x.values) | np.isnan(y.values))
    with ThreadPoolExecutor(2) as threads:
        ranked = tasks.in_threads(
            threads, lambda metric: concordance.doubled_ranks(metric.values, metric.order, both), (x, y)
        )
    rank_x, rank_y = ranked
    report(7, 10)
    pairs = int(np.count_nonzero(both))
    counts, (xy, xx, yy) = concordance.compare_ranks(rank_x, rank_y, bins, pairs)
    spearman = xy / np.sqrt(xx * yy) if xx * yy else np.nan
    report(9, 10)
    gaps = np.subtract(rank_x, rank_y, out=rank_x)
    return Disagreement(pairs, counts, float(spearman), passes.read_only(gaps))


@dataclass(frozen=True)
class Standing:
    """A score's place among all. rank: 1 for the highest; equal scores share it. scored: pairs that have the metric.

    percentile: the percentage of them that score less.
    """

    rank: int
    scored: int
    percentile: float


def standing(metric: MetricBins, value: float) -> Standing:
    """Where a score stands among those of its metric."""
    asked = np.array([value], np.float32)
    not_above, below = (int(metric.ranks_of_scores(asked, above=above)[0]) for above in (True, False))
    return Standing(metric.scored - not_above + 1, metric.scored, 100 * below / max(metric.scored, 1))
