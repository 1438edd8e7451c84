"""How many pairs, and what mean, in each bin of one metric or of two, in each group, in each cell of the map?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipsel_core.curation.index.bitmaps import in_parts

# A part of the map: left, right, bottom and top.
Span = tuple[float, float, float, float]

_BLOCK = 1 << 18
# A few cells around each pair where there is less than about one pair a cell: without it small samples look like dust.
_SPREAD = 0.28
_WIDEST = 10.0
_STEADIER = 2.5
_NARROWEST = 0.6


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


@dataclass(frozen=True)
class GroupMeans:
    """means: (groups, metrics) float64, NaN where a group is empty. counts: (groups,) int64, the pairs averaged."""

    means: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Cells:
    """A map as cells. span: its left, right, bottom and top. pairs: how many lie in it.

    density: (across, up) float64, pairs a cell. mean: (across, up) float64, NaN where no pair is near; None where no
    value was asked for. sigma: by how many cells each pair was spread, 0 where none was.
    """

    span: Span
    pairs: int
    density: np.ndarray
    mean: np.ndarray | None
    sigma: float

    @property
    def single(self) -> float:
        """The density where one pair lies alone: what stands out from an empty cell."""
        return 1.0 if self.sigma == 0 else 1 / (2 * np.pi * self.sigma**2)


def histogram(values: np.ndarray, bins: int, span: tuple[float, float]) -> Histogram:
    """Counts of values in equal bins over a span; NaN and values outside the span are in no bin.

    values: (N,) floats. bins: 1 or more.
    """
    edges = np.linspace(*span, bins + 1)
    counts = np.zeros(bins, np.int64)
    for start in range(0, len(values), _BLOCK):
        bin_of, inside = _bins_of(values[start : start + _BLOCK], edges)
        counts += np.bincount(bin_of[inside], minlength=bins)
    return Histogram(edges, counts)


def density(
    x: np.ndarray, y: np.ndarray, bins: int, x_span: tuple[float, float], y_span: tuple[float, float]
) -> Density:
    """Joint counts of two metrics in bins x bins cells over two spans; rules as in histogram. x, y: (N,) floats."""
    x_edges, y_edges = np.linspace(*x_span, bins + 1), np.linspace(*y_span, bins + 1)
    counts = np.zeros(bins * bins, np.int64)
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        x_bin, x_inside = _bins_of(x[part], x_edges)
        y_bin, y_inside = _bins_of(y[part], y_edges)
        cell = (x_bin * bins + y_bin)[x_inside & y_inside]
        counts += np.bincount(cell, minlength=bins * bins)
    return Density(x_edges, y_edges, counts.reshape(bins, bins))


def group_means(group_of: np.ndarray, groups: int, columns: list[np.ndarray]) -> GroupMeans:
    """Means of several metrics by group, over the pairs that have all of them.

    group_of: (N,) integers below `groups`, negative for pairs in no group. columns: (N,) float32 each.
    """

    def work(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        group, parts = group_of[start:stop], [column[start:stop] for column in columns]
        whole = group >= 0
        for values in parts:
            whole &= ~np.isnan(values)
        group = group[whole]
        sums = [np.bincount(group, weights=values[whole], minlength=groups) for values in parts]
        return np.stack(sums, axis=1), np.bincount(group, minlength=groups)

    sums, counts = np.zeros((groups, len(columns))), np.zeros(groups, np.int64)
    for some, pairs in in_parts(work, len(group_of)):
        sums += some
        counts += pairs
    with np.errstate(invalid="ignore"):
        return GroupMeans(sums / counts[:, None], counts)


def span_around(x: np.ndarray, y: np.ndarray) -> Span:
    """Left, right, bottom and top of all places, with some room around them; a square of 1 around a single place."""
    ends = [float(part) for values in (x, y) for part in (values.min(), values.max())]
    room = 0.04 * max(ends[1] - ends[0], ends[3] - ends[2]) or 0.5
    return ends[0] - room, ends[1] + room, ends[2] - room, ends[3] + room


def within(span: Span, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which places lie in a span: (M,) bool."""
    left, right, bottom, top = span
    return (x >= left) & (x <= right) & (y >= bottom) & (y <= top)


def map_cells(
    x: np.ndarray,
    y: np.ndarray,
    span: Span,
    *,
    longest: int = 512,
    values: np.ndarray | None = None,
    sigma: float | None = None,
) -> Cells:
    """Counts pairs over square cells, and averages a value over them.

    x, y: (M,) floats, no unit. longest: cells along the span's longer side. values: (M,) numbers; pairs with NaN count
        towards the density but not towards the mean. sigma: by how many cells to spread each pair; None for as many as
        the number of pairs asks for.
    """
    left, right, bottom, top = span
    size = max(right - left, top - bottom) / longest
    across, up = (max(1, round(side / size)) for side in (right - left, top - bottom))
    inside = np.flatnonzero(within(span, x, y))
    cell = _cell_of(x[inside], left, right, across) * up + _cell_of(y[inside], bottom, top, up)
    if sigma is None:
        # About a quarter of the distance between pairs, were they spread evenly; none where they are closer than cells.
        wanted = _SPREAD * float(np.sqrt(across * up / max(len(inside), 1)))
        sigma = 0.0 if wanted < _NARROWEST else min(wanted, _WIDEST)
    blurs = _blur(across, sigma), _blur(up, sigma)
    density = _spread(np.bincount(cell, minlength=across * up).reshape(across, up), *blurs)
    if values is None:
        return Cells(span, len(inside), density, None, sigma)
    value = values[inside].astype(np.float64)
    known = ~np.isnan(value)
    # A mean of few pairs is mostly chance: it takes more neighbours than seeing where pairs are does.
    blurs = _blur(across, _STEADIER * sigma), _blur(up, _STEADIER * sigma)
    weights = _spread(np.bincount(cell[known], minlength=across * up).reshape(across, up), *blurs)
    sums = np.bincount(cell[known], value[known], minlength=across * up).reshape(across, up)
    near = weights > 1e-9
    mean = np.full((across, up), np.nan)
    mean[near] = _spread(sums, *blurs)[near] / weights[near]
    return Cells(span, len(inside), density, mean, sigma)


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


def _cell_of(values: np.ndarray, low: float, high: float, cells: int) -> np.ndarray:
    place = ((values.astype(np.float64) - low) * (cells / (high - low))).astype(np.int64)
    return np.clip(place, 0, cells - 1)


def _blur(cells: int, sigma: float) -> np.ndarray | None:
    """A matrix that spreads each cell over its neighbours; what would fall off the edge is lost there."""
    if sigma == 0:
        return None
    far = np.subtract.outer(np.arange(cells), np.arange(cells)) / sigma
    return (np.exp(-(far**2) / 2) / (sigma * np.sqrt(2 * np.pi))).astype(np.float32)


def _spread(cells: np.ndarray, across: np.ndarray | None, up: np.ndarray | None) -> np.ndarray:
    if across is None or up is None:
        return cells.astype(np.float64)
    return (across @ cells.astype(np.float32) @ up).astype(np.float64)
