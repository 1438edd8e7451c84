"""How does long work say how far it is, how is it asked to stop, and how many cores may it take? In a thread, a process
and a job alike.

Work that takes long is given a `Report` and calls it as it goes on; loops deep within it call `check` between their
parts. It ends with a value, with an error (a ClipselError, where it was foreseen), or with `Stopped`. Slow steps of it
are kept some items ahead of whoever takes their results: `in_order`.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from itertools import islice
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

Value = TypeVar("Value")
Item = TypeVar("Item")
Result = TypeVar("Result")

_AT_ONCE_S = 0.4
_SECONDS_BETWEEN_CHECKS = 0.1
_PARTS = 10_000  # so finely is a share told
_GROUPS, _MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_is_unwanted: ContextVar[Callable[[], object]] = ContextVar("is unwanted", default=lambda: False)


class Stopped(KeyboardInterrupt):
    """Somebody asked the work to stop. As after an interrupt from the keyboard, no handler of errors swallows it."""


class Report(Protocol):
    """Told how far work is. What it raises ends the work."""

    def __call__(self, done: int, total: int, unit: str = "", note: str = "", /) -> object:
        """`done` of `total` is done, counted in `unit` ("pairs"), or in "" where the two are but a share.

        note: what goes on now.
        """


def silent(done: int, total: int, unit: str = "", note: str = "", /) -> None:
    """The Report of work that nobody watches."""


def part_of(report: Report, first: float, last: float, note: str = "") -> Report:
    """The Report of a part of some work: its whole is from `first` to `last` of the work, shares from 0 to 1."""

    def told(done: int, total: int, unit: str = "", said: str = "", /) -> None:
        share = first + (last - first) * (done / total if total else 0.0)
        report(round(share * _PARTS), _PARTS, "", said or note)

    return told


def check() -> None:
    """Raises Stopped where the task that this is a part of was asked to stop."""
    if _is_unwanted.get()():
        raise Stopped


@contextmanager
def stoppable(is_unwanted: Callable[[], object]) -> Iterator[None]:
    """What this thread does within it is stopped at its next `check` once `is_unwanted` says so, or its task is."""
    outer = _is_unwanted.get()
    before = _is_unwanted.set(lambda: is_unwanted() or outer())
    try:
        yield
    finally:
        _is_unwanted.reset(before)


def carried(work: Callable[..., Value]) -> Callable[..., Value]:
    """The same work, for other threads: it is a part of this thread's task there, and stops with it."""
    context = copy_context()
    return lambda *arguments: context.copy().run(work, *arguments)


def in_threads(threads: Executor, work: Callable[..., Value], *items: Iterable) -> list[Value]:
    """As list(threads.map(work, *items)), each of them a part of this thread's task; see `each_in_threads`."""
    return list(each_in_threads(threads, work, *items))


def each_in_threads(threads: Executor, work: Callable[..., Value], *items: Iterable) -> Generator[Value, None, None]:
    """As threads.map(work, *items), each of them a part of this thread's task; to be closed by whoever leaves it early.

    Where one fails, those after it are asked to stop. Where it ends early, no part is at work any more: what they wrote
    to is free again.
    """
    left = threading.Event()

    def do(*part: object) -> Value:
        with stoppable(left.is_set):
            return work(*part)

    parts = deque(threads.submit(carried(do), *part) for part in zip(*items, strict=False))
    try:
        while parts:
            check()
            found = parts[0].result()
            parts.popleft()  # whoever takes it may be done with it before the next one is there
            yield found
    except BaseException:
        left.set()
        wait([part for part in parts if not part.cancel()])
        for part in parts:
            # What fails beside an interrupted part, such as one in the same process, fails because of it.
            error = None if part.cancelled() else part.exception()
            if isinstance(error, KeyboardInterrupt) and not isinstance(error, Stopped):
                raise error from None
        raise


