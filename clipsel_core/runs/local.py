"""How is a run carried out on this machine? Group after group of shards, each shard's scores written whole.

A run that was stopped goes on with the shards that have no scores yet. Of several devices each has a worker, a process
of its own, which asks for groups as it gets through them: a slow device holds nobody up. Between the processes pass
lines of JSON (see worker.py); the scores go from the worker to the disk.
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from clipsel_core import errors, files
from clipsel_core.counts import counted
from clipsel_core.errors import ClipselError, PoolFormatError, RunError
from clipsel_core.pool.layout import Shard
from clipsel_core.processes import child_environment, ending, module_command
from clipsel_core.runs.plan import Group, Plan, groups_left, nothing_scored, plan_run
from clipsel_core.runs.score_group import GroupScorer
from clipsel_core.runs.seal import SealedFiles, keep_whole
from clipsel_core.runs.store import Run, read_config, read_counts, score_file, write_config
from clipsel_core.runs.worker import work_through
from clipsel_core.scoring.threads import thread_count
from clipsel_core.status import StatusFile
from clipsel_core.tasks import Report, silent

_log = logging.getLogger(__name__)
_ATTEMPTS = 2
_SECONDS_BETWEEN_LOOKS = 0.05


def score(pool: str | Path, root: str | Path, *, report: Report = silent, **options: Any) -> Run:
    """Scores a pool into a run's folder, or goes on with what was begun there.

    A run that is killed and started again has, byte for byte, the scores of one that was left alone.

    report: told the pairs done, those of shards in work by the share of their work that is done, and the shards;
        status.json says the same. options: those of `plan_run`.
    Raises: what `plan_run` raises; PoolFormatError on a shard that cannot be scored; RunError where another process
        is at work in the folder, or it cannot be written. Shards that were finished stay.
    """
    root = Path(root)
    try:
        with files.made_folder(root), sole_worker(root):
            begun = read_config(root) if (root / "run.json").exists() else None
            if begun:
                keep_whole(SealedFiles(root, begun))
            plan = plan_run(pool, root, **options)
            files.remove_leftovers(root, root / "scores")
            for name in ("cache", "exports", "index", "recipes", "searches"):
                if (root / name).is_dir():
                    files.remove_abandoned(root / name)
            if begun is None or nothing_scored(root) or begun.shards != plan.config.shards:
                write_config(root, plan.config)
            status = StatusFile(root / "status.json", "scoring")

            def tell(done: int, total: int, unit: str = "", note: str = "", /) -> None:
                status.report(done, total, unit, note)
                report(done, total, unit, note)

            try:
                _score_groups(plan, tell)
                status.close("done")
            except KeyboardInterrupt:
                status.close("stopped", "interrupted; start it again to go on")
                raise
            except (ClipselError, OSError) as error:
                status.close("failed", str(error))
                raise
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


class Tally:
    """Counts the pairs of a run that are done, and reports them. Any thread may tell it."""

    def __init__(self, shards: Sequence[Shard], left: Sequence[Shard], report: Report) -> None:
        self._report, self._guard, self._in_work = report, threading.RLock(), dict[str, int]()
        self._pairs_in_all, self._shards_in_all = sum(shard.rows for shard in shards), len(shards)
        self._pairs = self._pairs_in_all - sum(shard.rows for shard in left)
        self._shards = len(shards) - len(left)
        self._tell()

    def advance(self, group: Group, share: float) -> None:
        """Notes that a share, in [0, 1], of a group's work is done."""
        with self._guard:
            self._in_work |= {shard.name: int(share * shard.rows) for shard in group.left}
            self._tell()

    def finish(self, shard: Shard) -> None:
        """Notes that a shard's scores are kept."""
        with self._guard:
            self._in_work.pop(shard.name, None)
            self._pairs += shard.rows
            self._shards += 1
            self._tell()

    def set_back(self, group: Group) -> None:
        """Notes that a group's work was lost with its worker."""
        with self._guard:
            for shard in group.left:
                self._in_work.pop(shard.name, None)

    def _tell(self) -> None:
        done, shards = self._pairs + sum(self._in_work.values()), f"{self._shards:,} of {self._shards_in_all:,} shards"
        self._report(done, self._pairs_in_all, "pairs", shards)


