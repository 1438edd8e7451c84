"""How far do two runs of one pool agree, two metrics of one run, and several selections?

Of two runs everything is in the row numbers of the first. Pairs are matched by uid: where both runs hold the same uids
in the same order, which is checked, row i of one is row i of the other; else the second run's rows are looked up. What
was measured is cached in a small file beside the first run, which is used as long as neither run changes.

Ranks are in whole numbers, ties and all. A pair's percentile rank by a metric is the share of the pairs below it plus
half of those that tie with it, which is what average ranks come to. Only pairs that have both metrics count.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from clipsel_core import tasks
from clipsel_core.curation.index import bitmaps, ordering
from clipsel_core.curation.index.bitmaps import compiled, in_parts, read_only
from clipsel_core.curation.index.index import scores_fingerprint
from clipsel_core.curation.index.ranking import Ranking, count_of_fraction
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.uidlists import read_uid_list
from clipsel_core.files import write_atomically, write_json
from clipsel_core.npy import save_checked
from clipsel_core.places import Place
from clipsel_core.runs.store import Run
from clipsel_core.tasks import Report, silent

PERCENTS = tuple(range(1, 101))
End = Literal["first", "second"]

_log = logging.getLogger(__name__)
_LOOKED_UP = 1 << 22
_CACHE_VERSION = 1
_BITS = 16
_SIGNS = {"first": 0, "second": 1}
_MOST_KEPT = 4
# Ranks that are put down before the question whether the work may go on.
_STEP = 1 << 21


@dataclass(frozen=True)
class Alignment:
    """Two runs, row by row. rows: (N,) int32, the second run's row of each pair of the first, -1 where it lacks it;
    None where the two have the same rows. shared: pairs in both.
    """

    first: ScoreTable
    second: ScoreTable
    rows: np.ndarray | None
    shared: int

    def scored(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Who has a metric in both runs, in the rows of each: (N,) bool and (N of the second,) bool.

        Raises: RunError where either run lacks the metric.
        """
        mine, theirs = self.first.column(metric), self.second.column(metric)
        here = ~np.isnan(mine)
        if self.rows is None:
            here &= ~np.isnan(theirs)
            return here, here
        here &= self.rows >= 0
        here[here] = ~np.isnan(theirs[self.rows[here]])
        there = np.zeros(len(theirs), bool)
        there[self.rows[here]] = True
        return here, there


@dataclass(frozen=True)
class Agreement:
    """Two runs' agreement on a metric. pairs: that both have scored. spearman: rank correlation in [-1, 1], ties at
    their mean rank; NaN where either run scores all of them alike.

    overlap: (100,) float64, of the top 1, 2, ... 100 % of each run the share that is the same; NaN where that is none.
    """

    pairs: int
    spearman: float
    overlap: np.ndarray


def align(first: ScoreTable, second: ScoreTable, report: Report = silent) -> Alignment:
    """Finds each pair of the first run in the second. Raises RunError where a score file cannot be read."""
    mine, theirs = first.uids(), second.uids()
    parts = [slice(start, start + _LOOKED_UP) for start in range(0, len(mine), _LOOKED_UP)]
    if len(mine) == len(theirs) and all(np.array_equal(mine[part], theirs[part]) for part in parts):
        return Alignment(first, second, None, len(first))
    rows = np.empty(len(mine), np.int32)
    for part in parts:
        report(part.start, len(mine), "pairs")
        rows[part] = second.rows_of(mine[part])
    return Alignment(first, second, rows, int(np.count_nonzero(rows >= 0)))


def measure_agreement(alignment: Alignment, metric: str, report: Report = silent) -> Agreement:
    """How much two runs agree on a metric, over all pairs that both have scored.

    Of pairs that tie at the edge of a top the smaller uid is in it, as recipes decide. Memory: 10 bytes a pair.
    """
    here, there = alignment.scored(metric)
    ours, theirs = (table.ranking(metric) for table in (alignment.first, alignment.second))
    pairs = int(np.count_nonzero(here))
    members = slice(None) if pairs == len(here) else np.flatnonzero(here).astype(np.int32)
    runs = ((ours, here, members), (theirs, there, members if alignment.rows is None else alignment.rows[members]))
    report(1, 10)
    with ThreadPoolExecutor(2) as threads:
        x, y = tasks.in_threads(
            threads,
            lambda run, among, rows: doubled_ranks(run.values, run.order, among)[rows],
            *zip(*runs, strict=True),
        )
        report(5, 10)
        xy, xx, yy = joint_ranks(x, y, 1, pairs)[1]
        del x, y
        x, y = tasks.in_threads(
            threads, lambda run, among, rows: places_from_top(run.order, among)[rows], *zip(*runs, strict=True)
        )
        report(9, 10)
    shared = shared_tops(x, y)
    sizes = np.array([count_of_fraction(Fraction(percent, 100), pairs) for percent in PERCENTS])
    spearman = float(np.clip(xy / np.sqrt(xx * yy), -1, 1)) if xx * yy else float("nan")
    with np.errstate(invalid="ignore"):
        return Agreement(pairs, spearman, np.where(sizes > 0, shared, 0) / sizes)


