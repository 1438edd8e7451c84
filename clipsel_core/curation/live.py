"""What would a recipe keep if one of its steps were set otherwise? Every setting of a thumb at once, before it moves.

One step is moved, the others stay as they are written: a later keep_top keeps its share, and so lets more or fewer of
the pairs that reach it through. For every place of the thumb we say what the step would let through and how many pairs
would be kept in the end.

The last count is exact wherever it follows from numbers: steps that judge each pair by itself (thresholds, lists, by
hand) may come in any order, and after them any number of keep_top, each of which keeps its k or all that are left.
Where a step that judges each pair comes after a later keep_top, it is taken to drop its present share, and `exact` is
false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from clipsel_core import uids
from clipsel_core.curation.bins import MetricBins, coarse
from clipsel_core.curation.ordering import count_of_fraction
from clipsel_core.curation.queries import ScoreTable
from clipsel_core.curation.recipe import AtLeast, AtMost, Keep, KeepTop, Recipe, Union
from clipsel_core.curation.selection import Selection, StepReport, Work, float32_up

ScoreStep = KeepTop | AtLeast | AtMost


@dataclass(frozen=True)
class Settings:
    """What each place of a thumb does. All arrays (P,), one entry a place; counts are int64 pairs.

    thresholds: float64, the lowest score that passes (of at_most the highest), NaN where none does.
    below: scored pairs of the pool under the threshold. passes: pairs that pass the moved step.
    shown: pairs of the histogram that pass it (the pairs that also pass the other steps as they stand).
    kept: pairs kept in the end. exact: whether `kept` is; if not it is an estimate.
    pool, others, fixed, now: (128,) coarse counts of the metric: the pool; what passes the other steps, their shares
        held at the thresholds found; what a later step adds whatever this one does; what is kept as the recipe stands.
    edges: (129,) the scores between the coarse bins. scored: pairs of the pool that have the metric.
    reaching: pairs that reach the moved step.
    """

    thresholds: np.ndarray
    below: np.ndarray
    passes: np.ndarray
    shown: np.ndarray
    kept: np.ndarray
    exact: bool
    pool: np.ndarray
    others: np.ndarray
    fixed: np.ndarray
    now: np.ndarray
    edges: np.ndarray
    scored: int
    reaching: int


def settings_of(
    selection: Selection, recipe: Recipe, place: int, amounts: Sequence[Fraction | float], bins: MetricBins
) -> Settings:
    """What a step would do at each amount: fractions for keep_top, ascending; scores for at_least and at_most.

    selection: what the recipe keeps now. place: the moved step's place in recipe.steps; it may be switched off, and is
    then looked at as if it were on, while `kept` stays what it is. bins: the index of the step's metric.
    """
    table, step = selection.table, recipe.steps[place]
    if not isinstance(step, ScoreStep):
        raise TypeError(f"a step with a metric is expected, found {step.kind}")
    earlier = [other for other in recipe.steps[:place] if other.enabled]
    reports = selection.report[len(earlier) + step.enabled :]
    later = [Work.of(other, recipe, table) for other in recipe.steps[place + 1 :] if other.enabled]
    before = table.selectable()
    for other in earlier:
        before = Work.of(other, recipe, table).apply(before)[0]
    moved = _Moved.of(bins, before, step, amounts, table)
    settled, added, rest = _judged_alone(later, before)
    counted = moved.counts(settled & ~added, bins.counts(settled & ~added))
    kept, exact = _through_shares(counted + int(added.sum()), later[rest:], reports[rest:], table)
    others, fixed = _held(later, reports, before), _held(later, reports, np.zeros_like(before))
    movable = bins.counts(others & ~fixed)
    fixed_counts = bins.counts(fixed)
    return Settings(
        thresholds=moved.thresholds.astype(np.float64),
        below=moved.below(),
        passes=moved.counts(before, moved.fine),
        shown=moved.counts(others & ~fixed, movable),
        kept=kept if step.enabled else np.full_like(kept, len(selection)),
        exact=exact,
        pool=coarse(bins.everything),
        others=coarse(movable + fixed_counts),
        fixed=coarse(fixed_counts),
        now=coarse(bins.counts(selection.mask())),
        edges=bins.edges(),
        scored=int(bins.everything.sum()),
        reaching=int(before.sum()),
    )


@dataclass(frozen=True)
class _Moved:
    """The moved step at all its amounts: thresholds (P,) float32, and for keep_top how many ties each lets through.

    fine: counts of the pairs that reach it. ties, ties_in: of those that reach it, at each threshold: how many there
    are, and how many of them pass.
    """

    bins: MetricBins
    table: ScoreTable
    before: np.ndarray
    fine: np.ndarray
    thresholds: np.ndarray
    ties: np.ndarray | None
    ties_in: np.ndarray | None
    upward: bool

    @classmethod
    def of(
        cls,
        bins: MetricBins,
        before: np.ndarray,
        step: ScoreStep,
        amounts: Sequence[Fraction | float],
        table: ScoreTable,
    ) -> _Moved:
        fine = bins.counts(before)
        if isinstance(step, AtLeast):
            values = np.array([float32_up(float(value)) for value in amounts], np.float32)
            return cls(bins, table, before, fine, values, None, None, True)
        if isinstance(step, AtMost):
            values = np.array([-float32_up(-float(value)) for value in amounts], np.float32)
            return cls(bins, table, before, fine, values, None, None, False)
        pairs = len(before) if step.of == "pool" else int(before.sum())
        scored = int(fine.sum())
        ranks = np.array([min(count_of_fraction(Fraction(part), pairs), scored) for part in amounts], np.int64)
        thresholds, inside = bins.highest(before, fine, ranks)
        above, at = bins.above(before, fine, _filled(thresholds), inside)
        return cls(bins, table, before, fine, thresholds, at - above, ranks - above, True)

    def counts(self, mask: np.ndarray, fine: np.ndarray) -> np.ndarray:
        """Pairs of a mask that pass, at each amount: (P,) int64. Every pair of the mask reaches the step."""
        above, at = self.bins.above(mask, fine, _filled(self.thresholds))
        if self.ties is None or self.ties_in is None:
            return at if self.upward else int(fine.sum()) - above
        mine = at - above
        found = above + np.where(self.ties_in == self.ties, mine, np.minimum(self.ties_in, mine))
        split = (self.ties_in < self.ties) & (mine > 0) & (mine < self.ties) & (self.ties_in > 0)
        if split.any():
            found[split] = above[split] + self._ties_of(mask, np.flatnonzero(split), self.ties_in[split])
        found[np.isnan(self.thresholds)] = 0
        return found

    def below(self) -> np.ndarray:
        """Scored pairs of the whole pool under each threshold: (P,) int64."""
        everyone, fine = np.ones(len(self.before), bool), self.bins.everything
        return int(fine.sum()) - self.bins.above(everyone, fine, _filled(self.thresholds))[1]

    def _ties_of(self, mask: np.ndarray, places: np.ndarray, ties_in: np.ndarray) -> np.ndarray:
        """Pairs of a mask among the ties that pass at some places; ties_in: how many pass there, smaller uids first."""
        split = np.unique(self.thresholds[places])
        rows = self.bins.rows_in(self.before, self.bins.codes_of(split))
        rows = rows[np.isin(self.bins.values[rows], split)]
        rows = rows[uids.argsort(self.table.uids_at(rows))]
        rows = rows[np.argsort(self.bins.values[rows], kind="stable")]
        values = self.bins.values[rows]
        mine = np.concatenate([[0], np.cumsum(mask[rows])])
        first = np.searchsorted(values, self.thresholds[places], side="left")
        return mine[first + ties_in] - mine[first]


def _filled(thresholds: np.ndarray) -> np.ndarray:
    """Thresholds to count with: none passes an infinite one."""
    return np.where(np.isnan(thresholds), np.float32(np.inf), thresholds)


def _judged_alone(later: list[Work], before: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Who of those that reach the moved step is left, and who is added anyway, up to the next keep_top; its place."""
    rest = next((place for place, work in enumerate(later) if isinstance(work.step, KeepTop)), len(later))
    settled, added = before, np.zeros_like(before)
    for work in later[:rest]:
        settled = work.apply(settled)[0]
        if added.any() or isinstance(work.step, Union | Keep):
            added = work.apply(added)[0]
    return settled, added, rest


