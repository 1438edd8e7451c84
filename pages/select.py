"""What is kept at these thresholds, how much does each step cost, and how do I take it with me?"""

from __future__ import annotations

import streamlit as st

from clipsel_core.curation.recipe_files import load_recipe
from clipsel_core.curation.selection import Selection
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from pages.parts import borders, chance, empty, exporting, funnel, lists, recipes, state, steps
from pages.parts.catalog import Entry


def show(entry: Entry) -> None:
    left, right = st.columns([3, 2], gap="large")
    left.title("Select")
    run = state.open_run(entry)
    state.require_table(entry)
    recipe = recipes.draft_yaml(entry, run)
    picked, error = _pick(entry, recipe)
    with right:
        if picked is not None:
            funnel.show_kept(picked)
    left, right = st.columns([3, 2], gap="large")
    with right:
        # Before the cards, which take longer: the exact count is what a moved thumb is waited for.
        if picked is not None:
            funnel.show_funnel(picked, list(recipes.draft(entry, run).values()))
    with left:
        if error is not None:
            empty.show_error(error, "A step of this recipe does not fit this run")
        elif picked is None:
            empty.show_empty("No step yet", "A recipe keeps pairs step by step. Add the first, or load a saved recipe.")
        steps.cards(entry, run, picked)
        with st.container(horizontal=True, gap="small"):
            steps.adder(entry, run)
            lists.adder(entry, run)
    with right:
        st.subheader("Recipe")
        _loader(entry, run)
        if picked is not None:
            exporting.panel(entry, run, recipe, picked)
    if picked is not None:
        borders.panel(entry, run, recipe)
        chance.panel(entry, recipe)


def _pick(entry: Entry, recipe: str) -> tuple[Selection | None, ClipselError | None]:
    """What the draft keeps; nothing where it has no step, or where one of them does not fit the run."""
    try:
        return (state.selected(entry, recipe) if recipe else None), None
    except ClipselError as error:
        return None, error


def _loader(entry: Entry, run: Run) -> None:
    known = recipes.saved(run)
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