def _score_groups(plan: Plan, report: Report) -> None:
    """Scores what is left: one worker here, several in processes of their own. Then notes how many rows were skipped.

    Raises: PoolFormatError where no pair was scored; the files without scores are taken away.
    """
    root, shards = plan.root, plan.pool.shards
    groups = groups_left(root, shards, plan.config.mix_shards)
    left = [shard for group in groups for shard in group.left]
    tally = Tally(shards, left, report)
    if groups and len(plan.devices) == 1:
        work_through(root, GroupScorer(plan, plan.devices[0]), groups, tally)
    elif groups:
        _share_out(plan, groups, tally)
    counts = {shard.name: read_counts(score_file(root, shard.name)) for shard in shards}
    if plan.config.on_bad_rows != "scale":
        scaled = [(shard.name, counts[shard.name]["renormalised"]) for shard in left]
        for name, rows in [found for found in scaled if found[1]][:1]:  # the first is example enough
            _log.warning("shard %s: %d rows a little off unit length were scaled to it", name, rows)
    skipped = sum(count["skipped"] for count in counts.values())
    if skipped and skipped >= plan.pool.rows:
        for shard in shards:
            score_file(root, shard.name).unlink(missing_ok=True)
        remedy = "see what clipsel inspect says; --on-bad-rows scale takes rows of any length"
        found = f"all {counted(skipped, 'pairs')} set aside"
        raise PoolFormatError(plan.pool.root, expected="a pair that can be scored", found=found, remedy=remedy)
    write_config(root, plan.config.model_copy(update={"skipped_rows": skipped}))


def _share_out(plan: Plan, groups: list[Group], tally: Tally) -> None:
    """Has a worker on each of the plan's devices score groups until there are none left.

    A worker that dies gives its groups back once.
    Raises: what a worker reports, RunError where a group has lost two workers. Shards that were finished stay.
    """
    desk = _Desk(groups, tally)
    while desk.waiting and not desk.failures:
        workers = [_Worker(plan, device, desk) for device in plan.devices[: len(desk.waiting)]]
        try:
            while not desk.failures and any(worker.thread.is_alive() for worker in workers):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            for worker in workers:
                worker.stop()
    if desk.failures:
        raise desk.failures[0]


class _Desk:
    """Which groups wait, and what the workers said of the others."""

    def __init__(self, groups: list[Group], tally: Tally) -> None:
        self.waiting, self.failures, self.tally = deque(groups), list[BaseException](), tally
        self._lost: Counter[str] = Counter()
        self._guard = threading.Lock()

    def take(self) -> Group | None:
        with self._guard:
            return self.waiting.popleft() if self.waiting and not self.failures else None

    def give_back(self, groups: list[Group], device: str, how: str, look: str) -> None:
        """Groups whose worker has ended; the first of them is the one that it was computing.

        how: it ended. look: what to do before another try.
        """
        with self._guard:
            for group in groups:
                self.tally.set_back(group)
            self.waiting.extendleft(reversed(groups))
            lost = ", ".join(shard.name for shard in groups[0].left) if groups else f"a worker on {device}"
            self._lost[lost] += 1
            if self._lost[lost] >= _ATTEMPTS:
                remedy = f"{look}, then start it again to go on"
                found = f"that a second worker ended there, on {device}, {how}"
                self.failures.append(RunError(lost, expected="scores", found=found, remedy=remedy))


class _Worker:
    """One worker's process, and the thread that attends to it."""

    def __init__(self, plan: Plan, device: str, desk: _Desk) -> None:
        self._device, self._desk, self._taken = device, desk, list[Group]()
        threads = max(1, thread_count() // len(plan.devices)) if torch.device(device).type == "cpu" else thread_count()
        checks = int(plan.check_similarity)
        command = module_command("clipsel_core.runs.worker", plan.root, device, threads, checks)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self._process = subprocess.Popen(command, env=child_environment(), **pipes)
        self._last_word = ""
        self.thread = threading.Thread(target=self._attend, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ends the process where it has not ended, and waits for it."""
        self._process.kill()
        self.thread.join()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def _attend(self) -> None:
        try:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                # What it was killed while saying is half a line.
                if line.endswith("\n"):
                    self._hear(json.loads(line))
        except BrokenPipeError:
            pass  # it ended between asking and being answered
        except BaseException as error:
            self._desk.failures.append(error)
            self._process.kill()
        code = self._process.wait()
        if (self._taken or code) and not self._desk.failures:
            look = "see with --debug where" if self._last_word else "see whether memory runs out"
            self._desk.give_back(self._taken, self._device, self._last_word or ending(code), look)

    def _hear(self, said: dict[str, Any]) -> None:
        if "asks" in said:
            group = self._desk.take()
            self._taken += [group] if group else []
            names = [[shard.name for shard in part] for part in (group.shards, group.left)] if group else None
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(names) + "\n")
        elif "finished" in said:
            place, group = self._holding(said["finished"])
            self._desk.tally.finish(next(shard for shard in group.left if shard.name == said["finished"]))
            rest = group.without(said["finished"])
            self._taken[place : place + 1] = [rest] if rest.left else []
        elif "share" in said:
            self._desk.tally.advance(self._holding(said["of"])[1], said["share"])
        elif "broken" in said:
            self._last_word = f"with {said['broken']}"
        else:
            raise errors.from_parts(said["failed"])

    def _holding(self, shard: str) -> tuple[int, Group]:
        """Which of its groups has this shard left, and its place among them."""
        return next(held for held in enumerate(self._taken) if any(shard == one.name for one in held[1].left))
