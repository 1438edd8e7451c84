"""What lies in a region of the map? Its words, how its scores are spread, and its pairs."""

from __future__ import annotations

import numpy as np
import streamlit as st

from clipsel_core.curation import counts, ordering
from clipsel_core.runs.store import Run
from pages.parts import atlas, empty, facts, fate, marginals, metrics, pairs, recipes, state, words
from pages.parts.catalog import Entry
from pages.parts.histogram import Layer, show_histogram
from pages.parts.naming import Naming
from pages.parts.shapes import Shape

_CARDS = 24
_WORDS = 8
_ORDERS = ("highest", "lowest", "random")
_BINS = 64


def panel(entry: Entry, run: Run, shape: Shape | None, names: Naming) -> None:
    """Everything about what was drawn; about the whole map where nothing was. names: of its regions."""
    rows = atlas.rows_in(entry, shape) if shape else state.open_map(entry).rows
    if not len(rows):
        empty.show_empty("No pair in this region", "Draw around a coloured part of the map.")
        return
    kept = state.kept_mask(entry, recipes.draft_yaml(entry, run))
    share = f"{words.share(int(kept[rows].sum()), len(rows))} kept by the recipe"
    facts.show_title(f"{words.pairs(len(rows))} {'in the region' if shape else 'on the map'}", share)
    if shape:
        said = names.words(atlas.members(entry, shape), _WORDS)
        if said is not None:
            facts.show_note(f"Said here more than elsewhere: {', '.join(said)}" if said else "No word sets it apart")
        fate.actions(entry, run, rows)
        on_map, scored = len(state.open_map(entry).rows), len(state.open_table(entry))
        if on_map < scored:
            meant = f"Only the {words.count(on_map)} pairs on the map are meant, of {words.count(scored)} in the run."
            facts.show_note(meant)
    metric, order = _controls(entry)
    _spread(entry, metric, rows, "region" if shape else "map")
    with st.container(height=470, border=False):
        page = _first(rows, state.open_table(entry).take(metric, rows), order)
        pairs.gallery(entry, page, metric, key="region", label="Pairs in the region", kept=kept)


def _controls(entry: Entry) -> tuple[str, str]:
    names = state.open_table(entry).metrics
    with st.container(horizontal=True, vertical_alignment="bottom"):
        metric = st.selectbox(
            "Metric", names, format_func=metrics.title, key="map_metric", persist_state="session", width=170
        )
        order = st.segmented_control(
            "First", _ORDERS, default="highest", required=True, key="map_order", persist_state="session"
        )
    return metric, order


def _spread(entry: Entry, metric: str, rows: np.ndarray, what: str) -> None:
    """The region's scores in front of the run's, both over the same area."""
    everything = marginals.marginal(entry, metric)
    edges, whole = everything.coarse(_BINS)
    values = state.open_table(entry).take(metric, rows)
    part = counts.histogram(values, _BINS, (float(edges[0]), float(edges[-1]))).counts
    scored = values[~np.isnan(values)]
    scaled = np.round(whole * (int(part.sum()) / max(int(whole.sum()), 1)), 1 if part.sum() < 1000 else 0)
    here, all_of = (words.score(value) for value in _medians(scored, everything))
    show_histogram(
        f"{metrics.title(metric)}: median {here} here, {all_of} in the run",
        "",
        edges,
        [Layer("pool", "whole run, same area", scaled), Layer("kept", f"this {what}", part)],
        [],
        key="region-spread",
        height=70,
    )


def _medians(scored: np.ndarray, everything: marginals.Marginal) -> tuple[float, float]:
    return (float(np.median(scored)) if len(scored) else float("nan")), everything.quantile(50)


def _first(rows: np.ndarray, values: np.ndarray, order: str) -> np.ndarray:
    """The first cards' rows in an order. Only the map's own pairs are looked at, however many the run has."""
    scored = ~np.isnan(values)
    rows, values = rows[scored], values[scored]
    keys = {"highest": -values, "lowest": values}.get(order)
    return ordering.page_of(ordering.shuffled_keys(rows, 0) if keys is None else keys, rows, 0, _CARDS)
