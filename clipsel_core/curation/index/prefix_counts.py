"""How do the pairs from a rank of one metric on lie over the bins of another? Without looking at each of them.

Their counts are kept at 64 ranks of the order; from the nearest of these only the pairs between are walked through.
Beside an index they are kept in a file of 17 MB: at 128 million pairs counting takes all cores for seconds.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipsel_core.cores import allowed_cores
from clipsel_core.curation.index import beside
from clipsel_core.curation.index.binning import CODES
from clipsel_core.curation.index.passes import compiled, read_only

if TYPE_CHECKING:
    from clipsel_core.curation.index.bins import MetricBins

_LEVELS = 64
# Where many pairs share a score, ranks at the ends of bins may lie so many times as far apart as they should.
_WIDEST = 4
_WORKERS = max(1, allowed_cores() // 2)
# Threads of their own, and not all cores: whoever waits for a page comes first.
_threads = ThreadPoolExecutor(_WORKERS, "crossing")


@dataclass(frozen=True)
class PrefixCounts:
    """Counts along the order of one metric over the bins of another, of the pairs of a set.

    order: (scored,) uint32, rows by rank. codes: (N,) uint16, their bins. bits: the set, a bitmap.
    ranks: (65,) int64, where sums were taken. sums: (65, 65536) uint32, pairs at that rank or above it, by code.
    """

    order: np.ndarray
    codes: np.ndarray
    bits: np.ndarray
    ranks: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, first: MetricBins, codes: np.ndarray, bits: np.ndarray, file: Path | None = None) -> PrefixCounts:
        """Counts a set once, along the order of the first metric. The rest as above.

        file: where the counts of just these are kept, or will be; None keeps none. Anything may delete it.
        """
        order, codes, bits = read_only(first.order), read_only(codes), read_only(bits)
        wanted = np.linspace(0, len(order), _LEVELS + 1).astype(np.int64)
        ends = np.searchsorted(first.starts, wanted)
        ranks = first.starts[ends]
        even = np.diff(ranks).max() <= _WIDEST * (len(order) // _LEVELS + 1)
        ranks = ranks if even else wanted

        def count() -> np.ndarray:
            own = read_only(first.codes)
            sums = _by_rows(own, ends, codes, bits) if even else _by_ranks(order, wanted, codes, bits)
            for level in reversed(range(_LEVELS)):
                sums[level] += sums[level + 1]
            return sums

        sums = beside.kept(file, (_LEVELS + 1, CODES), np.uint32, count)
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


def _by_rows(own: np.ndarray, ends: np.ndarray, codes: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Pairs by the level of their own bin and their code: (65, 65536) uint32. They are taken as they lie in memory:
    following the order takes longer by half, and would fetch all of it."""
    levels = np.full(CODES, _LEVELS, np.uint8)
    for level, (start, stop) in enumerate(pairwise(ends.tolist())):
        levels[start:stop] = level
    cuts = [len(own) * part // _WORKERS // 8 * 8 for part in range(_WORKERS)] + [len(own)]

    def count(start: int, stop: int) -> np.ndarray:
        sums = np.zeros((_LEVELS + 1, CODES), np.uint32)
        _cross(own, levels, codes, bits, start, stop, sums)
        return sums

    found, *others = _threads.map(count, cuts, cuts[1:])
    for other in others:
        found += other
    found[_LEVELS] = 0  # Those without a score of their own have no rank.
    return found


def _by_ranks(order: np.ndarray, ranks: np.ndarray, codes: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """The same between any ranks, following the order."""
    sums = np.zeros((_LEVELS + 1, CODES), np.uint32)
    list(_threads.map(lambda at: _walk(order, codes, bits, ranks[at], ranks[at + 1], 1, sums[at]), range(_LEVELS)))
    return sums


@compiled
def _cross(own, levels, codes, bits, start, stop, sums):
    for row in range(start, stop):
        sums[levels[own[row]], codes[row]] += (bits[row >> 3] >> (row & 7)) & 1


@compiled
def _walk(order, codes, bits, start, stop, sign, counts):
    for rank in range(start, stop):
        row = order[rank]
        counts[codes[row]] += sign * ((bits[row >> 3] >> (row & 7)) & 1)
