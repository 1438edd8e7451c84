"""In what order do all pairs stand by a score or by their uids, and which row is a uid's?

numpy sorts plain numbers of 64 bits fastest: their upper half is compared first, the lower half settles ties. Many are
first parted into groups that ascend, which all cores then sort, each in its cache.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from clipsel_core import uids
from clipsel_core.curation.index.bitmaps import compiled, in_parts, on_all_cores, read_only
from clipsel_core.tasks import allowed_cores

# Pairs with neighbouring codes make a group, which a core's cache holds.
_GROUPS, _SHIFT, _AT_ONCE = 1 << 10, 6, 16
_BLOCK = 1 << 18
_MANY_KEYS = 1 << 20
_UPPER, _LOWER = np.uint64(0xFFFFFFFF00000000), np.uint64(0xFFFFFFFF)
_LONGEST_RUN = 64
# Asked for more than one of so many pairs, one look at each is quicker than a search for each that is asked for.
_MANY = 1000


def order_by_uid(names: np.ndarray) -> np.ndarray:
    """The rows in ascending order of their uids, (N,) UID_DTYPE: (N,) uint32. Repeated uids in the order of rows."""
    codes, keys, upper = np.empty(len(names), np.uint16), np.empty(len(names), np.uint64), names["f0"]
    in_parts(
        lambda start, stop: np.right_shift(upper[start:stop], 48, out=codes[start:stop], casting="unsafe"), len(codes)
    )

    def pack(start: int, stop: int) -> np.ndarray:
        return (upper[start:stop] & _UPPER) | np.arange(start, stop, dtype=np.uint64)

    _sort(pack, codes, keys, 32)
    rows = np.empty(len(keys), np.uint32)

    def unpack(start: int, stop: int) -> np.ndarray:
        rows[start:stop] = keys[start:stop] & _LOWER
        begin = keys[start : stop + 1] >> np.uint64(32)
        return np.flatnonzero(begin[1:] == begin[:-1]) + start

    # By their upper 32 bits, as some are by chance in a large run.
    alike = np.concatenate([np.empty(0, np.int64), *in_parts(unpack, len(keys))])
    uids.settle(rows, alike, names)
    return rows


class Sorter:
    """Puts metrics of the same pairs in order. by_uid: (N,) uint32, the rows in ascending order of their uids.

    Any thread may ask; they take turns, in the same memory: new memory costs more than sorting.
    """

    def __init__(self, by_uid: np.ndarray) -> None:
        self._descending, self._turn = np.ascontiguousarray(by_uid[::-1]), threading.Lock()
        self._place = place = np.empty(len(by_uid), np.uint32)

        def put(start: int, stop: int) -> None:
            place[self._descending[start:stop]] = np.arange(start, stop, dtype=np.uint32)

        in_parts(put, len(by_uid))
        self._keys = np.empty(len(by_uid), np.uint64)

    def order(self, values: np.ndarray, codes: np.ndarray, scored: int) -> np.ndarray:
        """The rows that have a score, worst first, and of equal scores the smaller uid higher: (scored,) uint32.

        values: (N,) float32; NaN is no score. codes: (N,) uint16, ascend with the scores; behind all where there is
        none. scored: how many have one.
        """

        def pack(start: int, stop: int) -> np.ndarray:
            bits = (values[start:stop] + np.float32(0)).view(np.uint32)  # -0 and 0 are the same score.
            # So turned they ascend with the scores.
            bits ^= np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(1 << 31))
            bits[np.isnan(values[start:stop])] = 0xFFFFFFFF
            return (bits.astype(np.uint64) << np.uint64(32)) | self._place[start:stop]

        order = np.empty(scored, np.uint32)

        def unpack(start: int, stop: int) -> None:
            places = (self._keys[start:stop] & _LOWER).view(np.int64)
            np.take(self._descending, places, out=order[start:stop], mode="clip")

        with self._turn:
            _sort(pack, codes, self._keys)
            in_parts(unpack, scored)
        return order


def _sort(pack: Callable[[int, int], np.ndarray], codes: np.ndarray, keys: np.ndarray, lowest: int = 0) -> None:
    """Fills an array with sorted keys; those that are equal from the lowest bit on stay in the order of their rows.

    pack: gives the keys of some rows, (M,) uint64. codes: (N,) uint16, ascend with the keys. keys: (N,) uint64.
    """
    if len(keys) < _MANY_KEYS:
        keys[:] = pack(0, len(keys))
        keys.sort()
        return
    codes = read_only(codes)
    cuts = np.linspace(0, len(keys), 2 * allowed_cores() + 1).astype(np.int64).tolist()
    counts = np.zeros((len(cuts) - 1, _GROUPS), np.int64)
    on_all_cores(lambda *part: _count(codes, *part), cuts, cuts[1:], counts)
    ends = np.cumsum(counts.T).reshape(_GROUPS, -1)

    def distribute(start: int, stop: int, places: np.ndarray) -> None:
        for block in range(start, stop, _BLOCK):
            upto = min(block + _BLOCK, stop)
            _distribute(pack(block, upto), codes[block:upto], places, keys)

    on_all_cores(distribute, cuts, cuts[1:], np.ascontiguousarray((ends - counts.T).T))
    edges = np.unique([0, *ends[:, -1]])
    on_all_cores(
        lambda first: _sort_groups(keys, edges[first : first + _AT_ONCE + 1], lowest), range(0, len(edges), _AT_ONCE)
    )


def rows_of(
    names: np.ndarray, by_uid: np.ndarray, wanted: np.ndarray, seen: Callable[[int, int], object] = lambda *_: None
) -> np.ndarray:
    """The row of each wanted uid: (M,) int64, -1 where there is none. names, wanted: UID_DTYPE; by_uid: (N,) uint32.

    seen: told of each part of the names that was looked through, from several threads.
    """
    halves, asked = (read_only(np.ascontiguousarray(a).view(np.uint64)) for a in (names, wanted))
    if len(wanted) * _MANY >= len(names) and (found := _rows_of_many(halves, wanted, seen)) is not None:
        return found
    return _rows_of(halves, read_only(by_uid), asked)


def _rows_of_many(halves: np.ndarray, wanted: np.ndarray, seen: Callable[[int, int], object]) -> np.ndarray | None:
    """The same by one look at each pair, in order, where looking up would fetch most of a large file, page by page.

    None where many of the wanted uids begin alike.
    """
    order = uids.argsort(wanted)
    asked = read_only(wanted[order].view(np.uint64))
    bits = max(len(wanted).bit_length(), 8)
    begin = asked[::2] >> np.uint64(64 - bits)
    starts = np.searchsorted(begin, np.arange(2**bits + 1, dtype=np.uint64))
    if not len(wanted) or np.diff(starts).max() > _LONGEST_RUN:
        return None
    found = np.full(len(wanted), -1, np.int64)
    shift = np.uint64(64 - bits)

    def look(start: int, stop: int) -> None:
        _look(halves, start, stop, asked, starts, shift, found)
        seen(start, stop)

    in_parts(look, len(halves) // 2)
    rows = np.empty_like(found)
    rows[order] = found
    return rows


@compiled
def _count(codes, start, stop, counts):
    for row in range(start, stop):
        counts[codes[row] >> _SHIFT] += 1


@compiled
def _distribute(keys, codes, places, out):
    for row in range(len(keys)):
        group = codes[row] >> _SHIFT
        out[places[group]] = keys[row]
        places[group] += 1


@compiled
def _sort_groups(keys, edges, lowest):
    """By digits of 11 bits at most, the lowest first: as few as the bits take in which a group's keys differ."""
    places = np.empty(2048, np.int64)
    for group in range(len(edges) - 1):
        here = keys[edges[group] : edges[group + 1]]
        there = np.empty_like(here)
        differing = np.uint64(0)
        for key in here:
            differing |= key ^ here[0]
        low, high = np.uint64(lowest), np.uint64(lowest)
        while high < 64 and differing >> high:
            high += np.uint64(1)
        digits = (high - low + np.uint64(10)) // np.uint64(11)
        bits = (high - low + digits - np.uint64(1)) // max(digits, np.uint64(1))
        mask = (np.uint64(1) << bits) - np.uint64(1)
        for _ in range(digits):
            places[:] = 0
            for key in here:
                places[(key >> low) & mask] += 1
            before = 0
            for digit in range(mask + np.uint64(1)):
                places[digit], before = before, before + places[digit]
            for key in here:
                digit = (key >> low) & mask
                there[places[digit]] = key
                places[digit] += 1
            low += bits
            here, there = there, here
        if digits & np.uint64(1):
            there[:] = here


@compiled
def _look(halves, start, stop, asked, starts, shift, found):
    for row in range(start, stop):
        high = halves[2 * row]
        begin = high >> shift
        for place in range(starts[begin], starts[begin + np.uint64(1)]):
            if asked[2 * place] == high and asked[2 * place + 1] == halves[2 * row + 1]:
                found[place] = row


@compiled
def _rows_of(names, by_uid, wanted):
    out = np.full(len(wanted) // 2, -1, np.int64)
    for place in range(len(out)):
        high, low = wanted[2 * place], wanted[2 * place + 1]
        first, last = 0, len(by_uid)
        while first < last:
            middle = (first + last) // 2
            row = np.int64(by_uid[middle])
            if names[2 * row] < high or (names[2 * row] == high and names[2 * row + 1] < low):
                first = middle + 1
            else:
                last = middle
        if first < len(by_uid):
            row = np.int64(by_uid[first])
            if names[2 * row] == high and names[2 * row + 1] == low:
                out[place] = row
    return out
