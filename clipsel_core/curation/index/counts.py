"""How many pairs fall into each bin of one metric, or of two? Arrays in, counts out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipsel_core.curation.index.passes import compiled, in_parts, read_only

_BLOCK = 1 << 18


@dataclass(frozen=True)
class Histogram:
    """counts[i]: pairs with edges[i] <= value < edges[i + 1]; the last bin also holds its upper edge.

    edges: (bins + 1,) float64, in the metric's units. counts: (bins,) int64.
    """

    edges: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Density:
    """counts[i, j]: pairs in bin i of the first metric and bin j of the second; edges as in Histogram."""

    x_edges: np.ndarray
    y_edges: np.ndarray
    counts: np.ndarray


def extent(values: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest finite value; (0, 1) where there is none, and a span of 1 where all are equal."""
    values = read_only(values)
    ends = in_parts(lambda start, stop: _extent(values, start, stop), len(values))
    low, high = min((low for low, _ in ends), default=np.inf), max((high for _, high in ends), default=-np.inf)
    if low > high:
        return 0.0, 1.0
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def histogram(values: np.ndarray, bins: int, span: tuple[float, float], mask: np.ndarray | None = None) -> Histogram:
    """Counts of values in equal bins over a span; NaN and values outside the span are in no bin.

    values: (N,) floats. bins: 1 or more. mask: (N,) bool, which values count; None for all.
    """
    edges = np.linspace(*span, bins + 1)
    counts = np.zeros(bins, np.int64)
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        if mask is not None:
            block = block[mask[start : start + _BLOCK]]
        bin_of, inside = _bins_of(block, edges)
        counts += np.bincount(bin_of[inside], minlength=bins)
    return Histogram(edges, counts)


def density(
    x: np.ndarray,
    y: np.ndarray,
    bins: int,
    x_span: tuple[float, float],
    y_span: tuple[float, float],
    mask: np.ndarray | None = None,
) -> Density:
    """Joint counts of two metrics in bins x bins cells over two spans; rules as in histogram. x, y: (N,) floats."""
    x_edges, y_edges = np.linspace(*x_span, bins + 1), np.linspace(*y_span, bins + 1)
    counts = np.zeros(bins * bins, np.int64)
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        chosen = slice(None) if mask is None else mask[part]
        x_bin, x_inside = _bins_of(x[part][chosen], x_edges)
        y_bin, y_inside = _bins_of(y[part][chosen], y_edges)
        cell = (x_bin * bins + y_bin)[x_inside & y_inside]
        counts += np.bincount(cell, minlength=bins * bins)
    return Density(x_edges, y_edges, counts.reshape(bins, bins))


def _bins_of(values: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bin of each value, and whether it lies in one at all. Exact: rounding never puts a value past an edge."""
    bins = len(edges) - 1
    values = values.astype(np.float64)
    inside = (values >= edges[0]) & (values <= edges[-1])
    position = np.where(inside, (values - edges[0]) * (bins / (edges[-1] - edges[0])), 0)
    bin_of = np.minimum(position.astype(np.int64), bins - 1)
    bin_of -= (values < edges[bin_of]) & (bin_of > 0)
    bin_of += (values >= edges[bin_of + 1]) & (bin_of < bins - 1)
    return bin_of, inside


@compiled
def _extent(values, start, stop):
    low, high = np.inf, -np.inf
    for row in range(start, stop):
        value = float(values[row])
        if np.isfinite(value):
            low, high = min(low, value), max(high, value)
    return low, high
