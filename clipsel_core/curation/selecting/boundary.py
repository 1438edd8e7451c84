"""Which pairs lie just above and just below a step's threshold? Those that a small move of the thumb would trade."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from clipsel_core.curation.index.bins import MetricBins, Spread
from clipsel_core.curation.index.rank_counts import Members, nearest
from clipsel_core.curation.recipes.recipe import Recipe
from clipsel_core.curation.selecting.picker import Cuts, Picker, ScoreStep


@dataclass(frozen=True)
class Side:
    """The pairs on one side of a rank, the nearest first, to be read from any place on.

    pairs: how many there are. bits: the bitmap that they are of, and how that lies over the metric. above: how many of
    its pairs stand at the rank or above. upwards: from the rank on; else below it.
    """

    pairs: int
    bins: MetricBins = field(repr=False)
    bits: np.ndarray = field(repr=False)
    spread: Spread = field(repr=False)
    above: int
    upwards: bool

    def __len__(self) -> int:
        return self.pairs

    def rows(self, offset: int, limit: int) -> np.ndarray:
        """Row numbers from a place on, at most so many: (M,) int64. As quick far from the threshold as beside it."""
        if not 0 <= offset < self.pairs:
            return np.empty(0, np.int64)
        from_top = self.above - offset if self.upwards else self.above + 1 + offset
        first = int(self.bins.ranks_of_top(Members(self.bits), self.spread, np.array([from_top]))[0])
        most, rank = min(limit, self.pairs - offset), first if self.upwards else first + 1
        return nearest(self.bins.order, self.bits, rank, most, upwards=self.upwards)


@dataclass(frozen=True)
class Boundary:
    """The pairs on both sides of a threshold, of those that reach the step.

    passing, failing: the pairs that pass the step and those that fail it. cuts: the step and what comes before it,
    which tell this threshold from others.
    """

    passing: Side
    failing: Side
    cuts: Cuts


def boundary(picker: Picker, recipe: Recipe, place: int) -> Boundary:
    """The pairs around the threshold of the step at a place of the recipe.

    Only the enabled steps before it count; the step is looked at as if it were on. Pairs without its metric are on
    neither side. Ties at the threshold are split as the selection splits them.
    Raises: TypeError where the step has no metric; RecipeError as select does.
    """
    step = recipe.steps[place]
    if not isinstance(step, ScoreStep):
        raise TypeError(f"a step with a metric is expected, found {step.kind}")
    up_to = (*recipe.steps[:place], step.model_copy(update={"enabled": True}))
    reached = picker.take(recipe.model_copy(update={"steps": up_to}))[-1]
    spread = picker.spread(reached.before, step.metric)
    above = int(picker.counts_from(reached.before, step.metric, np.array([reached.cut.rank]))[0])
    around = picker.table.bins(step.metric), picker.bits(reached.before), spread, above
    upper, lower = Side(above, *around, upwards=True), Side(spread.scored - above, *around, upwards=False)
    cuts = (*reached.before, reached.cut)
    return Boundary(upper, lower, cuts) if reached.cut.kind == "from" else Boundary(lower, upper, cuts)
