"""Which pairs are in a set, and how do they lie over bins? One bit a pair, a bitmap.

A bitmap is (ceil(N / 8),) uint8, lowest bit first, 0 behind the last pair.
"""

from __future__ import annotations

import numpy as np

from clipsel_core.curation.index.passes import compiled, in_parts, read_only
from clipsel_core.tasks import allowed_cores

CODES = 1 << 16
# Below so many pairs a compiled loop takes longer to fetch than it saves.
MANY = 1 << 20
# Times this, a single bit of eight bytes leaves in the highest six bits a number of its own, by which _PLACES knows its
# place (a de Bruijn sequence): so a set is counted bit by bit that is set, not row by row.
_SPREAD = np.uint64(0x03F79D71B4CB0A89)
_PLACES = np.zeros(64, np.int64)
_PLACES[[((int(_SPREAD) << place) % 2**64) >> 58 for place in range(64)]] = range(64)


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
