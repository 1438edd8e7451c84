"""How is a metric spread over the run? Fine counts, and the percentiles read off them; never the scores themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clipsel_core.curation.index import counts
from pages.parts import state
from pages.parts.catalog import Entry


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
    return of_bits(entry, metric, None)


def scale(entry: Entry, metric: str) -> tuple[float, float, float]:
    """The range of a metric and a decimal step of a 500th of it or less, so that thresholds are short numbers."""
    low, high = state.open_table(entry).extent(metric)
    pace = float(10.0 ** np.floor(np.log10((high - low) / 500)))
    shown = digits(pace)
    return round(float(np.floor(low / pace) * pace), shown), round(float(np.ceil(high / pace) * pace), shown), pace


def digits(pace: float) -> int:
    """How many digits numbers have behind the point that are so far apart."""
    return max(0, round(-np.log10(pace)))


def short_quantiles(entry: Entry, metric: str, percents: tuple[float, ...]) -> list[float]:
    """The scores below which these percentages of the pairs lie, as short numbers; 0 where no pair has a score."""
    spread, shown = marginal(entry, metric), digits(scale(entry, metric)[2])
    return [round(float(np.nan_to_num(spread.quantile(percent))), shown) for percent in percents]


def of_bits(entry: Entry, metric: str, bits: np.ndarray | None) -> Marginal:
    """The spread of a metric over the pairs of a bitmap; over all pairs where it is None."""
    ranking = state.ranking(entry, metric)
    counts = ranking.everything if bits is None else ranking.spread(bits).fine
    return Marginal(np.linspace(ranking.low, ranking.high, len(counts) + 1), np.concatenate([[0], np.cumsum(counts)]))


def of_values(values: np.ndarray, like: Marginal) -> Marginal:
    """The spread of some scores, (M,) floats, in the bins of another's, so that the two can be compared."""
    span = float(like.edges[0]), float(like.edges[-1])
    found = counts.histogram(values, len(like.edges) - 1, span).counts
    return Marginal(like.edges, np.concatenate([[0], np.cumsum(found)]))
