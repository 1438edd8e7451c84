"""What is there to draw of a run's map? Its cells in a colour, and the pairs inside a shape: computed once and kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import streamlit as st

from clipsel_core.curation.index import counts
from clipsel_core.curation.index.counts import Cells, Span
from pages.parts import drawings, metrics, routes, state, words
from pages.parts.catalog import Entry
from pages.parts.map.map_view import Bar
from pages.parts.map.shades import Scale, picture
from pages.parts.map.shapes import Shape, inside

AMOUNT, KEPT = "amount", "kept"
_ENDS = (2, 50, 98)
# Where a region keeps so many times what the recipe keeps overall, it has the strongest colour.
_MOST_TIMES = 2.5


@dataclass(frozen=True)
class Colour:
    """What the map is coloured by. name: AMOUNT, KEPT or a metric. recipe: the draft's YAML, where it matters."""

    name: str
    recipe: str = ""

    @property
    def title(self) -> str:
        return {AMOUNT: "Number of pairs", KEPT: "Share kept by the recipe"}.get(self.name) or (
            f"Mean {metrics.title(self.name)}"
        )


def home(entry: Entry) -> Span:
    """The whole map."""
    return _home(entry, state.map_stamp(entry))


def cells_of(entry: Entry, colour: Colour, span: Span) -> Cells:
    """A part of the map in cells; of the whole map's colour."""
    return _cells(entry, colour, span, state.map_stamp(entry))


def values_of(entry: Entry, colour: Colour) -> np.ndarray | None:
    """What is averaged, of each pair on the map: (M,) floats; None for the number of pairs."""
    return _values(entry, colour, state.map_stamp(entry))


def scores_of(entry: Entry, metric: str) -> np.ndarray:
    """A metric of each pair on the map: (M,) floats, NaN where a pair has none."""
    return _scores(entry, metric, state.map_stamp(entry))


def scale_of(entry: Entry, colour: Colour, found: Cells) -> Scale:
    """Colours for a part of the map: those of means and shares are the same wherever it is looked at."""
    if colour.name == AMOUNT:
        most = max(float(found.density.max()) / found.single, 1.0)
        return Scale("amount", 0.0, float(np.expm1(np.log1p(most) / 2)), most)
    if colour.name == KEPT:
        overall = _overall(entry, colour, state.map_stamp(entry))
        return Scale("share", 0.0, overall, min(1.0, max(0.02, _MOST_TIMES * overall)))
    return Scale("score", *_ends(entry, colour, state.map_stamp(entry)))


def bar_of(entry: Entry, colour: Colour, found: Cells, scale: Scale) -> Bar:
    """The legend of a part of the map."""
    blank, colours = "no pair", scale.ends()
    if colour.name == KEPT:
        most = f"{100 * scale.high:.0f} %"
        overall, highest = f"{100 * scale.middle:.1f} % overall", most if scale.high == 1 else f"≥ {most}"
        return Bar(colour.title, colours, [("0 %", 0.0), (overall, 0.5), (highest, 1.0)], blank)
    if colour.name != AMOUNT:
        low, middle, high = (words.score(end) for end in (scale.low, scale.middle, scale.high))
        ticks = [(f"≤ {low}", 0.0), (f"median {middle}", 0.5), (f"≥ {high}", 1.0)]
        return Bar(colour.title, colours, ticks, blank)
    # Cells are an accident of drawing; a square of a hundredth of the map's width means the same at every zoom.
    left, right, _, _ = home(entry)
    side = (found.span[1] - found.span[0]) / found.density.shape[0]
    each = found.single * ((right - left) / 100 / side) ** 2
    ticks = [(_few(end * each), at) for end, at in ((0.0, 0.0), (scale.middle, 0.5), (scale.high, 1.0))]
    # Where no pair is in view there is no most of them, and the scale is only what is drawn with.
    ticks = ticks if found.pairs else ticks[:1]
    return Bar("Pairs in a square 1 % of the map wide, log", colours, ticks, blank)


def _few(pairs: float) -> str:
    """A mean number of pairs: below 10 its fraction matters, as where pairs lie far apart."""
    return f"{pairs:,.0f}" if pairs >= 9.95 else f"{pairs:.2g}"


def image_of(entry: Entry, colour: Colour, span: Span) -> str:
    """The address of a picture of a part of the map."""
    dark = st.context.theme.type == "dark"
    # Kept anew each time: whoever is sent the address will ask for it soon.
    return routes.drawing_url(drawings.keep(_image(entry, colour, span, dark, state.map_stamp(entry))))


def members(entry: Entry, shape: Shape) -> np.ndarray:
    """Which of the map's pairs lie in a shape: (M,) bool."""
    return _members(entry, shape, state.map_stamp(entry))


def rows_in(entry: Entry, shape: Shape) -> np.ndarray:
    """Row numbers of the pairs inside a shape: (M,) int64, ascending."""
    return state.open_map(entry).rows[_members(entry, shape, state.map_stamp(entry))]


@st.cache_resource(max_entries=8, show_spinner=False)
def _home(entry: Entry, stamp: state.Stamp) -> Span:
    places = state.open_map(entry)
    return counts.whole_span(places.x, places.y)


@st.cache_resource(max_entries=16, show_spinner=False)
def _values(entry: Entry, colour: Colour, stamp: state.Stamp) -> np.ndarray | None:
    if colour.name == AMOUNT:
        return None
    if colour.name == KEPT:
        return state.keeps(entry, colour.recipe)(state.open_map(entry).rows).astype(np.float32)
    return _scores(entry, colour.name, stamp)


@st.cache_resource(max_entries=16, show_spinner=False)
def _scores(entry: Entry, metric: str, stamp: state.Stamp) -> np.ndarray:
    return state.open_table(entry).take(metric, state.open_map(entry).rows)


@st.cache_resource(max_entries=32, show_spinner=False)
def _ends(entry: Entry, colour: Colour, stamp: state.Stamp) -> tuple[float, float, float]:
    values = _values(entry, colour, stamp)
    known = values[~np.isnan(values)] if values is not None else np.empty(0)
    if not len(known):
        return 0.0, 0.5, 1.0
    low, middle, high = (float(end) for end in np.percentile(known, _ENDS))
    return low, middle, high


@st.cache_resource(max_entries=32, show_spinner=False)
def _overall(entry: Entry, colour: Colour, stamp: state.Stamp) -> float:
    """The share of all pairs on the map that the recipe keeps."""
    values = _values(entry, colour, stamp)
    return 0.0 if values is None else float(values.mean())


@st.cache_resource(max_entries=8, show_spinner=False)
def _cells(entry: Entry, colour: Colour, span: Span, stamp: state.Stamp) -> Cells:
    places = state.open_map(entry)
    return counts.map_cells(places.x, places.y, span, values=_values(entry, colour, stamp))


@st.cache_resource(max_entries=16, show_spinner=False)
def _image(entry: Entry, colour: Colour, span: Span, dark: bool, stamp: state.Stamp) -> bytes:
    found = _cells(entry, colour, span, stamp)
    return picture(found, scale_of(entry, colour, found))


@st.cache_resource(max_entries=32, show_spinner=False)
def _members(entry: Entry, shape: Shape, stamp: state.Stamp) -> np.ndarray:
    """Which of the map's pairs lie in a shape: (M,) bool."""
    places = state.open_map(entry)
    return inside(shape, places.x, places.y)
