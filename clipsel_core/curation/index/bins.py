"""Where does each pair stand by a metric, and how many pairs of a set stand above any place? The index of one metric.

Each pair has a 16-bit bin of its score, and all pairs stand in one order: by score, and of equal scores the smaller uid
higher, which is the rule by which keep_top chooses. A pair's place in that order is its rank, 0 for the worst. How many
pairs of a set stand at a rank or above is the sum over the bins above plus a walk through the one bin that the rank
cuts. So a thousand places cost about as much as one, no set is ever sorted, and nothing is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clipsel_core.curation.index import binning, bitmaps, counts, passes, rank_counts
from clipsel_core.curation.index.counts import Histogram
from clipsel_core.curation.index.rank_counts import Members
from clipsel_core.curation.index.score_order import Sorter
from clipsel_core.curation.index.sorting import Tally

COARSE = 128
FINE = 511 * COARSE
# Where more than this share of all pairs is asked for, looking at every pair is quicker than following the order.
_MANY = 1 / 16


@dataclass(frozen=True)
class Spread:
    """How a set's scored pairs lie over a metric.

    fine: (65408,) int64, pairs in each bin. suffix: (65409,) int64, pairs in a bin or in one above it, the last one 0.
    """

    fine: np.ndarray
    suffix: np.ndarray

    @classmethod
    def of(cls, fine: np.ndarray) -> Spread:
        """The spread with these counts."""
        return cls(fine, np.concatenate([np.cumsum(fine[::-1])[::-1], [0]]))

    @property
    def scored(self) -> int:
        """Pairs of the set that have the metric."""
        return int(self.suffix[0])

    @cached_property
    def coarse(self) -> np.ndarray:
        """The same counts in 128 bins for drawing: (128,) int64."""
        return self.fine.reshape(COARSE, -1).sum(1)


@dataclass(frozen=True)
class MetricBins:
    """A metric's scores, their bins and their order. Arrays may be mapped from files and must not be written to.

    values: (N,) float32. codes: (N,) uint16, ascending with the score; 65,535 where there is none.
    order: (scored,) uint32, the rows by rank. starts: (65409,) int64, the rank that each bin starts at.
    low, high: the span of the finite scores.
    """

    values: np.ndarray
    codes: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    low: float
    high: float

    @classmethod
    def of(
        cls,
        values: np.ndarray,
        sorter: Sorter | None = None,
        codes: np.ndarray | None = None,
        order: np.ndarray | None = None,
    ) -> MetricBins:
        """The index of a metric. values: (N,) float32; NaN is no score and has no rank.

        sorter: knows the order of the uids; None takes the order of the rows. codes, order: (N,) uint16 and uint32,
        where to put them, else in new memory.
        """
        low, high = counts.extent(values)
        codes = binning.codes(values, low, high, FINE, codes)
        tally, sorter = Tally.of(codes), sorter or Sorter(np.arange(len(values), dtype=np.uint32))
        order = sorter.order(values, (low, high), FINE, tally, order)
        starts = np.concatenate([[0], np.cumsum(tally.counts.sum(0)[:FINE])])
        return cls(values, passes.read_only(codes), passes.read_only(order), passes.read_only(starts), low, high)

    @cached_property
    def everything(self) -> np.ndarray:
        """Scored pairs in each of the fine bins: (65408,) int64."""
        return np.diff(self.starts)

    @cached_property
    def pool(self) -> Spread:
        """How all scored pairs lie over the fine bins."""
        return Spread.of(self.everything)

    @property
    def scored(self) -> int:
        """Pairs that have the metric; ranks run from 0 to this."""
        return len(self.order)

    def spread(self, bits: np.ndarray) -> Spread:
        """How the scored pairs of a bitmap lie over the fine bins."""
        if self.scored == len(self.codes) and bitmaps.count(bits) == self.scored:  # All of them: known without looking.
            return self.pool
        return self.spread_of(binning.histogram(self.codes, bits))

    def spread_of(self, counts: np.ndarray) -> Spread:
        """The spread of pairs that were counted by their codes: (65536,) int64."""
        return Spread.of(counts[:FINE])

    def edges(self) -> np.ndarray:
        """The scores between the coarse bins: (129,) float64."""
        return np.linspace(self.low, self.high, COARSE + 1)

    def codes_of(self, thresholds: np.ndarray) -> np.ndarray:
        """The bins that thresholds, (T,) float32 without NaN, lie in: (T,) int64."""
        return binning.codes(thresholds, self.low, self.high, FINE).astype(np.int64)

    def ranks_of_scores(self, thresholds: np.ndarray, *, above: bool = False) -> np.ndarray:
        """The first rank whose score is at each threshold or above it, or only above it: (T,) int64.

        thresholds: (T,) float32 without NaN. `scored` where no pair is so high.
        """
        codes = self.codes_of(thresholds)
        return rank_counts.ranks_of_scores(self.order, self.values, self.starts, codes, thresholds, above)

    def histogram(self, bins: int) -> Histogram:
        """Scored pairs in equal bins over the span, as counts.histogram counts them, without looking at each."""
        edges = np.linspace(self.low, self.high, bins + 1)
        below = self.ranks_of_scores(float32_up(edges))
        below[-1] = self.ranks_of_scores(np.array([self.high], np.float32), above=True)[0]
        return Histogram(edges, np.diff(below))

    def scores_at(self, ranks: np.ndarray) -> np.ndarray:
        """The score at each rank: (T,) float32, NaN at rank `scored`."""
        found = np.full(len(ranks), np.nan, np.float32)
        there = ranks < self.scored
        found[there] = self.values[self.order[ranks[there]]]
        return found

    def below(self, ranks: np.ndarray) -> np.ndarray:
        """Scored pairs under the score at each rank, all of them under rank `scored`: (T,) int64."""
        return rank_counts.ranks_below(self.order, self.values, ranks)

    def counts_from(self, members: Members, spread: Spread, ranks: np.ndarray) -> np.ndarray:
        """Pairs of a set at each rank or above: (T,) int64. spread: of the same set."""
        return rank_counts.counts_from(self.order, members, self.starts, spread.suffix, ranks)

    def ranks_of_top(self, members: Members, spread: Spread, most: np.ndarray) -> np.ndarray:
        """The ranks from which on a set has just so many pairs: (T,) int64, `scored` for none.

        most: (T,) int64, at most as many as the set has scored pairs. spread: of the same set.
        """
        return rank_counts.ranks_of(self.order, members, self.starts, spread.suffix, most)

    def counts_near(self, spread: Spread, ranks: np.ndarray) -> np.ndarray:
        """About how many pairs of a set stand at each rank or above: (T,) int64, exact but for the bin of the rank.

        In that bin the set is taken to be spread as all pairs are.
        """
        cut = np.minimum(np.searchsorted(self.starts, ranks, side="right") - 1, FINE - 1)
        share = (self.starts[cut + 1] - ranks) / np.maximum(self.everything[cut], 1)
        return spread.suffix[cut + 1] + np.rint(share * spread.fine[cut]).astype(np.int64)

    def ranks_near_top(self, spread: Spread, most: np.ndarray) -> np.ndarray:
        """About the ranks that ranks_of_top finds: (T,) int64, in the very same bins; guessed as above."""
        cut = np.minimum(FINE - np.searchsorted(spread.suffix[::-1], most), FINE - 1)
        share = (most - spread.suffix[cut + 1]) / np.maximum(spread.fine[cut], 1)
        above = np.maximum(np.rint(share * self.everything[cut]).astype(np.int64), np.minimum(most, 1))
        return np.where(most > 0, self.starts[cut + 1] - above, self.scored)

    def side(self, bits: np.ndarray, rank: int, *, upwards: bool) -> Members:
        """Pairs of a bitmap at a rank or above, or below it, without a look at each of them."""
        cut = self.bin_of(rank)
        if upwards:
            whole, part = (cut + 1, FINE - 1), self.order[rank : self.starts[cut + 1]]
        else:
            whole, part = (0, cut - 1), self.order[self.starts[cut] : rank]
        return Members(bits, self.codes, *whole, cut, np.sort(part))

    def in_bin_of(self, rank: int) -> int:
        """Scored pairs in the bin that a rank cuts."""
        cut = self.bin_of(rank)
        return int(self.starts[cut + 1] - self.starts[cut])

    def from_rank(self, bits: np.ndarray, rank: int) -> np.ndarray:
        """Pairs of a bitmap at a rank or above: a bitmap."""
        cut = self.bin_of(rank)
        out = binning.between(self.codes, bits, cut + 1, FINE - 1)
        bitmaps.add_rows(self.order[rank : self.starts[cut + 1]], bits, out)
        return passes.read_only(out)

    def below_rank(self, bits: np.ndarray, rank: int) -> np.ndarray:
        """Scored pairs of a bitmap below a rank: a bitmap."""
        cut = self.bin_of(rank)
        out = binning.between(self.codes, bits, 0, cut - 1)
        bitmaps.add_rows(self.order[self.starts[cut] : rank], bits, out)
        return passes.read_only(out)

    def above(self, bits: np.ndarray, fine: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many scored pairs of a bitmap lie above each threshold, and how many at or above it: two (T,) int64.

        fine: how they lie over the fine bins. thresholds: (T,) float32 without NaN.
        """
        spread = Spread.of(fine)
        higher, at = (self.ranks_of_scores(thresholds, above=above) for above in (True, False))
        return self.counts_from(Members(bits), spread, higher), self.counts_from(Members(bits), spread, at)

    def rows_in(self, bits: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """The row numbers of a bitmap's pairs in certain bins, ascending: (M,) int64."""
        wanted = np.unique(codes)
        if int(self.everything[wanted].sum()) <= len(self.codes) * _MANY:
            slices = [self.order[self.starts[code] : self.starts[code + 1]] for code in wanted.tolist()]
            rows = np.sort(np.concatenate([np.empty(0, np.uint32), *slices])).astype(np.int64)
            return rows[bitmaps.holds(bits, rows)]
        is_wanted = np.zeros(binning.CODES, bool)
        is_wanted[wanted] = True

        def find(start: int, stop: int) -> np.ndarray:
            listed = bitmaps.unpack(bits, stop - start, start)
            return np.flatnonzero(listed & is_wanted[self.codes[start:stop]]) + start

        return np.concatenate([np.empty(0, np.int64), *passes.in_parts(find, len(self.codes))])

    def bin_of(self, rank: int) -> int:
        """The last bin that starts at a rank or below it."""
        return min(int(np.searchsorted(self.starts, rank, side="right")) - 1, FINE - 1)


def float32_up(values: np.ndarray) -> np.ndarray:
    """The smallest float32 not below each float64: comparing scores with it compares them with the number."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    return np.where(near < values, np.nextafter(near, np.float32(np.inf)), near)
