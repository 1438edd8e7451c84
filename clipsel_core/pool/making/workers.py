"""Who prepares pictures while the teacher is at work? Processes, which a picture may end without ending the run."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import connection
from threading import Thread
from typing import NamedTuple, Self

import numpy as np

from clipsel_core.errors import LostWorkerError, PoolFormatError
from clipsel_core.pool.ahead import in_batches
from clipsel_core.pool.images import A_ROW
from clipsel_core.pool.making.decode import hush_pillow
from clipsel_core.pool.making.prepare import Preparer, Ready, Wanted
from clipsel_core.pool.making.rows import Kept
from clipsel_core.pool.making.slots import Slots
from clipsel_core.pool.making.tokens import Tokens
from clipsel_core.pool.sources.record import Record
from clipsel_core.processes import Crew, in_one_line, server_context

# Records that go to a worker together: with more, less is spent on handing over, and more waits for one slow picture.
_AT_ONCE = 16
# How often a record is tried that ended its worker, or was near another that did.
_TIMES_ALONE = 2
_NOWHERE = -1


class _Job(NamedTuple):
    """What a worker is told of a record. slot: where its pixels go. lent: bytes of its encoded image that lie there."""

    wanted: Wanted
    slot: int
    lent: int | None = None


class Prepared(NamedTuple):
    """A pair whose image is ready. pixels, tokens: as Ready has them. slot: where pixels lie, to be released.

    data: the encoded image, where it was asked for.
    """

    kept: Kept
    pixels: np.ndarray
    slot: int
    data: bytes | None
    tokens: bytes | None


class _Chunk(NamedTuple):
    """Records that are prepared together. slots: where their pixels go. found: of those that can have any."""

    records: list[Record]
    slots: list[int]
    found: Future[list[Ready | str]]


class Workers:
    """Prepares records in worker processes, in order; in threads of this one where the preparer cannot travel.

    shape: of a picture's pixels, for processes; None for threads. ahead: about how many records are under way or ready
    at once. held: how many prepared pairs there are at most that were handed out and not released. tokens: for
    processes, to tokenize the captions too.
    """

    def __init__(
        self,
        preparer: Preparer,
        count: int,
        shape: tuple[int, ...] | None,
        *,
        ahead: int,
        held: int,
        tokens: Tokens | None = None,
    ) -> None:
        self._preparer, self._count, self._tokens = preparer, count, tokens
        self._depth = count + -(-ahead // _AT_ONCE)
        self._slots = Slots(self._depth * _AT_ONCE + held, shape) if shape else None
        quick = getattr(preparer.frame, "quick", False)
        # The server of processes imports what they need once: they start in milliseconds, and without torch's threads.
        self._preload = [__name__, "PIL.JpegImagePlugin", *(["clipsel_core.pool.making.quick"] if quick else [])]
        self._preload += [type(tokens.tokenizer).__module__] if tokens else []
        self._given = (quick, preparer, self._slots, tokens)
        self._executor = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)
        if self._slots:
            self._slots.close()

    def prepare(self, records: Iterable[Record]) -> Iterator[tuple[Record, Prepared | str]]:
        """Each record, ready for the teacher, or why it is rejected. Whoever is done with a pair's pixels says so."""
        following = in_batches(records, _AT_ONCE)
        waiting: deque[_Chunk] = deque()
        while True:
            while len(waiting) < self._depth and (some := next(following, None)):
                slots = [self._slots.take() if self._slots else _NOWHERE for _ in some]
                waiting.append(_Chunk(some, slots, self._submit(some, slots)))
            if not waiting:
                return
            chunk = waiting.popleft()
            try:
                found = chunk.found.result()
            except BrokenProcessPool:
                found = self._one_by_one(chunk)
                waiting = deque(_Chunk(more, slots, self._submit(more, slots)) for more, slots, _ in waiting)
            yield from self._outcomes(chunk, found)

    def release(self, pairs: Iterable[Prepared]) -> None:
        """The pixels of these pairs are not wanted any more: others will lie in their place."""
        if self._slots:
            self._slots.give_back(pair.slot for pair in pairs)

    def _submit(self, records: Sequence[Record], slots: Sequence[int]) -> Future[list[Ready | str]]:
        jobs = self._jobs(records, slots)
        if not self._slots:
            return self._executor.submit(_prepare, self._preparer, None, None, jobs)
        try:
            return self._executor.submit(_prepare_here, jobs)
        except (BrokenProcessPool, EOFError, ConnectionError) as error:
            # The last two where the server of processes is gone.
            broken: Future[list[Ready | str]] = Future()
            broken.set_exception(BrokenProcessPool(str(error)))
            return broken

    def _jobs(self, records: Sequence[Record], slots: Sequence[int]) -> list[_Job]:
        """What a worker is told: the images of these records, as far as they can have any, and their slots."""
        return [self._job(record, slot) for record, slot in zip(records, slots, strict=True) if not _fault(record)]

    def _job(self, record: Record, slot: int) -> _Job:
        caption = self._tokens.cut(record.caption) if self._tokens else ""
        wanted = Wanted(record.file, record.offset, record.length, record.data, caption)
        if record.data is not None and self._slots and self._slots.lend(slot, record.data):
            return _Job(wanted._replace(data=None), slot, len(record.data))
        return _Job(wanted, slot)

    def _outcomes(self, chunk: _Chunk, found: list[Ready | str]) -> Iterator[tuple[Record, Prepared | str]]:
        ready = iter(found)
        for record, slot in zip(chunk.records, chunk.slots, strict=True):
            outcome = _fault(record) or next(ready)
            if isinstance(outcome, str):
                if self._slots:
                    self._slots.give_back([slot])
                yield record, outcome
                continue
            pixels = self._slots[slot] if self._slots else outcome.pixels
            assert pixels is not None
            yield record, Prepared(_kept(record, outcome), pixels, slot, outcome.data, outcome.tokens)

    def _one_by_one(self, chunk: _Chunk) -> list[Ready | str]:
        """The outcomes of records one of which ended its worker, and new workers. Who ends one alone is rejected.

        Twice alone: where memory ran out, the machine ended a process that had done no wrong.
        """
        # All are gone when this returns; else one might still write where by then another picture lies.
        self._executor.shutdown()
        found: list[Ready | str] = []
        outcome: Ready | str
        with Crew(1, "to be prepared", settle=_settle, given=self._given, preload=self._preload) as alone:
            _make_sure(alone)
            for job in self._jobs(chunk.records, chunk.slots):
                for _ in range(_TIMES_ALONE):
                    try:
                        outcome = alone.submit(job.wanted.file, _prepare_here, [job]).result()[0]
                        break
                    except LostWorkerError as error:
                        outcome = f"it ends the program that decodes it: {error.found.removeprefix('that ')}"
                        _make_sure(alone)
                found.append(outcome)
        self._executor = self._start()
        return found

    def _start(self) -> Executor:
        if not self._slots:
            return ThreadPoolExecutor(self._count)
        return ProcessPoolExecutor(self._count, server_context(self._preload), _settle, self._given)


