"""The loops over every pair, compiled: counting by bin, cutting at a rank, sorting. Arrays in, arrays out.

numpy does each of these in several sweeps that hold the interpreter, so that threads wait for one another; here each is
one sweep that any number of threads run side by side. Sets of pairs are bitmaps: (ceil(N / 8),) uint8, the lowest bit
first, the bits behind the last pair 0. Inputs are not written to.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np

CODES = 65_536
NO_SCORE = CODES - 1
_PART = 1 << 20
_LONGEST_RUN = 64
_threads = ThreadPoolExecutor(os.cpu_count() or 1, "pass")


def _compiled(function: Callable[..., Any]) -> Any:
    """Compiled at its first call, and kept on disk for the next process where that is possible."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # No folder to keep it in: compiled once a process.
        return numba.njit(nogil=True)(function)


def pack(mask: np.ndarray) -> np.ndarray:
    """The bitmap of a mask, (N,) bool."""
    return read_only(np.packbits(mask, bitorder="little"))


def unpack(bits: np.ndarray, pairs: int) -> np.ndarray:
    """The mask of a bitmap: (pairs,) bool."""
    return np.unpackbits(bits, count=pairs, bitorder="little").view(bool)


def count(bits: np.ndarray) -> int:
    """How many pairs a bitmap holds."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


def histogram(codes: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Pairs of a bitmap by their code: (65536,) int64. codes: (N,) uint16."""
    codes, bits = read_only(codes), read_only(bits)

    def work(start: int, stop: int) -> np.ndarray:
        counts = np.zeros(CODES, np.uint32)
        _histogram(codes, bits, start, stop, counts)
        return counts

    found = np.zeros(CODES, np.int64)
    for counts in in_parts(work, len(codes)):
        found += counts
    return found


def between(codes: np.ndarray, bits: np.ndarray, first: int, last: int) -> np.ndarray:
    """Pairs of a bitmap whose code is one of first to last: a bitmap, writable. None where last < first."""
    out = np.zeros_like(bits)
    if first <= last:
        codes, bits = read_only(codes), read_only(bits)
        in_parts(lambda start, stop: _between(codes, bits, start, stop, first, last, out), len(codes))
    return out


def add_rows(rows: np.ndarray, bits: np.ndarray, out: np.ndarray) -> None:
    """Puts those of the rows, (M,) uint32, that a bitmap holds into another bitmap."""
    _add_rows(read_only(rows), read_only(bits), out)


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