class Done(NamedTuple, Generic[Result]):
    """A result that is there, for `in_order`: a future would take as long as a simple step itself."""

    value: Result

    def result(self) -> Result:
        """It."""
        return self.value


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last one shorter; no more of them is read than the next list."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def in_order(
    items: Iterable[Item],
    submit: Callable[[Item], Future[Result] | Done[Result]],
    depth: int,
    *,
    failed: Callable[[Item, Exception], Result] | None = None,
) -> Iterator[tuple[Item, Result]]:
    """Each item with the result of its work, in the items' order; at most `depth` are under way or waiting.

    failed: gives the result of work that raised; without it the error ends all.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor() as threads:
    ...     list(in_order("ab", lambda item: threads.submit(str.upper, item), depth=2))
    [('a', 'A'), ('b', 'B')]
    """
    rest = iter(items)
    waiting = deque((item, submit(item)) for item in islice(rest, max(1, depth)))
    while waiting:
        item, future = waiting.popleft()
        try:
            result = future.result()
        except Exception as error:
            if failed is None:
                raise
            result = failed(item, error)
        yield item, result
        waiting.extend((item, submit(item)) for item in islice(rest, 1))


def result_of(answer: Future[Value]) -> Value:
    """What another thread or process ends with. Raises its error, and Stopped where this task is asked to stop."""
    while wait([answer], _SECONDS_BETWEEN_CHECKS).not_done:
        check()
    return answer.result()


class Task(Generic[Value]):
    """Work that a thread of this process does once, while anybody watches it, or stops it.

    share, note: what it reported last, the share from 0 to 1. finished: whether it ended with its value.
    error: why it failed, if it did.
    """

    def __init__(self, work: Callable[[Report], Value]) -> None:
        self.share, self.note = 0.0, ""
        self.value: Value | None = None
        self.error: Exception | None = None
        self.finished = False
        self._work = work
        self._asked = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def active(self) -> bool:
        """Whether it is being done now."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def stopped(self) -> bool:
        """Whether somebody stopped it before its end."""
        return self._asked.is_set() and not self.finished

    def begin(self) -> None:
        """Starts it, the first time that somebody looks; what takes a moment only is done before this returns."""
        if self._thread is None:
            self.start()
            self.wait(_AT_ONCE_S)

    def start(self) -> None:
        """Starts it, or goes on with it after a stop; nothing where it is at work or done."""
        with self._lock:
            if self.finished or (self.active and not self._asked.is_set()):
                return
            if self._thread is not None:
                self._thread.join()
            self._asked.clear()
            self.error = None
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stops it at its next report or check."""
        self._asked.set()

    def wait(self, seconds: float) -> None:
        """Waits for its end, but no longer than this."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            with stoppable(self._asked.is_set):
                self.value = self._work(self._report)
            self.finished = True
        except Stopped:
            pass  # `stopped` says so
        except Exception as error:  # Whatever it is, who waits for it has to hear of it.
            self.error = error

    def _report(self, done: int, total: int, unit: str = "", note: str = "", /) -> None:
        check()
        self.share, self.note = min(1.0, done / total) if total else 0.0, note


def allowed_cores() -> int:
    """Cores that this process may compute on at a time, at least 1.

    The cores it is bound to (taskset, cpusets), and no more than its control groups have time for, as containers set
    it (`docker --cpus 2.5` is 3 here). The quota is read once per process.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(bound, math.ceil(_quota(_MEMBERSHIP, _GROUPS))))


@functools.cache
def _quota(membership: Path, groups: Path) -> float:
    """The least time, in cores, that a control group of this process or one above it allows; many where none does."""
    found = float(1 << 20)
    for line in lines_of(membership):  # none where this is no Linux, or nothing can be seen
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 1 of control groups has a folder for each controller, version 2 one for all.
        base = groups / "cpu" if controllers else groups
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        for folder in (base / path.lstrip("/"), *(base / path.lstrip("/")).parents):
            if not folder.is_relative_to(base):
                continue
            words = [word for name in names for line in lines_of(folder / name) for word in line.split()]
            if len(words) == 2 and words[0] != "max" and int(words[0]) > 0:
                found = min(found, int(words[0]) / int(words[1]))
    return found


def lines_of(file: Path) -> list[str]:
    """The lines of a file of the system's; none where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
