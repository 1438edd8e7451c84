"""How do the pairs from a rank of one metric on lie over the bins of another? Without looking at each of them.

Their counts are kept at 64 ranks of the order; from the nearest of these only the pairs between are walked through.
Beside an index they are kept in a file of 17 MB: at 128 million pairs counting takes all cores for seconds.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipsel_core.cores import allowed_cores
from clipsel_core.curation.index import array_files
from clipsel_core.curation.index.bitmaps import CODES
from clipsel_core.curation.index.passes import compiled, read_only

_LEVELS = 64
# Threads of their own, and not all cores: whoever waits for a page comes first.
_threads = ThreadPoolExecutor(max(1, allowed_cores() // 2), "crossing")


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
    def of(cls, order: np.ndarray, codes: np.ndarray, bits: np.ndarray, file: Path | None = None) -> PrefixCounts:
        """Counts a set once. The rest as above.

        file: where the counts of just these are kept, or will be; None keeps none. Anything may delete it.
        """
        order, codes, bits = read_only(order), read_only(codes), read_only(bits)
        ranks = np.linspace(0, len(order), _LEVELS + 1).astype(np.int64)

        def count() -> np.ndarray:
            sums = np.zeros((_LEVELS + 1, CODES), np.uint32)
            list(_threads.map(lambda *part: _walk(order, codes, bits, *part), ranks, ranks[1:], [1] * _LEVELS, sums))
            return np.cumsum(sums[::-1], axis=0, dtype=np.uint32)[::-1]

        sums = array_files.load_or_make(file, (_LEVELS + 1, CODES), np.uint32, count)
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


@compiled
def _walk(order, codes, bits, start, stop, sign, counts):
    for rank in range(start, stop):
        row = order[rank]
        counts[codes[row]] += sign * ((bits[row >> 3] >> (row & 7)) & 1)
