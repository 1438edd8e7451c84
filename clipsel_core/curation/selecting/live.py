"""What would a recipe keep if one of its steps were set otherwise, and which pairs lie around its threshold?

Every setting of a thumb is worked out at once, before it moves.

One step is moved, the others stay as they are written: a later keep_top keeps its share, and so lets more or fewer of
the pairs that reach it through. For every place of the thumb we say what the step would let through and how many pairs
would be kept in the end.

The last count is exact wherever it follows from numbers: steps that judge each pair by itself (thresholds, lists, by
hand) may come in any order, and after them any number of keep_top, each of which keeps its k or all that are left.
Where a step that judges each pair comes after a later keep_top, it is taken to drop its present share, and so is a
sample, which is drawn anew of whatever reaches it; `exact` is false then.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial

import numpy as np

from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.ranking import (
    COARSE,
    FINE,
    Ranking,
    Shares,
    Spread,
    count_of_fraction,
    counts_of_fraction,
    float32_up,
)
from clipsel_core.curation.recipes.recipe import AtLeast, Recipe, Sample, ScoreStep, ShareStep
from clipsel_core.curation.selecting.selection import NO_PAIRS, Cut, Cuts, Picker, Share, Taken


@dataclass(frozen=True)
class Settings:
    """What each place of a thumb does. All arrays (P,), one entry a place; counts are int64 pairs.

    thresholds: float64, the lowest score that passes (of at_most the highest), NaN where none does. Of a keep_top
        behind other steps it is the score of a pair near it, no farther than a 65,000th of the metric's span.
    below: scored pairs of the pool under the threshold. passes: pairs that pass the moved step, exactly.
    shown: about how many of the histogram's pairs pass it (those that also pass the other steps as they stand).
    left: (S, P), pairs left after the moved step and after each enabled step behind it; the last are kept in the end.
        (0, P) where the moved step is off, since it changes none. exact: the first so many of these S are exact, the
        others are estimates.
    alone: pairs that the moved step would drop if it were the only one.
    pool, others, fixed, now: (128,) coarse counts of the metric: the pool; what passes the other steps, their shares
        held at the thresholds found; what a later step adds whatever this one does; what is kept as the recipe stands.
    edges: (129,) the scores between the coarse bins. scored: pairs of the pool that have the metric.
    reaching: pairs that reach the moved step.
    """

    thresholds: np.ndarray
    below: np.ndarray
    passes: np.ndarray
    shown: np.ndarray
    left: np.ndarray
    exact: int
    alone: np.ndarray
    pool: np.ndarray
    others: np.ndarray
    fixed: np.ndarray
    now: np.ndarray
    edges: np.ndarray
    scored: int
    reaching: int


def settings_of(
    picker: Picker, recipe: Recipe, taken: list[Taken], place: int, amounts: Shares | np.ndarray
) -> Settings:
    """What a step would do at each amount: shares for keep_top; scores, (P,) float64, for at_least and at_most.

    taken: what the picker takes by the recipe as it stands. place: the moved step's place in recipe.steps; it may be
    switched off, and is then looked at as if it were on, while `kept` stays what it is. Raises: TypeError on a step
    without a metric.
    """
    step = recipe.steps[place]
    if not isinstance(step, ScoreStep):
        raise TypeError(f"a step with a metric is expected, found {step.kind}")
    earlier = sum(other.enabled for other in recipe.steps[:place])
    now, later = taken[earlier] if step.enabled else None, taken[earlier + step.enabled :]
    before = tuple(other.cut for other in taken[:earlier])
    alone = list(itertools.takewhile(lambda other: not isinstance(other.step, Share | Sample), later))
    moved = _Moved.of(picker, before, step, amounts, exact=bool(alone))
    left = [moved.passes]
    for upto in (alone[: place + 1] for place in range(len(alone))):
        left.append(moved.counts(_through(before, upto)) + moved.fixed(upto))
    behind, exact = _through_shares(left[-1], later[len(alone) :], picker)
    left = [*left, *behind] if step.enabled else []
    others, without = _through(before, later), _emptied(later)
    fixed, movable = moved.coarse(without), moved.coarse(others) - moved.coarse(without)
    passing = moved.passing(movable, others, without, now.cut) if now else movable
    bins, everything = moved.bins, picker.size(())
    return Settings(
        thresholds=moved.thresholds.astype(np.float64),
        below=moved.below,
        passes=moved.passes,
        shown=np.maximum(moved.near(others) - moved.near(without), 0),
        left=np.array(left, np.int64).reshape(-1, len(moved.ranks)),
        exact=len(left) - len(behind) + exact if step.enabled else 0,
        # Which pairs a share keeps depends on those before it, how many it keeps alone does not.
        alone=everything - (_most(picker, (), step, amounts) if isinstance(amounts, Shares) else moved.counts(())),
        pool=bins.pool.coarse,
        others=movable + fixed,
        fixed=fixed,
        now=passing + fixed,
        edges=bins.edges(),
        scored=bins.scored,
        reaching=picker.size(before),
    )


@dataclass(frozen=True)
class BoundarySide:
    """The pairs on one side of a rank, the nearest first, to be read from any place on.

    pairs: how many there are. bits: the bitmap that they are of, and how that lies over the metric. above: how many of
    its pairs stand at the rank or above. upwards: from the rank on; else below it.
    """

    pairs: int
    ranking: Ranking = field(repr=False)
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
        first = int(self.ranking.ranks_of_top(partial(bitmaps.holds, self.bits), self.spread, np.array([from_top]))[0])
        most, rank = min(limit, self.pairs - offset), first if self.upwards else first + 1
        return self.ranking.nearest(self.bits, rank, most, upwards=self.upwards)


@dataclass(frozen=True)
class Boundary:
    """The pairs on both sides of a threshold, of those that reach the step.

    passing, failing: the pairs that pass the step and those that fail it. cuts: the step and what comes before it,
    which tell this threshold from others.
    """

    passing: BoundarySide
    failing: BoundarySide
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
    around = picker.table.ranking(step.metric), picker.bits(reached.before), spread, above
    upper = BoundarySide(above, *around, upwards=True)
    lower = BoundarySide(spread.scored - above, *around, upwards=False)
    cuts = (*reached.before, reached.cut)
    return Boundary(upper, lower, cuts) if reached.cut.kind == "from" else Boundary(lower, upper, cuts)


@dataclass(frozen=True)
class _Moved:
    """The moved step at all its amounts. ranks: (P,) int64, the first rank that passes, or with at_most that does not.

    thresholds: (P,) float32, NaN where nothing passes. below: (P,) int64, scored pairs of the pool under each.
    passes: (P,) int64.
    """

    picker: Picker
    metric: str
    bins: Ranking
    ranks: np.ndarray
    thresholds: np.ndarray
    below: np.ndarray
    passes: np.ndarray
    upward: bool

    @classmethod
    def of(cls, picker: Picker, before: Cuts, step: ScoreStep, amounts: Shares | np.ndarray, *, exact: bool) -> _Moved:
        """exact: whether anything is counted by the ranks; otherwise they are found to the bin."""
        bins, spread = picker.table.ranking(step.metric), picker.spread(before, step.metric)
        if isinstance(amounts, Shares):
            most = _most(picker, before, step, amounts)
            if exact or not before:
                ranks = picker.ranks_of_top(before, step.metric, most)
            else:
                ranks = bins.ranks_near_top(spread, most)
            below = picker.below(step.metric, ranks)
            return cls(picker, step.metric, bins, ranks, bins.scores_at(ranks), below, most, True)
        upward = isinstance(step, AtLeast)
        values = float32_up(amounts) if upward else -float32_up(-amounts)
        ranks = bins.ranks_of_scores(values, above=not upward)
        below = ranks if upward else bins.ranks_of_scores(values)
        found = picker.counts_from(before, step.metric, ranks)
        passes = found if upward else spread.scored - found
        return cls(picker, step.metric, bins, ranks, values, below, passes, upward)

    def coarse(self, cuts: Cuts) -> np.ndarray:
        """How a set is spread over the metric: (128,) int64."""
        return self.picker.spread(cuts, self.metric).coarse

    def counts(self, cuts: Cuts) -> np.ndarray:
        """Pairs of a set that pass, at each amount: (P,) int64."""
        found = self.picker.counts_from(cuts, self.metric, self.ranks)
        return found if self.upward else self.picker.spread(cuts, self.metric).scored - found

    def near(self, cuts: Cuts) -> np.ndarray:
        """The same, but for the bin that each rank lies in, which is enough to draw: (P,) int64."""
        if cuts == (NO_PAIRS,):
            return np.zeros_like(self.ranks)
        spread = self.picker.spread(cuts, self.metric)
        found = self.bins.counts_near(spread, self.ranks)
        return found if self.upward else spread.scored - found

    def fixed(self, later: list[Taken]) -> int | np.ndarray:
        """Pairs that later steps add, whatever passes this one, less those of them that pass it."""
        emptied = _emptied(later)
        return self.picker.size(emptied) - self.counts(emptied)

    def passing(self, coarse: np.ndarray, cuts: Cuts, without: Cuts, cut: Cut) -> np.ndarray:
        """The part of some counts, those of a set without another, that the step lets through as it stands."""
        rank = np.array([cut.rank])
        above = self.picker.counts_from(cuts, self.metric, rank) - self.picker.counts_from(without, self.metric, rank)
        # The bins on the passing side are whole, but for the one that the rank cuts: it takes what they leave.
        found, at = np.zeros_like(coarse), int(self.bins.bins_of(rank)[0]) // (FINE // COARSE)
        whole = slice(at + 1, None) if cut.kind == "from" else slice(at)
        left = int(above[0]) if cut.kind == "from" else int(coarse.sum()) - int(above[0])
        found[whole] = coarse[whole]
        found[at] = left - int(found.sum())
        return found


def _most(picker: Picker, cuts: Cuts, step: ScoreStep, shares: Shares) -> np.ndarray:
    """Pairs that keep_top keeps of a set at each share, as far as they have the metric: (P,) int64."""
    of_survivors = isinstance(step, ShareStep) and step.of == "survivors"
    pairs = picker.size(cuts) if of_survivors else len(picker.table)
    return np.minimum(shares.counts(pairs), picker.spread(cuts, step.metric).scored)


def _through(before: Cuts, later: list[Taken]) -> Cuts:
    """What is left of a set after later steps, each held where it cuts now."""
    return (*before, *(other.cut for other in later))


def _emptied(later: list[Taken]) -> Cuts:
    """What later steps add to nothing, each held where it cuts now."""
    first = next((place for place, other in enumerate(later) if other.cut.kind == "add"), len(later))
    return (NO_PAIRS, *(other.cut for other in later[first:]))


def _through_shares(arriving: np.ndarray, later: list[Taken], picker: Picker) -> tuple[list[np.ndarray], int]:
    """How many are left after the first later keep_top and each step behind it, and how many of these are exact."""
    left: list[np.ndarray] = []
    kept, exact = arriving, 0
    for other in later:
        step, report = other.step, other.report
        if isinstance(step, Share):
            part = Fraction(step.part)
            pool = step.of == "pool"
            allowed = count_of_fraction(part, len(picker.table)) if pool else counts_of_fraction(part, kept)
            kept = np.minimum(kept, allowed)
            exact += exact == len(left) and picker.spread((), step.metric).scored == picker.size(())
        else:
            dropped = report.dropped / max(report.kept_before, 1)
            kept = np.rint(kept * (1 - dropped)).astype(np.int64) + report.added
        left.append(kept)
    return left, exact
