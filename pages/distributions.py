"""How are the scores spread, how do two of them relate, and which kinds of pairs score high or low?"""

from __future__ import annotations

import numpy as np
import streamlit as st

from clipsel_core.curation.queries import Categories
from pages.parts import charts, empty, facts, marginals, metrics, state, words
from pages.parts.catalog import Entry
from pages.parts.histogram import Layer, Mark, show_histogram

_BINS = 128
_QUANTILES = (5, 50, 95)
_MOST_ROWS = 12
_LONGEST_LABEL = 80


def show(entry: Entry) -> None:
    st.title("Distributions")
    table = state.require_table(entry)
    tabs = st.tabs(["Each metric", "Two metrics", "By kind"])
    with tabs[0]:
        _each(entry, list(table.metrics))
    with tabs[1]:
        _two(entry, list(table.metrics))
    with tabs[2]:
        _by_kind(entry, list(table.metrics))


def _each(entry: Entry, names: list[str]) -> None:
    scale = st.segmented_control(
        "Height",
        ["linear", "log"],
        default="linear",
        required=True,
        key="scale",
        persist_state="session",
        label_visibility="collapsed",
    )
    for first in range(0, len(names), 2):
        for column, name in zip(st.columns(2, gap="medium"), names[first : first + 2], strict=False):
            with column:
                _one(entry, name, log=scale == "log")


def _one(entry: Entry, name: str, *, log: bool) -> None:
    spread, metric = marginals.marginal(entry, name), metrics.describe(name)
    edges, counts = spread.coarse(_BINS)
    found = {percent: spread.quantile(percent) for percent in _QUANTILES} if spread.pairs else {}
    with st.container(border=True, height="stretch"):
        show_histogram(
            f"{metric.title} of {words.pairs(spread.pairs)}",
            metric.help,
            edges,
            [Layer("kept", "", counts)],
            [Mark(value, "") for value in found.values()],
            key=f"spread-{name}",
            aside=" · ".join(f"P{percent} {words.score(value)}" for percent, value in found.items()),
            unit="score",
            log=log,
        )


def _two(entry: Entry, names: list[str]) -> None:
    left, right = st.columns(2)
    options = {"options": names, "format_func": metrics.title, "persist_state": "session"}
    x = left.selectbox("Across", key="density_x", **options)
    y = right.selectbox("Up", key="density_y", index=min(1, len(names) - 1), **options)
    found = _density(entry, x, y, state.scores_stamp(entry))
    inside = int(found.counts.sum())
    facts.show_title(
        f"{metrics.title(y)} against {metrics.title(x)}", f"{words.pairs(inside)}, stronger colour is more"
    )
    x_range, y_range = (tuple(map(float, edges[[0, -1]])) for edges in (found.x_edges, found.y_edges))
    left, right = st.columns([2, 1], gap="large")
    with left:
        charts.metric_density(found.counts, x_range, y_range, metrics.title(x), metrics.title(y))
    with right:
        facts.show_facts({metrics.title(name): metrics.describe(name).help for name in (x, y)})


@st.cache_resource(max_entries=16, show_spinner=False)
def _density(entry: Entry, x: str, y: str, stamp: state.Stamp):
    table = state.open_table(entry)
    return table.density(x, y, bins=charts.cells(len(table)))


def _by_kind(entry: Entry, names: list[str]) -> None:
    columns = _category_columns(entry, state.scores_stamp(entry))
    if not columns:
        empty.show_empty(
            "No column to split by",
            "A text column of the pool's metadata with at most 64 values would be shown here, a row for each value.",
        )
        return
    left, right = st.columns(2)
    column = left.selectbox("Kind", columns, key="kind_column", persist_state="session")
    name = right.selectbox("Metric", names, format_func=metrics.title, key="kind_metric", persist_state="session")
    kinds = _categories(entry, column, state.scores_stamp(entry))
    everything = marginals.marginal(entry, name)
    edges, whole = everything.coarse(_BINS)
    for row, place in enumerate(np.argsort(-kinds.counts)[:_MOST_ROWS]):
        part = _kind_spread(entry, column, int(place), name, state.scores_stamp(entry))
        _kind_row(kinds, int(place), name, edges, whole, part, first=row == 0)


def _kind_row(
    kinds: Categories,
    place: int,
    name: str,
    edges: np.ndarray,
    whole: np.ndarray,
    part: marginals.Marginal,
    *,
    first: bool,
) -> None:
    """One kind's histogram in front of the whole run's, both scaled to the same area."""
    label = kinds.labels[place][:_LONGEST_LABEL] or "(none)"
    scaled = whole * (part.pairs / max(int(whole.sum()), 1))
    median = part.quantile(50)
    show_histogram(
        f"{label}: {words.pairs(kinds.counts[place])}, median {metrics.title(name)} {words.score(median)}",
        "",
        edges,
        [Layer("pool", "whole run, same area", np.round(scaled, 1)), Layer("kept", "this kind", part.coarse(_BINS)[1])],
        [Mark(median, "")] if part.pairs else [],
        key=f"kind-{place}",
        height=64,
        legend=first,
    )


@st.cache_resource(max_entries=8, show_spinner="Looking for columns to split by …")
def _category_columns(entry: Entry, stamp: state.Stamp) -> list[str]:
    table = state.open_table(entry)
    own = {table.pool.uid_column, table.pool.text_column, table.pool.url_column} if table.pool else set()
    return [name for name in table.category_columns() if name not in own]


@st.cache_resource(max_entries=8, show_spinner="Reading the column …")
def _categories(entry: Entry, column: str, stamp: state.Stamp) -> Categories:
    return state.open_table(entry).categories(column)


@st.cache_resource(max_entries=128, show_spinner=False)
def _kind_spread(entry: Entry, column: str, place: int, name: str, stamp: state.Stamp) -> marginals.Marginal:
    mask = _categories(entry, column, stamp).codes == place
    return marginals.of_mask(entry, name, mask)


show(state.current())
