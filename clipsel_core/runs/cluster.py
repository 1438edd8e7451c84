"""How does a Ray cluster score a run's groups? An actor a GPU, or a few cores each, over folders that all nodes share.

Actors write the scores themselves: only groups go there, and only how far they are comes back. An actor gets groups
once it has said that it is ready, so one that waits for room holds none. A group whose actor was lost goes to another,
which does nothing else meanwhile: so a group that ends its actors is known for it. Ray is imported when it is needed.
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import site
import socket
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from clipsel_core import errors, files
from clipsel_core.errors import ClipselError, RunError, WorkerError, counted
from clipsel_core.processes import as_worker_error
from clipsel_core.runs.groups import AT_ONCE, GroupScorer
from clipsel_core.runs.plan import Group, Plan, versions, with_targets
from clipsel_core.runs.store import digest_of, read_config
from clipsel_core.tasks import Report, allowed_cores, check

_log = logging.getLogger(__name__)
_TRIES = 3
_SECONDS_BETWEEN_LOOKS, _SECONDS_BETWEEN_WORDS = 0.5, 0.3
# A group is given up where its actor has said nothing for so many times the median of those that were scored.
_STALLED_MEDIANS, _LEAST_STALLED_S, _FEWEST_TO_JUDGE = 10, 60.0, 3
_SECONDS_TO_START, _SECONDS_TO_CONNECT = 120.0, 10.0
_OBJECTS_BYTES = 100 << 20  # a plan is all that Ray keeps for us
_LATER = 64  # workers that may come while the run goes on, beyond those that there is room for at first


@dataclass(eq=False)
class _Ready:
    """An actor that is ready. held: groups that it has. alone: whether it is to have no other beside the one."""

    actor: Any
    held: int = 0
    alone: bool = False
    heard_s: float = 0.0


class ClusterWorkers(AbstractContextManager):
    """Actors on a cluster's nodes. One that is lost is replaced, where and when there is room.

    One more than there is room for is always asked for, so that a node that comes later takes part.

    address: "auto" for the cluster that is running, "local" for one of this machine that ends with this, else
        host:port. cpus: cores of an actor that computes on them; None for those of the smallest node.
    at_once: groups to be given to `score_and_write` side by side. tried_again: groups that were given to another actor.
    Raises: RunError where there is no Ray, no such cluster, or nothing in it to compute on.
    """

    def __init__(self, address: str, cpus: int | None, plan: Plan, groups: int) -> None:
        self._changed = threading.Condition()
        self._ready: list[_Ready] = []
        self._starting: dict[Any, threading.Thread] = {}
        self._waiting_to_be_alone, self._lost_at_start, self._since = 0, 0, time.monotonic()
        self._failure: ClipselError | None = None
        self._left = False
        self._seconds: deque[float] = deque(maxlen=100)
        self.tried_again = 0
        self._root = plan.root
        self._ray, self._is_ours = _connect(address)
        try:
            self._wanted, count = self._resources(plan, cpus)
            self._given = self._ray.put(replace(plan, targets={}))
            threads = self._wanted["num_cpus"] or None
            options = {**self._wanted, "max_concurrency": AT_ONCE + 1, "max_restarts": 0}
            kind = self._ray.remote(_Actor).options(**options)
            self._make: Callable[[], Any] = lambda: kind.remote(self._given, threads)
            self._most = min(groups, max(count, _LATER))
            for _ in range(min(count, groups)):
                self._start()
        except BaseException:
            self.__exit__()
            raise
        self.at_once = min(groups, self._most * AT_ONCE)

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._left, starting = True, dict(self._starting)
            actors = [*starting, *(ready.actor for ready in self._ready)]
        for actor in actors:
            self._ray.kill(actor)
        for thread in starting.values():
            thread.join()
        if self._is_ours:
            self._ray.shutdown()
        files.remove_leftovers(self._root / "scores")

    def score_and_write(self, group: Group, report: Report) -> None:
        """As GroupScorer.score_and_write, there. Raises RunError where three actors were lost at it, or failed."""
        shards = ", ".join(shard.name for shard in group.left)
        how = ""
        for attempt in range(1, _TRIES + 1):
            ready = self._take(alone=attempt > 1)
            began = time.monotonic()
            try:
                self._have_scored(ready, group, report)
                self._seconds.append(time.monotonic() - began)
                return
            except (WorkerError, TimeoutError, self._ray.exceptions.RayError) as error:
                how = error.found if isinstance(error, WorkerError) else _reason(error)
                if not isinstance(error, WorkerError):
                    self._replace(ready)
            finally:
                with self._changed:
                    ready.held, ready.alone = ready.held - 1, False
                    self._changed.notify_all()
            if attempt < _TRIES:
                with self._changed:
                    self.tried_again += 1
                _log.warning("%s: scored again by another worker: %s", shards, how)
        remedy = "see whether memory runs out, and Ray's logs, then start it again to go on"
        raise RunError(shards, expected="scores", found=f"that a third worker failed there: {how}", remedy=remedy)

    def _resources(self, plan: Plan, cpus: int | None) -> tuple[dict[str, int], int]:
        """What an actor takes, in Ray's words, and how many of them there is room for."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        if torch.device(plan.config.device).type == "cuda":
            wanted, count, expected = {"num_gpus": 1, "num_cpus": 0}, gpus, "a GPU"
        else:
            if gpus:
                _log.warning("--cluster: %s without work; start it where there is one", counted(gpus, "GPUs"))
            cores = [int(node.get("CPU", 0)) for node in nodes]
            each = cpus or min((some for some in cores if some), default=1)
            wanted, count = {"num_cpus": each}, sum(some // each for some in cores)
            expected = f"a node with {counted(each, 'cores')}"
        if not count:
            raise RunError("--cluster", expected=expected, found=f"none in {counted(len(nodes), 'nodes')}")
        return wanted, count

    def _start(self) -> None:
        """Asks for one more actor. It is among the ready ones when it says so."""
        with self._changed:
            if not self._left:
                actor = self._make()
                self._starting[actor] = threading.Thread(target=self._welcome, args=(actor,), daemon=True)
                self._starting[actor].start()

    def _welcome(self, actor: Any) -> None:
        """Waits until an actor is ready, however long there is no room for it."""
        failure: ClipselError | OSError | None = None
        try:
            kind, said = self._ray.get(actor.begin.remote())
            failure = errors.from_parts(said) if kind == "failed" else None
            lost = ""
        except self._ray.exceptions.RayError as error:
            lost = _reason(error)
        with self._changed:
            del self._starting[actor]
            if isinstance(failure, OSError):
                failure = RunError(
                    failure.filename or "--cluster", expected="to begin", found=errors.reason_of(failure)
                )
            self._lost_at_start = self._lost_at_start + 1 if lost else 0
            if lost and self._lost_at_start < _TRIES:
                self._start()
            elif lost and not self._ready and not self._starting:
                remedy = "see Ray's logs, and whether every node has clipsel and memory"
                failure = RunError("--cluster", expected="workers that start", found=lost, remedy=remedy)
            elif not lost and not failure:
                self._ready.append(_Ready(actor))
                if not self._starting and len(self._ready) < self._most:
                    self._start()
            self._failure = self._failure or failure
            self._changed.notify_all()

    def _take(self, alone: bool) -> _Ready:
        """An actor that has room for a group, the one with the fewest; for one to be scored alone, one without any."""
        with self._changed:
            self._waiting_to_be_alone += alone
            try:
                while True:
                    check()
                    if self._failure:
                        raise self._failure
                    most = 0 if alone else AT_ONCE - 1
                    free = [ready for ready in self._ready if ready.held <= most and not ready.alone]
                    if free and (alone or not self._waiting_to_be_alone):
                        ready = min(free, key=lambda one: one.held)
                        ready.held, ready.alone, ready.heard_s = ready.held + 1, alone, time.monotonic()
                        return ready
                    if self._ready:
                        self._since = time.monotonic()
                    elif time.monotonic() - self._since > _SECONDS_TO_START:
                        self._since = math.inf
                        _log.warning("--cluster: no node has room yet for a worker of %s", self._wanted)
                    self._changed.wait(_SECONDS_BETWEEN_LOOKS)
            finally:
                self._waiting_to_be_alone -= alone

    def _have_scored(self, ready: _Ready, group: Group, report: Report) -> None:
        """Raises what the actor does; RayError where it is lost; TimeoutError where it has stalled."""
        words = ready.actor.score.options(num_returns="streaming").remote(group)
        while True:
            (heard, _) = self._ray.wait([words], timeout=_SECONDS_BETWEEN_LOOKS)
            check()
            if not heard:
                silent_s = time.monotonic() - ready.heard_s
                limit_s = math.inf
                if len(self._seconds) >= _FEWEST_TO_JUDGE:
                    limit_s = max(_LEAST_STALLED_S, _STALLED_MEDIANS * statistics.median(list(self._seconds)))
                if silent_s > limit_s:
                    raise TimeoutError(f"nothing was heard of it for {silent_s:.0f} s")
                continue
            kind, said = self._ray.get(next(words))
            ready.heard_s = time.monotonic()
            if kind == "done":
                return
            if kind == "failed":
                raise errors.from_parts(said)
            report(*said)

    def _replace(self, lost: _Ready) -> None:
        """Asks for another actor in the place of one that is lost, or not to be waited for any longer."""
        with self._changed:
            if lost in self._ready:
                self._ready.remove(lost)
                self._ray.kill(lost.actor)
                self._start()


def _connect(address: str) -> tuple[Any, bool]:
    """Ray, connected, and whether it was connected here. Nothing of it goes to the terminal, and none of it home."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address == "local":
        # Despite its name: Ray's processes then listen on the loopback address alone, which it has no option for.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
        from ray.job_config import JobConfig
    except ImportError as error:
        remedy = "pip install 'clipsel[cluster]'"
        raise RunError("--cluster", expected="Ray", found=str(error), remedy=remedy) from error
    if ray.is_initialized():
        return ray, False
    # It prints what becomes of its workers, whatever `log_to_driver` says; we say that in our own words.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None

    class Job(JobConfig):
        """Keeps the current folder from actors' imports: somebody's queue.py would be taken for the library's."""

        def _runtime_env_has_working_dir(self) -> bool:
            return True

    package = str(Path(__file__).parents[2])
    here = [] if package in site.getsitepackages() else [package]
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"num_cpus": allowed_cores(), "include_dashboard": False, "object_store_memory": _OBJECTS_BYTES}
    is_main = threading.current_thread() is threading.main_thread()
    ending = signal.getsignal(signal.SIGTERM)
    try:
        host, colon, port = address.rpartition(":")
        if colon:  # Ray would try for minutes
            socket.create_connection((host, int(port)), _SECONDS_TO_CONNECT).close()
        ray.init(address=address, job_config=Job(_py_driver_sys_path=here), **options)
    except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        found = str(error).strip().split("\n")[0] or type(error).__name__
        remedy = "start Ray on this machine and the others (ray start), or give --cluster local"
        raise RunError(f"--cluster {address}", expected="a Ray cluster", found=found, remedy=remedy) from error
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, ending)
    return ray, True


