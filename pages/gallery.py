"""What do the pairs look like, from the best of any metric to the worst, kept or dropped?"""

from __future__ import annotations

import numpy as np
import streamlit as st

from clipsel_core.runs.store import Run
from pages.parts import empty, marginals, metrics, pairs, recipes, state, words
from pages.parts.catalog import Entry

_ORDERS = {"highest": "descending", "lowest": "ascending", "random": "random"}
_SHOWN = ("all", "kept", "dropped")
_SIZES = (48, 96, 192)


def show(entry: Entry) -> None:
    run, table = state.open_run(entry), state.require_table(entry)
    st.title("Gallery")
    metric, order, shown, size = _controls(list(table.metrics))
    recipe = recipes.draft_yaml(entry, run)
    listed = _listed(entry, metric, shown, recipe)
    pages = max(1, -(-listed // size))
    page = _pager(entry, run, metric, order, shown, size, pages, listed)
    if not listed:
        _nothing(shown)
        return
    rows = _page_rows(entry, metric, order, shown, recipe, _seed(order), (page - 1) * size, size, state.scores_stamp(entry))
    kept = state.kept_mask(entry, recipe) if shown == "all" else None
    label = f"Pairs by {metrics.title(metric)}, {order} first, page {page} of {pages}"
    pairs.gallery(entry, rows, metric, key="cards", label=label, kept=kept)


def _controls(names: list[str]) -> tuple[str, str, str, int]:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        metric = st.selectbox(
            "Metric", names, format_func=metrics.title, key="metric", bind="query-params", on_change=_rewind, width=240
        )
        order = st.segmented_control(
            "First", list(_ORDERS), default="highest", required=True, key="order", bind="query-params", on_change=_rewind
        )
        shown = st.segmented_control(
            "Show", _SHOWN, default="all", required=True, key="show", bind="query-params", on_change=_rewind,
            help="Kept and dropped by the recipe on the Select page as it is now.",
        )
        size = st.selectbox("Cards", _SIZES, key="size", bind="query-params", on_change=_rewind, width=90)
        if order == "random":
            st.number_input("Seed", 0, 2**31 - 1, key="seed", bind="query-params", on_change=_rewind, width=120)
    st.caption(metrics.describe(metric).help)
    return metric, order, shown, size


def _pager(
    entry: Entry, run: Run, metric: str, order: str, shown: str, size: int, pages: int, listed: int
) -> int:
    st.session_state["page"] = min(max(1, st.session_state.get("page", 1)), pages)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button("Previous", icon=":material/chevron_left:", on_click=_turn, args=(-1,), disabled=_at(1), key="previous")
        page = st.number_input("Page", 1, pages, key="page", label_visibility="collapsed", width=130)
        st.button("Next", icon=":material/chevron_right:", on_click=_turn, args=(1,), disabled=_at(pages), key="next")
        st.markdown(f"of {words.count(pages)} · {words.count(listed)} pairs")
        st.space("stretch")
        if order != "random" and listed:
            st.number_input(
                "Jump to percentile", 0.0, 100.0, None, 1.0, key="jump", placeholder="jump to percentile",
                label_visibility="collapsed", width=190, on_change=_jump, args=(entry, run, metric, order, shown, size),
            )
    return int(page)


def _at(page: int) -> bool:
    return st.session_state["page"] == page


def _turn(step: int) -> None:
    st.session_state["page"] += step


def _rewind() -> None:
    st.session_state["page"] = 1


def _jump(entry: Entry, run: Run, metric: str, order: str, shown: str, size: int) -> None:
    """Turns to the page where the pool's percentile lies among the pairs that are listed."""
    percent = st.session_state.get("jump")
    if percent is None:
        return
    recipe = recipes.draft_yaml(entry, run)
    value = marginals.marginal(entry, metric).quantile(percent)
    below = _below(entry, metric, shown, recipe, value)
    listed = _listed(entry, metric, shown, recipe)
    before = below if order == "lowest" else listed - below
    st.session_state["page"] = 1 + min(before, max(listed - 1, 0)) // size


def _below(entry: Entry, metric: str, shown: str, recipe: str, value: float) -> int:
    """Listed pairs that score less than a value."""
    everything = marginals.marginal(entry, metric)
    below = everything.percentile(value) / 100 * everything.pairs
    if shown != "all":
        kept = marginals.marginal(entry, metric, recipe)
        below_kept = kept.percentile(value) / 100 * kept.pairs
        below = below_kept if shown == "kept" else below - below_kept
    return round(below)


def _listed(entry: Entry, metric: str, shown: str, recipe: str) -> int:
    everything = marginals.marginal(entry, metric).pairs
    if shown == "all":
        return everything
    kept = marginals.marginal(entry, metric, recipe).pairs
    return kept if shown == "kept" else everything - kept


def _seed(order: str) -> int:
    return int(st.session_state.get("seed") or 0) if order == "random" else 0


@st.cache_resource(max_entries=64, show_spinner=False)
def _page_rows(
    entry: Entry, metric: str, order: str, shown: str, recipe: str, seed: int, offset: int, limit: int, stamp: state.Stamp
) -> np.ndarray:
    mask = None if shown == "all" else state.kept_mask(entry, recipe)
    if shown == "dropped":
        mask = ~mask
    return state.open_table(entry).page(metric, _ORDERS[order], offset=offset, limit=limit, mask=mask, seed=seed)


def _nothing(shown: str) -> None:
    why = {
        "kept": "The recipe on the Select page keeps no pair that has this score.",
        "dropped": "The recipe on the Select page keeps every pair that has this score.",
        "all": "No pair of this run has this score.",
    }
    empty.show_empty("Nothing to show", why[shown])


show(state.current())
