"""What do the pairs look like, from the best of any metric to the worst, kept or dropped?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import streamlit as st

from clipsel_core import uids
from clipsel_core.runs.store import Run
from pages.parts import empty, facts, forms, marginals, metrics, pairs, recipes, state, targets, words
from pages.parts.catalog import Entry

_ORDERS = {"highest": "descending", "lowest": "ascending", "random": "random"}
_SHOWN = ("all", "kept", "dropped")
_SIZES = (48, 96, 192)
_PAGES_AT_ONCE = 16


@dataclass(frozen=True)
class View:
    """What is listed and in which order. recipe: the draft's YAML, which says what is kept."""

    metric: str
    order: str
    shown: str
    size: int
    seed: int
    recipe: str


def show(entry: Entry) -> None:
    st.title("Gallery")
    run, table = state.open_run(entry), state.require_table(entry)
    view = _controls(entry, run, list(table.metrics))
    listed = _listed(entry, view)
    pages = max(1, -(-listed // view.size))
    page = _pager(entry, view, pages, listed)
    if not listed:
        _nothing(view.shown)
        return
    rows = _page_rows(entry, view, page)
    kept = state.kept_mask(entry, view.recipe) if view.shown == "all" else None
    _more_like_these(entry, run)
    label = f"Pairs by {metrics.title(view.metric)}, {view.order} first, page {page} of {pages}"
    pairs.gallery(entry, rows, view.metric, key="cards", label=label, kept=kept)


def _controls(entry: Entry, run: Run, names: list[str]) -> View:
    shared = {"bind": "query-params", "on_change": _rewind}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        metric = st.selectbox("Metric", names, format_func=metrics.title, key="metric", width=220, **shared)
        order = st.segmented_control("First", list(_ORDERS), default="highest", required=True, key="order", **shared)
        help_text = "Kept and dropped by the recipe on the Select page as it is now."
        shown = st.segmented_control("Show", _SHOWN, default="all", required=True, key="show", help=help_text, **shared)
        size = st.selectbox("Cards", _SIZES, key="size", width=90, **shared)
        seed = 0
        if order == "random":
            seed = st.number_input("Seed", 0, 2**31 - 1, key="seed", width=120, **shared)
    facts.show_note(metrics.describe(metric).help)
    return View(metric, order, shown, size, int(seed), recipes.draft_yaml(entry, run))


def _pager(entry: Entry, view: View, pages: int, listed: int) -> int:
    page = st.session_state["page"] = min(max(1, st.session_state.get("page", 1)), pages)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        back, on = ":material/chevron_left:", ":material/chevron_right:"
        st.button("Previous", icon=back, on_click=_turn, args=(-1,), disabled=page == 1, key="previous")
        st.number_input("Page", 1, pages, key="page", label_visibility="collapsed", width=130)
        st.button("Next", icon=on, on_click=_turn, args=(1,), disabled=page == pages, key="next")
        st.text(f"of {words.count(pages)} · {words.pairs(listed)}")
        st.space("stretch")
        if view.order != "random" and listed:
            st.number_input(
                "Jump to percentile",
                min_value=0.0,
                max_value=100.0,
                value=None,
                key="jump",
                placeholder="jump to percentile",
                label_visibility="collapsed",
                width=200,
                on_change=_jump,
                args=(entry, view),
            )
    return page


def _turn(step: int) -> None:
    st.session_state["page"] += step


def _rewind() -> None:
    st.session_state["page"] = 1


def _jump(entry: Entry, view: View) -> None:
    """Turns to the page where the pool's percentile lies among the pairs that are listed."""
    percent = st.session_state.get("jump")
    if percent is None:
        return
    value = marginals.marginal(entry, view.metric).quantile(percent)
    below, listed = _below(entry, view, value), _listed(entry, view)
    before = below if view.order == "lowest" else listed - below
    st.session_state["page"] = 1 + min(before, max(listed - 1, 0)) // view.size


def _below(entry: Entry, view: View, value: float) -> int:
    """Listed pairs that score less than a value."""
    everything = marginals.marginal(entry, view.metric).pairs_below(value)
    if view.shown == "all":
        return everything
    kept = marginals.marginal(entry, view.metric, view.recipe).pairs_below(value)
    return kept if view.shown == "kept" else everything - kept


def _listed(entry: Entry, view: View) -> int:
    everything = marginals.marginal(entry, view.metric).pairs
    if view.shown == "all":
        return everything
    kept = marginals.marginal(entry, view.metric, view.recipe).pairs
    return kept if view.shown == "kept" else everything - kept


def _page_rows(entry: Entry, view: View, page: int) -> np.ndarray:
    """The rows of one page. Finding one page costs as much as finding many, so the pages around it come along."""
    block, place = divmod(page - 1, _PAGES_AT_ONCE)
    rows = _block_rows(entry, view, block, state.scores_stamp(entry))
    return rows[place * view.size : (place + 1) * view.size]


@st.cache_resource(max_entries=64, show_spinner=False)
def _block_rows(entry: Entry, view: View, block: int, stamp: state.Stamp) -> np.ndarray:
    mask = None if view.shown == "all" else state.kept_mask(entry, view.recipe)
    if mask is not None and view.shown == "dropped":
        mask = ~mask
    limit = _PAGES_AT_ONCE * view.size
    table = state.open_table(entry)
    return table.page(view.metric, _ORDERS[view.order], offset=block * limit, limit=limit, mask=mask, seed=view.seed)


def _more_like_these(entry: Entry, run: Run) -> None:
    """Offers to compare the run with the pairs kept by hand; nothing while none is."""
    picked = [uid for uid, kind in recipes.by_hand(entry, run).items() if kind == "keep"]
    if not picked or not run.finished:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        facts.show_note(f"{words.pairs(len(picked))} kept by hand.")
        if forms.button("More like these", "more like these", ":material/my_location:"):
            targets.ask_for_pairs(run, uids.from_hex(picked), "picked")


def _nothing(shown: str) -> None:
    why = {
        "kept": "The recipe on the Select page keeps no pair that has this score.",
        "dropped": "The recipe on the Select page keeps every pair that has this score.",
        "all": "No pair of this run has this score.",
    }
    empty.show_empty("Nothing to show", why[shown])


show(state.current())
