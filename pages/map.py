"""Which regions does the pool have, where is it good or bad, and what lies in one of them?"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import streamlit as st

from clipsel_core import uids
from clipsel_core.curation.index.counts import Span, within
from pages.parts import facts, metrics, recipes, state, unreadable, views, words
from pages.parts.catalog import Entry
from pages.parts.gallery import images, pager, texts
from pages.parts.jobs import jobs
from pages.parts.map import atlas, map_view, naming, projecting, region
from pages.parts.map.atlas import AMOUNT, KEPT, Cells, Colour
from pages.parts.map.map_view import Points, Tip, View
from pages.parts.map.shades import Scale
from pages.parts.map.shapes import Shape
from pages.parts.pair import pair

_MOST_POINTS = 2_000
_LONGEST_CAPTION = 200


@dataclass(frozen=True)
class _Shown:
    """What the rest of the page shows. recipe: the draft's YAML. labels: the regions' names so far."""

    colour: Colour
    shape: Shape | None
    recipe: str
    labels: naming.Labels


def show(entry: Entry) -> None:
    st.title("Map")
    run = state.open_run(entry)
    state.require_table(entry)
    if state.find_map(entry) is None:
        jobs.panel(run.root)
        projecting.ask_for_map(entry, run)
        return
    names = naming.of(entry)
    shown = _Shown(Colour(AMOUNT), _drawn(entry), recipes.draft_yaml(entry, run), names.labels)
    left, right = st.columns([4, 3], gap="large")
    with left:
        _view(entry, replace(shown, colour=_colour(entry, shown.recipe)))
        naming.watch(names, shown.labels)
    with right:
        jobs.panel(run.root)
        region.panel(entry, run, shown.shape, names)


def _colour(entry: Entry, recipe: str) -> Colour:
    name = st.selectbox(
        "Colour",
        [AMOUNT, KEPT, *state.open_table(entry).metrics],
        format_func=lambda name: f"Colour: {Colour(name).title}",
        key="map_colour",
        label_visibility="collapsed",
        persist_state="session",
        width=320,
    )
    return Colour(name, recipe if name == KEPT else "")


@unreadable.fragment
def _view(entry: Entry, shown: _Shown) -> None:
    """The map itself. Zooming and moving run this and nothing else; what concerns the whole page draws it anew."""
    if _drawn(entry) != shown.shape or recipes.draft_yaml(entry, state.open_run(entry)) != shown.recipe:
        st.rerun()
    _draw(entry, shown)


def _draw(entry: Entry, shown: _Shown) -> None:
    places, whole, colour = state.open_map(entry), atlas.home(entry), shown.colour
    span = st.session_state.get(_key(entry, "span"), whole)
    found = atlas.cells_of(entry, colour, span)
    scale = atlas.scale_of(entry, colour, found)
    on_map, scored = len(places.rows), words.pairs(len(state.open_table(entry)))
    facts.show_title(f"{colour.title}: {words.count(on_map)} of {scored} on the map")
    few = found.pairs < _MOST_POINTS
    view = View(
        label=f"Map of {words.pairs(on_map)} by {colour.title}. Arrows move it, plus and minus zoom, 0 shows it all.",
        colouring=f"{colour.name} {zlib.crc32(colour.recipe.encode())} {st.context.theme.type}",
        home=whole,
        span=span,
        seen=found.pairs,
        said=f"{'all' if found.pairs == len(places.rows) else words.count(found.pairs)} in view",
        image=atlas.image_of(entry, colour, span),
        bar=atlas.bar_of(entry, colour, found, scale),
        labels=shown.labels,
        points=_points(entry, colour, found, scale) if few else Points(),
        shape=shown.shape,
    )
    key = _key(entry, "map")
    drawn, moved, pointed = (partial(take, entry, key) for take in (_take_shape, _take_span, _take_pointed))
    opened = map_view.show_map(view, key=key, drawn=drawn, moved=moved, pointed=pointed)
    map_view.show_tip(view, _tip(entry, colour, found) if few else None, key=_key(entry, "tip"))
    if opened is not None:
        rows = _rows_in_view(entry, found)
        views.get(views.Pairs).opened = views.OpenPair((entry.key, key), pager.RowList(rows, len(rows)), opened)
    pair.draw_opened(entry, gallery=key)
    st.caption(
        "Similar images lie close together; directions have no meaning. Draw around a region to see what is in it. "
        "The wheel or two fingers zoom; single pairs appear where few are in view."
    )


def _points(entry: Entry, colour: Colour, found: Cells, scale: Scale) -> Points:
    """The pairs in view, one by one."""
    places = state.open_map(entry)
    seen = np.flatnonzero(within(found.span, places.x, places.y))
    values = atlas.values_of(entry, colour)
    shown = np.full(len(seen), scale.high) if values is None else np.nan_to_num(values[seen], nan=scale.low)
    return Points(places.x[seen].tolist(), places.y[seen].tolist(), scale.hexes(shown))


def _tip(entry: Entry, colour: Colour, found: Cells) -> Tip | None:
    """What the pair under the pointer says of itself. Of one, since the captions of all in view lie in many shards."""
    place, rows = st.session_state.pop(_key(entry, "pointed"), None), _rows_in_view(entry, found)
    if place is None or place >= len(rows):
        return None
    row = rows[place : place + 1]
    told = texts.read_texts(entry, row, images.columns(entry))
    names = uids.to_hex(state.open_table(entry).uids_at(row)).to_pylist()
    values = atlas.values_of(entry, colour)
    value = None if values is None else float(values[np.searchsorted(state.open_map(entry).rows, row[0])])
    src = images.addresses(entry, names, told.get("url"))[0]
    return Tip(place, told["caption"][0][:_LONGEST_CAPTION], _value(colour, value), src)


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


def _drawn(entry: Entry) -> Shape | None:
    """What the curator drew on the map last."""
    return st.session_state.get(_key(entry, "drawn"))


def _take_shape(entry: Entry, key: str) -> None:
    st.session_state[_key(entry, "drawn")] = map_view.drawn_shape(key)
    region.rewind()


def _take_span(entry: Entry, key: str) -> None:
    span: Span | None = map_view.moved_to(key)
    if span is not None:
        st.session_state[_key(entry, "span")] = span


def _take_pointed(entry: Entry, key: str) -> None:
    st.session_state[_key(entry, "pointed")] = map_view.pointed_at(key)


show(state.current())
