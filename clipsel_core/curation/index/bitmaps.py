"""Which pairs are in a set, how do they lie over bins, and how does a loop over every pair run?

A bitmap has one bit a pair: (ceil(N / 8),) uint8, lowest bit first, 0 behind the last pair. Loops run in parts of whole
bytes of it, any number of them side by side, and compiled where that pays: numpy goes over the pairs in several sweeps;
a compiled loop is one sweep, which lets go of the interpreter.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from clipsel_core.tasks import allowed_cores, in_threads

T = TypeVar("T")

_PART = 1 << 20
_GATHERED = 1 << 16
_threads = ThreadPoolExecutor(allowed_cores(), "pass")
_guard = threading.Lock()

CODES = 1 << 16
# Below so many pairs a compiled loop takes longer to fetch than it saves.
MANY = 1 << 20
# Times this, a single bit of eight bytes leaves in the highest six bits a number of its own, by which _PLACES knows its
# place (a de Bruijn sequence): so a set is counted bit by bit that is set, not row by row.
_SPREAD = np.uint64(0x03F79D71B4CB0A89)
_PLACES = np.zeros(64, np.int64)
_PLACES[[((int(_SPREAD) << place) % 2**64) >> 58 for place in range(64)]] = range(64)


def on_all_cores(work: Callable[..., T], *items: Iterable) -> list[T]:
    """What some work returns for each item, or each pair of items and so on."""
    return in_threads(_threads, work, *items)


def in_parts(work: Callable[[int, int], T], pairs: int, *, most: int | None = None) -> list[T]:
    """What some work returns for each part of the pairs, whole bytes of their bitmaps; large ones run in threads.

    most: of how many parts, where putting their answers together takes long.
    """
    size = _PART if most is None else _PART * max(1, -(-pairs // (_PART * most)))
    starts = range(0, pairs, size)
    stops = [min(start + size, pairs) for start in starts]
    return list(map(work, starts, stops)) if len(stops) < 2 else on_all_cores(work, starts, stops)


def gathered(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The array's entries at some rows, (M,) integers: many are fetched by threads, for most of it waits."""
    if len(rows) <= _GATHERED:
        return array[rows]
    parts = [rows[start : start + _GATHERED] for start in range(0, len(rows), _GATHERED)]
    return np.concatenate(on_all_cores(lambda part: np.take(array, part), parts))


def read_only(array: np.ndarray) -> np.ndarray:
    """The same numbers as a plain array that cannot be written to: one kind of array, compiled for once."""
    view = np.asarray(array).view()
    view.setflags(write=False)
    return view


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled at its first call, and kept on disk for the next process where that is possible.

    numba is imported then, too: it takes as long as selecting from a million pairs, which does without. So a compiled
    function cannot be called by another.
    """
    machine_code: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal machine_code
        if machine_code is None:
            with _guard:
                machine_code = machine_code or _machine_code(function)
        return machine_code(*arguments)

    return call


def _machine_code(function: Callable[..., Any]) -> Callable[..., Any]:
    import numba

    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # No folder to keep it in: compiled once a process.
        return numba.njit(nogil=True)(function)


def pack(mask: np.ndarray) -> np.ndarray:
    """The bitmap of a mask, (N,) bool."""
    return read_only(np.packbits(mask, bitorder="little"))


def first(pairs: int) -> np.ndarray:
    """The bitmap of all of so many pairs."""
    bits = np.full((pairs + 7) // 8, 255, np.uint8)
    if pairs % 8:
        bits[-1] = (1 << pairs % 8) - 1
    return read_only(bits)


def unpack(bits: np.ndarray, pairs: int, start: int = 0) -> np.ndarray:
    """The mask of so many pairs of a bitmap: (pairs,) bool. start: the first of them, a multiple of 8."""
    return np.unpackbits(bits[start >> 3 :], count=pairs, bitorder="little").view(bool)


def rows(bits: np.ndarray) -> np.ndarray:
    """The rows of a bitmap that holds few: (M,) int64, ascending. Eight bytes for each byte that is not empty."""
    filled = np.flatnonzero(bits)
    places, bit = np.nonzero(np.unpackbits(bits[filled], bitorder="little").reshape(-1, 8))
    return 8 * filled[places] + bit


def pairs_in(bits: np.ndarray) -> int:
    """How many pairs a bitmap holds."""
    whole = len(bits) // 8 * 8  # Eight bytes at a time take a tenth of the time.
    parts = np.ascontiguousarray(bits[:whole]).view(np.uint64), bits[whole:]
    return sum(int(np.bitwise_count(part).sum(dtype=np.int64)) for part in parts)


def holds(bits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which of the rows, (M,) integers, a bitmap holds: (M,) bool."""
    return (bits[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).astype(bool)


def between(codes: np.ndarray, bits: np.ndarray, first: int, last: int) -> np.ndarray:
    """Pairs of a bitmap whose code is one of first to last: a bitmap, writable. None where last < first.

    codes: (N,) uint16.
    """
    out = np.zeros_like(bits)

    def fill(start: int, stop: int) -> None:
        part, place = codes[start:stop], slice(start >> 3, (stop + 7) >> 3)
        inside = np.packbits((part >= first) & (part <= last), bitorder="little")
        np.bitwise_and(inside, bits[place], out=out[place])

    if first <= last:
        in_parts(fill, len(codes))
    return out


def counts_by_code(codes: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Pairs of a bitmap by their code: (65536,) int64. codes: (N,) uint16."""
    if len(codes) < MANY:
        return np.bincount(codes[unpack(bits, len(codes))], minlength=CODES)
    codes, bits = read_only(codes), read_only(bits)
    words = read_only(bits[: len(bits) // 8 * 8].view(np.uint64))

    def work(start: int, stop: int) -> np.ndarray:
        counts = np.zeros(CODES, np.uint32)
        _histogram(codes, words, bits, start, stop, _PLACES, counts)
        return counts

    return sum(in_parts(work, len(codes), most=2 * allowed_cores()), np.zeros(CODES, np.int64))


@compiled
def _histogram(codes, words, bits, start, stop, places, counts):
    whole = min(start + (stop - start) // 64 * 64, len(words) * 64)
    for word in range(start >> 6, whole >> 6):
        left = words[word]
        while left:
            lowest = left & (~left + np.uint64(1))
            counts[codes[(word << 6) + places[(lowest * _SPREAD) >> np.uint64(58)]]] += 1
            left ^= lowest
    for row in range(whole, stop):
        counts[codes[row]] += (bits[row >> 3] >> (row & 7)) & 1