def _fault(record: Record) -> str:
    """Why a record is rejected before its image is looked at, if it is."""
    return record.fault or ("" if record.caption.strip() else "no caption")


def _kept(record: Record, ready: Ready) -> Kept:
    return Kept(
        record=record if record.data is None else replace(record, data=None),
        file=record.file,
        offset=record.offset,
        length=A_ROW if record.in_row else ready.size,
        width=record.width or ready.width,
        height=record.height or ready.height,
        sha256=ready.sha256,
    )


def _make_sure(alone: Crew) -> None:
    """Raises PoolFormatError where it is not for a picture that workers end."""
    try:
        alone.submit("the workers", int).result()
    except LostWorkerError as error:
        remedy = "see whether memory runs out; a script that embeds needs the line if __name__ == '__main__'"
        expected = "processes that prepare pictures"
        raise PoolFormatError("the workers", expected=expected, found=error.found, remedy=remedy) from error


# In a worker: what it prepares with, and where pixels go.
_own: list[tuple[Preparer, Slots | None, Tokens | None]] = []


def _prepare_here(jobs: Sequence[_Job]) -> list[Ready | str]:
    return _prepare(*_own[0], jobs)


def _prepare(preparer: Preparer, slots: Slots | None, tokens: Tokens | None, jobs: Sequence[_Job]) -> list[Ready | str]:
    found = [_prepare_one(preparer, slots, job) for job in jobs]
    if not tokens:
        return found
    with in_one_line("the captions", "captions that can be tokenized"):
        rows = tokens([job.wanted.caption for job in jobs]) if jobs else ()
    return [
        each if isinstance(each, str) else each._replace(tokens=row.tobytes())
        for each, row in zip(found, rows, strict=True)
    ]


def _prepare_one(preparer: Preparer, slots: Slots | None, job: _Job) -> Ready | str:
    with in_one_line(job.wanted.file, "an image that can be prepared"):
        if not slots:
            return preparer(job.wanted)
        wanted = job.wanted if job.lent is None else job.wanted._replace(data=slots.lent(job.slot, job.lent))
        return preparer(wanted, slots[job.slot])


def _settle(quick: bool, preparer: Preparer, slots: Slots | None, tokens: Tokens | None) -> None:
    """In a new worker: knows its work, ends when the run is killed, and keeps to one core."""
    # A terminal interrupts all processes at once: the run decides what that means, and says so alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _own[:] = [(preparer, slots, tokens)]
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