def order_by_value(values: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """The rows that have a score, in ascending order of it; equal scores in the order of `ties`: (M,) uint32.

    values: (N,) float32. ties: (N,) uint32, all rows in some order.
    """
    keys, rows = _two(len(values))
    scored = _scored_keys(read_only(values), read_only(ties), keys, rows)
    return _in_order(keys[:scored], rows[:scored])[1]


def doubled_ranks(values: np.ndarray, order: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each pair of a set, how many of the set score less plus how many score no more: (N,) int32, 0 outside it.

    That is twice the average rank, less 1: whole numbers, so that no difference of ranks is ever rounded.
    values: (N,) float32. order: (M,) uint32, the rows with a score, ascending by it. among: (N,) bool, the set, scored.
    """
    out = np.zeros(len(values), np.int32)
    _doubled_ranks(read_only(values), read_only(order), read_only(among), out)
    return out


def compare_ranks(x: np.ndarray, y: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Joint counts of two rankings of the same pairs, and how far they go together.

    x, y: (M,) int32 doubled ranks; their mean is M, ties or not.
    Returns: (bins, bins) int64, and (3,) float64, the sums of xy, xx and yy, taken from their mean.
    """
    x, y = read_only(x), read_only(y)

    def work(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        counts, products = np.zeros((bins, bins), np.int64), np.zeros(3)
        _compare_ranks(x, y, start, stop, counts, products)
        return counts, products

    counts, products = np.zeros((bins, bins), np.int64), np.zeros(3)
    for some, summed in in_parts(work, len(x)):
        counts += some
        products += summed
    return counts, products


def order_by_uid(names: np.ndarray) -> np.ndarray:
    """The rows in ascending order of their uids, (N,) UID_DTYPE: (N,) uint32."""
    halves = read_only(np.ascontiguousarray(names).view(np.uint64))
    keys, rows = _two(len(names))
    _uid_keys(halves, keys, rows)
    keys, rows = _in_order(keys, rows)
    if not _settle(keys, rows, halves, _LONGEST_RUN):
        rows = np.lexsort((names["f1"], names["f0"])).astype(np.uint32)
    return rows


def codes(values: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    """The bin of each score over a span, beyond it the first or the last, NO_SCORE for NaN: (N,) uint16.

    Rounding may move an edge, but never changes the order of two scores.
    """
    values, out = read_only(values), np.empty(len(values), np.uint16)
    with np.errstate(over="ignore"):
        scale = np.float32(min(bins / (high - low), float(np.finfo(np.float32).max)))
    in_parts(lambda start, stop: _codes(values, start, stop, np.float32(low), scale, bins - 1, out), len(values))
    return out


def rows_of(names: np.ndarray, by_uid: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The row of each wanted uid: (M,) int64, -1 where there is none. names, wanted: UID_DTYPE; by_uid: (N,) uint32."""
    return _rows_of(
        *(read_only(a) for a in (names.view(np.uint64), by_uid, np.ascontiguousarray(wanted).view(np.uint64)))
    )


def read_only(array: np.ndarray) -> np.ndarray:
    """The same numbers as a plain array that cannot be written to: one kind of array, compiled for once."""
    view = np.asarray(array).view()
    view.setflags(write=False)
    return view


def in_parts(work: Callable[[int, int], Any], pairs: int) -> list[Any]:
    """What some work returns for each part of the pairs, whole bytes of their bitmaps; large ones run in threads."""
    starts = range(0, pairs, _PART)
    stops = [min(start + _PART, pairs) for start in starts]
    return list(map(work, starts, stops)) if len(stops) < 2 else list(_threads.map(work, starts, stops))


def _two(pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for keys and rows. From numpy, which asks for large pages: small ones cost more than the sorting."""
    return np.empty(pairs, np.uint32), np.empty(pairs, np.uint32)


def _in_order(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys in ascending order, and rows along with them; equal keys stay as they were. Both arrays are used up."""
    return _sorted(keys, rows, *_two(len(keys)))


@_compiled
def _histogram(codes, bits, start, stop, counts):
    whole = start + (stop - start) // 8 * 8
    for row in range(start, whole, 8):
        byte = bits[row >> 3]
        if byte:
            for place in range(8):
                counts[codes[row + place]] += (byte >> place) & 1
    for row in range(whole, stop):
        counts[codes[row]] += (bits[row >> 3] >> (row & 7)) & 1


@_compiled
def _between(codes, bits, start, stop, first, last, out):
    lowest, span = np.uint16(first), np.uint16(last - first)
    whole = start + (stop - start) // 8 * 8
    for row in range(start, whole, 8):
        byte = np.int64(0)
        for place in range(8):
            byte |= np.int64(np.uint16(codes[row + place] - lowest) <= span) << place
        out[row >> 3] = byte & bits[row >> 3]
    for row in range(whole, stop):
        inside = np.int64(np.uint16(codes[row] - lowest) <= span) << (row & 7)
        out[row >> 3] |= inside & bits[row >> 3]


@_compiled
def _add_rows(rows, bits, out):
    for row in rows:
        out[row >> 3] |= bits[row >> 3] & np.uint8(1 << (row & 7))


@_compiled
def _counts_from(order, bits, starts, suffix, ranks):
    out = np.empty(len(ranks), np.int64)
    bin_of, rank, found = len(starts) - 1, len(order), 0
    for place in range(len(ranks)):
        while starts[bin_of] > ranks[place]:
            bin_of -= 1
            rank, found = starts[bin_of + 1], suffix[bin_of + 1]
        while rank > ranks[place]:
            rank -= 1
            found += (bits[order[rank] >> 3] >> (order[rank] & 7)) & 1
        out[place] = found
    return out


@_compiled
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


@_compiled
def _doubled_ranks(values, order, among, out):
    below, start = 0, 0
    while start < len(order):
        stop, same, value = start, 0, values[order[start]]
        while stop < len(order) and values[order[stop]] == value:
            same += among[order[stop]]
            stop += 1
        for place in range(start, stop):
            row = order[place]
            if among[row]:
                out[row] = 2 * below + same
        below += same
        start = stop


@_compiled
def _compare_ranks(x, y, start, stop, counts, products):
    pairs, bins = len(x), len(counts)
    for row in range(start, stop):
        counts[x[row] * bins // (2 * pairs), y[row] * bins // (2 * pairs)] += 1
        u, v = np.float64(x[row] - pairs), np.float64(y[row] - pairs)
        products[0] += u * v
        products[1] += u * u
        products[2] += v * v


@_compiled
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


@_compiled
def _scored_keys(values, ties, keys, rows):
    number = np.empty(1, np.float32)
    pattern = number.view(np.uint32)
    found = 0
    for row in ties:
        if not np.isnan(values[row]):
            number[0] = values[row] + np.float32(0)  # -0 and 0 are the same score.
            bits = pattern[0]
            keys[found] = ~bits if bits >> 31 else bits | np.uint32(1 << 31)
            rows[found] = row
            found += 1
    return found


@_compiled
def _sorted(keys, rows, other_keys, other_rows):
    """Three rounds of 11 bits, from one pair of arrays into the other and back; returns the pair that is sorted."""
    counts = np.zeros((3, 2048), np.int64)
    for key in keys:
        counts[0, key & 2047] += 1
        counts[1, (key >> 11) & 2047] += 1
        counts[2, key >> 22] += 1
    for turn in range(3):
        before = 0
        for digit in range(2048):
            counts[turn, digit], before = before, before + counts[turn, digit]
        for place in range(len(keys)):
            digit = (keys[place] >> np.uint32(11 * turn)) & np.uint32(2047)
            to = counts[turn, digit]
            counts[turn, digit] = to + 1
            other_keys[to], other_rows[to] = keys[place], rows[place]
        keys, rows, other_keys, other_rows = other_keys, other_rows, keys, rows
    return keys, rows


@_compiled
def _uid_keys(halves, keys, rows):
    for row in range(len(rows)):
        keys[row], rows[row] = halves[2 * row] >> np.uint64(32), row


@_compiled
def _codes(values, start, stop, low, scale, last, out):
    for row in range(start, stop):
        position = (values[row] - low) * scale
        if np.isnan(values[row]):
            out[row] = NO_SCORE
        elif position >= last:
            out[row] = last
        elif position > 0:
            out[row] = np.uint16(position)
        else:  # Below the span, or infinity less infinity.
            out[row] = 0


@_compiled
def _settle(keys, rows, halves, longest):
    """Sorts runs of equal keys by the whole uid; false where a run is too long for that."""
    start = 0
    for stop in range(1, len(keys) + 1):
        if stop < len(keys) and keys[stop] == keys[start]:
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
