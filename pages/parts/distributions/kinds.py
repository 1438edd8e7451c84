"""How do kinds of pairs differ? In the spread of a metric, and in what the normalizer took from each.

A kind is a value of a category, of the run or of the pool's table; for the normalizer, a percentile of a metric, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.counts import GroupMeans, group_means
from clipsel_core.curation.index.metadata import Categories
from clipsel_core.curation.index.ranking import percentile_groups
from clipsel_core.errors import counted
from clipsel_core.runs.columns import CLIP_SCORE, R_IMAGE, R_TEXT, S_CLIPLOSS
from pages.parts import charts, messages, recipes, registry, state, words
from pages.parts.catalog import Entry
from pages.parts.charts import Chart
from pages.parts.pair import galleries

_LONGEST_LABEL = 80
_MOST_ROWS = 12
_MOST_CHOSEN = 24
_BINS = 128
_BLOCK = 1 << 22
_GROUPS = 50
_HALVES = (R_IMAGE.name, R_TEXT.name)
_SPLITS = ("percentile of a metric", "kind")


def draw_kinds(entry: Entry) -> None:
    """Draws the histogram of each kind in front of the whole run's."""
    columns = _find_columns(entry)
    if not columns:
        return
    left, right = st.columns(2)
    column = left.selectbox("Kind", columns, format_func=registry.titles(entry), key="kind", bind="query-params")
    names = registry.offered(entry, keys=("of",))
    name = right.selectbox("Metric", names, format_func=registry.titles(entry), key="of", bind="query-params")
    found = _find_kinds(entry, column)
    if found is None:
        return
    every = registry.marginal(entry, name)
    if not every.pairs:
        show_unscored(entry, name)
        return
    edges, whole = every.coarse(_BINS)
    recipe = recipes.draft_yaml(entry, state.open_run(entry))
    keeps = galleries.find_keeps(entry, recipe)
    kept = _kept(entry, column, recipe) if keeps else None
    for row, place in enumerate(_choose_kinds(found, column)):
        part, listed = _kind_spread(entry, column, place, name), int(found.counts[place])
        by_recipe = "" if kept is None else f", {words.share(int(kept[place]), listed)} kept by the recipe"
        median, chart = part.quantile(50), Chart(entry.key, f"kind-{column}-{place}", name)
        # Both in the same area.
        scaled = np.round(whole * (part.pairs / max(int(whole.sum()), 1)), 1)
        charts.draw_histogram(
            f"{_label(found, place)}: {words.pairs(listed)}{by_recipe}, "
            f"median {registry.title(entry, name)} {words.decimal(median)}",
            "",
            edges,
            [
                charts.Layer("pool", "whole run, same area", scaled),
                charts.Layer("kept", "this kind", part.coarse(_BINS)[1]),
            ],
            [charts.Mark(median, "")] if part.pairs else [],
            chart=chart,
            of=1,
            height=64,
            legend=row == 0,
        )
        if charts.marked(chart, _BINS):
            among = {"kind": registry.title(entry, column), "value": registry.value_text(found.labels[place])}
            galleries.draw_marked_interval(
                entry, chart, _BINS, bits=_kind_bits(entry, column, place), among=among, keeps=keeps
            )


def _choose_kinds(found: Categories, column: str) -> list[int]:
    """The places of the kinds to draw: all of a few, else the most frequent ones until others are chosen."""
    if len(found.labels) <= _MOST_ROWS:
        return list(range(len(found.labels)))
    of = dict(zip(found.labels, range(len(found.labels)), strict=True))
    chosen = st.multiselect(
        f"Of {words.number(len(found.labels))} kinds",
        found.labels,
        found.labels[:_MOST_ROWS],
        format_func=lambda label: f"{registry.value_text(label)} · {words.number(found.counts[of[label]])}",
        key=f"kinds of {column}",
        max_selections=_MOST_CHOSEN,
        placeholder="type to find a kind",
    )
    return [of[label] for label in chosen]


def chart_of(entry: Entry, name: str) -> Chart:
    """The chart of a column of the run."""
    return Chart(entry.key, f"spread-{name}", name)


