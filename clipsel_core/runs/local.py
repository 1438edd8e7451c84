"""How is a run carried out on this machine? Group after group of shards, each shard's scores written whole.

A run that was stopped goes on with the shards that have no scores yet. Who scores a group, `workers.Machines` says. The
scores go from there to the disk; only how far it is comes back.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipsel_core import files
from clipsel_core.errors import PoolFormatError, RunError, counted
from clipsel_core.leases import hold_place
from clipsel_core.places import Place, why_unwritten
from clipsel_core.pool.layout import Pool
from clipsel_core.runs.groups import GroupScorer
from clipsel_core.runs.plan import Group, Plan, groups_left, nothing_scored, plan_run, with_targets
from clipsel_core.runs.probe import bytes_of_pair, foresee
from clipsel_core.runs.store import (
    Outcome,
    Run,
    SealedFiles,
    files_at_once,
    keep_whole,
    read_config,
    read_counts,
    score_file,
    write_config,
)
from clipsel_core.status import StatusFile
from clipsel_core.tasks import Report, in_threads, silent
from clipsel_core.workers import Do, Machines, Work, check_asked

_log = logging.getLogger(__name__)


def score(
    pool: str | os.PathLike[str],
    root: str | os.PathLike[str],
    *,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
    report: Report = silent,
    embedding: Report = silent,
    **options: Any,
) -> Run:
    """Scores a pool into a run's folder, or goes on with what was begun there.

    A run that is killed and started again has, byte for byte, the scores of one that was left alone.

    cluster, cpus_per_worker: a Ray cluster that scores it instead, see `Machines`; pool and run lie where all of
        its nodes see them.
    report: told the pairs done, those of shards in work by the share of their work that is done, and the shards;
        status.json says the same. embedding: told how far the pictures of targets are embedded. options: those of
        `plan_run`.
    Raises: what `plan_run` raises; PoolFormatError on a shard that cannot be scored; RunError where another process
        is at work in the folder, or it cannot be written. Shards that were finished stay.
    """
    root = Place.of_named(root)
    check_asked(options.get("device", "auto"), cluster, cpus_per_worker)
    if cluster:
        pool, root = Place.of_named(pool).absolute(), root.absolute()
    try:
        with nullcontext() if root.remote else files.made_folder(Path(root)), sole_worker(root):
            begun = read_config(root) if (root / "run.json").exists() else None
            done = keep_whole(SealedFiles(root, begun)) if begun else set[str]()
            plan = plan_run(pool, root, embedding=embedding, **options)
            if not root.remote:
                _clear(Path(root))
            if begun is None or nothing_scored(root) or begun.shards != plan.config.shards:
                if plan.config.plan is None:
                    plan = replace(plan, config=plan.config.model_copy(update={"plan": foresee(plan, bool(cluster))}))
                write_config(root, plan.config)
            with StatusFile(root / "status.json", "scoring", report) as status:
                _score_groups(plan, done, status.report, Machines(plan.devices, cluster, cpus_per_worker))
    except OSError as error:
        where, found, remedy = why_unwritten(root, error, "choose another folder")
        remedy += ": finished shards are kept"
        raise RunError(where, expected="to write the run", found=found, remedy=remedy) from error
    return Run.open(root)


def _clear(root: Path) -> None:
    """Removes what killed processes were still writing in a run's folder."""
    files.remove_leftovers(root, root / "scores")
    for name in ("cache", "exports", "index", "recipes", "searches"):
        if (root / name).is_dir():
            files.remove_abandoned(root / name)


def sole_worker(root: str | os.PathLike[str]) -> AbstractContextManager[None]:
    """Holds a run's folder for this process. Raises: RunError where another process holds it; see leases."""
    remedy = "wait for it, or score into another folder"
    busy = RunError(root, expected="a folder nobody works in", found="a run going on", remedy=remedy)
    return hold_place(Place.of_named(root), busy)


def do_groups(
    work: Work,
    groups: Sequence[Group],
    pool: Pool,
    machines: Machines,
    report: Report,
    count: Callable[[int], object],
    note: Callable[[Group, Any], object] = lambda *_: None,
) -> None:
    """Does some work for groups of a pool's shards, those that it is not done for yet.

    report: told the pool's pairs that it is done for, those of groups in work by the share of their work, and
        the shards.
    count: told how many groups were given to another worker, where there were any, also where the work fails.
    note: told what the work gives of each group that is done; by one thread at a time.
    Raises: what the work for the first of the groups raises; those before it are done first.
    """
    tally = _Tally(pool, groups, report)
    if not groups:
        return
    with (
        machines.workers(work, len(groups)) as workers,
        files.and_at_last(lambda: workers.tried_again and count(workers.tried_again)),
        ThreadPoolExecutor(workers.at_once) as threads,
    ):
        in_threads(threads, lambda group: tally.attend(group, workers.do, note), groups)


@dataclass(frozen=True)
class _Scoring:
    """The work that scores a run's groups; it gives the process that did, and how long its cores have worked until now.

    plan: pickled without its targets, which are read again.
    """

    plan: Plan
    gives: str = "scores"

    def __reduce__(self) -> tuple[type[_Scoring], tuple[Plan]]:
        return _Scoring, (replace(self.plan, targets={}),)

    @property
    def description(self) -> Place:
        return self.plan.root / "run.json"

    @property
    def folder(self) -> Place:
        return self.plan.root / "scores"

    def begin(self, device: str) -> Do:
        scorer = GroupScorer(self.plan if self.plan.targets else with_targets(self.plan), device)

        def do(group: Group, report: Report) -> tuple[str, float]:
            scorer.score_and_write(group, report)
            return _process(), time.process_time()

        return do


