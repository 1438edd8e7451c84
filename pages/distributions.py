"""How are the scores spread, how do two of them relate, and which kinds of pairs score high or low?"""

from __future__ import annotations

from typing import Any

import streamlit as st

from clipsel_core.curation.index.counts import Density, density
from clipsel_core.curation.recipes.recipe import ScoreStep
from clipsel_core.errors import ClipselError, PoolFormatError
from pages.parts import charts, messages, recipes, registry, state, words
from pages.parts.catalog import Entry
from pages.parts.distributions import kinds, ranks
from pages.parts.pair import galleries

_BINS = 128
_QUANTILES = (5, 50, 95)
_DRAWN = ("number", "flag", "category", "text")


def show(entry: Entry) -> None:
    st.title("Distributions")
    state.require_table(entry)
    views = {
        "Each metric": _each,
        "Two metrics": _two,
        "By kind": kinds.draw_kinds,
        "Rank disagreement": ranks.draw_ranks,
        "Normalizer": kinds.draw_normalizer,
    }
    # Only the open tab is worked out.
    for tab, draw in zip(st.tabs(list(views), key="view", bind="query-params"), views.values(), strict=True):
        if tab.open:
            with tab:
                draw(entry)


def _each(entry: Entry) -> None:
    names = registry.own_numbers(entry)
    own = [*names, *(name for name, column in state.open_run(entry).columns.items() if column.kind == "category")]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        scale = st.segmented_control(
            "Height",
            ["linear", "log"],
            default="linear",
            required=True,
            key="scale",
            persist_state="session",
            label_visibility="collapsed",
        )
        # Of the pool's table only what is asked for is read.
        others = [name for name in registry.offered(entry, *_DRAWN, keys=("besides",)) if name not in own]
        besides = st.multiselect(
            "Columns of the pool's table",
            others,
            format_func=registry.titles(entry),
            key="besides",
            placeholder="and columns of the pool's table" if others else "no column of the pool's table is at hand",
            label_visibility="collapsed",
            bind="query-params",
            disabled=not others,
            width=380,
        )
    names = [*besides, *own]
    for row in (names[start : start + 2] for start in range(0, len(names), 2)):
        for place, name in zip(st.columns(2, gap="medium"), row, strict=False):
            with place.container(border=True, height="stretch"):
                try:
                    _draw_one(entry, name, log=scale == "log")
                except PoolFormatError as error:
                    messages.show_error(error, f"{registry.title(entry, name)} cannot be drawn")
        # Below both, so that neither is pulled apart.
        for name in row:
            if charts.marked(kinds.chart_of(entry, name), _BINS):
                _draw_marked(entry, name)


def _draw_marked(entry: Entry, name: str) -> None:
    """The pairs in the part of a chart that is marked."""
    if registry.column_of(entry, name).kind in ("category", "text"):
        kinds.draw_marked_bars(entry, name)
    else:
        recipe = recipes.draft_yaml(entry, state.open_run(entry))
        keeps = galleries.find_keeps(entry, recipe)
        galleries.draw_marked_interval(entry, kinds.chart_of(entry, name), _BINS, keeps=keeps)


def _draw_one(entry: Entry, name: str, *, log: bool) -> None:
    """A column's histogram; of a category a bar for each value."""
    column = registry.column_of(entry, name)
    if column.kind in ("category", "text"):
        kinds.draw_values(entry, name)
        return
    spread = registry.marginal(entry, name)
    if not spread.pairs:
        kinds.show_unscored(entry, name)
        return
    edges, counts = spread.coarse(_BINS)
    found = {percent: spread.quantile(percent) for percent in _QUANTILES}
    charts.draw_histogram(
        f"{registry.title(entry, name)} of {words.pairs(spread.pairs)}",
        column.help,
        edges,
        [charts.Layer("kept", "", counts)],
        [charts.Mark(value, "") for value in found.values()],
        chart=kinds.chart_of(entry, name),
        aside=" · ".join(f"P{percent} {words.decimal(value)}" for percent, value in found.items()),
        log=log,
        unit=registry.unit_of(column),
    )


def _two(entry: Entry) -> None:
    left, right = st.columns(2)
    names = registry.offered(entry, keys=("across", "up"))
    options: dict[str, Any] = {"options": names, "format_func": registry.titles(entry), "bind": "query-params"}
    # Those that the recipe uses first, as its thresholds are drawn in.
    draft = recipes.draft(entry, state.open_run(entry)).values()
    used = [step.metric for step in draft if isinstance(step, ScoreStep) and step.metric in names]
    across, up, *_ = [*dict.fromkeys([*used, *names]), names[0]]
    x = left.selectbox("Across", key="across", index=names.index(across), **options)
    y = right.selectbox("Up", key="up", index=names.index(up), **options)
    found = _density(entry, x, y)
    inside = int(found.counts.sum())
    if not inside:
        for name in dict.fromkeys((x, y)):
            if not registry.marginal(entry, name).pairs:
                kinds.show_unscored(entry, name)
                return
        messages.show_empty("Nothing to draw", "No pair of this run has both of these scores.")
        return
    titles = registry.titles(entry)
    messages.show_title(
        f"{titles(y)} against {titles(x)}",
        f"{words.pairs(inside)}, in score units; stronger colour is more",
    )
    x_range, y_range = ((float(edges[0]), float(edges[-1])) for edges in (found.x_edges, found.y_edges))
    lines, said = _thresholds(entry, x, y)
    left, right = st.columns([2, 1], gap="large")
    with left:
        charts.draw_metric_density(found.counts, x_range, y_range, titles(x), titles(y), lines)
    with right:
        messages.show_facts(said | {titles(name): registry.column_of(entry, name).help for name in (x, y)})


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
            sign = "≤" if done.kind in ("at_most", "keep_bottom") else "≥"
            axes = [axis for axis, name in (("x", x), ("y", y)) if name == done.metric]
            lines += [charts.Line(axis, done.threshold, f"step {place}: {sign} {done.threshold:.4f}") for axis in axes]
            said[f"Step {place}"] = f"{recipes.step_in_words(entry, step)}: {sign} {words.decimal(done.threshold)}"
    return lines, said or {"Recipe": "no step has a threshold on these metrics"}


@state.per_run(16)
def _density(entry: Entry, x: str, y: str) -> Density:
    table = state.open_table(entry)
    spans = table.extent(x), table.extent(y)
    return density(table.column(x), table.column(y), charts.bins_for(len(table)), *spans)


show(state.current())
