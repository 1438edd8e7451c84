"""Why is one pair kept or dropped? What each step of a recipe did with it.

A pair is looked up in the sets that select() makes, so that ties at a threshold come out as they do in an export.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.recipes.recipe import AnyStep, Recipe
from clipsel_core.curation.selecting.selection import Picker


@dataclass(frozen=True)
class Judged:
    """What one enabled step did with a pair. number: of the step in the recipe, from 1, those that are off counted.

    before, after: whether the pair was in the selection. score: the pair's by the step's metric, NaN where it has none;
    None for a list. threshold: as in StepReport; None where the step has none, or kept nothing.
    """

    number: int
    step: AnyStep
    before: bool
    after: bool
    score: float | None
    threshold: float | None


@dataclass(frozen=True)
class Verdict:
    """What became of a pair. set_aside: it has no clip_score, so that no recipe can keep it."""

    set_aside: bool
    steps: tuple[Judged, ...]

    @property
    def kept(self) -> bool:
        """Whether the recipe keeps it; one without an enabled step keeps every pair that may be selected."""
        return self.steps[-1].after if self.steps else not self.set_aside

    @cached_property
    def decided(self) -> Judged | None:
        """The step that took it out, or brought it back, last; None where it went in and passed them all."""
        return next((judged for judged in reversed(self.steps) if judged.before != judged.after), None)


def judge(picker: Picker, recipe: Recipe, row: int) -> Verdict:
    """What each enabled step of a recipe does with the pair in a row. Raises RecipeError as select() does."""
    numbers = [number for number, step in enumerate(recipe.steps, 1) if step.enabled]
    judged = []
    one = np.array([row])
    held = selectable = bool(bitmaps.holds(picker.bits(()), one)[0])
    for number, taken in zip(numbers, picker.take(recipe), strict=True):
        after = bool(bitmaps.holds(picker.bits((*taken.before, taken.cut)), one)[0])
        step, report = taken.step, taken.report
        score = float(picker.table.take(report.metric, one)[0]) if report.metric else None
        judged.append(Judged(number, step, held, after, score, report.threshold))
        held = after
    return Verdict(not selectable, tuple(judged))
