"""Which of 65,536 bins does each score lie in, and which pairs of a set lie in which bins? Sets are bitmaps."""

from __future__ import annotations

import numpy as np

from clipsel_core.cores import allowed_cores
from clipsel_core.curation.index.passes import compiled, in_parts, read_only
from clipsel_core.curation.index.sorting import CODES

NO_SCORE = CODES - 1
_BLOCK = 4096
# Times this, eight bytes of 0 or 1 have their bits side by side in the highest byte, the first byte's lowest.
_GATHER = np.uint64(0x0102040810204080)
# Times this, a single bit of eight bytes leaves in the highest six bits a number of its own, by which _PLACES knows its
# place (a de Bruijn sequence): so a set is counted bit by bit that is set, not row by row.
_SPREAD = np.uint64(0x03F79D71B4CB0A89)
_PLACES = np.zeros(64, np.int64)
_PLACES[[((int(_SPREAD) << place) % 2**64) >> 58 for place in range(64)]] = range(64)


def codes(values: np.ndarray, low: float, high: float, bins: int, out: np.ndarray | None = None) -> np.ndarray:
    """The bin of each score over a span, beyond it the first or the last, NO_SCORE for NaN: (N,) uint16.

    Rounding may move an edge, but never changes the order of two scores. out: where to put them, else in new memory.
    """
    values, out = read_only(values), np.empty(len(values), np.uint16) if out is None else out
    with np.errstate(over="ignore"):
        scale = np.float32(min(bins / (high - low), float(np.finfo(np.float32).max)))
    in_parts(lambda start, stop: _codes(values, start, stop, np.float32(low), scale, bins - 1, out), len(values))
    return out


def histogram(codes: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Pairs of a bitmap by their code: (65536,) int64. codes: (N,) uint16."""
    codes, bits = read_only(codes), read_only(bits)
    words = read_only(bits[: len(bits) // 8 * 8].view(np.uint64))

    def work(start: int, stop: int) -> np.ndarray:
        counts = np.zeros(CODES, np.uint32)
        _histogram(codes, words, bits, start, stop, _PLACES, counts)
        return counts

    found = np.zeros(CODES, np.int64)
    for counts in in_parts(work, len(codes), most=2 * allowed_cores()):
        found += counts
    return found


def between(codes: np.ndarray, bits: np.ndarray, first: int, last: int) -> np.ndarray:
    """Pairs of a bitmap whose code is one of first to last: a bitmap, writable. None where last < first."""
    out = np.zeros_like(bits)
    if first <= last:
        codes, bits = read_only(codes), read_only(bits)
        in_parts(lambda start, stop: _between(codes, bits, start, stop, first, last, out), len(codes))
    return out


@compiled
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


@compiled
def _between(codes, bits, start, stop, first, last, out):
    lowest, span = np.uint16(first), np.uint16(last - first)
    whole = start + (stop - start) // _BLOCK * _BLOCK
    inside = np.empty(_BLOCK, np.uint8)
    eights = inside.view(np.uint64)
    for block in range(start, whole, _BLOCK):
        # Slices that are counted from 0: so the compiler sees that it may take many at once.
        part, before, after = codes[block : block + _BLOCK], bits[block >> 3 :], out[block >> 3 :]
        for place in range(_BLOCK):
            inside[place] = np.uint16(part[place] - lowest) <= span
        for eight in range(_BLOCK // 8):
            after[eight] = np.uint8((eights[eight] * _GATHER) >> np.uint64(56)) & before[eight]
    for row in range(whole, stop):
        there = np.int64(np.uint16(codes[row] - lowest) <= span) << (row & 7)
        out[row >> 3] |= there & bits[row >> 3]
