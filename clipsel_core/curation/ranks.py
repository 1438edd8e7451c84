"""Where do two metrics disagree about a pair's rank?

A pair's percentile rank by a metric is the share of the pairs below it plus half of those that tie with it, which is
what average ranks come to. Only pairs that have both metrics count.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from clipsel_core.curation import concordance, ordering
from clipsel_core.curation.bins import MetricBins


@dataclass(frozen=True)
class Extreme:
    """Pairs at one end of the differences, the largest first. rows: (M,) int64.

    x, y: (M,) float64, their percentile ranks by the two metrics, in percent.
    """

    rows: np.ndarray
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Disagreement:
    """Two metrics' ranks side by side. pairs: those that have both metrics, M.

    counts: (bins, bins) int64, pairs by percentile rank of the first metric and of the second.
    spearman: correlation of the ranks in [-1, 1], NaN where a metric is the same for all pairs.
    first_likes: pairs that the first metric ranks highest above the second. second_likes: the reverse.
    """

    pairs: int
    counts: np.ndarray
    spearman: float
    first_likes: Extreme
    second_likes: Extreme


def disagreement(x: MetricBins, y: MetricBins, *, bins: int = 128, most: int = 2_000) -> Disagreement:
    """How two metrics of a run rank the same pairs.

    bins: cells of the density along each axis. most: how many pairs to name at either end; pairs that both metrics rank
    alike are named at neither.
    """
    both = ~(np.isnan(x.values) | np.isnan(y.values))
    with ThreadPoolExecutor(2) as threads:
        ranked = threads.map(lambda metric: concordance.doubled_ranks(metric.values, metric.order, both), (x, y))
    rows = None if both.all() else np.flatnonzero(both)
    rank_x, rank_y = (ranks if rows is None else ranks[rows] for ranks in ranked)
    counts, (xy, xx, yy) = concordance.compare_ranks(rank_x, rank_y, bins)
    spearman = xy / np.sqrt(xx * yy) if xx * yy else np.nan
    gap = rank_x - rank_y
    with ThreadPoolExecutor(2) as threads:
        ends = list(threads.map(lambda keys: _smallest(keys, most), (-gap, gap)))
    percent = 50 / max(len(gap), 1)
    likes = [Extreme(end if rows is None else rows[end], rank_x[end] * percent, rank_y[end] * percent) for end in ends]
    return Disagreement(len(gap), counts, float(spearman), *likes)


def _smallest(keys: np.ndarray, most: int) -> np.ndarray:
    """The places of the smallest keys, ascending, as far as they are below 0; equal keys in order."""
    last = min(most, len(keys)) - 1
    near = np.flatnonzero(keys <= np.partition(keys, last)[last]) if last >= 0 else np.empty(0, np.int64)
    found = ordering.page_of(keys[near], near, 0, most)
    return found[keys[found] < 0]


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
