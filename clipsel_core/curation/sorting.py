"""In what order do all pairs stand by a key or a score? A radix sort of 32-bit keys, the rows going along with them."""

from __future__ import annotations

import numpy as np

from clipsel_core.curation.passes import compiled, read_only


def order_by_value(values: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """The rows that have a score, in ascending order of it; equal scores in the order of `ties`: (M,) uint32.

    values: (N,) float32. ties: (N,) uint32, all rows in some order.
    """
    keys, rows = two_arrays(len(values))
    scored = _scored_keys(read_only(values), read_only(ties), keys, rows)
    return in_order(keys[:scored], rows[:scored])[1]


def in_order(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys in ascending order, and rows along with them; equal keys stay as they were. Both arrays are used up.

    keys, rows: (M,) uint32. Returns two such.
    """
    return _sorted(keys, rows, *two_arrays(len(keys)))


def two_arrays(pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for keys and rows: (pairs,) uint32 each. From numpy: its large pages cost less than the sorting."""
    return np.empty(pairs, np.uint32), np.empty(pairs, np.uint32)


@compiled
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


@compiled
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