def _through_shares(
    arriving: np.ndarray, later: list[Work], reports: tuple[StepReport, ...], table: ScoreTable
) -> tuple[np.ndarray, bool]:
    """How many are left after the first later keep_top and all that follows it, and whether that is exact."""
    kept, exact = arriving, True
    for work, report in zip(later, reports, strict=True):
        if isinstance(work.step, KeepTop):
            part = Fraction(work.step.keep_top)
            allowed = count_of_fraction(part, len(table)) if work.step.of == "pool" else _shares(part, kept)
            kept = np.minimum(kept, allowed)
            exact = exact and not bool(np.isnan(table.column(work.step.metric)[table.selectable()]).any())
        else:
            dropped = report.dropped / max(report.kept_before, 1)
            kept = np.rint(kept * (1 - dropped)).astype(np.int64) + report.added
            exact = False
    return kept, exact


def _shares(part: Fraction, counts: np.ndarray) -> np.ndarray:
    return np.array([count_of_fraction(part, int(count)) for count in counts], np.int64)


def _held(later: list[Work], reports: tuple[StepReport, ...], reaching: np.ndarray) -> np.ndarray:
    """Who passes the later steps where each keep_top is held at the threshold that it has now."""
    left = reaching
    for work, report in zip(later, reports, strict=True):
        if isinstance(work.step, KeepTop) and report.threshold is not None:
            left = left & (work.table.column(work.step.metric) >= np.float32(report.threshold))
        else:
            left = work.apply(left)[0]
    return left
