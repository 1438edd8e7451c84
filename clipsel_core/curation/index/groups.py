"""What is the mean of some metrics in each of several groups of pairs: percentiles of a metric, or kinds?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipsel_core.curation.index import passes
from clipsel_core.curation.index.bins import MetricBins

_NO_GROUP = -1


@dataclass(frozen=True)
class GroupMeans:
    """means: (groups, metrics) float64, NaN where a group is empty. counts: (groups,) int64, the pairs averaged."""

    means: np.ndarray
    counts: np.ndarray


def percentile_groups(metric: MetricBins, groups: int) -> np.ndarray:
    """The group of each pair: floor(groups * share of the scored pairs that score less), so that ties stay together.

    groups: 1 to 32767. Returns: (N,) int16, -1 where there is no score.
    """
    out = np.full(len(metric.values), _NO_GROUP, np.int16)
    if not metric.scored:
        return out
    # The k-th group begins where ceil(k * scored / groups) pairs score less: above the last of those.
    firsts = np.array([-(-k * metric.scored // groups) for k in range(1, groups)], np.int64)
    ends = metric.scores_at(firsts - 1)

    def fill(start: int, stop: int) -> None:
        block = metric.values[start:stop]
        out[start:stop] = np.where(np.isnan(block), _NO_GROUP, np.searchsorted(ends, block, side="left"))

    passes.in_parts(fill, len(out))
    return out


def group_means(group_of: np.ndarray, groups: int, columns: list[np.ndarray]) -> GroupMeans:
    """Means of several metrics by group, over the pairs that have all of them.

    group_of: (N,) integers below `groups`, negative for pairs in no group. columns: (N,) float32 each.
    """

    def work(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        group, parts = group_of[start:stop], [column[start:stop] for column in columns]
        whole = group >= 0
        for values in parts:
            whole &= ~np.isnan(values)
        group = group[whole]
        sums = [np.bincount(group, weights=values[whole], minlength=groups) for values in parts]
        return np.stack(sums, axis=1), np.bincount(group, minlength=groups)

    sums, counts = np.zeros((groups, len(columns))), np.zeros(groups, np.int64)
    for some, pairs in passes.in_parts(work, len(group_of)):
        sums += some
        counts += pairs
    with np.errstate(invalid="ignore"):
        return GroupMeans(sums / counts[:, None], counts)
