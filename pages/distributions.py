"""How are the scores spread, how do two of them relate, and which kinds of pairs score high or low?"""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.metadata import Categories
from clipsel_core.curation.selecting.live import ScoreStep
from clipsel_core.errors import ClipselError
from pages.parts import charts, commands, empty, facts, keeping, marginals, metrics, recipes, state, words
from pages.parts.catalog import Entry
from pages.parts.distributions import disagreeing, kinds, normalizing
from pages.parts.histogram import Layer, Mark, show_histogram

_BINS = 128
_QUANTILES = (5, 50, 95)
_MOST_ROWS = 12


def show(entry: Entry) -> None:
    st.title("Distributions")
    names = list(state.require_table(entry).metrics)
    views = {
        "Each metric": _each,
        "Two metrics": _two,
        "By kind": _by_kind,
        "Rank disagreement": disagreeing.show,
        "Normalizer": normalizing.show,
    }
    # Only the open tab is worked out.
    for tab, draw in zip(st.tabs(list(views), key="view", bind="query-params"), views.values(), strict=True):
        if tab.open:
            with tab:
                draw(entry, names)


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
        if not spread.pairs:
            _unscored(entry, name)
            return
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


def _unscored(entry: Entry, name: str) -> None:
    """In place of a chart of a metric that no pair has."""
    metric, run = metrics.describe(name), state.open_run(entry)
    facts.show_title(f"{metric.title}: no pair of this run has a score")
    facts.show_note(metric.help)
    if metric.ours:
        st.caption("Every row of it is empty. This says whether the pool's embeddings can be used:")
        st.code(commands.command("inspect", run.pool_root), language="bash", wrap_lines=True)
    else:
        st.caption("Every row of it is empty, as it was imported.")


def _two(entry: Entry, names: list[str]) -> None:
    left, right = st.columns(2)
    options: dict[str, Any] = {"options": names, "format_func": metrics.title, "bind": "query-params"}
    across, up = _usual(entry, names)
    x = left.selectbox("Across", key="across", index=names.index(across), **options)
    y = right.selectbox("Up", key="up", index=names.index(up), **options)
    found = _density(entry, x, y, state.scores_stamp(entry))
    inside = int(found.counts.sum())
    if not inside:
        for name in dict.fromkeys((x, y)):
            if not marginals.marginal(entry, name).pairs:
                _unscored(entry, name)
                return
        empty.show_empty("Nothing to draw", "No pair of this run has both of these scores.")
        return
    facts.show_title(
        f"{metrics.title(y)} against {metrics.title(x)}",
        f"{words.pairs(inside)}, in score units; stronger colour is more",
    )
    x_range, y_range = ((float(edges[0]), float(edges[-1])) for edges in (found.x_edges, found.y_edges))
    lines, said = _thresholds(entry, x, y)
    left, right = st.columns([2, 1], gap="large")
    with left:
        charts.metric_density(found.counts, x_range, y_range, metrics.title(x), metrics.title(y), lines)
    with right:
        facts.show_facts(said | {metrics.title(name): metrics.describe(name).help for name in (x, y)})


def _usual(entry: Entry, names: list[str]) -> tuple[str, str]:
    """The two metrics to begin with: those that the recipe uses first, as its thresholds are drawn in."""
    draft = recipes.draft(entry, state.open_run(entry)).values()
    used = [step.metric for step in draft if isinstance(step, ScoreStep) and step.metric in names]
    first = list(dict.fromkeys([*used, *names]))
    return first[0], first[min(1, len(first) - 1)]


def _thresholds(entry: Entry, x: str, y: str) -> tuple[list[charts.Line], dict[str, str]]:
    """The draft's thresholds on two metrics as lines, and each step in words."""
    run = state.open_run(entry)
    recipe = recipes.draft_yaml(entry, run)
    try:
        report = state.picked(entry, recipe).selection.report if recipe else ()
    except ClipselError:
        return [], {"Recipe": "does not fit this run, so no threshold is drawn"}
    steps = (step for step in recipes.draft(entry, run).values() if step.enabled)
    lines, said = [], {}
    for place, (done, step) in enumerate(zip(report, steps, strict=True), 1):
        if done.metric in (x, y) and done.threshold is not None:
            sign = "≤" if done.kind == "at_most" else "≥"
            axes = [axis for axis, name in (("x", x), ("y", y)) if name == done.metric]
            lines += [charts.Line(axis, done.threshold, f"step {place}: {sign} {done.threshold:.4f}") for axis in axes]
            said[f"Step {place}"] = f"{recipes.step_in_words(step)}: {sign} {words.score(done.threshold)}"
    return lines, said or {"Recipe": "no step has a threshold on these metrics"}


@st.cache_resource(max_entries=16, show_spinner=False)
def _density(entry: Entry, x: str, y: str, stamp: state.Stamp):
    table = state.open_table(entry)
    return table.density(x, y, bins=charts.cells(len(table)))


def _by_kind(entry: Entry, names: list[str]) -> None:
    columns = kinds.columns(entry)
    if not columns:
        return
    left, right = st.columns(2)
    column = left.selectbox("Kind", columns, key="kind", bind="query-params")
    name = right.selectbox("Metric", names, format_func=metrics.title, key="of", bind="query-params")
    found = kinds.of(entry, column)
    every = marginals.marginal(entry, name)
    if not every.pairs:
        _unscored(entry, name)
        return
    edges, whole = every.coarse(_BINS)
    recipe = recipes.draft_yaml(entry, state.open_run(entry))
    kept = kinds.kept(entry, column, recipe) if keeping.of(entry, recipe) else None
    for row, place in enumerate(np.argsort(-found.counts)[:_MOST_ROWS]):
        part = _kind_spread(entry, column, int(place), name, state.scores_stamp(entry))
        of_kind = (
            "" if kept is None else f", {words.share(int(kept[place]), int(found.counts[place]))} kept by the recipe"
        )
        _kind_row(found, int(place), name, of_kind, edges, whole, part, first=row == 0)


def _kind_row(
    found: Categories,
    place: int,
    name: str,
    kept: str,
    edges: np.ndarray,
    whole: np.ndarray,
    part: marginals.Marginal,
    *,
    first: bool,
) -> None:
    """One kind's histogram in front of the whole run's, both scaled to the same area."""
    scaled = whole * (part.pairs / max(int(whole.sum()), 1))
    median, label = part.quantile(50), kinds.label(found, place)
    show_histogram(
        f"{label}: {words.pairs(found.counts[place])}{kept}, median {metrics.title(name)} {words.score(median)}",
        "",
        edges,
        [Layer("pool", "whole run, same area", np.round(scaled, 1)), Layer("kept", "this kind", part.coarse(_BINS)[1])],
        [Mark(median, "")] if part.pairs else [],
        key=f"kind-{place}",
        height=64,
        legend=first,
    )


@st.cache_resource(max_entries=128, show_spinner=False)
def _kind_spread(entry: Entry, column: str, place: int, name: str, stamp: state.Stamp) -> marginals.Marginal:
    return marginals.of_bits(entry, name, bitmaps.pack(kinds.of(entry, column).codes == place))


show(state.current())
