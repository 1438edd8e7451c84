"""What was drawn on the map, and what lies in it? Its words, how its scores are spread, and its pairs.

Regions are named by their captions, which a task reads once for all sessions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.curation.exploring.projection import SMOOTHING, CaptionWords, find_regions
from clipsel_core.curation.index.ordering import shuffled_keys
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from clipsel_core.tasks import Report, Task, part_of
from pages.parts import charts, messages, progress_bars, registry, state, words
from pages.parts.catalog import Entry
from pages.parts.charts import Chart, Layer, draw_histogram
from pages.parts.component import component
from pages.parts.gallery import pager
from pages.parts.map import canvas
from pages.parts.map.canvas import MapState, Shape
from pages.parts.pair import galleries

Labels = list[list[tuple[str, float, float]]]

_CARDS, _HEIGHT, _PAGE = 24, 470, "region_page"
_WORDS = 8
_ORDERS = ("highest", "lowest", "random")
_BINS = 64
# So many pairs name the regions, of so many whose captions may be read for it.
_NAMED, _READ = 50_000, 16_000_000
_STEPS, _SHARE_READ = 16, 0.8
_MOST_CORNERS = 4_000
_lasso = component("lasso", "<i hidden></i>", js=("map/lasso.js",))


@dataclass(frozen=True)
class Names:
    """The names of a map's regions. labels: text, x, y, a few for the whole map, then more for each zoom.

    sampled: (K,) int64 places, among the map's pairs, of those whose captions were read.
    """

    labels: Labels
    sampled: np.ndarray
    captions: CaptionWords


@state.per_map(4)
def naming_task(entry: Entry) -> Task[Names]:
    """The naming of a map's regions, shared by all who look at it."""
    table, places = state.open_table(entry), state.open_map(entry)

    def work(report: Report) -> Names:
        reading = part_of(report, 0, _SHARE_READ, "Reading captions to name the regions …")
        naming = part_of(report, _SHARE_READ, 1, "Naming the regions …")
        # Of a large run only every so many-th shard: to read one caption of a shard takes as long as to read them all.
        shards = table.files.shard_of(places.rows)
        read = np.flatnonzero(shards % max(1, -(-len(table) // _READ)) == 0)
        read = read if len(read) else np.arange(len(places.rows))
        sampled, captions = read[:: max(1, -(-len(read) // _NAMED))], []
        for step, part in enumerate(np.array_split(sampled, _STEPS)):
            reading(step, _STEPS)
            captions += table.metadata.of(places.rows[part], ("caption",))["caption"].tolist()
        said, labels = CaptionWords(captions), []
        for step, smoothing in enumerate(SMOOTHING):
            naming(step, len(SMOOTHING))
            found = find_regions(places.x[sampled], places.y[sampled], said, smoothing)
            labels.append([(" · ".join(region.words), region.x, region.y) for region in found])
        return Names(labels, sampled, said)

    return Task(work)


def show_naming(task: Task[Names], drawn: Names | None) -> None:
    """How far it is, with a way to stop it; the page is drawn anew at its end. An error does not take the map away.

    drawn: the names that the map was drawn with; the task may have ended since.
    """
    if isinstance(task.error, ClipselError):
        messages.show_error(task.error, "The map's regions have no names, since captions cannot be read")
    elif task.error:
        raise task.error
    elif task.value is not drawn or not task.finished:
        progress_bars.watch(task, key="naming")


def hear_lasso(session: MapState, *, key: str) -> None:
    """Takes what is drawn on the map, or taken away, into the session, and runs again where this is called."""

    def take_shape() -> None:
        session.shape = read_shape(st.session_state[key].get("drawn"))
        pager.rewind(_PAGE)

    _lasso(data={}, key=key, on_drawn_change=take_shape)


def read_shape(said: Any) -> Shape | None:
    """The shape in what a browser sent, {"x": [...], "y": [...]}; None where it is none."""
    if not isinstance(said, dict):
        return None
    x, y = said.get("x"), said.get("y")
    if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y) or not 3 <= len(x) <= _MOST_CORNERS:
        return None
    if not all(isinstance(place, int | float) and math.isfinite(place) for place in (*x, *y)):
        return None
    return Shape(tuple(map(float, x)), tuple(map(float, y)))


@state.per_map(32)
def _members(entry: Entry, shape: Shape) -> np.ndarray:
    """Which of the map's pairs lie in a shape: (M,) bool."""
    places = state.open_map(entry)
    return shape.holds(places.x, places.y)


def show_region(entry: Entry, run: Run, recipe: str, shape: Shape | None, names: Names | None) -> None:
    """Everything about what was drawn; about the whole map where nothing was.

    recipe: the draft's YAML. names: of the map's regions, if known.
    """
    on_map = state.open_map(entry).rows
    member = _members(entry, shape) if shape else None
    rows = on_map if member is None else on_map[member]
    if not len(rows):
        messages.show_empty("No pair in this region", "Draw around a coloured part of the map.")
        return
    keeps = galleries.find_keeps(entry, recipe)
    share = f"{words.share(int(keeps(rows).sum()), len(rows))} kept by the recipe" if keeps else ""
    messages.show_title(f"{words.pairs(len(rows))} {'in the region' if shape else 'on the map'}", share)
    if member is not None:
        _show_words(entry, run, rows, member, names)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        asked: dict[str, Any] = {"persist_state": "session", "on_change": pager.rewind, "args": (_PAGE,)}
        names_of = registry.offered(entry, keys=("map_metric",))
        metric = st.selectbox(
            "Metric", names_of, format_func=registry.titles(entry), key="map_metric", width=170, **asked
        )
        order = st.segmented_control("First", _ORDERS, default="highest", required=True, key="map_order", **asked)
    values = canvas.scores_of(entry, metric)
    values = values if member is None else values[member]
    scored = ~np.isnan(values)
    if not scored.any():
        messages.show_empty(
            "Nothing to show", f"None of them has a {registry.title(entry, metric)}. Choose another metric."
        )
        return
    chart = Chart(entry.key, "region-spread", metric)
    _draw_histogram(entry, chart, values, "region" if shape else "map")
    part = charts.marked(chart, _BINS)
    if part is not None:
        ends = state.open_table(entry).extent(metric)
        low, high, digits = charts.marked_interval(*ends, _BINS, *part)
        scored &= (values >= low) & (values <= high)
        said = f"{registry.title(entry, metric)} from {low:,.{digits}f} to {high:,.{digits}f}"
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            messages.show_title(said, words.pairs(int(np.count_nonzero(scored))))
            st.button("Close", icon=":material/close:", key="unmark region", type="tertiary", on_click=charts.unmark)
    ranked = -values[scored] if order == "highest" else values[scored]
    keys = shuffled_keys(rows[scored], 0) if order == "random" else ranked
    listed = pager.RowList(rows[scored], _CARDS, keys)
    if not len(listed):
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.choose_page(_PAGE, listed)
    with st.container(height=_HEIGHT, border=False):
        title = f"Pairs {'in the region' if shape else 'on the map'} by {registry.title(entry, metric)}, {order} first"
        shown: dict[str, Any] = {"title": title, "keeps": keeps}
        galleries.draw_gallery(entry, listed, metric, key="region", page=page, pager_key=_PAGE, **shown)


def _show_words(entry: Entry, run: Run, rows: np.ndarray, member: np.ndarray, names: Names | None) -> None:
    """The words that set a region's captions apart, and what can be done with all its pairs."""
    said: tuple[str, ...] = ()
    if names is not None:
        said = tuple(names.captions.distinctive(member[names.sampled], _WORDS))
        messages.show_note(f"Said here more than elsewhere: {', '.join(said)}" if said else "No word sets it apart")
    galleries.draw_actions(entry, run, rows, called=" ".join(["region", *said[:2]]))
    on_map, scored = len(member), len(state.open_table(entry))
    if on_map < scored:
        meant = f"Only the {words.number(on_map)} pairs on the map are meant, of {words.number(scored)} in the run."
        messages.show_note(meant)


def _draw_histogram(entry: Entry, chart: Chart, values: np.ndarray, what: str) -> None:
    """The region's scores in front of the run's, both over the same area."""
    metric = chart.column
    everything = registry.marginal(entry, metric)
    edges, whole = everything.coarse(_BINS)
    region = registry.marginal_of_values(values, everything)
    part = region.coarse(_BINS)[1]
    scaled = np.round(whole * (int(part.sum()) / max(int(whole.sum()), 1)), 1 if part.sum() < 1000 else 0)
    here, all_of = (words.decimal(spread.quantile(50)) for spread in (region, everything))
    draw_histogram(
        f"{registry.title(entry, metric)}: median {here} here, {all_of} in the run",
        "",
        edges,
        [Layer("pool", "whole run, same area", scaled), Layer("kept", f"this {what}", part)],
        [],
        chart=chart,
        of=1,
        height=70,
    )
