"""What lies in a region of the map, and what shall become of it? Its words, scores, pairs; keep, drop, or a target."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
import streamlit as st

from clipsel_core import uids
from clipsel_core.curation import counts, ordering
from clipsel_core.curation.recipe import AnyStep, Drop, Keep, Subtract, Union
from clipsel_core.errors import ClipselError, RunError
from clipsel_core.runs.store import Run
from pages.parts import atlas, empty, facts, forms, lists, marginals, metrics, pairs, recipes, state, targets, words
from pages.parts.catalog import Entry
from pages.parts.histogram import Layer, show_histogram
from pages.parts.shapes import Shape

_CARDS = 24
_ORDERS = ("highest", "lowest", "random")
_BINS = 64
# So many uids are written into the recipe itself; more go into a list beside it.
_MOST_INLINE = 100
_FAILED = "region failed"


def panel(entry: Entry, run: Run, shape: Shape | None) -> None:
    """Everything about what was drawn; about the whole map where nothing was."""
    rows = atlas.rows_in(entry, shape) if shape else state.open_map(entry).rows
    if not len(rows):
        empty.show_empty("No pair in this region", "Draw around a coloured part of the map.")
        return
    kept = state.kept_mask(entry, recipes.draft_yaml(entry, run))
    share = f"{words.share(int(kept[rows].sum()), len(rows))} kept by the recipe"
    facts.show_title(f"{words.pairs(len(rows))} {'in the region' if shape else 'on the map'}", share)
    if shape:
        said = atlas.words_of(entry, shape)
        facts.show_note(f"Said here more than elsewhere: {', '.join(said)}" if said else "No word sets it apart")
        _actions(entry, run, rows)
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
    scaled = np.round(whole * (int(part.sum()) / max(int(whole.sum()), 1)), 1)
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


def _actions(entry: Entry, run: Run, rows: np.ndarray) -> None:
    """Buttons that take the region into the recipe, or make it a target."""
    with st.container(horizontal=True, gap="small", key="region actions"):
        for kind, icon in (("keep", ":material/check:"), ("drop", ":material/block:")):
            act = partial(_add, entry, run, rows, kind)
            st.button(f"{kind.capitalize()} these", icon=icon, key=f"{kind} region", on_click=act)
        if forms.button("Use as target", "region", ":material/my_location:"):
            targets.ask_for_pairs(run, state.open_table(entry).uids_at(rows), "region")
    if _FAILED in st.session_state:
        empty.show_error(st.session_state.pop(_FAILED), "This could not be written")
    on_map, scored = len(state.open_map(entry).rows), len(state.open_table(entry))
    if on_map < scored:
        facts.show_note(
            f"Only the {words.count(on_map)} pairs on the map are meant, of {words.count(scored)} in the run."
        )


def _add(entry: Entry, run: Run, rows: np.ndarray, kind: str) -> None:
    """Keeps or drops the region's pairs as the last step of the recipe."""
    names = uids.sort(state.open_table(entry).uids_at(rows))
    try:
        step = _step(run, names, kind)
    except (ClipselError, OSError) as error:
        st.session_state[_FAILED] = _told(run, error)
        return
    recipes.add_step(entry, run, step)
    done = "kept by hand" if kind == "keep" else "dropped by hand"
    st.toast(f"{words.pairs(len(rows))} {done}: the last step on the Select page", icon=":material/check:")


def _step(run: Run, names: np.ndarray, kind: str) -> AnyStep:
    if len(names) <= _MOST_INLINE:
        made = Keep if kind == "keep" else Drop
        return made.model_validate({kind: uids.to_hex(names).to_pylist()})
    listed = Union if kind == "keep" else Subtract
    return listed.model_validate({listed.kind: lists.store(run, "region.npy", _as_file(names))})


def _as_file(names: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, names, allow_pickle=False)
    return file.getvalue()


def _told(run: Run, error: Exception) -> ClipselError:
    return error if isinstance(error, ClipselError) else RunError(run.root, expected="to write", found=str(error))
