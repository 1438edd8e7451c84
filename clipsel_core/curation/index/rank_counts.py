"""How many pairs of a set stand at a rank or above, and at which rank are there so many?

The bins above are known as sums; only the bin that a rank cuts is walked through, from its nearer end. A set is a
bitmap, of which a rank of some metric may part off a side: whether a pair is on it is seen from its bin, so that a set
needs no bitmap of its own for as long as nobody looks at all of its pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from clipsel_core.curation.index.passes import compiled, read_only


@dataclass(frozen=True)
class Members:
    """A set of pairs: those of a bitmap that lie in certain bins of a metric.

    bits: a bitmap. codes: (N,) uint16, the bins; empty where every pair of the bitmap is in the set. first, last: the
    bins that are in as a whole. cut: the bin of which only some are, `rows`: (M,) uint32, ascending.
    """

    bits: np.ndarray
    codes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint16))
    first: int = 0
    last: int = 0
    cut: int = 0
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint32))

    @property
    def _all(self) -> tuple[np.ndarray, np.ndarray, int, int, int, np.ndarray]:
        return read_only(self.bits), read_only(self.codes), self.first, self.last, self.cut, read_only(self.rows)


def counts_from(
    order: np.ndarray, members: Members, starts: np.ndarray, suffix: np.ndarray, ranks: np.ndarray
) -> np.ndarray:
    """Pairs of a set at each rank or above: (T,) int64.

    order: rows by rank. starts: (bins + 1,) the rank that each bin starts at. suffix: (bins + 1,) pairs of the set in
    each bin and above. ranks: (T,) int64 from 0 to len(order).
    """
    descending = np.argsort(-ranks, kind="stable")
    out = np.empty(len(ranks), np.int64)
    out[descending] = _counts_from(read_only(order), starts, suffix, ranks[descending], *members._all)
    return out


def ranks_of(
    order: np.ndarray, members: Members, starts: np.ndarray, suffix: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """The rank of a set's pair at each place from the top, 1 for the best: (T,) int64; len(order) for place 0.

    places: (T,) int64, at most as many as the set has scored pairs. The rest as in counts_from.
    """
    ascending = np.argsort(places, kind="stable")
    out = np.empty(len(places), np.int64)
    out[ascending] = _ranks_of(read_only(order), starts, suffix, places[ascending], *members._all)
    return out


def ranks_below(order: np.ndarray, values: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """How many ranks have a lower score than each of these: (T,) int64, all of them for len(order).

    order: rows by rank. values: (N,) float32, the score of each row. ranks: (T,) int64 from 0 to len(order).
    """
    return _ranks_below(read_only(order), read_only(values), ranks)


@compiled
def _ranks_below(order, values, ranks):
    out = np.empty(len(ranks), np.int64)
    for place in range(len(ranks)):
        high = ranks[place]
        if high < len(order):
            score, step = values[order[high]], 1
            # Few have the very same score, as a rule: ever longer steps down, then halves.
            while high - step >= 0 and values[order[high - step]] == score:
                high, step = high - step, 2 * step
            low = max(high - step, -1)
            while high - low > 1:
                middle = (low + high) // 2
                if values[order[middle]] == score:
                    high = middle
                else:
                    low = middle
        out[place] = high
    return out


def ranks_of_scores(
    order: np.ndarray, values: np.ndarray, starts: np.ndarray, bins: np.ndarray, scores: np.ndarray, above: bool
) -> np.ndarray:
    """The first rank at each score or above it, or only above it: (T,) int64.

    values: (N,) float32, the score of each row. bins: (T,) int64, where scores, (T,) float32, lie. The rest as above.
    """
    return _ranks_of_scores(read_only(order), read_only(values), read_only(starts), bins, scores, above)


@compiled
def _ranks_of_scores(order, values, starts, bins, scores, above):
    out = np.empty(len(scores), np.int64)
    for place in range(len(scores)):
        first, last = starts[bins[place]], starts[bins[place] + 1]
        while first < last:
            middle = (first + last) // 2
            found = values[order[middle]]
            if found < scores[place] or (above and found == scores[place]):
                first = middle + 1
            else:
                last = middle
        out[place] = first
    return out


def nearest(order: np.ndarray, bits: np.ndarray, rank: int, most: int, *, upwards: bool) -> np.ndarray:
    """The bitmap's pairs that are next to a rank, the nearest first, `most` at most: (M,) int64 rows.

    upwards: from the rank on; else below it.
    """
    return _nearest(read_only(order), read_only(bits), rank, most, upwards)


@compiled
def _nearest(order, bits, rank, most, upwards):
    out = np.empty(most, np.int64)
    found, place, step = 0, (rank if upwards else rank - 1), (1 if upwards else -1)
    while found < most and 0 <= place < len(order):
        row = order[place]
        if (bits[row >> 3] >> (row & 7)) & 1:
            out[found] = row
            found += 1
        place += step
    return out[:found]


@compiled
def _counts_from(order, starts, suffix, ranks, bits, codes, first, last, cut, rows):
    out = np.empty(len(ranks), np.int64)
    bin_of, rank, found = len(starts) - 1, len(order), 0
    for place in range(len(ranks)):
        while starts[bin_of] > ranks[place]:
            bin_of -= 1
            rank, found = starts[bin_of + 1], suffix[bin_of + 1]
        if ranks[place] - starts[bin_of] < rank - ranks[place]:
            rank, found = starts[bin_of], suffix[bin_of]
        while rank != ranks[place]:
            sign = 1 if rank > ranks[place] else -1
            row = order[rank - 1 if sign > 0 else rank]
            if (bits[row >> 3] >> (row & 7)) & 1:
                code = codes[row] if len(codes) else first
                if len(codes) and code == cut:
                    at = np.searchsorted(rows, row)
                    found += sign if at < len(rows) and rows[at] == row else 0
                elif first <= code <= last:
                    found += sign
            rank -= sign
        out[place] = found
    return out


@compiled
def _ranks_of(order, starts, suffix, places, bits, codes, first, last, cut, rows):
    out = np.empty(len(places), np.int64)
    bin_of, rank, found = len(starts) - 1, len(order), 0
    for place in range(len(places)):
        while suffix[bin_of] < places[place]:
            bin_of -= 1
            rank, found = starts[bin_of + 1], suffix[bin_of + 1]
        while found < places[place]:
            rank -= 1
            row = order[rank]
            if (bits[row >> 3] >> (row & 7)) & 1:
                code = codes[row] if len(codes) else first
                if len(codes) and code == cut:
                    at = np.searchsorted(rows, row)
                    found += at < len(rows) and rows[at] == row
                else:
                    found += first <= code <= last
        out[place] = rank
    return out
