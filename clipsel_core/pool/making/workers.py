"""Who prepares pictures while the teacher is at work? Processes, which a picture may end without ending the run."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from threading import Thread
from typing import Self

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.ahead import in_batches
from clipsel_core.pool.making.decode import hush_pillow
from clipsel_core.pool.making.prepare import Prepared, Preparer
from clipsel_core.pool.sources.record import Record

# Records that go to a worker together: with more, less is spent on handing over, and more waits for one slow picture.
_AT_ONCE = 16
_Outcome = Prepared | str


class Workers:
    """Prepares records in worker processes, in order; threads of this one where the preparer cannot travel."""

    def __init__(self, preparer: Preparer, count: int, *, processes: bool = True) -> None:
        self._preparer, self._count, self._processes = preparer, count, processes
        self._executor: Executor = self._start(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def prepare(self, records: Iterable[Record], ahead: int) -> Iterator[tuple[Record, _Outcome]]:
        """Each record with its outcome; about `ahead` records are under way or ready at once."""
        chunks = in_batches(records, _AT_ONCE)
        waiting: deque[tuple[list[Record], Future]] = deque()
        depth = self._count + -(-ahead // _AT_ONCE)
        while True:
            while len(waiting) < depth and (following := next(chunks, None)):
                waiting.append((following, self._submit(following)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            try:
                outcomes = future.result()
            except BrokenProcessPool:
                outcomes = self._one_by_one(chunk)
                waiting = deque((later, self._submit(later)) for later, _ in waiting)
            yield from zip(chunk, outcomes, strict=True)

    def _submit(self, chunk: Sequence[Record]) -> Future:
        try:
            return self._executor.submit(self._preparer.all, chunk)
        except BrokenProcessPool as error:
            broken: Future = Future()
            broken.set_exception(error)
            return broken

    def _one_by_one(self, chunk: Sequence[Record]) -> list[_Outcome]:
        """The outcomes of records one of which ended its worker: that one is rejected, and all workers are new."""
        outcomes: list[_Outcome] = []
        alone: Executor | None = None
        for record in chunk:
            if alone is None:
                _make_sure(alone := self._start(1))
            try:
                outcomes += alone.submit(self._preparer.all, [record]).result()
            except BrokenProcessPool:
                outcomes.append("it ends the program that decodes it")
                alone.shutdown()
                alone = None
        if alone:
            alone.shutdown()
        self._executor.shutdown(wait=False)
        self._executor = self._start(self._count)
        return outcomes

    def _start(self, count: int) -> Executor:
        if not self._processes:
            return ThreadPoolExecutor(count)
        context = multiprocessing.get_context("forkserver")
        # The server imports what the workers need once; they come from it in milliseconds, and without torch's threads.
        quick = getattr(self._preparer.frame, "quick", False)
        heavy = ["clipsel_core.pool.making.quick"] if quick else []
        context.set_forkserver_preload(["clipsel_core.pool.making.prepare", "PIL.JpegImagePlugin", *heavy])
        return ProcessPoolExecutor(count, context, _settle, (quick,))


def _make_sure(executor: Executor) -> None:
    """Raises PoolFormatError where it is not for a picture that workers end."""
    try:
        executor.submit(int).result()
    except BrokenProcessPool as error:
        remedy = "a script that embeds needs the line if __name__ == '__main__'"
        raise PoolFormatError(
            "the workers", expected="processes that start", found="they end", remedy=remedy
        ) from error


def _settle(quick: bool) -> None:
    """In a new worker: ends when the run is killed, and keeps to one core."""
    hush_pillow()
    if quick:
        from clipsel_core.pool.making.quick import compute_alone

        compute_alone()
    parent = multiprocessing.parent_process()
    if parent:
        Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
