"""Which points lie inside what was drawn on the map? Boxes and lassos by their corners, tested in numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

_MOST_CORNERS = 4_000


@dataclass(frozen=True)
class Shape:
    """A polygon on the map. x, y: its corners in the map's coordinates, three or more."""

    x: tuple[float, ...]
    y: tuple[float, ...]


def shape_of(said: Any) -> Shape | None:
    """The shape in what a browser sent, {"x": [...], "y": [...]}; None where it is none."""
    if not isinstance(said, dict):
        return None
    x, y = said.get("x"), said.get("y")
    if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y) or not 3 <= len(x) <= _MOST_CORNERS:
        return None
    if not all(isinstance(place, int | float) and math.isfinite(place) for place in (*x, *y)):
        return None
    return Shape(tuple(map(float, x)), tuple(map(float, y)))


def inside(shape: Shape, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether each point lies inside a shape, by counting the edges to its right; an odd number means inside.

    Only points within the shape's bounding box are tested against its edges. x, y: (M,) floats; returns (M,) bool.
    """
    corner_x, corner_y = np.array(shape.x), np.array(shape.y)
    found = np.zeros(len(x), bool)
    near = (x >= corner_x.min()) & (x <= corner_x.max()) & (y >= corner_y.min()) & (y <= corner_y.max())
    place = np.flatnonzero(near)
    px, py = x[place].astype(np.float64), y[place].astype(np.float64)
    odd = np.zeros(len(place), bool)
    ends = zip(np.roll(corner_x, 1), np.roll(corner_y, 1), corner_x, corner_y, strict=True)
    for x0, y0, x1, y1 in ends:
        if y0 == y1:
            continue
        crosses = (py < y0) != (py < y1)
        odd ^= crosses & (px < x0 + (py - y0) * ((x1 - x0) / (y1 - y0)))
    found[place[odd]] = True
    return found
