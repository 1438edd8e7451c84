"""Which pairs a recipe picks from a run, and what each of its steps did.

The rule, exactly: N is the number of pairs in the run's finished shards. keep_top f keeps floor(f * N) of the pairs
that are left (floor(f * their number) with "of: survivors"), computed on the decimal as written; equal values go to the
smaller uid; fewer pairs left than that are all kept. at_least and at_most are inclusive; a score is a float32 and is
compared with the threshold as a number, so the threshold itself is not rounded to float32. A pair without the step's
metric (NaN) does not pass the step. A pair that the scoring set aside (no clip_score) is never selected, not even by
hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from clipsel_core import uids
from clipsel_core.curation.index import bins, bitmaps, ordering
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import (
    AnyStep,
    AtLeast,
    AtMost,
    Drop,
    Intersect,
    Keep,
    KeepTop,
    Recipe,
    Union,
    check_metrics,
)
from clipsel_core.curation.recipes.uidlists import read_uid_list
from clipsel_core.errors import RecipeError, UidError
from clipsel_core.files import sha256_of
from clipsel_core.runs.store import Run


@dataclass(frozen=True)
class StepReport:
    """What one enabled step did. Counts are pairs.

    text: the step in words. kind, metric: as in the recipe; metric is None where there is none.
    kept_before, kept_after: survivors; dropped, added: those that it took out or put in.
    alone_drops: how many it would drop if it were the only step.
    threshold: the lowest value that keep_top let pass (None where it kept nothing), or the value given.
    listed, unknown: uids that its list names, and those among them that the run lacks. sha256: of the list's file.
    """

    text: str
    kind: str
    metric: str | None
    kept_before: int
    kept_after: int
    dropped: int
    added: int
    alone_drops: int
    threshold: float | None = None
    listed: int | None = None
    unknown: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Selection:
    """The pairs a recipe picked. pairs: how many. bits: asked for their bitmap, as bitmaps.py has them.

    total: pairs in the run, N. set_aside: pairs without a clip_score, which no recipe can pick. report: one entry for
    each enabled step.
    """

    pairs: int
    bits: Callable[[], np.ndarray]
    report: tuple[StepReport, ...]
    total: int
    set_aside: int
    table: ScoreTable

    def __len__(self) -> int:
        return self.pairs

    @property
    def rows(self) -> np.ndarray:
        """Their row numbers, ascending: (M,) int64. Made anew each time: 8 bytes a pair are too many to keep."""
        return np.flatnonzero(self.mask())

    def mask(self) -> np.ndarray:
        """Which pairs were picked: (N,) bool."""
        return bitmaps.unpack(self.bits(), self.total)

    def holds(self, rows: np.ndarray) -> np.ndarray:
        """Which of these rows were picked: (M,) bool. For a few of many: a mask takes a byte a pair of the run."""
        return bitmaps.holds(self.bits(), rows)

    def uids(self) -> np.ndarray:
        """The picked uids, ascending: (M,) UID_DTYPE, as DataComp's subset files hold them."""
        return uids.sort(self.table.uids_at(self.rows))


def select(run: Run, recipe: Recipe, table: ScoreTable | None = None) -> Selection:
    """Runs a recipe's enabled steps in order, from the whole run.

    table: the run's, where it is open already.
    Raises: RecipeError where a step asks for a metric that the run lacks, a list cannot be read, or a uid that a step
        adds, or that was dropped by hand, is not in the run.
    """
    table = table or ScoreTable.open(run)
    check_metrics(recipe, table.metrics)
    everything = table.selectable()
    survivors, reports = everything, []
    for step in (step for step in recipe.steps if step.enabled):
        work = Work.of(step, recipe, table)
        kept, threshold = work.apply(survivors)
        before, after = int(survivors.sum()), int(kept.sum())
        alone = after if survivors is everything else work.count_alone(everything)
        reports.append(work.report(before, after, int(everything.sum()) - alone, threshold))
        survivors = kept
    bits, set_aside = bitmaps.pack(survivors), len(table) - int(everything.sum())
    return Selection(int(survivors.sum()), lambda: bits, tuple(reports), len(table), set_aside, table)