def tops(alignment: Alignment, metric: str, fraction: Fraction) -> tuple[np.ndarray, np.ndarray]:
    """Who is in the top of each run, exactly as keep_top decides, of the pairs that both have scored: two (N,) bool, in
    the first run's rows."""
    here, there = alignment.scored(metric)
    k = count_of_fraction(fraction, int(np.count_nonzero(here)))
    mine = top_of(alignment.first.ranking(metric).order, here, k)
    theirs = top_of(alignment.second.ranking(metric).order, there, k)
    if alignment.rows is not None:
        here[here] = theirs[alignment.rows[here]]
        theirs = here
    return mine, theirs


def agreement_file(first: Run, second: Run) -> Path:
    """Where the agreements of these two are cached; another file when the scores of either change."""
    said = [_CACHE_VERSION, scores_fingerprint(first), str(second.root.absolute()), scores_fingerprint(second)]
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    return first.cache_dir / "agreement" / f"{digest[:32]}.json"


def read_agreements(path: Path) -> dict[str, Agreement]:
    """The agreements in a file, by metric; none where there is no such file or it cannot be understood."""
    found = {}
    try:
        for name, said in json.loads(path.read_bytes()).items():
            # numpy takes JSON's null for NaN.
            spearman, *overlap = np.array([said["spearman"], *said["overlap"]], np.float64)
            if len(overlap) != len(PERCENTS):
                return {}
            found[name] = Agreement(int(said["pairs"]), float(spearman), np.array(overlap))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return found


def write_agreements(path: Path, found: dict[str, Agreement]) -> None:
    """Writes agreements by metric. Where that cannot be done it is only logged: they can be measured again."""
    said = {}
    for name, known in found.items():
        # JSON has no NaN.
        spearman, *overlap = [None if np.isnan(value) else float(value) for value in (known.spearman, *known.overlap)]
        said[name] = {"pairs": known.pairs, "spearman": spearman, "overlap": overlap}
    try:
        write_json(path, said)
    except OSError as error:
        _log.warning("agreements are not kept in %s: %s", path, error)


