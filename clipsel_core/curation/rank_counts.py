"""How many pairs of a set stand at a rank or above, and at which rank are there so many? Sets are bitmaps.

The bins above are known as sums; only the bin that a rank cuts is walked through, from its nearer end.
"""

from __future__ import annotations

import numpy as np

from clipsel_core.curation.passes import compiled, read_only


def counts_from(
    order: np.ndarray, bits: np.ndarray, starts: np.ndarray, suffix: np.ndarray, ranks: np.ndarray
) -> np.ndarray:
    """Pairs of a bitmap at each rank or above: (T,) int64.

    order: rows by rank. starts: (bins + 1,) the rank that each bin starts at. suffix: (bins + 1,) pairs of the bitmap
    in each bin and above. ranks: (T,) int64 from 0 to len(order).
    """
    descending = np.argsort(-ranks, kind="stable")
    out = np.empty(len(ranks), np.int64)
    out[descending] = _counts_from(read_only(order), read_only(bits), starts, suffix, ranks[descending])
    return out


def ranks_of(
    order: np.ndarray, bits: np.ndarray, starts: np.ndarray, suffix: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """The rank of a bitmap's pair at each place from the top, 1 for the best: (T,) int64; len(order) for place 0.

    places: (T,) int64, at most as many as the bitmap has scored pairs. The rest as in counts_from.
    """
    ascending = np.argsort(places, kind="stable")
    out = np.empty(len(places), np.int64)
    out[ascending] = _ranks_of(read_only(order), read_only(bits), starts, suffix, places[ascending])
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
def _counts_from(order, bits, starts, suffix, ranks):
    out = np.empty(len(ranks), np.int64)
    bin_of, rank, found = len(starts) - 1, len(order), 0
    for place in range(len(ranks)):
        while starts[bin_of] > ranks[place]:
            bin_of -= 1
            rank, found = starts[bin_of + 1], suffix[bin_of + 1]
        if ranks[place] - starts[bin_of] < rank - ranks[place]:
            rank, found = starts[bin_of], suffix[bin_of]
        while rank < ranks[place]:
            found -= (bits[order[rank] >> 3] >> (order[rank] & 7)) & 1
            rank += 1
        while rank > ranks[place]:
            rank -= 1
            found += (bits[order[rank] >> 3] >> (order[rank] & 7)) & 1
        out[place] = found
    return out


@compiled
def _ranks_of(order, bits, starts, suffix, places):
    out = np.empty(len(places), np.int64)
    bin_of, rank, found = len(starts) - 1, len(order), 0
    for place in range(len(places)):
        while suffix[bin_of] < places[place]:
            bin_of -= 1
            rank, found = starts[bin_of + 1], suffix[bin_of + 1]
        while found < places[place]:
            rank -= 1
            found += (bits[order[rank] >> 3] >> (order[rank] & 7)) & 1
        out[place] = rank
    return out
