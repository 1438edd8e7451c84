"""How is a run shared between several workers, one process for each device?

Each worker asks for groups of shards as it gets through them, so a slow device holds nobody up. What passes between
the processes are lines of JSON; the scores go from the worker to the disk. See worker.py for the other end.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter, deque
from typing import Any

import torch

from clipsel_core import errors
from clipsel_core.errors import RunError
from clipsel_core.processes import child_environment, ending, module_command
from clipsel_core.runs.groups import Group
from clipsel_core.runs.plan import Plan
from clipsel_core.runs.status import StatusWriter
from clipsel_core.scoring.workers import usable_cores

_ATTEMPTS = 2
_SECONDS_BETWEEN_LOOKS = 0.05


def share_out(plan: Plan, groups: list[Group], status: StatusWriter) -> None:
    """Has a worker on each of the plan's devices score groups until there are none left.

    A worker that dies gives its groups back once.
    Raises: what a worker reports, RunError where a group has lost two workers. Shards that were finished stay.
    """
    desk = _Desk(groups, status)
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

    def __init__(self, groups: list[Group], status: StatusWriter) -> None:
        self.waiting, self.failures, self.status = deque(groups), list[BaseException](), status
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
                self.status.set_back(group)
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
        threads = max(1, usable_cores() // len(plan.devices)) if torch.device(device).type == "cpu" else usable_cores()
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
            self._answer(self._desk.take())
        elif "finished" in said:
            place, group = self._holding(said["finished"])
            self._desk.status.finish(next(shard for shard in group.left if shard.name == said["finished"]))
            rest = group.without(said["finished"])
            self._taken[place : place + 1] = [rest] if rest.left else []
        elif "share" in said:
            self._desk.status.advance(self._holding(said["of"])[1], said["share"])
        elif "broken" in said:
            self._last_word = f"with {said['broken']}"
        else:
            raise errors.from_parts(said["failed"])

    def _answer(self, group: Group | None) -> None:
        assert self._process.stdin is not None
        if group:
            self._taken.append(group)
        names = [[shard.name for shard in part] for part in (group.shards, group.left)] if group else None
        self._process.stdin.write(json.dumps(names) + "\n")

    def _holding(self, shard: str) -> tuple[int, Group]:
        """Which of its groups has this shard left, and its place among them."""
        return next(held for held in enumerate(self._taken) if any(shard == one.name for one in held[1].left))
