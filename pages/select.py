"""What is kept at these thresholds, how much does each step cost, and how do I take it with me?"""

from __future__ import annotations

import streamlit as st

from clipsel_core.curation.recipe import load_recipe
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from pages.parts import empty, exporting, funnel, recipes, state, steps, words
from pages.parts.catalog import Entry


def show(entry: Entry) -> None:
    run = state.open_run(entry)
    table = state.require_table(entry)
    _head(entry, run)
    recipe = recipes.draft_yaml(entry, run)
    if not recipe:
        empty.show_empty("No step yet", "A recipe keeps pairs step by step. Add the first one, or load a saved recipe.")
        steps.adder(entry, run)
        return
    try:
        picked = state.selected(entry, recipe)
    except ClipselError as error:
        empty.show_error(error, "A step of this recipe does not fit this run")
        steps.cards(entry, run, None)
        return
    left, right = st.columns([3, 2], gap="large")
    with left:
        steps.cards(entry, run, picked)
        steps.adder(entry, run)
    with right:
        kept, of = words.count(len(picked.rows)), words.count(len(table))
        st.metric("Kept", kept, help="Exactly the pairs that an export writes.")
        st.caption(f"{words.share(len(picked.rows), len(table))} of {of} pairs")
        funnel.show_funnel(picked, list(recipes.draft(entry, run).values()))
        exporting.panel(entry, run, recipe, picked)


def _head(entry: Entry, run: Run) -> None:
    known = recipes.saved(run)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Select")
        st.space("stretch")
        st.selectbox(
            "Load a recipe",
            list(known),
            index=None,
            key="load",
            placeholder="load a saved recipe" if known else "no saved recipe yet",
            label_visibility="collapsed",
            disabled=not known,
            on_change=_load,
            args=(entry, run),
            width=240,
        )
    if "load failed" in st.session_state:
        empty.show_error(st.session_state.pop("load failed"), "This recipe cannot be loaded")


def _load(entry: Entry, run: Run) -> None:
    """Takes a saved recipe's steps as the draft; the picker goes back to asking."""
    name = st.session_state.get("load")
    st.session_state["load"] = None
    path = recipes.saved(run).get(name or "")
    if path is None:
        return
    try:
        recipes.replace_draft(entry, list(load_recipe(path, run.metrics).steps))
        st.session_state[exporting.name_key(entry)] = path.stem
    except ClipselError as error:
        st.session_state["load failed"] = error


show(state.current())
