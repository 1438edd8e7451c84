"""In what order do all pairs stand by their uids, and which row is a uid's?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from clipsel_core import uids
from clipsel_core.curation.index import sorting
from clipsel_core.curation.index.passes import compiled, in_parts, read_only

_LONGEST_RUN = 64
# Asked for more than one of so many pairs, one look at each is quicker than a search for each that is asked for.
MANY = 1000


def order_by_uid(
    names: np.ndarray,
    records: np.ndarray | None = None,
    codes: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """The rows in ascending order of their uids, (N,) UID_DTYPE: (N,) uint32.

    records, codes: (N,) uint64 and uint16, room to work in, and rows: (N,) uint32, where to put them; else new memory.
    """
    halves = read_only(np.ascontiguousarray(names).view(np.uint64))
    records = np.empty(len(names), np.uint64) if records is None else records
    codes = np.empty(len(names), np.uint16) if codes is None else codes
    rows = np.empty(len(names), np.uint32) if rows is None else rows
    in_parts(lambda start, stop: _codes(halves, start, stop, codes), len(names))
    is_settled: list[bool] = []

    def finish(records: np.ndarray, _: np.ndarray, start: int) -> None:
        is_settled.append(_settle(records, halves, rows[start : start + len(records)], _LONGEST_RUN))

    groups = sorting.Groups.of(sorting.Tally.of(codes))
    groups.sort(partial(_lay, halves, groups.tally.codes, groups.group_of), finish, records)
    return rows if all(is_settled) else np.lexsort((names["f1"], names["f0"])).astype(np.uint32)


def rows_of(
    names: np.ndarray, by_uid: np.ndarray, wanted: np.ndarray, seen: Callable[[int, int], object] = lambda *_: None
) -> np.ndarray:
    """The row of each wanted uid: (M,) int64, -1 where there is none. names, wanted: UID_DTYPE; by_uid: (N,) uint32.

    seen: told of each part of the names that was looked through, from several threads.
    """
    halves, asked = (read_only(np.ascontiguousarray(a).view(np.uint64)) for a in (names, wanted))
    if len(wanted) * MANY >= len(names) and (found := _rows_of_many(halves, wanted, seen)) is not None:
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
def _codes(halves, start, stop, codes):
    for row in range(start, stop):
        codes[row] = halves[2 * row] >> np.uint64(48)


@compiled
def _lay(halves, codes, group_of, start, stop, places, records):
    for row in range(start, stop):
        group = group_of[codes[row]]
        records[places[group]] = (halves[2 * row] & np.uint64(0xFFFFFFFF00000000)) | np.uint64(row)
        places[group] += 1


@compiled
def _settle(records, halves, rows, longest):
    """Puts the rows of sorted records down, runs of equal keys by the whole uid; false where a run is too long."""
    for place in range(len(records)):
        rows[place] = np.uint32(records[place])
    start = 0
    for stop in range(1, len(rows) + 1):
        if stop < len(rows) and records[stop] >> np.uint64(32) == records[start] >> np.uint64(32):
            continue
        if stop - start > longest:
            return False
        for place in range(start + 1, stop):
            row, to = rows[place], place
            while to > start:
                other = rows[to - 1]
                high, low = halves[2 * other], halves[2 * other + 1]
                if high < halves[2 * row] or (high == halves[2 * row] and low <= halves[2 * row + 1]):
                    break
                rows[to] = rows[to - 1]
                to -= 1
            rows[to] = row
        start = stop
    return True


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
