"""How far do two runs of one pool agree? By the order of their scores, and by who is in the top of both.

Everything is in the row numbers of the first run. Pairs are matched by uid: where both runs hold the same uids in the
same order, which is checked, row i of one is row i of the other; else the second run's rows are looked up. What was
measured is cached in a small file beside the first run, which is used as long as neither run changes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from clipsel_core import tasks
from clipsel_core.curation.index.concordance import doubled_ranks, joint_ranks, places_from_top, shared_tops, top_of
from clipsel_core.curation.index.index import stamp_of
from clipsel_core.curation.index.ranking import count_of_fraction
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.files import write_json
from clipsel_core.runs.store import Run
from clipsel_core.tasks import Report, silent

PERCENTS = tuple(range(1, 101))
_LOOKED_UP = 1 << 22
_CACHE_VERSION = 1
_log = logging.getLogger(__name__)


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
    said = [_CACHE_VERSION, stamp_of(first), str(second.root.absolute()), stamp_of(second)]
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