@dataclass(frozen=True)
class Overlap:
    """Counts of S sets. both: (S, S) int64, pairs in set i and in set j; the diagonal holds the sizes."""

    names: tuple[str, ...]
    both: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Pairs in each set: (S,) int64."""
        return np.diagonal(self.both)

    @property
    def jaccard(self) -> np.ndarray:
        """Pairs in both sets as a share of the pairs in either: (S, S) float64 in [0, 1]; 1 for two empty sets."""
        either = self.sizes[:, None] + self.sizes[None, :] - self.both
        return np.where(either > 0, self.both / np.maximum(either, 1), 1.0)

    @property
    def of_row(self) -> np.ndarray:
        """Pairs in both sets as a share of the row's set: (S, S) float64 in [0, 1]; NaN in an empty set's row."""
        with np.errstate(invalid="ignore"):
            return self.both / self.sizes[:, None]


def overlap(sets: Mapping[str, np.ndarray]) -> Overlap:
    """Counts what each two of these sets share. sets: from a name to the bitmap of a set, all of one run."""
    names, bits = tuple(sets), list(sets.values())
    both = np.zeros((len(names), len(names)), np.int64)
    for i, row in enumerate(bits):
        for j in range(i, len(bits)):
            both[i, j] = both[j, i] = bitmaps.pairs_in(row & bits[j])
    return Overlap(names, both)


def listed_pairs(table: ScoreTable, path: Place) -> tuple[np.ndarray, int]:
    """The pairs of a run that a list of uids names, a bitmap, and how many of its uids the run lacks.

    Raises: UidError where it is no list of uids.
    """
    rows = table.rows_of(read_uid_list(path))
    mask = np.zeros(len(table), bool)
    mask[rows[rows >= 0]] = True
    return bitmaps.pack(mask), int((rows < 0).sum())


@dataclass(frozen=True)
class Disagreement:
    """Two metrics' ranks side by side. pairs: those that have both metrics, M.

    counts: (bins, bins) int64, pairs by percentile rank of the first metric and of the second.
    spearman: correlation of the ranks in [-1, 1], NaN where a metric is the same for all pairs.
    gaps: (N,) int32, by how much the first metric ranks a pair higher, in 1 / (2 M); 0 also for pairs that lack one.
    """

    pairs: int
    counts: np.ndarray
    spearman: float
    gaps: np.ndarray

    @cached_property
    def _shift(self) -> int:
        """By how many bits the size of a gap is shifted to find its bin."""
        return max(0, (2 * self.pairs).bit_length() - _BITS)

    @cached_property
    def _above(self) -> np.ndarray:
        """Pairs in each bin of sizes or above it, by sign: (2, bins) int64."""
        sizes = gap_sizes(self.gaps, self._shift, 1 << _BITS)
        return np.cumsum(sizes[:, ::-1], axis=1)[:, ::-1]

    def listed(self, end: End) -> int:
        """Pairs that this metric ranks higher than the other one does."""
        return int(self._above[_SIGNS[end], 0])

    def points(self, rows: np.ndarray) -> np.ndarray:
        """How far apart the ranks of some pairs are, in percent of the pairs: (len(rows),) float64."""
        return np.abs(self.gaps[rows]) * (50 / max(self.pairs, 1))

    def page(self, end: End, *, offset: int = 0, limit: int = 48) -> np.ndarray:
        """The pairs that one metric ranks higher than the other, from a place on, the largest difference first.

        Returns rows, (M,) int64, `limit` at most; equal differences come in the order of the rows.
        """
        above, listed = self._above[_SIGNS[end]], self.listed(end)
        stop = min(offset + limit, listed)
        if offset >= stop:
            return np.empty(0, np.int64)
        # Bins hold the sizes from `above` falling: the last bin that has more pairs in it or above than a place.
        first, last = (int(np.searchsorted(-above, -place, side="left")) - 1 for place in (offset, stop - 1))
        low, high = max(1, last << self._shift), ((first + 1) << self._shift) - 1
        bounds = (low, high) if end == "first" else (-high, -low)

        def find(start: int, stop: int) -> np.ndarray:
            gaps = self.gaps[start:stop]
            return np.flatnonzero((gaps >= bounds[0]) & (gaps <= bounds[1])) + start

        rows = np.concatenate(in_parts(find, len(self.gaps)))
        before = int(above[first + 1]) if first + 1 < len(above) else 0
        return ordering.page_of(-np.abs(self.gaps[rows]), rows, offset - before, limit)


def keep_gaps(found: Disagreement, folder: Path, name: str) -> Disagreement:
    """The same with its gaps mapped from a file, 4 bytes a pair less in memory. name: of the two metrics there.

    Only the few that were looked at last are kept. Where the folder cannot be written to, they stay in memory.
    """
    path = folder / f"gaps-{name}.npy"
    try:
        if not path.exists():
            write_atomically(path, lambda aside: save_checked(aside, found.gaps))
        for other in sorted(folder.glob("gaps-*.npy"), key=lambda file: file.stat().st_mtime)[:-_MOST_KEPT]:
            if other != path:
                other.unlink(missing_ok=True)
        gaps = np.load(path, mmap_mode="r", allow_pickle=False)
        return replace(found, gaps=read_only(gaps))
    except (OSError, ValueError) as error:
        _log.warning("ranks are not kept in %s: %s", folder, error)
        return found


def disagreement(x: Ranking, y: Ranking, *, bins: int = 128, report: Report = silent) -> Disagreement:
    """How two metrics of a run rank the same pairs. bins: cells of the density along each axis."""
    report(0, 10)
    both = ~(np.isnan(x.values) | np.isnan(y.values))
    with ThreadPoolExecutor(2) as threads:
        ranked = tasks.in_threads(threads, lambda metric: doubled_ranks(metric.values, metric.order, both), (x, y))
    rank_x, rank_y = ranked
    report(7, 10)
    pairs = int(np.count_nonzero(both))
    counts, (xy, xx, yy) = joint_ranks(rank_x, rank_y, bins, pairs)
    spearman = xy / np.sqrt(xx * yy) if xx * yy else np.nan
    report(9, 10)
    gaps = np.subtract(rank_x, rank_y, out=rank_x)
    return Disagreement(pairs, counts, float(spearman), read_only(gaps))


def doubled_ranks(values: np.ndarray, order: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each pair of a set, how many of the set score less plus how many score no more: (N,) int32, 0 outside it.

    That is twice the average rank, less 1: whole numbers, so that no difference of ranks is ever rounded.
    values: (N,) float32. order: (M,) uint32, the rows with a score, ascending by it. among: (N,) bool, the set, scored.
    """
    out = np.zeros(len(values), np.int32)
    values, order, among, start, below = read_only(values), read_only(order), read_only(among), 0, 0
    while start < len(order):
        tasks.check()
        start, below = _doubled_ranks(values, order, among, start, start + _STEP, below, out)
    return out


