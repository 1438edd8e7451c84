"""Which pairs does a recipe pick, and what did each step do, with all pairs or one? All that picks or counts asks here.

The rule, exactly: N is the number of pairs in the run's finished shards. keep_top f keeps floor(f * N) of the pairs
that are left (floor(f * their number) with "of: survivors"), computed on the decimal as written; equal values go to the
smaller uid; fewer pairs left than that are all kept. keep_bottom is keep_top of the column turned round, random is
keep_top of random numbers that follow from seed and uid. at_least and at_most are inclusive; a score is a float32 and
is compared with the threshold as a number, so the threshold itself is not rounded to float32. A pair without the step's
metric (NaN) does not pass the step. A pair that the scoring set aside (no clip_score) is never selected, not even by
hand.

A list with counts makes the selection a number for each pair: union adds the list's counts, where a pair that nothing
counted yet counts once; intersect takes the smaller of the two counts, or the list's where nothing counted yet. Other
steps behind it keep the counts of the pairs that they keep, and those that they add count once.

A step that was looked at is a *cut*: the pairs from a rank on, or below it, or those of a list. A set of pairs is the
run after some cuts. A Picker keeps sets, and how metrics are spread over them, under the names of their cuts, so that a
recipe with one step changed is counted without a look at each pair. Whoever asks once, of a run without an index, has
nothing put in order: there each step looks at all scores, and its cut is a list of those that pass.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
from typing import Any

import numpy as np

from clipsel_core import uids
from clipsel_core.cache import Recent
from clipsel_core.curation.index import bitmaps, ranking
from clipsel_core.curation.index.ranking import NO_SCORE, PrefixCounts, Spread
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import (
    MOST_SAMPLES,
    AnyOf,
    AnyStep,
    AtLeast,
    AtMost,
    Drop,
    FilterStep,
    Intersect,
    Keep,
    KeepBottom,
    ListStep,
    Random,
    Recipe,
    Sample,
    ScoreStep,
    ShareStep,
    Union,
    check_columns,
)
from clipsel_core.curation.recipes.uidlists import read_counted_list, read_uid_list
from clipsel_core.curation.selecting import filters
from clipsel_core.errors import RecipeError, SamplingError, UidError
from clipsel_core.places import Place
from clipsel_core.reach import make_filter
from clipsel_core.runs.store import Run

_SET_BYTES = 32 << 20
_MOST_SETS, _FEWEST_SETS = 256, 8
_MOST_COUNTS, _MOST_SIZES, _MOST_LISTS = 128, 4096, 32
_MOST_CROSSED, _MOST_ASKED, _MOST_DRAWS = 6, 256, 2
# Larger counts are few, and sorted.
_MOST_BINS = 1 << 24
# Of a smaller part of all pairs than one of so many each is looked up alone.
_FEW = 64
# Looking at every pair of a smaller run takes no longer than looking up what was counted beforehand.
_MANY_PAIRS = 1 << 20
_crossing = ThreadPoolExecutor(1, "crossing")


@dataclass(frozen=True)
class Cut:
    """What a step does to a set. kind: "from" or "below" a rank of the metric `name`; "in", "out" or "add" the bitmap
    `listed` of the list `name`; or "none", which empties the set."""

    kind: str
    name: str = ""
    rank: int = 0
    listed: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8), compare=False, repr=False)


Cuts = tuple[Cut, ...]
Share = ShareStep | Random
NO_PAIRS = Cut("none")


@dataclass(frozen=True)
class StepReport:
    """What one enabled step did. Counts are pairs.

    text: the step in words. kind, metric: as in the recipe; metric is None where there is none.
    kept_before, kept_after: survivors; dropped, added: those that it took out or put in.
    alone_drops: how many it would drop if it were the only step.
    threshold: the lowest value that keep_top let pass (None where it kept nothing), or the value given.
    listed, unknown: uids that its list names, and those among them that the run lacks. sha256: of the list's file.
    samples: how many there are behind it, each pair as often as it counts; None where nothing counted yet.
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
    samples: int | None = None


