"""What lies in each cell of the map: how many pairs, and the mean of some value; smoothed where pairs are few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A part of the map: left, right, bottom and top.
Span = tuple[float, float, float, float]

# A few cells around each pair where there is less than about one pair a cell: without it small samples look like dust.
_SPREAD = 0.28
_WIDEST = 10.0
_STEADIER = 2.5
_NARROWEST = 0.6


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


def whole_span(x: np.ndarray, y: np.ndarray) -> Span:
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
    sigma = _sigma(across * up, len(inside)) if sigma is None else sigma
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


def _cell_of(values: np.ndarray, low: float, high: float, cells: int) -> np.ndarray:
    place = ((values.astype(np.float64) - low) * (cells / (high - low))).astype(np.int64)
    return np.clip(place, 0, cells - 1)


def _sigma(cells: int, pairs: int) -> float:
    """About a quarter of the distance between pairs, were they spread evenly; none where they are closer than cells."""
    wanted = _SPREAD * float(np.sqrt(cells / max(pairs, 1)))
    return 0.0 if wanted < _NARROWEST else min(wanted, _WIDEST)


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
