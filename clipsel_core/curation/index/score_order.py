"""In what order do all pairs stand by a score? Worst first, and of equal scores the smaller uid higher.

Pairs with neighbouring scores lie in a group of their own, so a score takes few bits there. In a record they stand
above as much of the pair's place among all uids as there is room for, and the row. Sorting the records settles nearly
all ties, and no pair's uid is looked up out of order, which would take longer than all the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from clipsel_core.curation.index import binning, sorting
from clipsel_core.curation.index.binning import NO_SCORE
from clipsel_core.curation.index.passes import compiled, in_parts, read_only
from clipsel_core.curation.index.sorting import Groups, Tally

Span = tuple[float, float]
# Sorted by so many bits, hardly two of a group are alike, and a few moves settle the rest; else all bits are sorted.
_FIRST_BITS, _MOST_MOVES = 22, 4
_PLACE_BITS = 32


class Sorter:
    """Puts metrics of the same pairs in order, one after another in the same room: new memory costs more than sorting.

    by_uid: (N,) uint32, the rows in ascending order of their uids. records: (N,) uint64, the room; else new memory.
    Only one thread at a time may ask.
    """

    def __init__(self, by_uid: np.ndarray, records: np.ndarray | None = None) -> None:
        by_uid = read_only(by_uid)
        # Each row's place in descending order of the uids.
        after = np.empty(len(by_uid), np.uint32)
        in_parts(lambda start, stop: _turn(by_uid, start, stop, after), len(by_uid))
        self._after = read_only(after)
        self._records = np.empty(len(by_uid), np.uint64) if records is None else records

    def order(
        self, values: np.ndarray, span: Span, bins: int, tally: Tally, out: np.ndarray | None = None
    ) -> np.ndarray:
        """The rows that have a score, in ascending order of it: (M,) uint32.

        values: (N,) float32. span: the least and the greatest finite score. tally: of their codes over so many bins.
        out: (N,) uint32, begins with the order; else it is in new memory.
        """
        scored = len(values) - int(tally.counts[:, NO_SCORE].sum())
        order = np.empty(scored, np.uint32) if out is None else out[:scored]
        if not len(order):
            return order
        groups, values, after = Groups.of(tally, NO_SCORE), read_only(values), self._after
        layout = _Layout.of(groups.firsts, span, bins, len(values))

        def finish(records: np.ndarray, other: np.ndarray, start: int) -> None:
            rows = order[start : start + len(records)]
            if not _insert(records, layout.row_bits, after, rows, _MOST_MOVES * len(records)):
                sorting.by_bits(records, other, layout.row_bits, 64)
                _settle(records, layout.row_bits, after, rows)

        lay = partial(_lay, values, after, tally.codes, groups.group_of, *layout.for_records())
        groups.sort(lay, finish, self._records[:scored], layout.row_bits, _FIRST_BITS)
        return order


def _settle(records: np.ndarray, row_bits: int, after: np.ndarray, rows: np.ndarray) -> None:
    """Puts down the rows of records sorted by all they hold: many pairs may have one score and alike places."""
    np.bitwise_and(records, np.uint64((1 << row_bits) - 1), out=rows, casting="unsafe")
    keys = records >> np.uint64(row_bits)
    ends = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    for start, stop in pairwise([0, *ends.tolist(), len(rows)]):
        if stop - start > 1:
            rows[start:stop] = rows[start:stop][np.argsort(after[rows[start:stop]])]


@dataclass(frozen=True)
class _Layout:
    """What a record holds: the score's key less the least of its group, some of the pair's place, and its row.

    least: (G,) uint32. key_from: (G,) uint64, the lowest bit of the key. dropped: (G,) uint64, bits of the place for
    which there is no room. row_bits: of the row. ends: the keys of all scores.
    """

    least: np.ndarray
    key_from: np.ndarray
    dropped: np.ndarray
    row_bits: int
    ends: tuple[int, int]

    @classmethod
    def of(cls, firsts: np.ndarray, span: Span, bins: int, pairs: int) -> _Layout:
        """firsts: (G,) the first code of each group; the rest as in Sorter.order."""
        # Infinities get the keys beside those of all other scores, else their groups would need all 32 bits.
        lowest, highest = _key_of(np.array(span, np.float32)).tolist()
        ends = lowest - 1, highest + 1
        edges = np.clip(_first_keys(firsts, span, bins), *ends)
        least = np.concatenate([[ends[0]], edges[1:]])
        widths = np.array([int(width).bit_length() for width in np.append(least[1:], ends[1]) - least], np.int64)
        row_bits = max(pairs - 1, 1).bit_length()
        room = np.minimum(64 - row_bits - widths, min(row_bits, _PLACE_BITS))
        key_from, dropped = (row_bits + room).astype(np.uint64), (row_bits - room).astype(np.uint64)
        return cls(least.astype(np.uint32), key_from, dropped, row_bits, ends)

    def for_records(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int, int]:
        """What laying a record takes."""
        return self.least, self.key_from, self.dropped, self.row_bits, *self.ends


def _key_of(values: np.ndarray) -> np.ndarray:
    """Numbers that ascend with the scores, as _lay finds them: int64 of 32 bits."""
    bits = (np.asarray(values, np.float32) + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.int64)


def _score_of(keys: np.ndarray) -> np.ndarray:
    bits = keys.astype(np.uint32)
    return np.where(bits >> 31, bits & np.uint32((1 << 31) - 1), ~bits).view(np.float32)


def _first_keys(codes: np.ndarray, span: Span, bins: int) -> np.ndarray:
    """The least key whose score has at least a code, for each: (G,) int64. By halving, as codes ascend with scores."""
    infinite = np.array([-np.inf, np.inf], np.float32)
    below, there = (np.full(len(codes), key) for key in _key_of(infinite) + np.array([-1, 0]))
    while np.any(there - below > 1):
        middle = (below + there) // 2
        reached = binning.codes(_score_of(middle), *span, bins) >= codes
        below, there = np.where(reached, below, middle), np.where(reached, middle, there)
    return there


@compiled
def _turn(by_uid, start, stop, after):
    for place in range(start, stop):
        after[by_uid[place]] = len(by_uid) - 1 - place


@compiled
def _lay(
    values, after, codes, group_of, least, key_from, dropped, row_bits, lowest, highest, start, stop, places, records
):
    number = np.empty(1, np.float32)
    pattern = number.view(np.uint32)
    low, high, rows = np.uint32(lowest), np.uint32(highest), np.uint64(row_bits)
    for row in range(start, stop):
        group = group_of[codes[row]]
        if group >= 0:
            number[0] = values[row] + np.float32(0)  # -0 and 0 are the same score.
            bits = pattern[0]
            key = ~bits if bits >> np.uint32(31) else bits | np.uint32(1 << 31)
            key = np.uint64(min(max(np.uint32(key), low), high) - least[group])
            place = np.uint64(after[row]) >> dropped[group]
            records[places[group]] = (key << key_from[group]) | (place << rows) | np.uint64(row)
            places[group] += 1


@compiled
def _insert(records, row_bits, after, rows, most):
    """Settles what is nearly sorted by moving records down, and puts down their rows; false where it takes too many."""
    bits, moves = np.uint64(row_bits), 0
    mask = (np.uint64(1) << bits) - np.uint64(1)
    for place in range(1, len(records)):
        record, to = records[place], place
        key = record >> bits
        while to > 0:
            other = records[to - 1]
            if other >> bits < key or (other >> bits == key and after[other & mask] < after[record & mask]):
                break
            records[to] = other
            to -= 1
        records[to] = record
        moves += place - to
        if moves > most:
            return False
    for place in range(len(records)):
        rows[place] = records[place] & mask
    return True