def draw_marked_bars(entry: Entry, name: str) -> None:
    """Draws pairs with one of the values whose bars are marked."""
    found = registry.find_categories(entry, name)
    if found is not None:
        galleries.draw_marked_values(entry, chart_of(entry, name), found, min(len(found.labels), _MOST_ROWS))


def draw_values(entry: Entry, name: str) -> None:
    """Draws how many pairs have each value of a category, the most frequent first."""
    found, pairs = registry.find_categories(entry, name), len(state.open_table(entry))
    messages.show_title(registry.title(entry, name), counted(len(found.labels), "values") if found else "many values")
    messages.show_note(registry.column_of(entry, name).help)
    if found is None:
        messages.show_note(registry.too_many_values(registry.title(entry, name)))
        return
    rows = [
        charts.ValueBar(_label(found, place), words.number(count), words.share(count, pairs), 100 * count / pairs)
        for place, count in enumerate(found.counts[:_MOST_ROWS].tolist())
    ]
    charts.draw_bars(f"{registry.title(entry, name)}: pairs by value", rows, chart_of(entry, name))
    if len(found.labels) > _MOST_ROWS:
        left = int(found.counts[_MOST_ROWS:].sum())
        messages.show_note(
            f"{words.pairs(left)} have one of {words.number(len(found.labels) - _MOST_ROWS)} more values."
        )


def draw_normalizer(entry: Entry) -> None:
    """Draws what the normalizer took on average in each group of pairs."""
    names = registry.own_numbers(entry)
    if not set(_HALVES) <= set(names):
        messages.show_empty(
            "No normalizer in this run", f"It has no columns {' and '.join(_HALVES)}. Score the pool anew to have them."
        )
        return
    messages.show_note(
        f"{S_CLIPLOSS.title} is {CLIP_SCORE.title} less {R_IMAGE.title}, which an image pays for fitting other "
        f"captions of its batch, and less {R_TEXT.title}, which a caption pays for fitting other images."
    )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        split = st.segmented_control("By", _SPLITS, default=_SPLITS[0], required=True, key="split", bind="query-params")
        if split == "kind":
            columns = _find_columns(entry)
            column = (
                st.selectbox(
                    "Kind", columns, format_func=registry.titles(entry), key="kind", bind="query-params", width=260
                )
                if columns
                else None
            )
        else:
            offered = registry.offered(entry, keys=("along",))
            place = offered.index(CLIP_SCORE.name) if CLIP_SCORE.name in offered else 0
            of: dict[str, Any] = {
                "format_func": registry.titles(entry),
                "key": "along",
                "bind": "query-params",
                "width": 260,
            }
            along = st.selectbox("Metric", offered, index=place, **of)
    if split != "kind":
        _by_percentile(entry, along)
    elif column:
        _by_kind(entry, column, names)


def show_unscored(entry: Entry, name: str) -> None:
    """In place of a chart of a metric that no pair has."""
    metric, run = registry.column_of(entry, name), state.open_run(entry)
    messages.show_title(f"{registry.title(entry, name)}: no pair of this run has a score")
    messages.show_note(metric.help)
    if metric.origin in ("computed", "target"):
        st.caption("Every row of it is empty. This says whether the pool's embeddings can be used:")
        st.code(messages.command("inspect", run.pool_address), language="bash", wrap_lines=True)
    else:
        st.caption("Every row of it is empty, as it was imported.")


def _find_columns(entry: Entry) -> list[str]:
    """The run's and the pool's columns of few distinct values; where there is none the page says so."""
    found = registry.category_names(entry)
    if not found:
        why = "Give the pool's parquet files a column of texts that many pairs share, and each value has a row here."
        messages.show_empty("No column to split by", why)
    return found


def _find_kinds(entry: Entry, column: str) -> Categories | None:
    """The kinds of a column; where there are too many the page says what can be done instead."""
    found = registry.find_categories(entry, column)
    if found is None:
        messages.show_empty("Many values", registry.too_many_values(registry.title(entry, column)))
    return found