@dataclass(frozen=True)
class Selection:
    """The pairs a recipe picked. pairs: how many. bits: asked for their bitmap, as bitmaps.py has them.

    cuts, report: one entry for each enabled step. total: pairs in the run, N. set_aside: pairs without a clip_score,
    which no recipe can pick. counts: how often each pair of the run counts, (N,) unsigned, where samples were drawn or
    a list counts; None where each of those picked counts once.
    """

    pairs: int
    bits: Callable[[], np.ndarray]
    cuts: Cuts
    report: tuple[StepReport, ...]
    total: int
    set_aside: int
    table: ScoreTable
    counts: np.ndarray | None = None

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

    @property
    def samples(self) -> int:
        """How many samples a pass over the selection is: its pairs, each as often as it counts."""
        return self.pairs if self.counts is None else int(self.counts.sum(dtype=np.int64))

    def uids(self) -> np.ndarray:
        """The picked uids, ascending, each as often as it counts: (S,) UID_DTYPE, as DataComp's subset files hold
        them."""
        rows = self.rows
        names = self.table.uids_at(rows)
        if self.counts is None:
            return uids.sort(names)
        order = uids.argsort(names)
        return np.repeat(names[order], self.counts[rows[order]])

    def counts_of_counts(self) -> dict[int, int]:
        """How many pairs count once, twice and so on; only counts that occur."""
        if self.counts is None:
            return {1: self.pairs} if self.pairs else {}
        if self.counts.max(initial=0) < _MOST_BINS:
            found = np.bincount(self.counts)
            return {count: int(found[count]) for count in np.flatnonzero(found).tolist() if count}
        counts, pairs = (found.tolist() for found in np.unique_counts(self.counts[self.counts > 0]))
        return dict(zip(counts, pairs, strict=True))


@dataclass(frozen=True)
class Taken:
    """An enabled step of a recipe: its cut, the cuts before it, and what it did. counts: as in Selection, behind it."""

    step: AnyStep
    cut: Cut
    before: Cuts
    report: StepReport
    counts: np.ndarray | None = None


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


def select(run: Run, recipe: Recipe, table: ScoreTable | None = None) -> Selection:
    """Runs a recipe's enabled steps in order, from the whole run.

    table: the run's, where it is open already.
    Raises: RecipeError where a step asks for a metric that the run lacks, a list cannot be read, or a uid that a step
        adds, or that was dropped by hand, is not in the run.
    """
    table = table or ScoreTable.open(run)
    return Picker(table, ranks=table.has_index).select(recipe)


def judge_pair(picker: Picker, recipe: Recipe, row: int) -> Verdict:
    """What each enabled step of a recipe does with the pair in a row. Raises RecipeError as select() does.

    It is looked up in the sets that select() makes, so that ties at a threshold come out as they do in an export.
    """
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