def _score_groups(plan: Plan, done: set[str], report: Report, machines: Machines) -> None:
    """Scores what is left, then notes how many rows were skipped. done: the shards that have scores.

    Raises: PoolFormatError where no pair was scored; the files without scores are taken away.
    """
    root, shards, config = plan.root, plan.pool.shards, plan.config
    groups = groups_left(shards, plan.config.mix_shards, done)
    left = [shard for group in groups for shard in group.left]
    took = _Taken(plan)

    def count(again: int) -> None:
        nonlocal config
        config = config.model_copy(update={"tried_again": config.tried_again + again})

    def sum_up() -> None:
        nonlocal config
        # Where a finished run lacked some shards, how long these took says nothing of the run.
        if took.cpu_seconds and read_config(root).skipped_rows is None:
            config = config.model_copy(update={"outcome": took.outcome()})
        if config != plan.config:
            write_config(root, config)

    with files.and_at_last(sum_up):
        do_groups(_Scoring(plan), groups, plan.pool, machines, report, count, took.note)
    counts = _counts(root, [shard.name for shard in shards])
    if plan.config.on_bad_rows != "scale":
        scaled = [(shard.name, counts[shard.name]["renormalised"]) for shard in left]
        for name, rows in [found for found in scaled if found[1]][:1]:  # the first is example enough
            _log.warning("shard %s: %d rows a little off unit length were scaled to it", name, rows)
    skipped = sum(count["skipped"] for count in counts.values())
    if skipped and skipped >= plan.config.pairs:
        for shard in shards:
            score_file(root, shard.name).remove()
        scale = "" if plan.config.on_bad_rows == "scale" else "; --on-bad-rows scale takes rows of any length"
        found = f"all {counted(skipped, 'pairs')} set aside"
        remedy = f"see what clipsel inspect says{scale}"
        raise PoolFormatError(plan.pool.root, expected="a pair that can be scored", found=found, remedy=remedy)
    write_config(root, config.model_copy(update={"skipped_rows": skipped}))


def _counts(root: Place, shards: Sequence[str]) -> dict[str, dict[str, int]]:
    """What each shard's scores say of its rows."""
    files_of = [score_file(root, name) for name in shards]
    if not root.remote:
        return dict(zip(shards, map(read_counts, files_of), strict=True))
    with ThreadPoolExecutor(files_at_once(root)) as threads:
        return dict(zip(shards, threads.map(read_counts, files_of), strict=True))


class _Taken:
    """What scoring takes, from now on. cpu_seconds: how long the cores of each process have worked that scored."""

    def __init__(self, plan: Plan) -> None:
        self._before, self._bytes = plan.config.outcome or Outcome(), bytes_of_pair(plan)
        self._began_s, self._began_cpu_s = time.monotonic(), time.process_time()
        self._scored = self._read = 0
        self.cpu_seconds: dict[str, float] = {}

    def note(self, group: Group, found: tuple[str, float]) -> None:
        """Counts a group that is done. found: as _Scoring gives it."""
        self._scored += group.rows_left
        self._read += sum(shard.rows for shard in group.shards)
        self.cpu_seconds.update([found])

    def outcome(self) -> Outcome:
        """That of the starts before, and of this one."""
        before, others = self._before, sum(s for process, s in self.cpu_seconds.items() if process != _process())
        return Outcome(
            pairs=before.pairs + self._scored,
            seconds=round(before.seconds + time.monotonic() - self._began_s, 3),
            cpu_seconds=round(before.cpu_seconds + time.process_time() - self._began_cpu_s + others, 3),
            bytes_read=before.bytes_read + self._read * self._bytes,
            workers=len(self.cpu_seconds),
        )


def _process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


class _Tally:
    """Counts the pairs of a pool that are done, and reports them; for any thread."""

    def __init__(self, pool: Pool, left: Sequence[Group], report: Report) -> None:
        self._report, self._guard, self._in_work = report, threading.RLock(), dict[str, int]()
        self._all_pairs, self._all_shards = pool.rows, len(pool.shards)
        self._pairs = self._all_pairs - sum(group.rows_left for group in left)
        self._shards = self._all_shards - sum(len(group.left) for group in left)
        self._tell()

    def attend(self, group: Group, work: Callable[[Group, Report], Any], note: Callable[[Group, Any], object]) -> None:
        """Has a group scored, and counts what is done of it meanwhile. note: as of do_groups."""

        def tell(done: int, total: int, *_: object) -> None:
            with self._guard:
                self._in_work[group.name] = group.rows_left * done // total
                self._tell()

        found = work(group, tell)
        with self._guard:
            note(group, found)
            self._in_work.pop(group.name, None)
            self._pairs += group.rows_left
            self._shards += len(group.left)
            self._tell()

    def _tell(self) -> None:
        done, shards = self._pairs + sum(self._in_work.values()), f"{self._shards:,} of {self._all_shards:,} shards"
        self._report(done, self._all_pairs, "pairs", shards)