def _by_percentile(entry: Entry, along: str) -> None:
    found = _percentile_means(entry, along)
    filled = found.counts > 0
    if not filled.any():
        messages.show_empty("Nothing to average", "No pair of this run has these scores. Choose another metric.")
        return
    messages.show_title(
        f"Mean {R_IMAGE.title} and {R_TEXT.title} by percentile of {registry.title(entry, along)}",
        f"{words.pairs(found.counts.sum())} in {filled.sum()} groups; score units",
    )
    middle = (np.arange(_GROUPS) + 0.5) * (100 / _GROUPS)
    curves = {registry.title(entry, name): found.means[filled, place] for place, name in enumerate(_HALVES)}
    charts.draw_curves(middle[filled], curves, f"percentile of {registry.title(entry, along)}", "mean score")
    taken = found.means[filled].sum(1)
    messages.show_note(
        f"The normalizer takes {words.decimal(taken[0])} from the lowest group and {words.decimal(taken[-1])} from the "
        f"highest. Where a curve rises, pairs with a high {registry.title(entry, along)} are pulled down more than "
        "others."
    )


def _by_kind(entry: Entry, column: str, names: list[str]) -> None:
    labels = _find_kinds(entry, column)
    if labels is None:
        return
    shown = [name for name in (CLIP_SCORE.name, *_HALVES, S_CLIPLOSS.name) if name in names]
    found = _kind_means(entry, column, tuple(shown))
    means = {registry.title(entry, name): found.means[:, place] for place, name in enumerate(shown)}
    halves = found.means[:, [shown.index(name) for name in _HALVES]].sum(1)
    average = np.nansum(halves * found.counts) / max(found.counts.sum(), 1)
    columns = {"pairs": found.counts, **means, "normalizer": halves, "against the mean": halves - average}
    # The highest first, and behind all others a kind without a score.
    order = np.argsort(-halves, kind="stable")
    rows = [
        {"kind": _label(labels, place), **{name: of[place].item() for name, of in columns.items()}} for place in order
    ]
    messages.show_title(
        "Mean scores of each kind", f"in score units; the normalizer is {R_IMAGE.title} + {R_TEXT.title}"
    )
    four = st.column_config.NumberColumn(format="%.4f")
    config = dict.fromkeys([*means, "normalizer"], four)
    config["against the mean"] = st.column_config.NumberColumn(format="%+.4f")
    config["pairs"] = st.column_config.NumberColumn(format="localized")
    messages.show_table(rows, column_config=config)


@state.per_run(16, spinner="Averaging …")
def _percentile_means(entry: Entry, along: str) -> GroupMeans:
    table = state.open_table(entry)
    groups = percentile_groups(state.ranking(entry, along), _GROUPS)
    return group_means(groups, _GROUPS, [table.column(name) for name in _HALVES])


@state.per_run(16, spinner="Averaging …")
def _kind_means(entry: Entry, column: str, names: tuple[str, ...]) -> GroupMeans:
    table, found = state.open_table(entry), registry.find_categories(entry, column)
    assert found is not None, "asked for although there are too many"
    return group_means(found.codes, len(found.labels), [table.column(name) for name in names])


def _label(kinds: Categories, place: int) -> str:
    """A kind's name, cut to what fits on a line."""
    return kinds.labels[place][:_LONGEST_LABEL] or "(none)"


@state.per_run(128)
def _kind_spread(entry: Entry, column: str, place: int, name: str) -> registry.Marginal:
    return registry.marginal_of_bits(entry, name, _kind_bits(entry, column, place))


@state.per_run(16)
def _kind_bits(entry: Entry, column: str, place: int) -> np.ndarray:
    """The bitmap of the pairs of a kind."""
    found = registry.find_categories(entry, column)
    assert found is not None, "asked for although there are too many"
    return bitmaps.pack(found.codes == place)


@state.per_run(16, stamp=lambda entry, column, recipe: state.recipe_stamp(entry, recipe))
def _kept(entry: Entry, column: str, recipe: str) -> np.ndarray:
    """How many pairs of each kind a recipe (YAML) keeps: (kinds,) int64."""
    found, bits = registry.find_categories(entry, column), state.kept_bits(entry, recipe)
    assert found is not None, "asked for although there are too many"
    counts = np.zeros(len(found.labels), np.int64)
    for start in range(0, len(found.codes), _BLOCK):
        codes = found.codes[start : start + _BLOCK]
        counts += np.bincount(codes[bitmaps.unpack(bits, len(codes), start)], minlength=len(counts))
    return counts