def _reason(error: Exception) -> str:
    """Why an actor was lost, in a few words, of what Ray says in many."""
    said = str(error).strip()
    found = re.search(r"The actor (?:is dead|died) because (.+?)(?:\.\s|\.$|\n|$)", said)
    if found and "creation task" not in found[1]:
        return found[1]
    return said.split("\n")[-1] or type(error).__name__


class _Actor:
    """In a process of the cluster: keeps the scorer of a plan. threads: to compute with; None for all of the node's."""

    def __init__(self, plan: Plan, threads: int | None) -> None:
        self._plan, self._threads = plan, threads or allowed_cores()
        self._scorer: GroupScorer | None = None

    def begin(self) -> tuple[str, Any]:
        """Makes the scorer. Returns ("done", None) or ("failed", parts of an error)."""

        def make() -> None:
            plan, node = self._plan, f"node {socket.gethostname()}"
            was, now = plan.config.versions, versions()
            if other := [name for name in {**was, **now} if was.get(name) != now.get(name)]:
                expected, found = (", ".join(f"{name} {side.get(name)}" for name in other) for side in (was, now))
                raise RunError(node, expected=f"{expected}, as where it was started", found=found)
            try:
                is_same = digest_of(read_config(plan.root)) == digest_of(plan.config)
            except RunError:
                is_same = False
            if not is_same:
                expected, remedy = f"the run in {plan.root}", "score into a folder that all nodes share"
                raise RunError(node, expected=expected, found="none there, or another", remedy=remedy)
            # What nobody on this node holds there may be in work on another.
            files.leave_asides(plan.root / "scores")
            torch.set_num_threads(self._threads)
            is_on_gpu = torch.device(plan.config.device).type == "cuda"
            self._scorer = GroupScorer(with_targets(plan), "cuda:0" if is_on_gpu else "cpu")

        return _outcome("a worker", make)

    def score(self, group: Group) -> Iterator[tuple[str, Any]]:
        """Scores a group. Yields ("told", what a Report is told), a few times a second, and at the end as `begin`."""
        words = SimpleQueue[tuple[str, Any]]()

        def score() -> None:
            assert self._scorer is not None
            self._scorer.score_and_write(group, lambda *said: words.put(("told", said)))

        shards = ", ".join(shard.name for shard in group.left)
        threading.Thread(target=lambda: words.put(_outcome(shards, score)), daemon=True).start()
        said_s = 0.0
        while (word := words.get())[0] == "told":
            if time.monotonic() - said_s > _SECONDS_BETWEEN_WORDS:
                said_s = time.monotonic()
                yield word
        yield word


def _outcome(where: str, work: Callable[[], object]) -> tuple[str, Any]:
    try:
        with as_worker_error(where, "scores"):
            work()
    except (ClipselError, OSError) as error:
        return "failed", errors.parts(error)
    return "done", None
