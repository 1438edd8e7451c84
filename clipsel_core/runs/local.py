"""How is a run carried out on this machine? Group after group of shards, each shard's scores written whole.

A run that was stopped goes on with the shards that have no scores yet. Groups are scored in this process, or, of
several devices, each in a process on one of them, or on a cluster (`cluster.py`). The scores go from there to the disk;
only how far it is comes back.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

from clipsel_core import files
from clipsel_core.errors import LostWorkerError, PoolFormatError, RunError, ScoringError, WorkerError, counted
from clipsel_core.places import Place
from clipsel_core.processes import Crew
from clipsel_core.runs.cluster import ClusterWorkers
from clipsel_core.runs.groups import AT_ONCE, GroupScorer
from clipsel_core.runs.plan import Group, Plan, groups_left, nothing_scored, plan_run, with_targets
from clipsel_core.runs.store import Run, SealedFiles, keep_whole, read_config, read_counts, score_file, write_config
from clipsel_core.scoring.threads import thread_count
from clipsel_core.status import StatusFile
from clipsel_core.tasks import Report, in_threads, result_of, silent

_log = logging.getLogger(__name__)
_Item = TypeVar("_Item")
_ATTEMPTS = 2


def score(
    pool: str | os.PathLike[str],
    root: str | Path,
    *,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
    report: Report = silent,
    embedding: Report = silent,
    **options: Any,
) -> Run:
    """Scores a pool into a run's folder, or goes on with what was begun there.

    A run that is killed and started again has, byte for byte, the scores of one that was left alone.

    cluster, cpus_per_worker: a Ray cluster that scores it instead, see `ClusterWorkers`; pool and run lie where all of
        its nodes see them.
    report: told the pairs done, those of shards in work by the share of their work that is done, and the shards;
        status.json says the same. embedding: told how far the pictures of targets are embedded. options: those of
        `plan_run`.
    Raises: what `plan_run` raises; PoolFormatError on a shard that cannot be scored; RunError where another process
        is at work in the folder, or it cannot be written. Shards that were finished stay.
    """
    root = Path(root)
    workers: Callable[[Plan, int], _Workers | ClusterWorkers] = _Workers
    if cluster:
        pool, root = Place.of_pool(pool).absolute(), root.absolute()
        workers = functools.partial(ClusterWorkers, cluster, cpus_per_worker)
        if (device := options.get("device", "auto")) not in ("auto", "cpu", "cuda"):
            remedy = "a cluster takes all of its GPUs"
            raise ScoringError("--device", expected="auto, cpu or cuda for a cluster", found=device, remedy=remedy)
    try:
        with files.made_folder(root), sole_worker(root):
            begun = read_config(root) if (root / "run.json").exists() else None
            if begun:
                keep_whole(SealedFiles(root, begun))
            plan = plan_run(pool, root, embedding=embedding, **options)
            files.remove_leftovers(root, root / "scores")
            for name in ("cache", "exports", "index", "recipes", "searches"):
                if (root / name).is_dir():
                    files.remove_abandoned(root / name)
            if begun is None or nothing_scored(root) or begun.shards != plan.config.shards:
                write_config(root, plan.config)
            with StatusFile(root / "status.json", "scoring", report) as status:
                _score_groups(plan, status.report, workers)
    except OSError as error:
        remedy = "make room or choose another folder, then start again: finished shards are kept"
        found = f"{error.strerror or error}"
        raise RunError(error.filename or root, expected="to write the run", found=found, remedy=remedy) from error
    return Run.open(root)


def sole_worker(root: Path) -> AbstractContextManager[None]:
    """Holds a run's folder for this process. Raises RunError where another process holds it."""
    remedy = "wait for it, or score into another folder"
    busy = RunError(root, expected="a folder nobody works in", found="a run going on", remedy=remedy)
    return files.lock_folder(root, busy)


def side_by_side(items: Iterable[_Item], work: Callable[[_Item], object], at_once: int = AT_ONCE) -> None:
    """Does the work for each item, in order, for so many of them at a time.

    Of three, one reads and one writes while another computes, where the work computes under a lock.
    Raises: what the work for the first of them raises; those before it are done first, those after it end at their next
        `tasks.check`.
    """
    with ThreadPoolExecutor(at_once) as threads:
        in_threads(threads, work, items)


