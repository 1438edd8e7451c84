"""What is kept at these thresholds, how much does each step cost, and how do I take it with me?"""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from clipsel_core.curation.recipes.recipe_files import load_recipe
from clipsel_core.errors import ClipselError, RunError
from clipsel_core.runs.store import Run
from pages.parts import empty, links, lists, recipes, state, unreadable
from pages.parts.catalog import Entry
from pages.parts.select import borders, chance, exporting, funnel, keyboard, steps


@dataclass(frozen=True)
class _Places:
    """Where the answer to a moved thumb is written. steps: for each step of the draft, by its number.

    picked: whether the draft picks anything. saving: None where it does not, or has no name to be saved under.
    at_threshold, other_seed: None while these panels are shut.
    """

    picked: bool
    kept: DeltaGenerator
    steps: dict[int, DeltaGenerator]
    saving: exporting.Places | None
    at_threshold: DeltaGenerator | None
    other_seed: DeltaGenerator | None


def show(entry: Entry) -> None:
    left, right = st.columns([3, 2], gap="large")
    left.title("Select")
    with left:
        keyboard.show()
    run = state.open_run(entry)
    state.require_table(entry)
    empty.show_unfinished(run)
    kept = right.container()
    recipe = recipes.draft_yaml(entry, run)
    picked, error = _pick(entry, recipe)
    left, right = st.columns([3, 2], gap="large")
    with left:
        if isinstance(error, RunError):  # No step is to blame.
            raise error
        if error is not None:
            empty.show_error(error, "A step of this recipe does not fit this run")
        elif picked is None:
            empty.show_empty("No step yet", "A recipe keeps pairs step by step. Add the first, or load a saved recipe.")
        cards = steps.cards(entry, run)
        with st.container(horizontal=True, gap="small"):
            steps.adder(entry, run)
            lists.adder(entry, run)
    with right:
        answered = st.container()
        st.subheader("Recipe")
        _loader(entry, run)
        saving = None if picked is None else exporting.panel(entry, run, recipe, picked.selection)
    at_threshold = other_seed = None
    if picked is not None:
        at_threshold, other_seed = borders.panel(entry, run), chance.panel()
    with answered:
        places = _Places(picked is not None, kept, cards, saving, at_threshold, other_seed)
        _answer(entry, places, recipes.draft(entry, run), links.write(entry, run))


@unreadable.fragment
def _answer(entry: Entry, places: _Places, drawn: recipes.Draft, link: links.Shown) -> None:
    """All that the amounts in the draft decide. A moved thumb runs this and nothing else of the page.

    drawn, link: what the rest of the page shows; where that is not true any more, the page is drawn anew.
    """
    run = state.open_run(entry)
    recipe = recipes.draft_yaml(entry, run)
    picked, _ = _pick(entry, recipe)
    fits = places.picked == (picked is not None)
    if links.write(entry, run) != link or not fits or not recipes.same_steps(recipes.draft(entry, run), drawn):
        st.rerun()
    if picked is not None:
        with places.kept:
            funnel.show_kept(picked.selection)
        funnel.show_funnel(picked.selection, list(recipes.draft(entry, run).values()))
    steps.answer(entry, run, picked, places.steps)
    if places.saving is not None:
        exporting.answer(entry, recipe, places.saving)
    if places.at_threshold is not None:
        with places.at_threshold:
            borders.show(entry, run, recipe)
    if places.other_seed is not None:
        with places.other_seed:
            chance.show(entry, recipe)


def _pick(entry: Entry, recipe: str) -> tuple[state.Picked | None, ClipselError | None]:
    """What the draft keeps; nothing where it has no step, or where one of them does not fit the run."""
    try:
        return (state.picked(entry, recipe) if recipe else None), None
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
        steps = list(load_recipe(path, run.metrics).steps)
        recipes.replace_draft(entry, steps)
        st.session_state[exporting.name_key(entry)] = path.stem
        exporting.knows(entry, path.name, recipes.as_yaml(steps))
    except ClipselError as error:
        st.session_state["load failed"] = error


show(state.current())
