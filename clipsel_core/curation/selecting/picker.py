"""What does a recipe pick, asked again and again with one step changed? Everything before that step is remembered.

A step that was looked at once is a *cut*: the pairs from a rank on, or below it, or those of a list. A set of pairs is
the run after some cuts. Sets, and how a metric is spread over them, are kept under the names of their cuts; cuts that
only take pairs away may come in any order, so that a set is known again however it came about. The counts are those of
select(), always: a test holds the two together.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from clipsel_core.curation.index import binning, bitmaps, passes
from clipsel_core.curation.index.bins import Spread
from clipsel_core.curation.index.ordering import count_of_fraction
from clipsel_core.curation.index.prefix_counts import PrefixCounts
from clipsel_core.curation.index.rank_counts import Members
from clipsel_core.curation.index.recent import Recent
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
from clipsel_core.curation.selecting.selection import Selection, StepReport, Work, float32_up

ScoreStep = KeepTop | AtLeast | AtMost
_SET_BYTES = 32 << 20
_MOST_SETS, _FEWEST_SETS = 256, 8
_MOST_COUNTS, _MOST_SIZES, _MOST_LISTS = 128, 4096, 32
# Looking at every pair of a smaller run takes no longer than looking up what was counted beforehand.
_MANY_PAIRS = 1 << 20
# A bin with a larger share of all pairs is not looked through pair by pair.
_SMALL_BIN = 1 / 256
_FEW = 16
_MOST_CROSSED, _MOST_ASKED = 6, 256
_beside = ThreadPoolExecutor(1, "crossing")


def _no_list() -> np.ndarray:
    return np.empty(0, np.uint8)


@dataclass(frozen=True)
class Cut:
    """What a step does to a set. kind: "from" or "below" a rank of the metric `name`; "in", "out" or "add" the bitmap
    `listed` of the list `name`; or "none", which empties the set."""

    kind: str
    name: str = ""
    rank: int = 0
    listed: np.ndarray = field(default_factory=_no_list, compare=False, repr=False)


Cuts = tuple[Cut, ...]
NONE = Cut("none")


@dataclass(frozen=True)
class Taken:
    """An enabled step of a recipe: its cut, the cuts before it, what it did, and what it reads."""

    cut: Cut
    before: Cuts
    report: StepReport
    work: Work


class Picker:
    """Answers for one table. Any thread may ask; what is handed out must not be written to."""

    def __init__(self, table: ScoreTable) -> None:
        self.table = table
        size = len(table) // 8 + 1
        self._everything = table.selectable_bits()
        self._sets: Recent[np.ndarray] = Recent(min(max(_SET_BYTES // size, _FEWEST_SETS), _MOST_SETS))
        self._spreads: Recent[Spread] = Recent(_MOST_COUNTS)
        self._sizes: Recent[int] = Recent(_MOST_SIZES)
        self._lists: Recent[tuple[Work, np.ndarray]] = Recent(_MOST_LISTS)
        self._crossed: Recent[Future[PrefixCounts]] = Recent(_MOST_CROSSED)
        # Counting takes all pairs: whoever comes while it is begun takes the same.
        self._beginning = threading.Lock()
        self._asked: Recent[np.ndarray] = Recent(_MOST_ASKED)

    def select(self, recipe: Recipe) -> Selection:
        """What the recipe picks. Raises RecipeError as select() does."""
        return self.selection(self.take(recipe))

    def selection(self, taken: list[Taken]) -> Selection:
        """What is left after all of a recipe's steps, as `take` gave them."""
        cuts = (*taken[-1].before, taken[-1].cut) if taken else ()
        set_aside = len(self.table) - self.size(())
        reports = tuple(step.report for step in taken)
        return Selection(self.size(cuts), lambda: self.bits(cuts), reports, len(self.table), set_aside, self.table)

    def take(self, recipe: Recipe) -> list[Taken]:
        """The recipe's enabled steps in order, from the whole run."""
        check_metrics(recipe, self.table.metrics)
        taken: list[Taken] = []
        before: Cuts = ()
        for step in (step for step in recipe.steps if step.enabled):
            if isinstance(step, ScoreStep):
                work = Work.of(step, recipe, self.table)
                cut, threshold = self._score_cut(step, before)
                alone = self._score_cut(step, ())[0] if before else cut
            else:
                (work, cut), threshold = self._list_cut(step, recipe), None
                alone = cut
            after = (*before, cut)
            report = work.report(self.size(before), self.size(after), self.size(()) - self.size((alone,)), threshold)
            taken.append(Taken(cut, before, report, work))
            before = after
        return taken

    def bits(self, cuts: Cuts) -> np.ndarray:
        """The bitmap of the pairs that are left after some cuts."""
        if not cuts:
            return self._everything
        return self._sets.get(_named(cuts), lambda: self._apply(cuts[-1], cuts[:-1]))

    def spread(self, cuts: Cuts, metric: str) -> Spread:
        """How they lie over a metric."""
        return self._spreads.get((_named(cuts), metric), lambda: self._spread(_named(cuts), metric))

    def size(self, cuts: Cuts) -> int:
        """How many are left."""
        return self._sizes.get(_named(cuts), lambda: self._size(cuts))

    def counts_from(self, cuts: Cuts, metric: str, ranks: np.ndarray) -> np.ndarray:
        """How many of them stand at each rank of a metric or above: (T,) int64."""
        if cuts and cuts[-1] == NONE:
            return np.zeros(len(ranks), np.int64)
        bins = self.table.bins(metric)
        name = "counts", _named(cuts), metric, ranks.tobytes()
        count = bins.counts_from
        return self._asked.get(name, lambda: count(self._members(cuts, len(ranks)), self.spread(cuts, metric), ranks))

    def ranks_of_top(self, cuts: Cuts, metric: str, most: np.ndarray) -> np.ndarray:
        """The ranks from which on just so many of them stand: (T,) int64. most: (T,) int64, at most all of them."""
        bins = self.table.bins(metric)
        name = "ranks", _named(cuts), metric, most.tobytes()
        find = bins.ranks_of_top
        return self._asked.get(name, lambda: find(self._members(cuts, len(most)), self.spread(cuts, metric), most))

    def below(self, metric: str, ranks: np.ndarray) -> np.ndarray:
        """How many pairs of the pool have a lower score than the one at each rank: (T,) int64."""
        bins = self.table.bins(metric)
        return self._asked.get(("below", metric, ranks.tobytes()), lambda: bins.below(ranks))

    def _members(self, cuts: Cuts, asked: int) -> Members:
        """The pairs that are left after some cuts, of which so many bins will be walked through.

        For a few the last cut needs no bitmap; for many it is quicker to have one, which the processor keeps at hand.
        """
        named = _named(cuts)
        last = named[-1] if named else NONE
        ranked = last.kind in ("from", "below") and self._sets.peek(named) is None
        if not ranked or asked > _FEW or len(self.table) < _MANY_PAIRS:
            return Members(self.bits(cuts))
        bins = self.table.bins(last.name)
        if bins.in_bin_of(last.rank) > len(self.table) * _SMALL_BIN:
            return Members(self.bits(cuts))
        return bins.side(self.bits(named[:-1]), last.rank, upwards=last.kind == "from")

    def _spread(self, cuts: Cuts, metric: str) -> Spread:
        """Looked up where one score cuts and the two metrics were counted together, which happens beside the first."""
        bins = self.table.bins(metric)
        if len(cuts) == 1 and cuts[0].kind in ("from", "below") and len(self.table) >= _MANY_PAIRS:
            (cut,) = cuts
            with self._beginning:
                crossed = self._crossed.get((cut.name, metric), lambda: self._count_along(cut.name, metric))
            if crossed.done():
                counts = crossed.result()
                found = counts.from_rank(cut.rank) if cut.kind == "from" else counts.below_rank(cut.rank)
                return bins.spread_of(found)
        return bins.spread_of(binning.histogram(bins.codes, self.bits(cuts))) if cuts else bins.spread(self.bits(()))

    def _count_along(self, name: str, metric: str) -> Future[PrefixCounts]:
        """Begins to count all pairs along one metric over the bins of another; the index keeps what was counted."""
        first, codes = self.table.bins(name), self.table.bins(metric).codes
        folder, places = self.table.index_folder, (self.table.metrics.index(each) for each in (name, metric))
        file = folder / "along-{:02d}-{:02d}.npy".format(*places) if folder else None
        return _beside.submit(PrefixCounts.of, first, codes, self._everything, file)

    def _size(self, cuts: Cuts) -> int:
        if not cuts or cuts[-1].kind not in ("from", "below"):
            return bitmaps.count(self.bits(cuts))
        *others, last = cuts
        before, metric = tuple(others), str(last.name)
        above = int(self.counts_from(before, metric, np.array([last.rank]))[0])
        return above if last.kind == "from" else self.spread(before, metric).scored - above

    def _apply(self, cut: Cut, cuts: Cuts) -> np.ndarray:
        before = self.bits(cuts)
        if cut.kind == "none":
            return passes.read_only(np.zeros_like(before))
        if cut.kind in ("from", "below"):
            bins = self.table.bins(str(cut.name))
            return bins.from_rank(before, cut.rank) if cut.kind == "from" else bins.below_rank(before, cut.rank)
        if cut.kind == "add":
            return passes.read_only(before | (cut.listed & self._everything))
        return passes.read_only(before & (cut.listed if cut.kind == "in" else ~cut.listed))

    def _list_cut(self, step: AnyStep, recipe: Recipe) -> tuple[Work, Cut]:
        """A step with a list, which is read once as long as its file stays as it is."""
        name = _list_name(step, recipe)
        work, listed = self._lists.get(name, lambda: self._read(step, recipe))
        kind = "add" if isinstance(step, Union | Keep) else "in" if isinstance(step, Intersect) else "out"
        return work, Cut(kind, name, listed=listed)

    def _read(self, step: AnyStep, recipe: Recipe) -> tuple[Work, np.ndarray]:
        work = Work.of(step, recipe, self.table)
        listed = np.zeros(len(self.table), bool)
        listed[work.listed_rows[work.listed_rows >= 0]] = True
        return work, bitmaps.pack(listed)

    def _score_cut(self, step: ScoreStep, before: Cuts) -> tuple[Cut, float | None]:
        """What a step cuts from what reaches it, and the threshold that it finds or was given."""
        if isinstance(step, KeepTop):
            bins, spread = self.table.bins(step.metric), self.spread(before, step.metric)
            pairs = len(self.table) if step.of == "pool" else self.size(before)
            most = min(count_of_fraction(Fraction(step.keep_top), pairs), spread.scored)
            rank = self.ranks_of_top(before, step.metric, np.array([most]))
            return Cut("from", step.metric, int(rank[0])), float(bins.scores_at(rank)[0]) if most else None
        if isinstance(step, AtLeast):
            return Cut("from", step.metric, self._rank(step.metric, float32_up(step.at_least))), step.at_least
        highest = -float32_up(-step.at_most)
        return Cut("below", step.metric, self._rank(step.metric, highest, above=True)), step.at_most

    def _rank(self, metric: str, value: np.float32, *, above: bool = False) -> int:
        return int(self.table.bins(metric).ranks_of_scores(np.array([value], np.float32), above=above)[0])


def _named(cuts: Cuts) -> Cuts:
    """One name for a set, however it came about: cuts that only take away may come in any order, and once is enough."""
    return cuts if any(cut.kind in ("add", "none") for cut in cuts) else tuple(sorted(set(cuts), key=_sort_key))


def _sort_key(cut: Cut) -> tuple[str, str, int]:
    return cut.kind, cut.name, cut.rank


def _list_name(step: AnyStep, recipe: Recipe) -> str:
    """A name that changes with the list: its file as it is now, or the uids."""
    if isinstance(step, Keep | Drop):
        uids = step.keep if isinstance(step, Keep) else step.drop
        return f"{step.kind} {hashlib.sha256(' '.join(uids).encode()).hexdigest()}"
    path = recipe.folder / getattr(step, step.kind)
    try:
        stat = path.stat()
    except OSError:  # Reading it says what is wrong.
        return f"{step.kind} {path}"
    return f"{step.kind} {path} {stat.st_mtime_ns} {stat.st_size}"
