"""How is the map drawn and drawn on? As a picture that the server bins, under a canvas that zooms, pans and lassos.

The browser sends geometry only: the corners of what was drawn, and the part of the map that it would like to see finer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.index.counts import Span
from pages.parts.component import component

_map = component(
    "map",
    '<div class="map"></div>',
    css=("map/map.css",),
    js=("make.js", "gallery/image.js", "map/plane.js", "map/map.js"),
)
_lasso = component("lasso", "<i hidden></i>", js=("map/lasso.js",))
_tip = component("tip", "<i hidden></i>", js=("map/tip.js",))
_MOST_CORNERS = 4_000


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
class View:
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


def hear_lasso(session: MapState, *, key: str, drawn: Callable[[], None]) -> None:
    """Takes what is drawn on the map, or taken away, into the session, and runs again where this is called.

    drawn: called besides.
    """

    def take_shape() -> None:
        session.shape = read_shape(st.session_state[key].get("drawn"))
        drawn()

    _lasso(data={}, key=key, on_drawn_change=take_shape)


def draw_map(view: View, session: MapState, *, key: str) -> int | None:
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


def draw_tip(view: View, tip: Tip | None, *, key: str) -> None:
    """Tells the map, which shows this view, what one of its points says of itself.

    By a component of its own: a word under the pointer would send all of the map again.
    """
    said = None if tip is None else asdict(tip)
    _tip(data={"colouring": view.colouring, "image": view.image, "span": view.span, "tip": said}, key=key)


def read_shape(said: Any) -> Shape | None:
    """The shape in what a browser sent, {"x": [...], "y": [...]}; None where it is none."""
    if not isinstance(said, dict):
        return None
    x, y = said.get("x"), said.get("y")
    if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y) or not 3 <= len(x) <= _MOST_CORNERS:
        return None
    if not all(isinstance(place, int | float) and math.isfinite(place) for place in (*x, *y)):
        return None
    return Shape(tuple(map(float, x)), tuple(map(float, y)))


def read_span(said: Any) -> Span | None:
    """The part of the map in what a browser sent, [left, right, bottom, top]; None where it is none."""
    numbers = isinstance(said, list) and len(said) == 4 and all(isinstance(end, int | float) for end in said)
    if not numbers or not all(math.isfinite(end) for end in said) or said[0] >= said[1] or said[2] >= said[3]:
        return None
    left, right, bottom, top = map(float, said)
    return left, right, bottom, top
