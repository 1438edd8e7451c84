"""Which pairs does a recipe keep? Worked out in the background, for pages that also show what does not need it."""

from __future__ import annotations

from clipsel_core.curation.selecting.selection import Selection
from clipsel_core.errors import ClipselError, RunError
from clipsel_core.tasks import Report, Task
from pages.parts import messages, progress_bars, state
from pages.parts.catalog import Entry
from pages.parts.state import Keeps


def find_keeps(entry: Entry, recipe: str) -> Keeps | None:
    """What tells which pairs a recipe (YAML) keeps; None while that is worked out, which the page says meanwhile.

    The page draws itself anew after. None too where it does not fit the run: all else can still be looked at.
    """
    if not recipe:
        return state.keeps(entry, recipe)
    try:
        stopped = "Stopped: what the recipe keeps is not shown."
        selection = progress_bars.value_of(_selecting(entry, recipe), key="keeping", stopped=stopped)
    except ClipselError as error:
        misfit = "A step of the recipe on the Select page does not fit this run"
        messages.show_error(error, "What the recipe keeps cannot be read" if isinstance(error, RunError) else misfit)
        return None
    return None if selection is None else selection.holds


@state.per_run(8, stamp=state.recipe_stamp)
def _selecting(entry: Entry, recipe: str) -> Task[Selection]:
    """A recipe's selection being worked out, once for all sessions."""
    picker, parsed = state.open_picker(entry), state.parse(entry, recipe)

    def work(report: Report) -> Selection:
        # What is before a step is remembered, so that this takes no longer than all at once.
        for done in range(len(parsed.steps)):
            report(done, len(parsed.steps), "", "Working out what the recipe keeps …")
            selection = picker.select(parsed.model_copy(update={"steps": parsed.steps[: done + 1]}))
        selection.bits()
        return selection

    return Task(work)
