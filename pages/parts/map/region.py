"""What lies in a region of the map? Its words, how its scores are spread, and its pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.index import ordering
from clipsel_core.runs.store import Run
from pages.parts import empty, facts, keeping, marginals, metrics, recipes, state, words
from pages.parts.catalog import Entry
from pages.parts.gallery import pager
from pages.parts.histogram import Layer, show_histogram
from pages.parts.map import atlas
from pages.parts.map.naming import Naming
from pages.parts.map.shapes import Shape
from pages.parts.pair import galleries

_CARDS, _HEIGHT, _PAGE = 24, 470, "region_page"
_WORDS = 8
_ORDERS = ("highest", "lowest", "random")
_BINS = 64


def panel(entry: Entry, run: Run, shape: Shape | None, names: Naming) -> None:
    """Everything about what was drawn; about the whole map where nothing was. names: of its regions."""
    everyone = state.open_map(entry).rows
    member = atlas.members(entry, shape) if shape else slice(None)
    rows = everyone[member]
    if not len(rows):
        empty.show_empty("No pair in this region", "Draw around a coloured part of the map.")
        return
    kept = keeping.of(entry, recipes.draft_yaml(entry, run))
    share = f"{words.share(int(kept(rows).sum()), len(rows))} kept by the recipe" if kept else ""
    facts.show_title(f"{words.pairs(len(rows))} {'in the region' if shape else 'on the map'}", share)
    if shape:
        said = names.words(atlas.members(entry, shape), _WORDS)
        if said is not None:
            facts.show_note(f"Said here more than elsewhere: {', '.join(said)}" if said else "No word sets it apart")
        galleries.draw_actions(entry, run, rows, called=" ".join(["region", *(said or ())[:2]]))
        on_map, scored = len(everyone), len(state.open_table(entry))
        if on_map < scored:
            meant = f"Only the {words.count(on_map)} pairs on the map are meant, of {words.count(scored)} in the run."
            facts.show_note(meant)
    metric, order = _controls(entry)
    values = atlas.scores_of(entry, metric)[member]
    listed = _Listed.of(rows, values, order)
    if not len(listed):
        empty.show_empty("Nothing to show", f"None of them has a {metrics.title(metric)}. Choose another metric.")
        return
    _spread(entry, metric, values, "region" if shape else "map")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.choose_page(_PAGE, listed)
    with st.container(height=_HEIGHT, border=False):
        title = f"Pairs {'in the region' if shape else 'on the map'} by {metrics.title(metric)}, {order} first"
        shown: dict[str, Any] = {"title": title, "keeps": kept}
        galleries.draw_gallery(entry, listed, metric, key="region", page=page, pager_key=_PAGE, **shown)


def rewind() -> None:
    """Goes back to the first page: for whatever changes what is shown."""
    pager.rewind(_PAGE)


@dataclass(frozen=True)
class _Listed:
    """A region's pairs in an order, in pages. Only the map's own pairs are looked at, however many the run has."""

    keys: np.ndarray
    scored: np.ndarray
    size: int = _CARDS

    @classmethod
    def of(cls, rows: np.ndarray, values: np.ndarray, order: str) -> _Listed:
        """Those that have a score. rows: (M,) int64; values: their scores, (M,) floats."""
        scored = ~np.isnan(values)
        rows, values = rows[scored], values[scored]
        keys = {"highest": -values, "lowest": values}.get(order)
        return cls(ordering.shuffled_keys(rows, 0) if keys is None else keys, rows)

    def __len__(self) -> int:
        return len(self.scored)

    def rows(self, page: int) -> np.ndarray:
        return ordering.page_of(self.keys, self.scored, (page - 1) * self.size, self.size)

    def row_at(self, place: int) -> int:
        return int(ordering.page_of(self.keys, self.scored, place, 1)[0])


def _controls(entry: Entry) -> tuple[str, str]:
    names = state.open_table(entry).metrics
    with st.container(horizontal=True, vertical_alignment="bottom"):
        shared: dict[str, Any] = {"persist_state": "session", "on_change": rewind}
        metric = st.selectbox("Metric", names, format_func=metrics.title, key="map_metric", width=170, **shared)
        order = st.segmented_control("First", _ORDERS, default="highest", required=True, key="map_order", **shared)
    return metric, order


def _spread(entry: Entry, metric: str, values: np.ndarray, what: str) -> None:
    """The region's scores in front of the run's, both over the same area."""
    everything = marginals.marginal(entry, metric)
    edges, whole = everything.coarse(_BINS)
    region = marginals.of_values(values, everything)
    part = region.coarse(_BINS)[1]
    scaled = np.round(whole * (int(part.sum()) / max(int(whole.sum()), 1)), 1 if part.sum() < 1000 else 0)
    here, all_of = (words.score(spread.quantile(50)) for spread in (region, everything))
    show_histogram(
        f"{metrics.title(metric)}: median {here} here, {all_of} in the run",
        "",
        edges,
        [Layer("pool", "whole run, same area", scaled), Layer("kept", f"this {what}", part)],
        [],
        key="region-spread",
        height=70,
    )
