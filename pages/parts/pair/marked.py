"""Which pairs lie in the part of a chart that is marked? A few of them, drawn at random, and a link to all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.metadata import Categories
from clipsel_core.curation.index.ordering import Listing
from clipsel_core.runs.columns import CLIP_SCORE
from pages.parts import charts, messages, registry, state, words
from pages.parts.catalog import Entry
from pages.parts.charts import Chart
from pages.parts.gallery import pager
from pages.parts.pair import galleries

_CARDS = 12


def draw_interval(
    entry: Entry,
    chart: Chart,
    bins: int,
    *,
    bits: np.ndarray | None = None,
    among: Mapping[str, str] | None = None,
    keeps: state.Keeps | None = None,
) -> None:
    """Draws pairs whose value lies in the bins that are marked; nothing where none is.

    bits: the bitmap of those that the chart shows, None for all. among: how the Gallery is asked for them. keeps: tells
    which are kept, for the badge.
    """
    part = charts.marked(chart, bins)
    if part is None:
        return
    ranking, column = state.ranking(entry, chart.column), registry.column_of(entry, chart.column)
    low, high, digits = charts.marked_interval(ranking.low, ranking.high, bins, *part)
    every = bitmaps.first(len(ranking.codes)) if bits is None else bits
    title = registry.title(entry, chart.column)
    # What is made of others when it is asked for cannot be asked for there.
    own = {"metric": title, "from": f"{low:.{digits}f}", "to": f"{high:.{digits}f}"}
    asked = {**own, **(among or {})} if column.origin != "mix" else None
    said = f"{title} from {low:,.{digits}f} to {high:,.{digits}f} {column.unit}".strip()
    _draw(entry, chart, said, ranking.between(every, low, high), chart.column, asked, keeps)


def draw_marked_values(entry: Entry, chart: Chart, found: Categories, bars: int) -> None:
    """Draws pairs with one of the values whose bars, the first so many, are marked; nothing where none is."""
    part = charts.marked(chart, bars)
    if part is None:
        return
    labels = found.labels[part[0] : part[1] + 1]
    bits, named = bitmaps.pack((found.codes >= part[0]) & (found.codes <= part[1])), labels[:3]
    title, more = registry.title(entry, chart.column), len(labels) - len(named)
    said = f"{title}: {', '.join(label or '(none)' for label in named)}{f' and {more} more' if more else ''}"
    _draw(
        entry,
        chart,
        said,
        bits,
        CLIP_SCORE.name,
        {"kind": title, "value": [label or "(none)" for label in labels]},
        None,
    )


def _draw(
    entry: Entry,
    chart: Chart,
    title: str,
    bits: np.ndarray,
    metric: str,
    asked: dict[str, Any] | None,
    keeps: state.Keeps | None,
) -> None:
    """The cards below their title. asked: how the Gallery is asked for all of them, None where it cannot be."""
    pairs = bitmaps.pairs_in(bits)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        messages.show_title(title, words.pairs(pairs))
        if asked is not None and pairs:
            st.page_link("gallery.py", label="Open in Gallery", icon=":material/grid_view:", query_params=asked)
        st.button("Close", icon=":material/close:", key=f"unmark {chart.key}", type="tertiary", on_click=charts.unmark)
    name = (entry, chart, title, state.scores_stamp(entry))
    listed = pager.sort_pairs(name, lambda: Listing.of(state.ranking(entry, metric), bits), "random", _CARDS)
    if len(listed):
        galleries.draw_gallery(entry, listed, metric, key=f"in {chart.key}", title=title, keeps=keeps, small=True)
