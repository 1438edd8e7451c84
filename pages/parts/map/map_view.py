"""How is the map drawn and drawn on? As a picture that the server bins, under a canvas that zooms, pans and lassos.

The browser sends geometry only: the corners of what was drawn, and the part of the map that it would like to see finer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import streamlit as st

from clipsel_core.curation.index.counts import Span
from pages.parts.component import component
from pages.parts.map.shapes import Shape, shape_of

_map = component("map", '<div class="map"></div>', css=("map/map.css",), js=("make.js", "map/plane.js", "map/map.js"))
_tip = component("tip", "<i hidden></i>", js=("map/tip.js",))


@dataclass(frozen=True)
class Bar:
    """The legend. colours: low to high. ticks: words and where they stand, 0 to 1. blank: what no colour means."""

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
    bar: Bar
    labels: list[list[tuple[str, float, float]]]
    points: Points
    shape: Shape | None


def show_map(
    view: View, *, key: str, drawn: Callable[[], None], moved: Callable[[], None], pointed: Callable[[], None]
) -> int | None:
    """Draws the map and returns the place among its points of the one that was just clicked, if any.

    drawn, moved, pointed: called when something was drawn or taken away, when another part is in view, and when the
    pointer rests on a point that has not been told in words yet.
    """
    shown = _map(
        data=asdict(view),
        key=key,
        on_drawn_change=drawn,
        on_moved_change=moved,
        on_pointed_change=pointed,
        on_opened_change=lambda: None,
    )
    place = shown.opened
    return place if isinstance(place, int) and 0 <= place < len(view.points.x) else None


def show_tip(view: View, tip: Tip | None, *, key: str) -> None:
    """Tells the map, which shows this view, what one of its points says of itself.

    By a component of its own: a word under the pointer would send all of the map again.
    """
    said = None if tip is None else asdict(tip)
    _tip(data={"colouring": view.colouring, "image": view.image, "span": view.span, "tip": said}, key=key)


def drawn_shape(key: str) -> Shape | None:
    """What was just drawn; None where it was taken away."""
    return shape_of(st.session_state[key].get("drawn"))


def pointed_at(key: str) -> int | None:
    """The place among the points of the one that the pointer rests on."""
    place = st.session_state[key].get("pointed")
    return place if isinstance(place, int) and place >= 0 else None


def moved_to(key: str) -> Span | None:
    """The part of the map that just came into view; None where the browser sent something else."""
    said: Any = st.session_state[key].get("moved")
    numbers = isinstance(said, list) and len(said) == 4 and all(isinstance(end, int | float) for end in said)
    if not numbers or not all(math.isfinite(end) for end in said) or said[0] >= said[1] or said[2] >= said[3]:
        return None
    left, right, bottom, top = map(float, said)
    return left, right, bottom, top
