"""Where does each pair stand by a metric, and how many pairs of a set stand above any place?

Each pair has a 16-bit bin of its score, and all pairs stand in one order: by score, and of equal scores the smaller uid
higher, which is the rule by which keep_top chooses. A pair's place in that order is its rank, 0 for the worst. How many
pairs of a set stand at a rank or above is the sum over the bins above, and a look at the pairs of the one bin that the
rank cuts. So a thousand places cost about as much as one, no set is ever sorted, and nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np

from clipsel_core import uids
from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.sorting import Sorter
from clipsel_core.npy import load_or_make
from clipsel_core.tasks import allowed_cores

# From rows, (M,) integers, to which of them are in a set, (M,) bool.
Holds = Callable[[np.ndarray], np.ndarray]

COARSE = 128
FINE = 511 * COARSE
NO_SCORE = bitmaps.CODES - 1
# Where more than this share of all pairs is asked for, looking at every pair is quicker than following the order.
_MANY = 1 / 16
_FIRST_LOOK = 1 << 12
_LEVELS = 64


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
class Ranking:
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
    def of(cls, values: np.ndarray, sorter: Sorter | None = None) -> Ranking:
        """The ranking by a metric. values: (N,) float32; NaN is no score and has no rank.

        sorter: knows the order of the uids; None takes the order of the rows.
        """
        low, high = extent(values)
        codes = bin_codes(values, low, high)
        sizes = bitmaps.counts_by_code(codes, bitmaps.first(len(codes)))[:FINE]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        sorter = sorter or Sorter(np.arange(len(values), dtype=np.uint32))
        order = sorter.order(values, codes, int(starts[-1]))
        return cls(values, bitmaps.read_only(codes), bitmaps.read_only(order), bitmaps.read_only(starts), low, high)

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
        if self.scored == len(self.codes) and bitmaps.pairs_in(bits) == self.scored:
            return self.pool  # All of them: known without looking.
        return Spread.of(bitmaps.counts_by_code(self.codes, bits)[:FINE])

    def edges(self) -> np.ndarray:
        """The scores between the coarse bins: (129,) float64."""
        return np.linspace(self.low, self.high, COARSE + 1)

    def codes_of(self, thresholds: np.ndarray) -> np.ndarray:
        """The bins that thresholds, (T,) float32 without NaN, lie in: (T,) int64."""
        return bin_codes(thresholds, self.low, self.high).astype(np.int64)

    def bins_of(self, ranks: np.ndarray) -> np.ndarray:
        """The last bin that starts at each rank or below it: (T,) int64."""
        return np.minimum(np.searchsorted(self.starts, ranks, side="right") - 1, FINE - 1)

    def ranks_of_scores(self, thresholds: np.ndarray, *, above: bool = False) -> np.ndarray:
        """The first rank whose score is at each threshold or above it, or only above it: (T,) int64.

        thresholds: (T,) float32 without NaN. `scored` where no pair is so high.
        """
        bins = self.codes_of(thresholds)
        first, last = self.starts[bins], self.starts[bins + 1]
        while len(left := np.flatnonzero(first < last)):  # By halving, all at once.
            middle = (first[left] + last[left]) // 2
            found, asked = self.values[self.order[middle]], thresholds[left]
            higher = found <= asked if above else found < asked
            first[left] = np.where(higher, middle + 1, first[left])
            last[left] = np.where(higher, last[left], middle)
        return first

    def scores_at(self, ranks: np.ndarray) -> np.ndarray:
        """The score at each rank: (T,) float32, NaN at rank `scored`."""
        found = np.full(len(ranks), np.nan, np.float32)
        there = ranks < self.scored
        found[there] = self.values[self.order[ranks[there]]]
        return found

    def below(self, ranks: np.ndarray) -> np.ndarray:
        """Scored pairs under the score at each rank, all of them under rank `scored`: (T,) int64."""
        found, scores = np.full(len(ranks), self.scored), self.scores_at(ranks)
        there = ranks < self.scored
        found[there] = self.ranks_of_scores(scores[there])
        return found

    def counts_from(self, holds: Holds, spread: Spread, ranks: np.ndarray) -> np.ndarray:
        """Pairs of a set at each rank or above: (T,) int64.

        holds: says which pairs are in the set. spread: of the same set. ranks: (T,) int64 from 0 to `scored`.
        """
        cut = self.bins_of(ranks)
        found, inside = spread.suffix[cut], np.flatnonzero(ranks > self.starts[cut])
        if len(inside):
            cut, place = np.unique(cut[inside], return_inverse=True)
            starts, held = self._held_before(holds, cut)
            first = starts[place]
            found[inside] -= held[first + ranks[inside] - self.starts[cut][place]] - held[first]
        return found

    def ranks_of_top(self, holds: Holds, spread: Spread, most: np.ndarray) -> np.ndarray:
        """The ranks from which on a set has just so many pairs: (T,) int64, `scored` for none.

        most: (T,) int64, at most as many as the set has scored pairs. holds, spread: of the set, as in counts_from.
        """
        found, some = np.full(len(most), self.scored), np.flatnonzero(most)
        if len(some):
            cut, place = np.unique(FINE - np.searchsorted(spread.suffix[::-1], most[some]), return_inverse=True)
            starts, held = self._held_before(holds, cut)
            # The bin's pairs that stand below the one that is sought, and itself.
            upto = spread.suffix[cut][place] - most[some] + 1
            at = np.searchsorted(held, held[starts[place]] + upto)
            found[some] = self.starts[cut][place] + at - starts[place] - 1
        return found

    def _held_before(self, holds: Holds, bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of some bins, (K,) ascending, one after another: where each bin starts, (K,) int64, and how many
        before each place are in a set, one entry more than there are pairs."""
        slices = [self.order[self.starts[one] : self.starts[one + 1]] for one in bins.tolist()]
        held = np.cumsum(holds(np.concatenate(slices)))
        return np.cumsum([0, *map(len, slices[:-1])]), np.concatenate([[0], held])

    def counts_near(self, spread: Spread, ranks: np.ndarray) -> np.ndarray:
        """About how many pairs of a set stand at each rank or above: (T,) int64, exact but for the bin of the rank.

        In that bin the set is taken to be spread as all pairs are.
        """
        cut = self.bins_of(ranks)
        share = (self.starts[cut + 1] - ranks) / np.maximum(self.everything[cut], 1)
        return spread.suffix[cut + 1] + np.rint(share * spread.fine[cut]).astype(np.int64)

    def ranks_near_top(self, spread: Spread, most: np.ndarray) -> np.ndarray:
        """About the ranks that ranks_of_top finds: (T,) int64, in the very same bins; guessed as above."""
        cut = np.minimum(FINE - np.searchsorted(spread.suffix[::-1], most), FINE - 1)
        share = (most - spread.suffix[cut + 1]) / np.maximum(spread.fine[cut], 1)
        above = np.maximum(np.rint(share * self.everything[cut]).astype(np.int64), np.minimum(most, 1))
        return np.where(most > 0, self.starts[cut + 1] - above, self.scored)

    def stand_from(self, rank: int, rows: np.ndarray) -> np.ndarray:
        """Which of some pairs, (M,) rows, stand at a rank or above: (M,) bool."""
        cut, codes = int(self.bins_of(np.array([rank]))[0]), self.codes[rows]
        found, at = (codes > cut) & (codes != NO_SCORE), np.flatnonzero(codes == cut)
        found[at] = np.isin(rows[at], self.order[rank : self.starts[cut + 1]])
        return found

    def from_rank(self, bits: np.ndarray, rank: int) -> np.ndarray:
        """Pairs of a bitmap at a rank or above: a bitmap."""
        cut = int(self.bins_of(np.array([rank]))[0])
        out = bitmaps.between(self.codes, bits, cut + 1, FINE - 1)
        return _with_rows(out, bits, self.order[rank : self.starts[cut + 1]])

    def below_rank(self, bits: np.ndarray, rank: int) -> np.ndarray:
        """Scored pairs of a bitmap below a rank: a bitmap."""
        cut = int(self.bins_of(np.array([rank]))[0])
        out = bitmaps.between(self.codes, bits, 0, cut - 1)
        return _with_rows(out, bits, self.order[self.starts[cut] : rank])

    def between(self, bits: np.ndarray, low: float, high: float) -> np.ndarray:
        """Pairs of a bitmap whose score lies in an interval, its ends included and compared as numbers: a bitmap."""
        first = self.ranks_of_scores(float32_up(np.array([low])))[0]
        last = self.ranks_of_scores(-float32_up(np.array([-high])), above=True)[0]
        return self.below_rank(self.from_rank(bits, int(first)), int(last))

    def nearest(self, bits: np.ndarray, rank: int, most: int, *, upwards: bool) -> np.ndarray:
        """The bitmap's pairs that are next to a rank, the nearest first, `most` at most: (M,) int64 rows.

        upwards: from the rank on; else below it.
        """
        rows = self.order[rank:] if upwards else self.order[:rank][::-1]
        found, start, size = [np.empty(0, np.int64)], 0, _FIRST_LOOK
        while most > 0 and start < len(rows):
            some = rows[start : start + size]
            found.append(some[bitmaps.holds(bits, some)][:most].astype(np.int64))
            most, start, size = most - len(found[-1]), start + size, 2 * size
        return np.concatenate(found)

    def rows_in(self, bits: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """The row numbers of a bitmap's pairs in certain bins, ascending: (M,) int64."""
        wanted = np.unique(codes)
        if int(self.everything[wanted].sum()) <= len(self.codes) * _MANY:
            slices = [self.order[self.starts[code] : self.starts[code + 1]] for code in wanted.tolist()]
            rows = np.sort(np.concatenate([np.empty(0, np.uint32), *slices])).astype(np.int64)
            return rows[bitmaps.holds(bits, rows)]
        is_wanted = np.zeros(bitmaps.CODES, bool)
        is_wanted[wanted] = True

        def find(start: int, stop: int) -> np.ndarray:
            listed = bitmaps.unpack(bits, stop - start, start)
            return np.flatnonzero(listed & is_wanted[self.codes[start:stop]]) + start

        return np.concatenate([np.empty(0, np.int64), *bitmaps.in_parts(find, len(self.codes))])


@dataclass(frozen=True)
class PrefixCounts:
    """How the pairs of a set that stand from a rank of one metric on lie over the bins of another.

    Their counts are kept at 64 ranks of the order; from the nearest of these only the pairs between are walked through.
    Beside an index they are kept in a file of 17 MB: at 128 million pairs counting takes all cores for seconds.

    order: (scored,) uint32, rows by rank. codes: (N,) uint16, their bins. bits: the set, a bitmap.
    ranks: (65,) int64, where sums were taken. sums: (65, 65536) uint32, pairs at that rank or above it, by code.
    """

    order: np.ndarray
    codes: np.ndarray
    bits: np.ndarray
    ranks: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, order: np.ndarray, codes: np.ndarray, bits: np.ndarray, file: Path | None = None) -> PrefixCounts:
        """Counts a set once. The rest as above.

        file: where the counts of just these are kept, or will be; None keeps none. Anything may delete it.
        """
        order, codes, bits = bitmaps.read_only(order), bitmaps.read_only(codes), bitmaps.read_only(bits)
        ranks = np.linspace(0, len(order), _LEVELS + 1).astype(np.int64)

        def count() -> np.ndarray:
            sums = np.zeros((_LEVELS + 1, bitmaps.CODES), np.uint32)
            # Threads of their own, and not all cores: whoever waits for a page comes first.
            with ThreadPoolExecutor(max(1, allowed_cores() // 2), "crossing") as threads:
                list(threads.map(lambda *part: _walk(order, codes, bits, *part), ranks, ranks[1:], [1] * _LEVELS, sums))
            return np.cumsum(sums[::-1], axis=0, dtype=np.uint32)[::-1]

        sums = load_or_make(file, (_LEVELS + 1, bitmaps.CODES), np.uint32, count)
        return cls(order, codes, bits, ranks, sums)

    def from_rank(self, rank: int) -> np.ndarray:
        """Pairs at a rank or above it, by code: (65536,) int64."""
        level = int(np.argmin(np.abs(self.ranks - rank)))
        found, known = self.sums[level].astype(np.int64), self.ranks[level]
        # What lies between is missing from the counts, or has to leave them.
        sign = 1 if rank < known else -1
        _walk(self.order, self.codes, self.bits, min(rank, known), max(rank, known), sign, found)
        return found

    def below_rank(self, rank: int) -> np.ndarray:
        """Pairs that have a rank, below this one, by code: (65536,) int64."""
        return self.sums[0].astype(np.int64) - self.from_rank(rank)


@dataclass(frozen=True)
class Standing:
    """A score's place among all. rank: 1 for the highest; equal scores share it. scored: pairs that have the metric.

    percentile: the percentage of them that score less.
    """

    rank: int
    scored: int
    percentile: float


def standing(metric: Ranking, value: float) -> Standing:
    """Where a score stands among those of its metric."""
    asked = np.array([value], np.float32)
    not_above, below = (int(metric.ranks_of_scores(asked, above=above)[0]) for above in (True, False))
    return Standing(metric.scored - not_above + 1, metric.scored, 100 * below / max(metric.scored, 1))


def percentile_groups(metric: Ranking, groups: int) -> np.ndarray:
    """The group of each pair: floor(groups * share of the scored pairs that score less), so that ties stay together.

    groups: 1 to 32767. Returns: (N,) int16, -1 where there is no score.
    """
    out = np.full(len(metric.values), -1, np.int16)
    if not metric.scored:
        return out
    # The k-th group begins where ceil(k * scored / groups) pairs score less: above the last of those.
    firsts = np.array([-(-k * metric.scored // groups) for k in range(1, groups)], np.int64)
    ends = metric.scores_at(firsts - 1)

    def fill(start: int, stop: int) -> None:
        block = metric.values[start:stop]
        out[start:stop] = np.where(np.isnan(block), -1, np.searchsorted(ends, block, side="left"))

    bitmaps.in_parts(fill, len(out))
    return out


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


def extent(values: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest finite value; (0, 1) where there is none.

    Where all are equal it is a span of 1 around them; of large ones a wider one, as float64 holds no such span there.
    """

    def ends(start: int, stop: int) -> tuple[float, float]:
        part = values[start:stop]
        finite = part[np.isfinite(part)]
        return float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf))

    found = bitmaps.in_parts(ends, len(values))
    low, high = min((low for low, _ in found), default=np.inf), max((high for _, high in found), default=-np.inf)
    if low > high:
        return 0.0, 1.0
    half = max(0.5, abs(low) * 2.0**-20)
    return (low, high) if low < high else (low - half, high + half)


def bin_codes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The bin of each score over a span, beyond it the first or the last, NO_SCORE for NaN: (N,) uint16.

    Rounding may move an edge, but never changes the order of two scores.
    """
    out = np.empty(len(values), np.uint16)
    with np.errstate(over="ignore"):
        scale = np.float32(min(FINE / (high - low), float(np.finfo(np.float32).max)))

    def fill(start: int, stop: int) -> None:
        part = values[start:stop]
        with np.errstate(over="ignore", invalid="ignore"):  # Infinity less infinity lies in the first bin.
            place = np.fmin(np.fmax((part - np.float32(low)) * scale, 0), FINE - 1)
        out[start:stop] = place
        out[start:stop][np.isnan(part)] = NO_SCORE

    bitmaps.in_parts(fill, len(values))
    return out


def float32_up(values: np.ndarray) -> np.ndarray:
    """The smallest float32 not below each float64: comparing scores with it compares them with the number."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    return np.where(near < values, np.nextafter(near, np.float32(np.inf)), near)


def _with_rows(out: np.ndarray, bits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A bitmap, and those of some rows that another one holds."""
    held = rows[bitmaps.holds(bits, rows)]
    np.bitwise_or.at(out, held >> 3, (1 << (held & 7)).astype(np.uint8))
    return bitmaps.read_only(out)


@bitmaps.compiled
def _walk(order, codes, bits, start, stop, sign, counts):
    for rank in range(start, stop):
        row = order[rank]
        counts[codes[row]] += sign * ((bits[row >> 3] >> (row & 7)) & 1)
