"""Which regions does the pool have, and what lies in one of them?"""

from __future__ import annotations

import numpy as np
import streamlit as st

from clipsel_core.curation import counts, ordering
from pages.parts import charts, empty, facts, jobs, metrics, pairs, projecting, recipes, shapes, state, words
from pages.parts.catalog import Entry

_CARDS = 24
_ORDERS = ("highest", "lowest", "random")


def show(entry: Entry) -> None:
    st.title("Map")
    run, table = state.open_run(entry), state.require_table(entry)
    places = state.open_map(entry)
    if places is None:
        jobs.panel(run.root)
        projecting.ask_for_map(entry, run)
        return
    left, right = st.columns([3, 2], gap="large")
    with left:
        on_map, scored = words.count(len(places.rows)), words.pairs(len(table))
        facts.show_title(f"{on_map} of {scored}, similar images close together")
        event = _draw(entry, places.x, places.y)
        st.caption("Stronger colour is more pairs. Draw a lasso or a box to see what is in it; double-click clears.")
    with right:
        _region(entry, places, event["selection"])


def _draw(entry: Entry, x: np.ndarray, y: np.ndarray):
    cells, x_range, y_range = _cells(entry, state.map_stamp(entry))
    return charts.map_density(cells, x_range, y_range, key="map")


@st.cache_resource(max_entries=8, show_spinner=False)
def _cells(entry: Entry, stamp: state.Stamp) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """Counts over the map; cells are square, and larger in small samples, so that neighbours touch."""
    places = state.open_map(entry)
    extents = [counts.extent(values) for values in (places.x, places.y)]
    half = 0.53 * max(high - low for low, high in extents)
    x_span, y_span = (((low + high) / 2 - half, (low + high) / 2 + half) for low, high in extents)
    return counts.density(places.x, places.y, charts.cells(len(places.x)), x_span, y_span).counts, x_span, y_span


def _region(entry: Entry, places, selection) -> None:
    table = state.open_table(entry)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        metric = st.selectbox(
            "Metric", table.metrics, format_func=metrics.title, key="map_metric", persist_state="session", width=220
        )
        order = st.segmented_control(
            "First", _ORDERS, default="highest", required=True, key="map_order", persist_state="session"
        )
    chosen = shapes.inside(selection, places.x, places.y)
    drawn = bool(selection.get("box") or selection.get("lasso"))
    rows = np.sort(places.rows[chosen] if drawn else places.rows)
    if not len(rows):
        empty.show_empty("No pair in this region", "Draw around a darker part of the map.")
        return
    kept = state.kept_mask(entry, recipes.draft_yaml(entry, state.open_run(entry)))
    share = f"{words.share(int(kept[rows].sum()), len(rows))} kept by the recipe"
    facts.show_title(f"{words.pairs(len(rows))} {'in the region' if drawn else 'on the map'}", share)
    page = _first(rows, table.take(metric, rows), order)
    with st.container(height=560, border=False):
        pairs.gallery(entry, page, metric, key="region", label="Pairs in the region", kept=kept)


def _first(rows: np.ndarray, values: np.ndarray, order: str) -> np.ndarray:
    """The first cards' rows in an order. Only the map's own pairs are looked at, however many the run has."""
    scored = ~np.isnan(values)
    rows, values = rows[scored], values[scored]
    keys = {"highest": -values, "lowest": values}.get(order)
    return ordering.page_of(ordering.shuffled_keys(rows, 0) if keys is None else keys, rows, 0, _CARDS)


show(state.current())
