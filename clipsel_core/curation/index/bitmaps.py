"""Which pairs are in a set? One bit a pair, a bitmap: (ceil(N / 8),) uint8, lowest bit first, 0 behind the last."""

from __future__ import annotations

import numpy as np

from clipsel_core.curation.index.passes import compiled, read_only


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


def count(bits: np.ndarray) -> int:
    """How many pairs a bitmap holds."""
    whole = len(bits) // 8 * 8  # Eight bytes at a time take a tenth of the time.
    parts = np.ascontiguousarray(bits[:whole]).view(np.uint64), bits[whole:]
    return sum(int(np.bitwise_count(part).sum(dtype=np.int64)) for part in parts)


def holds(bits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which of the rows, (M,) integers, a bitmap holds: (M,) bool."""
    return (bits[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).astype(bool)


def add_rows(rows: np.ndarray, bits: np.ndarray, out: np.ndarray) -> None:
    """Puts those of the rows, (M,) uint32, that a bitmap holds into another bitmap."""
    _add_rows(read_only(rows), read_only(bits), out)


@compiled
def _add_rows(rows, bits, out):
    for row in rows:
        out[row >> 3] |= bits[row >> 3] & np.uint8(1 << (row & 7))
