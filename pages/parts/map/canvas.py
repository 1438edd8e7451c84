"""How is the map drawn, and in which colours? As a picture under a canvas that zooms, pans and lassos.

The server bins the picture, and colours it by a scale of numbers, shares or scores. The browser sends geometry only:
the part of the map that it would like to see finer; and the corners of what was drawn, which `region` reads.
"""

from __future__ import annotations

import io
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from clipsel_core.curation.index import counts as binning
from clipsel_core.curation.index.counts import Cells, Span
from pages.parts import pictures, registry, state, words
from pages.parts.catalog import Entry
from pages.parts.component import component

AMOUNT, KEPT = "amount", "kept"
Stops = tuple[tuple[int, int, int], ...]

_map = component(
    "map",
    '<div class="map"></div>',
    css=("map/map.css",),
    js=("make.js", "gallery/image.js", "map/plane.js", "map/map.js"),
)
_tip = component("tip", "<i hidden></i>", js=("map/tip.js",))
_ENDS = (2, 50, 98)
# Where a region keeps so many times what the recipe keeps overall, it has the strongest colour.
_MOST_TIMES = 2.5
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
class Shape:
    """A polygon on the map. x, y: its corners in the map's coordinates, three or more."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def holds(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether each point lies inside, by counting the edges to its right; an odd number means inside.

        Only points within the bounding box are tested against the edges. x, y: (M,) floats; returns (M,) bool.
        """
        corner_x, corner_y = np.array(self.x), np.array(self.y)
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


@dataclass(frozen=True)
class Legend:
    """colours: low to high. ticks: words and where they stand, 0 to 1. blank: what no colour means."""

    title: str
    colours: list[str]
    ticks: list[tuple[str, float]]
    blank: str


@dataclass(frozen=True)
class Points:
    """Single pairs, where few are in view: where they are, and their colours as #rrggbb."""

    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    colour: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Tip:
    """One of the points in words, plain text. place: which of them. src: a path on this server, or empty."""

    place: int
    caption: str
    value: str
    src: str


@dataclass(frozen=True)
class MapView:
    """What the map shows. home: the whole map; span: what image, an address, covers; labels: text, x, y, one list for
    each zoom.

    seen, said: pairs in view, also in words. colouring: names what image shows; images of one colouring can lie beside
    each other.
    """

    label: str
    colouring: str
    home: Span
    span: Span
    seen: int
    said: str
    image: str
    bar: Legend
    labels: list[list[tuple[str, float, float]]]
    points: Points
    shape: Shape | None


@dataclass
class MapState:
    """What a session has done to a run's map: the part in view, what was drawn, the place of the point pointed at."""

    span: Span | None = None
    shape: Shape | None = None
    pointed: int | None = None


def draw_map(view: MapView, session: MapState, *, key: str) -> int | None:
    """Draws the map and returns the place among its points of the one that was just clicked, if any.

    session: changed when another part comes into view, or the pointer rests on a point that has not been told in words.
    """

    def take_span() -> None:
        session.span = read_span(st.session_state[key].get("moved")) or session.span

    def take_pointed() -> None:
        place = st.session_state[key].get("pointed")
        session.pointed = place if isinstance(place, int) and place >= 0 else None

    shown = _map(
        data=asdict(view),
        key=key,
        on_moved_change=take_span,
        on_pointed_change=take_pointed,
        on_opened_change=lambda: None,
    )
    place = shown.opened
    return place if isinstance(place, int) and 0 <= place < len(view.points.x) else None


def draw_tip(view: MapView, tip: Tip | None, *, key: str) -> None:
    """Tells the map, which shows this view, what one of its points says of itself.

    By a component of its own: a word under the pointer would send all of the map again.
    """
    said = None if tip is None else asdict(tip)
    _tip(data={"colouring": view.colouring, "image": view.image, "span": view.span, "tip": said}, key=key)


def read_span(said: Any) -> Span | None:
    """The part of the map in what a browser sent, [left, right, bottom, top]; None where it is none."""
    numbers = isinstance(said, list) and len(said) == 4 and all(isinstance(end, int | float) for end in said)
    if not numbers or not all(math.isfinite(end) for end in said) or said[0] >= said[1] or said[2] >= said[3]:
        return None
    left, right, bottom, top = map(float, said)
    return left, right, bottom, top


@dataclass(frozen=True)
class Colour:
    """What the map is coloured by. name: AMOUNT, KEPT or a metric.

    recipe: the draft's YAML, where it matters. stamp: changes whenever what it keeps does.
    """

    name: str
    recipe: str = ""
    stamp: state.Stamp = ()

    @classmethod
    def of(cls, entry: Entry, name: str, recipe: str) -> Colour:
        """The colour of this name; the recipe is the draft's."""
        return cls(name, recipe, state.recipe_stamp(entry, recipe)) if name == KEPT else cls(name)

    def title(self, entry: Entry) -> str:
        """What people call it."""
        return {AMOUNT: "Number of pairs", KEPT: "Share kept by the recipe"}.get(self.name) or (
            f"Mean {registry.title(entry, self.name)}"
        )


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


