"""Who does work that comes in units: this process, a process on each device, or the nodes of a cluster?

All three have one face, `Workers`. What is done, and what a unit of it is, says `Work`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from clipsel_core.errors import LostWorkerError, RunError, ScoringError, WorkerError
from clipsel_core.places import Place
from clipsel_core.processes import Crew
from clipsel_core.tasks import Report, allowed_cores, each_in_threads, result_of, silent

AT_ONCE = 3  # units to give a worker side by side: it reads one and writes one while it computes another
_ATTEMPTS = 2
Do = Callable[[Any, Report], Any]
"""Does a unit of some work, tells how far it is with it, and gives what it found; for several threads."""


class Work(Protocol):
    """What is done in units. Pickled on its way to another process; what is large it reads there again.

    A unit is picklable, too, and its str is what errors call it. What a unit gives depends on it and the work alone.
    gives: what is expected of a unit, for errors. description: the file that says what is done, the same for all nodes.
    folder: where units' files are written; None where they are not.
    """

    @property
    def gives(self) -> str: ...

    @property
    def description(self) -> Place: ...

    @property
    def folder(self) -> Place | None: ...

    def begin(self, device: str) -> Do:
        """What does units on this device."""
        ...


class Workers(Protocol):
    """Those who do the units of some work. at_once: units to be given to `do` side by side.

    tried_again: units that were given to another worker since one was lost.
    """

    at_once: int
    tried_again: int

    def do(self, unit: Any, report: Report) -> Any:
        """Has a worker do a unit. Raises what it does, and RunError where several workers ended at it, or failed."""
        ...

    def __enter__(self) -> Workers: ...

    def __exit__(self, *ended: Any) -> bool | None: ...


@dataclass(frozen=True)
class Machines:
    """Where work is done. devices: of this machine, a worker each, all of a kind.

    cluster: a Ray cluster that does it instead, on devices of that kind: "auto" for the one that is running, "local"
        for one of this machine that ends with the work, else host:port. cpus: cores of a worker that computes on them;
        None for those of the smallest node.
    """

    devices: tuple[str, ...]
    cluster: str | None = None
    cpus: int | None = None

    def workers(self, work: Work, units: int) -> Workers:
        """Who does so many units of some work, to be entered. Raises RunError where there is no such cluster."""
        if self.cluster:
            from clipsel_core.cluster import ClusterWorkers

            return ClusterWorkers(self, work, units)
        return _Here(work, self.devices[0]) if len(self.devices) == 1 else _Processes(work, self.devices[:units])


def check_asked(device: str, cluster: str | None, cpus: int | None) -> None:
    """Raises ScoringError where devices of a cluster are asked for by name, or cores of its workers without one."""
    if cpus and not cluster:
        expected, remedy = "--cluster with it", "without a cluster, say with --device who computes"
        raise ScoringError("--cpus-per-worker", expected=expected, found="none", remedy=remedy)
    if cluster and device not in ("auto", "cpu", "cuda"):
        remedy = "a cluster takes all of its GPUs"
        raise ScoringError("--device", expected="auto, cpu or cuda for a cluster", found=device, remedy=remedy)


@contextmanager
def results(
    workers: Workers, units: Iterable[Any], told: Callable[[Any], Report] = lambda _: silent
) -> Iterator[Iterator[Any]]:
    """What each unit of some work gives, in their order. Left early, those at work end at their next `tasks.check`.

    told: the Report of a unit. Of three units side by side, one reads and one writes while another computes, where the
        work computes under a lock.
    Raises: what the first unit that fails raises; those before it are done first.
    """
    with (
        ThreadPoolExecutor(workers.at_once) as threads,
        closing(each_in_threads(threads, lambda unit: workers.do(unit, told(unit)), units)) as found,
    ):
        yield found


class _Here(AbstractContextManager):
    """This process, on one device."""

    def __init__(self, work: Work, device: str) -> None:
        self.at_once, self.tried_again, self.do = AT_ONCE, 0, work.begin(device)

    def __exit__(self, *_: object) -> None: ...


class _Processes(AbstractContextManager):
    """A process on each of some devices. One that ends is replaced."""

    def __init__(self, work: Work, devices: tuple[str, ...]) -> None:
        import torch  # it takes seconds, and not all who ask for workers need it

        threads = min(allowed_cores(), torch.get_num_threads())
        if torch.device(devices[0]).type == "cpu":
            threads = max(1, threads // len(devices))
        options: dict[str, Any] = {"at_once": AT_ONCE, "preload": [__name__, type(work).__module__], "settle": _settle}
        self._gives = work.gives
        self._crews = [Crew(1, work.gives, given=(work, device, threads), **options) for device in devices]
        self._free: SimpleQueue[tuple[str, Crew]] = SimpleQueue()
        for _ in range(AT_ONCE):
            for one in zip(devices, self._crews, strict=True):
                self._free.put(one)
        self.at_once, self.tried_again, self._counting = self._free.qsize(), 0, threading.Lock()

    def __exit__(self, *ended: Any) -> None:
        for crew in self._crews:
            crew.__exit__(*ended)

    def do(self, unit: Any, report: Report) -> Any:
        attempt = 0
        while True:
            attempt += 1
            device, crew = self._free.get()
            try:
                return result_of(crew.submit(unit, _do_there, unit, report=report))
            except WorkerError as error:
                if attempt == _ATTEMPTS:
                    is_lost = isinstance(error, LostWorkerError)
                    how = error.found.removeprefix("that its process ended ") if is_lost else f"with {error.found}"
                    look = "see whether memory runs out" if is_lost else "see with --debug where"
                    found = f"that a second worker ended there, on {device}, {how}"
                    remedy = f"{look}, then start it again to go on"
                    raise RunError(unit, expected=self._gives, found=found, remedy=remedy) from error
                with self._counting:
                    self.tried_again += 1
            finally:
                self._free.put((device, crew))


# In a worker's process: what it was given, and whoever makes what does its units.
_given: list[tuple[Work, str]] = []
_making = threading.Lock()


def _settle(work: Work, device: str, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    _given[:] = [(work, device)]


def _do_there(unit: Any, report: Report) -> Any:
    with _making:
        do = _begun()
    return do(unit, report)


@functools.cache
def _begun() -> Do:
    ((work, device),) = _given
    return work.begin(device)