class Picker:
    """Answers for one table. Any thread may ask; what is handed out must not be written to.

    ranks: whether metrics are put in order for it, so that it answers again and again; else it looks at all scores.
    """

    def __init__(self, table: ScoreTable, *, ranks: bool = True) -> None:
        self.table = table
        size = len(table) // 8 + 1
        self._ranks, self._numbers = ranks, itertools.count()
        self._everything = table.selectable_bits()
        self._sets: Recent[np.ndarray] = Recent(min(max(_SET_BYTES // size, _FEWEST_SETS), _MOST_SETS))
        self._spreads: Recent[Spread] = Recent(_MOST_COUNTS)
        self._sizes: Recent[int] = Recent(_MOST_SIZES)
        self._lists: Recent[_Listed] = Recent(_MOST_LISTS)
        self._filters: Recent[np.ndarray] = Recent(_MOST_LISTS)
        self._draws: Recent[np.ndarray] = Recent(_MOST_DRAWS)
        self._crossed: Recent[Future[PrefixCounts]] = Recent(_MOST_CROSSED)
        # Counting takes all pairs: whoever comes while it is begun takes the same.
        self._beginning = threading.Lock()
        self._asked: Recent[np.ndarray] = Recent(_MOST_ASKED)

    def select(self, recipe: Recipe) -> Selection:
        """What the recipe picks. Raises RecipeError as select() does."""
        return self.selection(self.take(recipe))

    def selection(self, taken: list[Taken]) -> Selection:
        """What is left after all of a recipe's steps, as `take` gave them."""
        cuts, reports = tuple(step.cut for step in taken), tuple(step.report for step in taken)
        total = len(self.table)
        set_aside = total - self.size(())
        counts = taken[-1].counts if taken else None
        return Selection(self.size(cuts), lambda: self.bits(cuts), cuts, reports, total, set_aside, self.table, counts)

    def take(self, recipe: Recipe) -> list[Taken]:
        """The recipe's enabled steps in order, from the whole run. Raises RecipeError as select() does."""
        check_columns(recipe, self.table.columns)
        taken: list[Taken] = []
        before: Cuts = ()
        counts, counted_by = None, ""
        for step in (step for step in recipe.steps if step.enabled):
            listed, threshold = None, None
            if isinstance(step, ScoreStep | Random):
                cut, threshold = (self._ranked if self._ranks else self._looked_at)(step, before)
            elif isinstance(step, FilterStep | AnyOf):
                cut = self._filtered(step)
            elif isinstance(step, Sample):
                cut, counts = self._drawn(step, before)
            else:
                listed = self._listed(step, recipe)
                kind = "add" if isinstance(step, Union | Keep) else "in" if isinstance(step, Intersect) else "out"
                cut = Cut(kind, listed.name, listed=listed.bits)
            counted_by += json.dumps([step.kind, cut.name, cut.rank])
            if not isinstance(step, Sample) and (counts is not None or (listed and listed.counts is not None)):
                counts = self._draws.get(counted_by, partial(self._recounted, counts, listed, before, cut))
                if (samples := int(counts.sum(dtype=np.int64))) > MOST_SAMPLES:
                    raise RecipeError(step.where, expected=f"at most {MOST_SAMPLES:,} samples", found=f"{samples:,}")
            was, left, everything = self.size(before), self.size((*before, cut)), self.size(())
            # Which pairs a share keeps depends on those before it, how many it keeps alone does not.
            alone = self._most(step, ()) if isinstance(step, Share) else self.size((cut,))
            report = StepReport(
                text=step.text,
                kind=step.kind,
                metric=deciding_column(step),
                kept_before=was,
                kept_after=left,
                dropped=max(was - left, 0),
                added=max(left - was, 0),
                alone_drops=everything - alone,
                threshold=threshold,
                listed=listed.named if listed else None,
                unknown=listed.unknown if listed else None,
                sha256=listed.sha256 if listed else None,
                samples=None if counts is None else int(counts.sum(dtype=np.int64)),
            )
            taken.append(Taken(step, cut, before, report, counts))
            before = (*before, cut)
        return taken

    def bits(self, cuts: Cuts) -> np.ndarray:
        """The bitmap of the pairs that are left after some cuts."""
        return self._sets.get(_named(cuts), lambda: self._apply(cuts)) if cuts else self._everything

    def holds(self, cuts: Cuts, rows: np.ndarray) -> np.ndarray:
        """Which of these rows, (M,) integers, are left after some cuts: (M,) bool.

        For a few rows no bitmap is made of what is left.
        """
        last = cuts[-1] if cuts else NO_PAIRS
        many, known = len(rows) * _FEW > len(self.table), self._sets.peek(_named(cuts)) is not None
        if many or known or last.kind not in ("from", "below"):
            return bitmaps.holds(self.bits(cuts), rows)
        found, ranking = self.holds(cuts[:-1], rows), self.table.ranking(last.name)
        above = ranking.stand_from(last.rank, rows)
        scored = ranking.codes[rows] != NO_SCORE
        return found & scored & (above == (last.kind == "from"))

    def spread(self, cuts: Cuts, metric: str) -> Spread:
        """How they lie over a metric."""
        return self._spreads.get((_named(cuts), metric), lambda: self._spread(_named(cuts), metric))

    def size(self, cuts: Cuts) -> int:
        """How many are left."""
        return self._sizes.get(_named(cuts), lambda: self._size(cuts))

    def counts_from(self, cuts: Cuts, metric: str, ranks: np.ndarray) -> np.ndarray:
        """How many of them stand at each rank of a metric or above: (T,) int64."""
        count, name = self.table.ranking(metric).counts_from, ("counts", _named(cuts), metric, ranks.tobytes())
        return self._asked.get(name, lambda: count(partial(self.holds, cuts), self.spread(cuts, metric), ranks))

    def ranks_of_top(self, cuts: Cuts, metric: str, most: np.ndarray) -> np.ndarray:
        """The ranks from which on just so many of them stand: (T,) int64. most: (T,) int64, at most all of them."""
        find, name = self.table.ranking(metric).ranks_of_top, ("ranks", _named(cuts), metric, most.tobytes())
        return self._asked.get(name, lambda: find(partial(self.holds, cuts), self.spread(cuts, metric), most))

    def below(self, metric: str, ranks: np.ndarray) -> np.ndarray:
        """How many pairs of the pool have a lower score than the one at each rank: (T,) int64."""
        found = self.table.ranking(metric)
        return self._asked.get(("below", metric, ranks.tobytes()), lambda: found.below(ranks))

    def _most(self, step: Share, before: Cuts) -> int:
        """How many pairs a step keeps of those that reach it, where any of them has the metric."""
        pairs = len(self.table) if step.of == "pool" else self.size(before)
        if self._ranks:
            scored = self.spread(before, step.metric).scored
        else:
            scored = int(np.count_nonzero(self._reaching(before) & ~np.isnan(self.table.column(step.metric))))
        return min(ranking.count_of_fraction(Fraction(step.part), pairs), scored)

    def _ranked(self, step: ScoreStep | Random, before: Cuts) -> tuple[Cut, float | None]:
        """What a step cuts from what reaches it, by ranks, and the threshold that it finds or was given."""
        found = self.table.ranking(step.metric)
        if isinstance(step, Share):
            most = self._most(step, before)
            rank = self.ranks_of_top(before, step.metric, np.array([most]))
            return Cut("from", step.metric, int(rank[0])), _found(
                step, float(found.scores_at(rank)[0]) if most else None
            )
        assert isinstance(step, AtLeast | AtMost)
        value, upward = filters.limit(step), isinstance(step, AtLeast)
        rank = found.ranks_of_scores(np.array([value]), above=not upward)
        return Cut("from" if upward else "below", step.metric, int(rank[0])), getattr(step, step.kind)

    def _looked_at(self, step: ScoreStep | Random, before: Cuts) -> tuple[Cut, float | None]:
        """The same by a look at all scores."""
        if isinstance(step, Share):
            most, reaching, values = self._most(step, before), self._reaching(before), self.table.column(step.metric)
            passing, threshold = ranking.keep_top(values, reaching, most, self.table.uids_at)
            threshold = _found(step, threshold)
        else:
            passing, threshold = filters.passing(self.table, step), step.value
        return Cut("in", f"{step.metric} {next(self._numbers)}", listed=bitmaps.pack(passing)), threshold

    def _filtered(self, step: FilterStep | AnyOf) -> Cut:
        """What a step that judges each pair by itself lets pass, found once."""
        name = step.model_copy(update={"enabled": True}).model_dump_json()
        listed = self._filters.get(name, lambda: bitmaps.pack(filters.passing(self.table, step)))
        return Cut("in", name, listed=listed)

    def _drawn(self, step: Sample, before: Cuts) -> tuple[Cut, np.ndarray]:
        """The pairs that are drawn of those that reach a step, and how often each pair of the run is."""
        name = json.dumps([[cut.kind, cut.name, cut.rank] for cut in _named(before)])
        name = f"{step.model_copy(update={'enabled': True}).model_dump_json()} {name}"

        def draw() -> np.ndarray:
            from clipsel_core.curation.selecting import sampling  # compiles, and nothing else needs it

            scores = np.where(self._reaching(before), self.table.column(step.metric), np.float32(np.nan))
            try:
                if step.method == "hard_cap":
                    return sampling.hard_cap(scores, step.sample, limit=step.limit or 1, seed=step.seed)
                if step.method == "proportional":
                    return sampling.proportional(scores, step.sample, seed=step.seed)
                options = {"penalty": step.penalty, "per_round": step.round_}
                given: dict[str, Any] = {option: value for option, value in options.items() if value is not None}
                return sampling.soft_cap(scores, step.sample, seed=step.seed, **given)
            except SamplingError as error:
                where = f"{step.where}: {error.where}"
                raise RecipeError(where, expected=error.expected, found=error.found, remedy=error.remedy) from error

        counts = self._draws.get(name, draw)
        return Cut("in", name, listed=bitmaps.pack(counts > 0)), counts

    def _recounted(self, counts: np.ndarray | None, listed: _Listed | None, before: Cuts, cut: Cut) -> np.ndarray:
        """How often each pair of the run counts behind a step: (N,) unsigned. counts: before it. listed: its list."""
        left = self._reaching((*before, cut))
        if listed is None or listed.counts is None:
            assert counts is not None
            return np.where(left, np.maximum(counts, 1), 0).astype(counts.dtype)
        if cut.kind == "in":
            return np.where(left, listed.counts if counts is None else np.minimum(counts, listed.counts), 0)
        so_far = self._reaching(before) if counts is None else counts
        return _unsigned(np.where(left, so_far.astype(np.int64) + listed.counts, 0))

    def _reaching(self, cuts: Cuts) -> np.ndarray:
        return bitmaps.unpack(self.bits(cuts), len(self.table))

    def _spread(self, cuts: Cuts, metric: str) -> Spread:
        """Looked up where one score cuts and the two metrics were counted together, which happens beside the first."""
        if len(cuts) == 1 and cuts[0].kind in ("from", "below") and len(self.table) >= _MANY_PAIRS:
            (cut,) = cuts
            with self._beginning:
                crossed = self._crossed.get((cut.name, metric), lambda: self._count_along(cut.name, metric))
            if crossed.done():
                counts = crossed.result()
                found = counts.from_rank(cut.rank) if cut.kind == "from" else counts.below_rank(cut.rank)
                return Spread.of(found[: ranking.FINE])
        return self.table.ranking(metric).spread(self.bits(cuts))

    def _count_along(self, name: str, metric: str) -> Future[PrefixCounts]:
        """Begins to count all pairs along one metric over the bins of another; the index keeps what was counted."""
        order, codes = self.table.ranking(name).order, self.table.ranking(metric).codes
        folder, places = self.table.index_folder, (self.table.metrics.index(each) for each in (name, metric))
        file = folder / "from-{:02d}-{:02d}.npy".format(*places) if folder else None
        return _crossing.submit(PrefixCounts.of, order, codes, self._everything, file)

    def _size(self, cuts: Cuts) -> int:
        if not cuts or cuts[-1].kind not in ("from", "below"):
            return bitmaps.pairs_in(self.bits(cuts))
        *others, last = cuts
        above = int(self.counts_from(tuple(others), last.name, np.array([last.rank]))[0])
        return above if last.kind == "from" else self.spread(tuple(others), last.name).scored - above

    def _apply(self, cuts: Cuts) -> np.ndarray:
        cut, before = cuts[-1], self.bits(cuts[:-1])
        match cut.kind:
            case "none":
                found = np.zeros_like(before)
            case "from":
                found = self.table.ranking(cut.name).from_rank(before, cut.rank)
            case "below":
                found = self.table.ranking(cut.name).below_rank(before, cut.rank)
            case "add":
                found = before | (cut.listed & self._everything)
            case _:
                found = before & (cut.listed if cut.kind == "in" else ~cut.listed)
        found.setflags(write=False)
        return found

    def _listed(self, step: AnyStep, recipe: Recipe) -> _Listed:
        """A step's list, which is read once as long as its file stays as it is."""
        if isinstance(step, Keep | Drop):
            names, path = " ".join(getattr(step, step.kind)), None
            name = f"{step.kind} {hashlib.sha256(names.encode()).hexdigest()}"
        else:
            path = recipe.folder.along(getattr(step, step.kind))
            _check_named(step, path, self.table.run)
            name = f"{step.kind} {path}"
            name += " counted" if isinstance(step, ListStep) and step.counted else ""
            with suppress(OSError):  # Reading it says what is wrong.
                name += " {1} {0}".format(*path.stamp())
        return self._lists.get(name, lambda: _Listed.of(step, path, name, self.table))


@dataclass(frozen=True)
class _Listed:
    """The pairs that a step's list names. bits: those of the run, a bitmap. named, unknown: uids in the list, and those
    that the run lacks. sha256: of its file. counts: how often it names each pair of the run, (N,), where it counts."""

    name: str
    bits: np.ndarray
    named: int
    unknown: int
    sha256: str | None
    counts: np.ndarray | None = None

    @classmethod
    def of(cls, step: AnyStep, path: Place | None, name: str, table: ScoreTable) -> _Listed:
        """Reads the step's list. Raises RecipeError as select does."""
        often = None
        if path is None:
            named, digest = uids.unique(uids.from_hex(list(getattr(step, step.kind)))), None
        else:
            try:
                if isinstance(step, ListStep) and step.counted:
                    named, often = read_counted_list(path)
                else:
                    named = read_uid_list(path)
                digest = path.sha256()
            except UidError as error:
                where = f"{step.where}: {error.where}"
                raise RecipeError(where, expected=error.expected, found=error.found, remedy=error.remedy) from error
        rows = table.rows_of(named)
        unknown = named[rows < 0]
        if isinstance(step, Union | Keep | Drop) and len(unknown):
            example = uids.to_hex(unknown[:1])[0].as_py()
            found = f"{len(unknown):,} that it lacks, such as {example}"
            remedy = "take them out" if table.run.finished else "take them out, or wait until the run has finished"
            raise RecipeError(step.where, expected="uids of the run", found=found, remedy=remedy)
        listed = np.zeros(len(table), bool)
        listed[rows[rows >= 0]] = True
        counts = None
        if often is not None:
            counts = np.zeros(len(table), np.int64)
            counts[rows[rows >= 0]] = often[rows >= 0]
            counts = _unsigned(counts)
        return cls(name, bitmaps.pack(listed), len(rows), len(unknown), digest, counts)


def _check_named(step: AnyStep, path: Place, run: Run) -> None:
    """Raises RecipeError where a list lies in a store, and below no place that was named; see Run.open."""
    if path.remote and run.named is not None and not make_filter([*run.named, run.root.address])(path.address):
        remedy = "start the dashboard with --read ADDRESS"
        raise RecipeError(step.where, expected="a list below a place that was named", found=str(path), remedy=remedy)


def deciding_column(step: AnyStep) -> str | None:
    """The column whose value decides in a step, None where none does: of keep_bottom the column as it is."""
    if isinstance(step, KeepBottom):
        return step.ranked
    return step.metric if isinstance(step, ScoreStep) else None


def _unsigned(counts: np.ndarray) -> np.ndarray:
    """Counts in the smallest type that holds them, of 16 bits or more."""
    return counts.astype(np.promote_types(np.uint16, np.min_scalar_type(int(counts.max(initial=0)))))


def _found(step: Share, value: float | None) -> float | None:
    """The threshold that a share found, as a value of its column."""
    if value is None or isinstance(step, Random):
        return None
    return -value if isinstance(step, KeepBottom) else value


def _named(cuts: Cuts) -> Cuts:
    """One name for a set, however it came about: cuts that only take away may come in any order, and once is enough."""
    if any(cut.kind in ("add", "none") for cut in cuts):
        return cuts
    return tuple(sorted(set(cuts), key=lambda cut: (cut.kind, cut.name, cut.rank)))