def joint_ranks(x: np.ndarray, y: np.ndarray, bins: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Joint counts of two rankings of the same pairs, and how far they go together.

    x, y: (N,) int32 doubled ranks of the same `pairs`, M, and 0 for others; their mean is M, ties or not.
    Returns: (bins, bins) int64, and (3,) float64, the sums of xy, xx and yy, taken from their mean.
    """
    x, y = read_only(x), read_only(y)

    def work(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        counts, products = np.zeros((bins, bins), np.int64), np.zeros(3)
        _joint_ranks(x, y, start, stop, pairs, counts, products)
        return counts, products

    counts, products = np.zeros((bins, bins), np.int64), np.zeros(3)
    for some, summed in in_parts(work, len(x)):
        counts += some
        products += summed
    return counts, products


def places_from_top(order: np.ndarray, among: np.ndarray) -> np.ndarray:
    """How many pairs of a set stand above each of it: (N,) int32, 0 outside it; 0 for the best. The rest as above."""
    out = np.zeros(len(among), np.int32)
    order, among, place = read_only(order), read_only(among), 0
    for stop in range(len(order), 0, -_STEP):
        tasks.check()
        place = _places_from_top(order, among, max(stop - _STEP, 0), stop, place, out)
    return out


def top_of(order: np.ndarray, among: np.ndarray, most: int) -> np.ndarray:
    """The pairs of a set that stand highest, so many or all: (N,) bool."""
    out = np.zeros(len(among), bool)
    for stop in range(len(order), 0, -_STEP):
        rows = order[max(stop - _STEP, 0) : stop][::-1]
        rows = rows[among[rows]]
        out[rows[:most]] = True
        most -= min(most, len(rows))
        if not most:
            break
    return out


def shared_tops(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How many pairs are in the top of both rankings, of the top 1, 2, ... 100 percent: (100,) int64.

    x, y: (M,) int32 places from the top in rankings of the same M pairs. A top of p percent has floor(p M / 100) pairs.
    """

    def work(start: int, stop: int) -> np.ndarray:
        in_both = np.maximum(x[start:stop], y[start:stop]).astype(np.int64) + 1
        # The first percentage whose top has so many pairs: rounded up.
        return np.bincount((in_both * 100 + len(x) - 1) // len(x), minlength=101)

    return np.cumsum(sum(in_parts(work, len(x)), np.zeros(101, np.int64)))[1:]


def gap_sizes(gaps: np.ndarray, shift: int, bins: int) -> np.ndarray:
    """How many gaps are of which size, those above 0 and those below: (2, bins) int64; the size is shifted by so many
    bits. gaps: (N,) int32; 0 counts nowhere."""

    def work(start: int, stop: int) -> np.ndarray:
        some = gaps[start:stop]
        signs = (some[some > 0], -some[some < 0])
        return np.stack([np.bincount(sizes >> shift, minlength=bins) for sizes in signs])

    return sum(in_parts(work, len(gaps)), np.zeros((2, bins), np.int64))


@compiled
def _doubled_ranks(values, order, among, start, end, below, out):
    """From one rank to another, or a little further: scores that are alike are taken together."""
    while start < min(end, len(order)):
        stop, same, value = start, 0, values[order[start]]
        while stop < len(order) and values[order[stop]] == value:
            same += among[order[stop]]
            stop += 1
        for place in range(start, stop):
            row = order[place]
            if among[row]:
                out[row] = 2 * below + same
        below += same
        start = stop
    return start, below


@compiled
def _joint_ranks(x, y, start, stop, pairs, counts, products):
    bins = len(counts)
    for row in range(start, stop):
        if not x[row]:
            continue
        counts[x[row] * bins // (2 * pairs), y[row] * bins // (2 * pairs)] += 1
        u, v = np.float64(x[row] - pairs), np.float64(y[row] - pairs)
        products[0] += u * v
        products[1] += u * u
        products[2] += v * v


@compiled
def _places_from_top(order, among, start, stop, place, out):
    for rank in range(stop - 1, start - 1, -1):
        row = order[rank]
        if among[row]:
            out[row] = place
            place += 1
    return place
