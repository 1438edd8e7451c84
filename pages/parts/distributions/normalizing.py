"""What did the normalizer take, and from whom? Mean r_image and r_text by percentile of a metric, or by kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from clipsel_core.curation.index.groups import GroupMeans, group_means, percentile_groups
from pages.parts import charts, empty, facts, metrics, state, words
from pages.parts.catalog import Entry
from pages.parts.distributions import kinds

_GROUPS = 50
_HALVES = ("r_image", "r_text")
_SPLITS = ("percentile of a metric", "kind")


def show(entry: Entry, names: list[str]) -> None:
    """Draws what the normalizer took on average in each group of pairs."""
    if not set(_HALVES) <= set(names):
        empty.show_empty(
            "No normalizer in this run", "It has no columns r_image and r_text. Score the pool anew to have them."
        )
        return
    facts.show_note(
        "s-CLIPLoss is CLIPScore less r image, which an image pays for fitting other captions of its batch, and less "
        "r text, which a caption pays for fitting other images."
    )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        split = st.segmented_control("By", _SPLITS, default=_SPLITS[0], required=True, key="split", bind="query-params")
        if split == "kind":
            column = _choose_kind(entry)
        else:
            place = names.index("clip_score") if "clip_score" in names else 0
            of: dict[str, Any] = {"format_func": metrics.title, "key": "along", "bind": "query-params", "width": 260}
            along = st.selectbox("Metric", names, index=place, **of)
    if split != "kind":
        _by_percentile(entry, along)
    elif column:
        _by_kind(entry, column, names)


def _choose_kind(entry: Entry) -> str | None:
    columns = kinds.columns(entry)
    return st.selectbox("Kind", columns, key="kind", bind="query-params", width=260) if columns else None


def _by_percentile(entry: Entry, along: str) -> None:
    found = _percentile_means(entry, along, state.scores_stamp(entry))
    filled = found.counts > 0
    if not filled.any():
        empty.show_empty("Nothing to average", "No pair of this run has these scores. Choose another metric.")
        return
    facts.show_title(
        f"Mean r image and r text by percentile of {metrics.title(along)}",
        f"{words.pairs(found.counts.sum())} in {filled.sum()} groups; score units",
    )
    middle = (np.arange(_GROUPS) + 0.5) * (100 / _GROUPS)
    curves = {metrics.title(name): found.means[filled, place] for place, name in enumerate(_HALVES)}
    charts.curves(middle[filled], curves, f"percentile of {metrics.title(along)}", "mean score")
    taken = found.means[filled].sum(1)
    facts.show_note(
        f"The normalizer takes {words.score(taken[0])} from the lowest group and {words.score(taken[-1])} from the "
        f"highest. Where a curve rises, pairs with a high {metrics.title(along)} are pulled down more than others."
    )


def _by_kind(entry: Entry, column: str, names: list[str]) -> None:
    shown = [name for name in ("clip_score", *_HALVES, "s_cliploss") if name in names]
    found = _kind_means(entry, column, tuple(shown), state.scores_stamp(entry))
    labels = kinds.of(entry, column)
    means = {metrics.title(name): found.means[:, place] for place, name in enumerate(shown)}
    halves = found.means[:, [shown.index(name) for name in _HALVES]].sum(1)
    average = np.nansum(halves * found.counts) / max(found.counts.sum(), 1)
    table = pd.DataFrame(
        {
            "kind": [kinds.label(labels, place) for place in range(len(labels.labels))],
            "pairs": found.counts,
            **means,
            "normalizer": halves,
            "against the mean": halves - average,
        }
    )
    facts.show_title("Mean scores of each kind", "in score units; the normalizer is r image + r text")
    four = st.column_config.NumberColumn(format="%.4f")
    config = dict.fromkeys([*means, "normalizer"], four)
    config["against the mean"] = st.column_config.NumberColumn(format="%+.4f")
    config["pairs"] = st.column_config.NumberColumn(format="localized")
    st.dataframe(table.sort_values("normalizer", ascending=False), hide_index=True, column_config=config)


@st.cache_resource(max_entries=16, show_spinner="Averaging …")
def _percentile_means(entry: Entry, along: str, stamp: state.Stamp) -> GroupMeans:
    table = state.open_table(entry)
    groups = percentile_groups(state.metric_bins(entry, along), _GROUPS)
    return group_means(groups, _GROUPS, [table.column(name) for name in _HALVES])


@st.cache_resource(max_entries=16, show_spinner="Averaging …")
def _kind_means(entry: Entry, column: str, names: tuple[str, ...], stamp: state.Stamp) -> GroupMeans:
    table, found = state.open_table(entry), kinds.of(entry, column)
    return group_means(found.codes, len(found.labels), [table.column(name) for name in names])
