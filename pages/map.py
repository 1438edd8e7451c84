"""Which regions does the pool have, where is it good or bad, and what lies in one of them?"""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st

from clipsel_core import uids
from clipsel_core.curation.cells import Span, within
from pages.parts import (
    atlas,
    facts,
    images,
    jobs,
    map_view,
    metrics,
    pair,
    projecting,
    recipes,
    records,
    region,
    state,
    words,
)
from pages.parts.atlas import AMOUNT, KEPT, Cells, Colour
from pages.parts.catalog import Entry
from pages.parts.map_view import Points, View
from pages.parts.shades import Scale

_MOST_POINTS = 2_000
_LONGEST_CAPTION = 200


def show(entry: Entry) -> None:
    st.title("Map")
    run = state.open_run(entry)
    state.require_table(entry)
    if state.open_map(entry) is None:
        jobs.panel(run.root)
        projecting.ask_for_map(entry, run)
        return
    left, right = st.columns([4, 3], gap="large")
    with left:
        _draw(entry, _colour(entry))
    with right:
        jobs.panel(run.root)
        region.panel(entry, run, st.session_state.get(_key(entry, "drawn")))


def _colour(entry: Entry) -> Colour:
    names = [AMOUNT, KEPT, *state.open_table(entry).metrics]
    name = st.selectbox(
        "Colour",
        names,
        format_func=lambda name: Colour(name).title,
        key="map_colour",
        persist_state="session",
        width=320,
    )
    return Colour(name, recipes.draft_yaml(entry, state.open_run(entry)) if name == KEPT else "")


def _draw(entry: Entry, colour: Colour) -> None:
    places, whole = state.open_map(entry), atlas.home(entry)
    span = st.session_state.get(_key(entry, "span"), whole)
    found = atlas.cells_of(entry, colour, span)
    scale = atlas.scale_of(entry, colour, found)
    on_map, scored = words.count(len(places.rows)), words.pairs(len(state.open_table(entry)))
    facts.show_title(
        f"{colour.title}: {on_map} of {scored} are on the map",
        f"{words.count(found.pairs)} in view" if found.pairs < len(places.rows) else "",
    )
    view = View(
        label=f"Map of {on_map} pairs by {colour.title}. Arrows move it, plus and minus zoom, 0 shows all of it.",
        home=whole,
        span=span,
        image=atlas.image_of(entry, colour, span),
        bar=atlas.bar_of(entry, colour, found, scale),
        labels=atlas.labels_of(entry),
        points=_points(entry, colour, found, scale) if found.pairs < _MOST_POINTS else Points(),
        shape=st.session_state.get(_key(entry, "drawn")),
    )
    key = _key(entry, "map")
    drawn, moved = partial(_take_shape, entry, key), partial(_take_span, entry, key)
    opened = map_view.show_map(view, key=key, drawn=drawn, moved=moved)
    if opened is not None:
        pair.open_pair(entry, pair.Walk.of_rows(_rows_in_view(entry, found)), opened, gallery=key)
    else:
        pair.stay_open(entry, gallery=key)
    st.caption(
        "Similar images lie close together; directions have no meaning. Draw around a region to see what is in it. "
        "The wheel zooms; single pairs appear where few are in view."
    )


def _points(entry: Entry, colour: Colour, found: Cells, scale: Scale) -> Points:
    """The pairs in view, one by one."""
    places, table = state.open_map(entry), state.open_table(entry)
    seen = np.flatnonzero(within(found.span, places.x, places.y))
    rows, values = _rows_in_view(entry, found), atlas.values_of(entry, colour)
    names = uids.to_hex(table.uids_at(rows)).to_pylist()
    told = records.of(entry, rows, images.columns(entry))
    shown = np.full(len(seen), scale.high) if values is None else np.nan_to_num(values[seen], nan=scale.low)
    return Points(
        x=places.x[seen].tolist(),
        y=places.y[seen].tolist(),
        colour=scale.hexes(shown),
        caption=[caption[:_LONGEST_CAPTION] for caption in told["caption"]],
        value=[_value(colour, None if values is None else float(values[place])) for place in seen],
        src=images.sources(entry, names, told.get("url")),
    )


def _rows_in_view(entry: Entry, found: Cells) -> np.ndarray:
    places = state.open_map(entry)
    return places.rows[within(found.span, places.x, places.y)]


def _value(colour: Colour, value: float | None) -> str:
    if value is None:
        return ""
    if colour.name == KEPT:
        return "kept by the recipe" if value else "dropped by the recipe"
    return f"{metrics.title(colour.name)} {words.score(value)}"


def _key(entry: Entry, what: str) -> str:
    return f"{what} {entry.key}"


def _take_shape(entry: Entry, key: str) -> None:
    st.session_state[_key(entry, "drawn")] = map_view.drawn_shape(key)


def _take_span(entry: Entry, key: str) -> None:
    span: Span | None = map_view.moved_to(key)
    if span is not None:
        st.session_state[_key(entry, "span")] = span


show(state.current())
