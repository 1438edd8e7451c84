"""How far do two rankings of the same pairs go together? In whole numbers, ties and all."""

from __future__ import annotations

import numpy as np

from clipsel_core.curation.passes import compiled, in_parts, read_only


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


@compiled
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


@compiled
def _compare_ranks(x, y, start, stop, counts, products):
    pairs, bins = len(x), len(counts)
    for row in range(start, stop):
        counts[x[row] * bins // (2 * pairs), y[row] * bins // (2 * pairs)] += 1
        u, v = np.float64(x[row] - pairs), np.float64(y[row] - pairs)
        products[0] += u * v
        products[1] += u * u
        products[2] += v * v
