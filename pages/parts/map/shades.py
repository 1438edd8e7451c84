"""Which colours does the map wear? Ramps for many and few, below and above, and shares; and the picture they make."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import streamlit as st
from PIL import Image

from clipsel_core.curation.index.counts import Cells

Stops = tuple[tuple[int, int, int], ...]

_RAMPS: dict[tuple[str, bool], Stops] = {
    ("amount", False): ((205, 232, 228), (45, 168, 156), (6, 62, 66)),
    ("amount", True): ((22, 66, 68), (28, 140, 130), (190, 250, 240)),
    ("score", False): ((214, 120, 38), (214, 205, 190), (8, 104, 98)),
    ("score", True): ((240, 150, 62), (96, 92, 84), (52, 205, 190)),
    ("share", False): ((176, 184, 194), (120, 178, 176), (8, 116, 108)),
    ("share", True): ((78, 86, 98), (52, 122, 120), (80, 226, 208)),
}
# How the 256 colours of a picture are spent: on full cells, and on each of so many degrees of covering less.
_FULL, _COVERS, _FAINT = 160, 6, 16


@dataclass(frozen=True)
class Scale:
    """From numbers to colours. kind: amount (few to many, in logarithms), score (low, middle, high) or share."""

    kind: str
    low: float
    middle: float
    high: float

    def colours(self, values: np.ndarray) -> np.ndarray:
        """(...,) numbers to (..., 3) uint8; what lies outside the scale takes its end's colour."""
        return self.colours_at(self.heights(values))

    def heights(self, values: np.ndarray) -> np.ndarray:
        """(...,) numbers to their heights on the bar, 0 to 1: 0 is low and less, 0.5 the middle, 1 high and more."""
        ends = (self._measure(np.array(end)) for end in (self.low, self.middle, self.high))
        at = np.maximum.accumulate(np.array([float(end) for end in ends]) + np.array([0, 1e-12, 2e-12]))
        return np.interp(self._measure(values), at, (0, 0.5, 1))

    def colours_at(self, heights: np.ndarray) -> np.ndarray:
        """The colours at (...,) heights of the bar: (..., 3) uint8."""
        stops = np.array(self._stops(), np.float64)
        return np.stack([np.interp(heights, (0, 0.5, 1), stops[:, channel]) for channel in range(3)], -1).astype("u1")

    def hexes(self, values: np.ndarray) -> list[str]:
        """The same as #rrggbb, one for each of (M,) values."""
        return ["#" + bytes(colour).hex() for colour in self.colours(values)]

    def ends(self) -> list[str]:
        """The colours of a bar from low to high."""
        return ["#" + bytes(stop).hex() for stop in self._stops()]

    def _measure(self, values: np.ndarray) -> np.ndarray:
        return np.log1p(values) if self.kind == "amount" else np.asarray(values, np.float64)

    def _stops(self) -> Stops:
        return _RAMPS[self.kind, st.context.theme.type == "dark"]


def picture(cells: Cells, scale: Scale) -> bytes:
    """A PNG of the map: clear where no pair is near, coloured by the mean, or by density without one.

    A byte a cell, which is drawn and sent several times as fast as four: most of 256 colours for cells that are full,
    the others for the edges, where few steps show.
    """
    shown = np.nan_to_num(cells.density / cells.single if cells.mean is None else cells.mean, nan=scale.low)
    near = np.clip(cells.density / (0.5 * cells.single), 0, 1)
    if cells.mean is not None:
        near = np.where(np.isnan(cells.mean), 0, near)
    heights, cover = scale.heights(shown), np.rint(near * _COVERS).astype(np.int64)
    full, faint = np.rint(heights * (_FULL - 1)), _FULL + cover * _FAINT + np.rint(heights * (_FAINT - 1))
    code = np.where(cover == _COVERS, full, np.where(cover == 0, _FULL, faint)).astype(np.uint8)
    drawn, file = Image.fromarray(np.ascontiguousarray(code.T[::-1])), io.BytesIO()
    ramp, thin = (scale.colours_at(np.linspace(0, 1, steps)) for steps in (_FULL, _FAINT))
    drawn.putpalette(np.concatenate([ramp, *[thin] * _COVERS]).tobytes())
    clear = np.repeat(np.arange(_COVERS) * 255 // _COVERS, _FAINT)
    covers = np.concatenate([np.full(_FULL, 255), clear]).astype(np.uint8)
    drawn.save(file, "PNG", compress_level=1, transparency=covers.tobytes())
    return file.getvalue()
