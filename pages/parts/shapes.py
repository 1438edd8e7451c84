"""Which points lie inside what was drawn on the map? Boxes and lassos as plotly reports them, tested in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def inside(selection: Mapping[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether each point lies in any box or lasso of a plotly selection. x, y: (M,) floats; returns (M,) bool."""
    found = np.zeros(len(x), bool)
    for box in selection.get("box") or []:
        (x0, x1), (y0, y1) = sorted(box["x"]), sorted(box["y"])
        found |= (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    for lasso in selection.get("lasso") or []:
        found |= inside_polygon(np.asarray(lasso["x"], float), np.asarray(lasso["y"], float), x, y)
    return found


def inside_polygon(corner_x: np.ndarray, corner_y: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether each point lies inside a polygon, by counting the edges to its right; an odd number means inside.

    Only points within the polygon's bounding box are tested against its edges.
    """
    found = np.zeros(len(x), bool)
    if len(corner_x) < 3:
        return found
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
