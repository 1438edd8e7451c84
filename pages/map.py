"""Which regions does the pool have, where is it good or bad, and what lies in one of them?"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import streamlit as st

from clipsel_core import uids
from clipsel_core.curation.index.counts import within
from pages.parts import messages, recipes, registry, sessions, state, words
from pages.parts.catalog import Entry
from pages.parts.gallery import contents, pager
from pages.parts.jobs import forms, jobs
from pages.parts.map import canvas, region
from pages.parts.map.canvas import AMOUNT, KEPT, Colour, MapState, MapView, Points, Tip
from pages.parts.pair import pair

_MOST_POINTS = 2_000
_LONGEST_CAPTION = 200


@dataclass(frozen=True)
class _Shown:
    """What the rest of the page shows. recipe: the draft's YAML. names: of the regions so far."""

    colour: str
    recipe: str
    names: region.Names | None


def show(entry: Entry) -> None:
    st.title("Map")
    run = state.open_run(entry)
    state.require_table(entry)
    if state.find_map(entry) is None:
        jobs.draw_panel(run.root)
        forms.ask_for_map(run)
        return
    recipe, naming = recipes.draft_yaml(entry, run), region.naming_task(entry)
    naming.begin()
    names = naming.value
    left, right = st.columns([4, 3], gap="large")
    with left:
        name = st.selectbox(
            "Colour",
            [AMOUNT, KEPT, *registry.offered(entry, keys=("map_colour",))],
            format_func=lambda name: f"Colour: {Colour(name).title(entry)}",
            key="map_colour",
            label_visibility="collapsed",
            persist_state="session",
            width=320,
        )
        _draw(entry, _Shown(name, recipe, names))
        region.show_naming(naming, names)
    with right:
        jobs.draw_panel(run.root)
        _draw_region(entry, recipe, names)


@sessions.fragment
def _draw(entry: Entry, shown: _Shown) -> None:
    """The map itself. Zooming and moving run this and nothing else."""
    if recipes.draft_yaml(entry, state.open_run(entry)) != shown.recipe:
        st.rerun()
    session, places = sessions.get(MapState, entry.key), state.open_map(entry)
    whole, colour = canvas.map_span(entry), Colour.of(entry, shown.colour, shown.recipe)
    span = session.span or whole
    found = canvas.cells_of(entry, colour, span)
    scale = canvas.scale_of(entry, colour, found)
    on_map, scored = len(places.rows), words.pairs(len(state.open_table(entry)))
    messages.show_title(f"{colour.title(entry)}: {words.number(on_map)} of {scored} on the map")
    few = found.pairs < _MOST_POINTS
    view = MapView(
        label=f"Map of {words.pairs(on_map)} by {colour.title(entry)}. Arrows move it, plus and minus zoom, "
        "0 shows it all.",
        colouring=f"{colour.name} {zlib.crc32(repr((colour.recipe, colour.stamp)).encode())} {st.context.theme.type}",
        home=whole,
        span=span,
        seen=found.pairs,
        said=f"{'all' if found.pairs == len(places.rows) else words.number(found.pairs)} in view",
        image=canvas.image_address(entry, colour, span),
        bar=canvas.legend_of(entry, colour, found, scale),
        labels=shown.names.labels if shown.names else [],
        points=canvas.points_in(entry, colour, found, scale) if few else Points(),
        shape=session.shape,
    )
    key, rows = f"map {entry.key}", places.rows[within(found.span, places.x, places.y)] if few else places.rows[:0]
    opened = canvas.draw_map(view, session, key=key)
    canvas.draw_tip(view, _tip(entry, colour, session, rows), key=f"tip {entry.key}")
    if opened is not None:
        sessions.get(sessions.Pairs).opened = sessions.OpenPair(
            (entry.key, key), pager.RowList(rows, len(rows)), opened
        )
    pair.draw_opened(entry, gallery=key)
    st.caption(
        "Similar images lie close together; directions have no meaning. Draw around a region to see what is in it. "
        "The wheel or two fingers zoom; single pairs appear where few are in view."
    )


@sessions.fragment
def _draw_region(entry: Entry, recipe: str, names: region.Names | None) -> None:
    """What lies in what was drawn, which runs this and nothing else; the map shows by itself what is drawn on it."""
    run, session = state.open_run(entry), sessions.get(MapState, entry.key)
    if recipes.draft_yaml(entry, run) != recipe:
        st.rerun()
    region.hear_lasso(session, key=f"lasso {entry.key}")
    region.show_region(entry, run, recipe, session.shape, names)


def _tip(entry: Entry, colour: Colour, session: MapState, rows: np.ndarray) -> Tip | None:
    """What the pair under the pointer says of itself. Of one, since the captions of all in view lie in many shards.

    rows: of the single pairs in view.
    """
    place, session.pointed = session.pointed, None
    if place is None or place >= len(rows):
        return None
    row = rows[place : place + 1]
    known = contents.read_texts(entry, row, contents.text_columns(entry))
    uid = uids.to_hex(state.open_table(entry).uids_at(row))[0].as_py()
    src = contents.addresses(entry, [uid], known.get("url"))[0]
    values = canvas.colour_values(entry, colour)
    if values is None:
        said = ""
    else:
        value = float(values[np.searchsorted(state.open_map(entry).rows, row[0])])
        said = f"{registry.title(entry, colour.name)} {words.decimal(value)}"
        if colour.name == KEPT:
            said = "kept by the recipe" if value else "dropped by the recipe"
    return Tip(place, known["caption"][0][:_LONGEST_CAPTION], said, src)


show(state.current())