@dataclass(frozen=True)
class Work:
    """A step together with what it reads. listed_rows: its list's uids as rows of the run (-1: not there).

    sha256: of the list's file.
    """

    step: AnyStep
    table: ScoreTable
    listed_rows: np.ndarray
    sha256: str | None

    @classmethod
    def of(cls, step: AnyStep, recipe: Recipe, table: ScoreTable) -> Work:
        """Reads the step's list, if it has one. Raises RecipeError as select does."""
        if isinstance(step, KeepTop | AtLeast | AtMost):
            return cls(step, table, np.empty(0, np.int64), None)
        if isinstance(step, Keep | Drop):
            named = uids.unique(uids.from_hex(list(step.keep if isinstance(step, Keep) else step.drop)))
            digest = None
        else:
            named, digest = _read_list(step, recipe.folder / getattr(step, step.kind))
        rows = table.rows_of(named)
        if isinstance(step, Union | Keep | Drop):
            _check_all_known(step, named, rows, table)
        return cls(step, table, rows, digest)

    def apply(self, survivors: np.ndarray) -> tuple[np.ndarray, float | None]:
        """Who is left of these survivors, (N,) bool, and the threshold found."""
        step = self.step
        if isinstance(step, KeepTop):
            k = _wanted(step, survivors)
            return ordering.keep_top(self.table.column(step.metric), survivors, k, self.table.uids_at)
        if isinstance(step, AtLeast):
            return survivors & (self.table.column(step.metric) >= float32_up(step.at_least)), step.at_least
        if isinstance(step, AtMost):
            return survivors & (self.table.column(step.metric) <= -float32_up(-step.at_most)), step.at_most
        listed = np.zeros(len(survivors), bool)
        listed[self.listed_rows[self.listed_rows >= 0]] = True
        if isinstance(step, Union | Keep):
            return survivors | (listed & self.table.selectable()), None
        return survivors & (listed if isinstance(step, Intersect) else ~listed), None

    def count_alone(self, everything: np.ndarray) -> int:
        """How many it keeps of all that may be selected, (N,) bool, as the only step."""
        if isinstance(self.step, KeepTop):  # whichever these are
            scored = everything & ~np.isnan(self.table.column(self.step.metric))
            return min(_wanted(self.step, everything), int(np.count_nonzero(scored)))
        return int(self.apply(everything)[0].sum())

    def report(self, before: int, after: int, alone_drops: int, threshold: float | None) -> StepReport:
        """What it did: survivors before and after it, what it drops alone, and the threshold. A step never does both,
        drop some and add others."""
        step, has_list = self.step, not isinstance(self.step, KeepTop | AtLeast | AtMost)
        return StepReport(
            text=step.text,
            kind=step.kind,
            metric=None if has_list else getattr(step, "metric", None),
            kept_before=before,
            kept_after=after,
            dropped=max(before - after, 0),
            added=max(after - before, 0),
            alone_drops=alone_drops,
            threshold=threshold,
            listed=len(self.listed_rows) if has_list else None,
            unknown=int((self.listed_rows < 0).sum()) if has_list else None,
            sha256=self.sha256,
        )


def _wanted(step: KeepTop, survivors: np.ndarray) -> int:
    """How many pairs the step keeps where there are so many."""
    pairs = len(survivors) if step.of == "pool" else int(survivors.sum())
    return ordering.count_of_fraction(Fraction(step.keep_top), pairs)


def float32_up(value: float) -> np.float32:
    """The smallest float32 that is not below a number."""
    return np.float32(bins.float32_up(np.array([value], np.float64))[0])


def _read_list(step: AnyStep, path: Path) -> tuple[np.ndarray, str]:
    try:
        return read_uid_list(path), sha256_of(path)
    except UidError as error:
        where = f"{step.where}: {error.where}"
        raise RecipeError(where, expected=error.expected, found=error.found, remedy=error.remedy) from error


def _check_all_known(step: AnyStep, named: np.ndarray, rows: np.ndarray, table: ScoreTable) -> None:
    unknown = named[rows < 0]
    if len(unknown):
        example = uids.to_hex(unknown[:1])[0].as_py()
        found = f"{len(unknown):,} that it lacks, such as {example}"
        remedy = "take them out" if table.run.finished else "take them out, or wait until the run has finished"
        raise RecipeError(step.where, expected="uids of the run", found=found, remedy=remedy)