def draw_cells(cells: Cells, scale: Scale) -> bytes:
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


def image_address(entry: Entry, colour: Colour, span: Span) -> str:
    """The address of a picture of a part of the map."""
    # Kept anew each time: whoever is sent the address will ask for it soon.
    return pictures.keep_drawing(_image(entry, colour, span, st.context.theme.type == "dark"))


@state.per_map(16)
def _image(entry: Entry, colour: Colour, span: Span, dark: bool) -> bytes:
    found = cells_of(entry, colour, span)
    return draw_cells(found, scale_of(entry, colour, found))


@state.per_map(8)
def map_span(entry: Entry) -> Span:
    """The whole map."""
    places = state.open_map(entry)
    return binning.span_around(places.x, places.y)


@state.per_map(8)
def cells_of(entry: Entry, colour: Colour, span: Span) -> Cells:
    """A part of the map in cells; of the whole map's colour."""
    places = state.open_map(entry)
    return binning.map_cells(places.x, places.y, span, values=colour_values(entry, colour))


def colour_values(entry: Entry, colour: Colour) -> np.ndarray | None:
    """What is averaged, of each pair on the map: (M,) floats; None for the number of pairs."""
    if colour.name == AMOUNT:
        return None
    if colour.name == KEPT:
        return _kept_of(entry, colour)
    return scores_of(entry, colour.name)


@state.per_map(8)
def _kept_of(entry: Entry, colour: Colour) -> np.ndarray:
    """Whether the recipe keeps each pair on the map: (M,) float32, 1 or 0."""
    return state.keeps(entry, colour.recipe)(state.open_map(entry).rows).astype(np.float32)


@state.per_map(16)
def scores_of(entry: Entry, metric: str) -> np.ndarray:
    """A metric of each pair on the map: (M,) floats, NaN where a pair has none."""
    return state.open_table(entry).take(metric, state.open_map(entry).rows)


def points_in(entry: Entry, colour: Colour, found: Cells, scale: Scale) -> Points:
    """The pairs of a part of the map, one by one."""
    places, values = state.open_map(entry), colour_values(entry, colour)
    seen = np.flatnonzero(binning.within(found.span, places.x, places.y))
    shown = np.full(len(seen), scale.high) if values is None else np.nan_to_num(values[seen], nan=scale.low)
    return Points(places.x[seen].tolist(), places.y[seen].tolist(), scale.hexes(shown))


def scale_of(entry: Entry, colour: Colour, found: Cells) -> Scale:
    """Colours for a part of the map: those of means and shares are the same wherever it is looked at."""
    if colour.name == AMOUNT:
        most = max(float(found.density.max()) / found.single, 1.0)
        return Scale("amount", 0.0, float(np.expm1(np.log1p(most) / 2)), most)
    return _whole_scale(entry, colour)


@state.per_map(32)
def _whole_scale(entry: Entry, colour: Colour) -> Scale:
    values = colour_values(entry, colour)
    assert values is not None
    if colour.name == KEPT:
        overall = float(values.mean())
        return Scale("share", 0.0, overall, min(1.0, max(0.02, _MOST_TIMES * overall)))
    known = values[~np.isnan(values)]
    low, middle, high = map(float, np.percentile(known, _ENDS)) if len(known) else (0.0, 0.5, 1.0)
    return Scale("score", low, middle, high)


def legend_of(entry: Entry, colour: Colour, found: Cells, scale: Scale) -> Legend:
    """The legend of a part of the map."""
    blank, colours = "no pair", scale.ends()
    if colour.name == KEPT:
        most = f"{100 * scale.high:.0f} %"
        overall, highest = f"{100 * scale.middle:.1f} % overall", most if scale.high == 1 else f"≥ {most}"
        return Legend(colour.title(entry), colours, [("0 %", 0.0), (overall, 0.5), (highest, 1.0)], blank)
    if colour.name != AMOUNT:
        low, middle, high = (words.decimal(end) for end in (scale.low, scale.middle, scale.high))
        ticks = [(f"≤ {low}", 0.0), (f"median {middle}", 0.5), (f"≥ {high}", 1.0)]
        return Legend(colour.title(entry), colours, ticks, blank)
    # Cells are an accident of drawing; a square of a hundredth of the map's width means the same at every zoom.
    left, right, _, _ = map_span(entry)
    side = (found.span[1] - found.span[0]) / found.density.shape[0]
    each = found.single * ((right - left) / 100 / side) ** 2
    ticks = []
    for end, at in ((0.0, 0.0), (scale.middle, 0.5), (scale.high, 1.0)):
        # Below 10 a mean number's fraction matters, as where pairs lie far apart.
        pairs = end * each
        ticks.append((f"{pairs:,.0f}" if pairs >= 9.95 else f"{pairs:.2g}", at))
    # Where no pair is in view there is no most of them, and the scale is only what is drawn with.
    ticks = ticks if found.pairs else ticks[:1]
    return Legend("Pairs in a square 1 % of the map wide, log", colours, ticks, blank)
