"""Which pairs lie just above and just below a step's threshold? Those that a small move of the thumb would trade."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipsel_core.curation.recipe import Recipe
from clipsel_core.curation.recipe_steps import AtLeast, AtMost, KeepTop
from clipsel_core.curation.score_table import Order, ScoreTable
from clipsel_core.curation.selection import Work


@dataclass(frozen=True)
class Boundary:
    """The pairs on both sides of a threshold, of those that reach the step; the nearest first.

    passing, failing: (M,) int64 row numbers of the pairs that just pass the step, and that just fail it.
    """

    passing: np.ndarray
    failing: np.ndarray


def boundary(table: ScoreTable, recipe: Recipe, place: int, *, most: int = 12) -> Boundary:
    """The pairs nearest to the threshold of the step at a place of the recipe, at most so many on each side.

    Only the enabled steps before it count; the step is looked at as if it were on. Pairs without its metric are on
    neither side. Ties at the threshold are split as the selection splits them.
    Raises: TypeError where the step has no metric; RecipeError as select does.
    """
    step = recipe.steps[place]
    if not isinstance(step, KeepTop | AtLeast | AtMost):
        raise TypeError(f"a step with a metric is expected, found {step.kind}")
    reaching = table.selectable()
    for other in (other for other in recipe.steps[:place] if other.enabled):
        reaching = Work.of(other, recipe, table).apply(reaching)[0]
    passes = Work.of(step, recipe, table).apply(reaching)[0]
    inwards: Order = "descending" if isinstance(step, AtMost) else "ascending"
    outwards: Order = "ascending" if isinstance(step, AtMost) else "descending"
    return Boundary(
        passing=table.page(step.metric, inwards, limit=most, mask=passes),
        failing=table.page(step.metric, outwards, limit=most, mask=reaching & ~passes),
    )
