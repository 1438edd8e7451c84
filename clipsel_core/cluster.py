"""How does a Ray cluster do work that comes in units? An actor a GPU, or a few cores each, over shared folders.

Actors write files themselves: only units go there, and only how far they are and what little they found comes back. An
actor gets units once it has said that it is ready, so one that waits for room holds none. A unit whose actor was lost
goes to another, which does nothing else meanwhile: so a unit that ends its actors is known for it. Ray is imported when
it is needed.
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
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from clipsel_core import errors, files
from clipsel_core.errors import ClipselError, RunError, WorkerError, counted
from clipsel_core.processes import as_worker_error, versions
from clipsel_core.tasks import Report, allowed_cores, check
from clipsel_core.workers import AT_ONCE, Do, Machines, Work

_log = logging.getLogger(__name__)
_TRIES = 3
_SECONDS_BETWEEN_LOOKS, _SECONDS_BETWEEN_WORDS = 0.5, 0.3
# A unit is given up where its actor has said nothing for so many times the median of those that were done.
_STALLED_MEDIANS, _LEAST_STALLED_S, _FEWEST_TO_JUDGE = 10, 60.0, 3
_SECONDS_TO_START, _SECONDS_TO_CONNECT = 120.0, 10.0
_OBJECTS_BYTES = 100 << 20  # the work is all that Ray keeps for us
_LATER = 64  # workers that may come while the work goes on, beyond those that there is room for at first


@dataclass(eq=False)
class _Ready:
    """An actor that is ready. held: units that it has. alone: whether it is to have no other beside the one."""

    actor: Any
    held: int = 0
    alone: bool = False
    heard_s: float = 0.0


class ClusterWorkers(AbstractContextManager):
    """Actors on a cluster's nodes, as `workers.Workers`. One that is lost is replaced, where and when there is room.

    One more than there is room for is always asked for, so that a node that comes later takes part.

    Raises: RunError where there is no Ray, no such cluster, or nothing in it to compute on.
    """

    def __init__(self, machines: Machines, work: Work, units: int) -> None:
        self._changed, self._turn = threading.Condition(), threading.Lock()
        self._ready: list[_Ready] = []
        self._starting: dict[Any, threading.Thread] = {}
        self._waiting_to_be_alone, self._lost_at_start, self._since = 0, 0, time.monotonic()
        self._failure: ClipselError | None = None
        self._left = False
        self._seconds: deque[float] = deque(maxlen=100)
        self.tried_again = 0
        self._gives, self._folder, is_on_gpu = work.gives, work.folder, _is_on_gpu(machines)
        self._ray, self._is_ours = _connect(machines.cluster or "")
        try:
            self._wanted, count = _resources(self._ray, machines)
            device, threads = "cuda:0" if is_on_gpu else "cpu", self._wanted["num_cpus"] or _cores_beside(self._ray)
            self._given = self._ray.put(_Given(work, device, threads, versions(), work.description.sha256()))
            options = {**self._wanted, "max_concurrency": AT_ONCE + 1, "max_restarts": 0}
            kind = self._ray.remote(_Actor).options(**options)
            self._make: Callable[[], Any] = lambda: kind.remote(self._given)
            self._most = min(units, max(count, _LATER))
            for _ in range(min(count, units)):
                self._start()
        except BaseException:
            self.__exit__()
            raise
        self.at_once = min(units, self._most * AT_ONCE)

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
        if self._folder and not self._folder.remote:
            files.remove_leftovers(Path(self._folder))

    def do(self, unit: Any, report: Report) -> Any:
        """Has an actor do a unit. Raises what that does, and RunError where three actors were lost at it, or failed."""
        how = ""
        for attempt in range(1, _TRIES + 1):
            ready = self._take(alone=attempt > 1)
            began = time.monotonic()
            try:
                found = self._have_done(ready, unit, report)
                self._seconds.append(time.monotonic() - began)
                return found
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
                _log.warning("%s: tried again by another worker: %s", unit, how)
        remedy = "see whether memory runs out, and Ray's logs, then start it again to go on"
        raise RunError(unit, expected=self._gives, found=f"that a third worker failed there: {how}", remedy=remedy)

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
        """An actor that has room for a unit, the one with the fewest; for one to be done alone, one without any."""
        # One at a time waits for a change: each of hundreds of threads would look at each of them.
        with nullcontext() if alone else self._turn, self._changed:
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

    def _have_done(self, ready: _Ready, unit: Any, report: Report) -> Any:
        """What a unit gives. Raises what the actor does, RayError where it is lost, TimeoutError where it stalls."""
        words = ready.actor.do.options(num_returns="streaming").remote(unit)
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
                return said
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


def room_in(machines: Machines) -> tuple[int, int, int]:
    """How many workers a cluster has room for, the cores of each (0 where it has a GPU), and nodes with room for one.

    Raises: RunError as ClusterWorkers.
    """
    ray, is_ours = _connect(machines.cluster or "")
    try:
        wanted, count = _resources(ray, machines)
        least = {"CPU": wanted["num_cpus"], "GPU": wanted.get("num_gpus", 0)}
        has = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = sum(all(node.get(name, 0) >= amount for name, amount in least.items()) for node in has)
        return count, least["CPU"], nodes
    finally:
        if is_ours:
            ray.shutdown()


def _is_on_gpu(machines: Machines) -> bool:
    return machines.devices[0].startswith("cuda")


def _resources(ray: Any, machines: Machines) -> tuple[dict[str, int], int]:
    """What an actor takes, in Ray's words, and how many of them there is room for."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if _is_on_gpu(machines):
        wanted, count, expected = {"num_gpus": 1, "num_cpus": 0}, gpus, "a GPU"
    else:
        if gpus:
            _log.warning("--cluster: %s without work, as it computes on the CPU", counted(gpus, "GPUs"))
        cores = [int(node.get("CPU", 0)) for node in nodes]
        each = machines.cpus or min((some for some in cores if some), default=1)
        wanted, count = {"num_cpus": each}, sum(some // each for some in cores)
        expected = f"a node with {counted(each, 'cores')}"
    if not count:
        raise RunError("--cluster", expected=expected, found=f"none in {counted(len(nodes), 'nodes')}")
    return wanted, count


def _cores_beside(ray: Any) -> int | None:
    """The cores that a node has for each of its GPUs, the fewest; None where it says of no core."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    return min((max(1, int(node["CPU"] // node["GPU"])) for node in nodes if node.get("CPU")), default=None)


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

    package = str(Path(__file__).parents[1])
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
    if full := re.search(r"Memory on the node \(IP: ([^,)]+).*?\) was (\S+) used / (\S+) limit", said):
        return f"memory ran out on the node {full[1]}, {full[2]} of {full[3]} in use, where Ray ended it"
    found = re.search(r"The actor (?:is dead|died) because (.+?)(?:\.\s|\.$|\n|$)", said)
    if found and "creation task" not in found[1]:
        return found[1]
    return said.split("\n")[-1] or type(error).__name__


@dataclass(frozen=True)
class _Given:
    """What an actor is made from. threads: to compute with; None for all of the node's.

    versions, digest: of the libraries and of the work's description, as they are where it was started.
    """

    work: Work
    device: str
    threads: int | None
    versions: dict[str, str]
    digest: str


class _Actor:
    """In a process of the cluster: keeps what does the units of some work."""

    def __init__(self, given: _Given) -> None:
        self._given = given
        self._do: Do | None = None

    def begin(self) -> tuple[str, Any]:
        """Gets ready. Returns ("done", None) or ("failed", parts of an error)."""
        return _outcome("a worker", self._given.work.gives, self._begin)

    def _begin(self) -> None:
        import torch

        given, node = self._given, f"node {socket.gethostname()}"
        was, now, file = given.versions, versions(), given.work.description
        if other := [name for name in {**was, **now} if was.get(name) != now.get(name)]:
            expected, found = (", ".join(f"{name} {side.get(name)}" for name in other) for side in (was, now))
            raise RunError(node, expected=f"{expected}, as where it was started", found=found)
        if not file.exists() or file.sha256() != given.digest:
            expected, remedy = f"{file}, as where it was started", "keep runs and pools in folders that all nodes share"
            raise RunError(node, expected=expected, found="none there, or another", remedy=remedy)
        # What nobody on this node holds there may be in work on another.
        if given.work.folder and not given.work.folder.remote:
            files.leave_asides(Path(given.work.folder))
        torch.set_num_threads(given.threads or allowed_cores())
        self._do = given.work.begin(given.device)

    def do(self, unit: Any) -> Iterator[tuple[str, Any]]:
        """Does a unit. Yields ("told", what a Report is told), a few times a second, and at the end as `begin`.

        What the unit gives is in the place of None then.
        """
        words = SimpleQueue[tuple[str, Any]]()

        def do() -> Any:
            assert self._do is not None
            return self._do(unit, lambda *said: words.put(("told", said)))

        gives = self._given.work.gives
        threading.Thread(target=lambda: words.put(_outcome(str(unit), gives, do)), daemon=True).start()
        said_s = 0.0
        while (word := words.get())[0] == "told":
            if time.monotonic() - said_s > _SECONDS_BETWEEN_WORDS:
                said_s = time.monotonic()
                yield word
        yield word


def _outcome(where: str, expected: str, work: Callable[[], Any]) -> tuple[str, Any]:
    try:
        with as_worker_error(where, expected):
            return "done", work()
    except (ClipselError, OSError) as error:
        return "failed", errors.parts(error)
