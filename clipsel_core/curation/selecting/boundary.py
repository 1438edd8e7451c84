"""Which pairs lie just above and just below a step's threshold? Those that a small move of the thumb would trade."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipsel_core.curation.index.rank_counts import nearest
from clipsel_core.curation.recipes.recipe import Recipe
from clipsel_core.curation.selecting.picker import Picker, ScoreStep


@dataclass(frozen=True)
class Boundary:
    """The pairs on both sides of a threshold, of those that reach the step; the nearest first.

    passing, failing: (M,) int64 row numbers of the pairs that just pass the step, and that just fail it.
    """

    passing: np.ndarray
    failing: np.ndarray


def boundary(picker: Picker, recipe: Recipe, place: int, *, most: int = 12) -> Boundary:
    """The pairs nearest to the threshold of the step at a place of the recipe, at most so many on each side.

    Only the enabled steps before it count; the step is looked at as if it were on. Pairs without its metric are on
    neither side. Ties at the threshold are split as the selection splits them.
    Raises: TypeError where the step has no metric; RecipeError as select does.
    """
    step = recipe.steps[place]
    if not isinstance(step, ScoreStep):
        raise TypeError(f"a step with a metric is expected, found {step.kind}")
    up_to = (*recipe.steps[:place], step.model_copy(update={"enabled": True}))
    reached = picker.take(recipe.model_copy(update={"steps": up_to}))[-1]
    order, bits = picker.table.bins(step.metric).order, picker.bits(reached.before)
    above, below = (nearest(order, bits, reached.cut.rank, most, upwards=upwards) for upwards in (True, False))
    return Boundary(*((above, below) if reached.cut.kind == "from" else (below, above)))
