"""Which pairs does a recipe keep? Worked out in the background, for pages that also show what does not need it."""

from __future__ import annotations

import streamlit as st

from clipsel_core.curation.recipes.recipe import Recipe
from clipsel_core.curation.selecting.selection import Picker, Selection
from clipsel_core.errors import ClipselError, RunError
from clipsel_core.tasks import Report, Task
from pages.parts import empty, state, watching
from pages.parts.catalog import Entry
from pages.parts.state import Keeps


class Keeping:
    """A recipe's selection being worked out, once for all sessions. selection: what came out, once it is there."""

    def __init__(self, picker: Picker, recipe: Recipe) -> None:
        self.selection: Selection | None = None
        self.work = Task(self._do)
        self._picker, self._recipe = picker, recipe

    def _do(self, report: Report) -> None:
        steps = self._recipe.steps
        # What is before a step is remembered, so that this takes no longer than all at once.
        for done in range(len(steps)):
            report(done, len(steps), "", "Working out what the recipe keeps …")
            selection = self._picker.select(self._recipe.model_copy(update={"steps": steps[: done + 1]}))
        selection.bits()
        self.selection = selection


def of(entry: Entry, recipe: str) -> Keeps | None:
    """What a recipe (YAML) keeps; None while that is worked out, which the page then says, and draws itself anew after.

    None too where it does not fit the run: all else can still be looked at.
    """
    if not recipe:
        return state.keeps(entry, recipe)
    try:
        keeping = _keeping(entry, recipe, state.recipe_stamp(entry, recipe))
        keeping.work.begin()
        if keeping.work.error:
            raise keeping.work.error
    except ClipselError as error:
        misfit = "A step of the recipe on the Select page does not fit this run"
        empty.show_error(error, "What the recipe keeps cannot be read" if isinstance(error, RunError) else misfit)
        return None
    if keeping.selection is None:
        watching.until_done(keeping.work, key="keeping", stopped="Stopped: what the recipe keeps is not shown.")
        return None
    return keeping.selection.holds


@st.cache_resource(max_entries=8, show_spinner=False)
def _keeping(entry: Entry, recipe: str, stamp: state.Stamp) -> Keeping:
    return Keeping(state.open_picker(entry), state.parse(entry, recipe))