def _score_groups(plan: Plan, report: Report, make_workers: Callable[[Plan, int], _Workers | ClusterWorkers]) -> None:
    """Scores what is left, then notes how many rows were skipped. make_workers: for a plan and a number of groups.

    Raises: PoolFormatError where no pair was scored; the files without scores are taken away.
    """
    root, shards, config = plan.root, plan.pool.shards, plan.config
    groups = groups_left(root, shards, plan.config.mix_shards)
    left = [shard for group in groups for shard in group.left]
    tally = _Tally(plan, groups, report)
    if groups and make_workers is _Workers and len(plan.devices) == 1:
        scorer = GroupScorer(plan, plan.devices[0])
        side_by_side(groups, lambda group: tally.attend(group, scorer.score_and_write))
    elif groups:
        with make_workers(plan, len(groups)) as workers:
            try:
                side_by_side(groups, lambda group: tally.attend(group, workers.score_and_write), workers.at_once)
            finally:
                if workers.tried_again:
                    again = config.tried_again + workers.tried_again
                    config = config.model_copy(update={"tried_again": again})
                    write_config(root, config)
    counts = {shard.name: read_counts(score_file(root, shard.name)) for shard in shards}
    if plan.config.on_bad_rows != "scale":
        scaled = [(shard.name, counts[shard.name]["renormalised"]) for shard in left]
        for name, rows in [found for found in scaled if found[1]][:1]:  # the first is example enough
            _log.warning("shard %s: %d rows a little off unit length were scaled to it", name, rows)
    skipped = sum(count["skipped"] for count in counts.values())
    if skipped and skipped >= plan.config.pairs:
        for shard in shards:
            score_file(root, shard.name).unlink(missing_ok=True)
        remedy = "see what clipsel inspect says; --on-bad-rows scale takes rows of any length"
        found = f"all {counted(skipped, 'pairs')} set aside"
        raise PoolFormatError(plan.pool.root, expected="a pair that can be scored", found=found, remedy=remedy)
    write_config(root, config.model_copy(update={"skipped_rows": skipped}))


class _Tally:
    """Counts the pairs of a run that are done, and reports them; for any thread."""

    def __init__(self, plan: Plan, left: Sequence[Group], report: Report) -> None:
        self._report, self._guard, self._in_work = report, threading.RLock(), dict[str, int]()
        self._all_pairs, self._all_shards = plan.config.pairs, len(plan.pool.shards)
        self._pairs = self._all_pairs - sum(group.rows_left for group in left)
        self._shards = self._all_shards - sum(len(group.left) for group in left)
        self._tell()

    def attend(self, group: Group, work: Callable[[Group, Report], None]) -> None:
        """Has a group scored, and counts what is done of it meanwhile."""

        def tell(done: int, total: int, *_: object) -> None:
            with self._guard:
                self._in_work[group.name] = group.rows_left * done // total
                self._tell()

        work(group, tell)
        with self._guard:
            self._in_work.pop(group.name, None)
            self._pairs += group.rows_left
            self._shards += len(group.left)
            self._tell()

    def _tell(self) -> None:
        done, shards = self._pairs + sum(self._in_work.values()), f"{self._shards:,} of {self._all_shards:,} shards"
        self._report(done, self._all_pairs, "pairs", shards)


class _Workers(AbstractContextManager):
    """A process on each of the plan's devices, or fewer where there are fewer groups. One that ends is replaced.

    at_once, tried_again: as in ClusterWorkers.
    """

    def __init__(self, plan: Plan, groups: int) -> None:
        devices = plan.devices[:groups]
        threads = max(1, thread_count() // len(devices)) if torch.device(devices[0]).type == "cpu" else thread_count()
        self._crews = [
            Crew(
                1,
                "scores",
                at_once=AT_ONCE,
                preload=[__name__],
                settle=_settle,
                given=(replace(plan, targets={}), device, threads),
            )
            for device in devices
        ]
        self._free: SimpleQueue[tuple[str, Crew]] = SimpleQueue()
        for _ in range(AT_ONCE):
            for one in zip(devices, self._crews, strict=True):
                self._free.put(one)
        self.at_once, self.tried_again, self._counting = self._free.qsize(), 0, threading.Lock()

    def __exit__(self, *ended: Any) -> None:
        for crew in self._crews:
            crew.__exit__(*ended)

    def score_and_write(self, group: Group, report: Report) -> None:
        """As GroupScorer.score_and_write, there. Raises RunError where two workers have ended at it, or failed."""
        shards = ", ".join(shard.name for shard in group.left)
        for attempt in range(1, _ATTEMPTS + 1):
            device, crew = self._free.get()
            try:
                result_of(crew.submit(shards, _score_there, group, report=report))
                return
            except WorkerError as error:
                if attempt == _ATTEMPTS:
                    is_lost = isinstance(error, LostWorkerError)
                    how = error.found.removeprefix("that its process ended ") if is_lost else f"with {error.found}"
                    look = "see whether memory runs out" if is_lost else "see with --debug where"
                    found = f"that a second worker ended there, on {device}, {how}"
                    remedy = f"{look}, then start it again to go on"
                    raise RunError(shards, expected="scores", found=found, remedy=remedy) from error
                with self._counting:
                    self.tried_again += 1
            finally:
                self._free.put((device, crew))


# In a worker's process: what it was given, and whoever makes its scorer.
_given: list[tuple[Plan, str]] = []
_making = threading.Lock()


def _settle(plan: Plan, device: str, threads: int) -> None:
    torch.set_num_threads(threads)
    _given[:] = [(plan, device)]


def _score_there(group: Group, report: Report) -> None:
    with _making:
        scorer = _scorer()
    scorer.score_and_write(group, report)


@functools.cache
def _scorer() -> GroupScorer:
    ((plan, device),) = _given
    return GroupScorer(with_targets(plan), device)
