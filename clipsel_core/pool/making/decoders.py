"""Who prepares pictures while the teacher is at work? Processes, which a picture may end without ending the run."""

from __future__ import annotations

import math
import mmap
import multiprocessing
import os
import signal
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import connection
from multiprocessing.reduction import DupFd
from threading import Thread
from typing import Any, NamedTuple, Self

import numpy as np

from clipsel_core.errors import LostWorkerError, PoolFormatError
from clipsel_core.pool.making.decode import Preparer, Ready, Tokens, Wanted, hush_pillow
from clipsel_core.pool.prefetch import in_batches
from clipsel_core.pool.sources.record import Record
from clipsel_core.processes import Crew, in_one_line, server_context

# Records that go to a worker together: with more, less is spent on handing over, and more waits for one slow picture.
_AT_ONCE = 16
# How often a record is tried that ended its worker, or was near another that did.
_TIMES_ALONE = 2
# The most bytes of an encoded picture that a slot has room for. With four cores there are some 600 slots.
_ROOM = 1 << 18


class Prepared(NamedTuple):
    """A pair whose image is ready. record: without its image. pixels: as Ready has them; those in a slot are released.

    slot: where they lie, -1 where in none.
    """

    record: Record
    ready: Ready
    pixels: np.ndarray
    slot: int


class _Chunk(NamedTuple):
    """Records that are prepared together. slots: where their pixels go. found: of those that can have any."""

    records: list[Record]
    slots: list[int]
    found: Future[list[Ready | str]]


class Decoders:
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
        self._preload = [__name__, "PIL.JpegImagePlugin", *(["torch"] if quick else [])]
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
                slots = [self._slots.take() if self._slots else -1 for _ in some]
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

    def _start(self) -> Executor:
        if not self._slots:
            return ThreadPoolExecutor(self._count)
        return ProcessPoolExecutor(self._count, server_context(self._preload), _settle, self._given)

    def _submit(self, records: Sequence[Record], slots: Sequence[int]) -> Future[list[Ready | str]]:
        wanted = self._wanted(records, slots)
        if not self._slots:
            return self._executor.submit(_prepare, self._preparer, None, None, wanted)
        try:
            return self._executor.submit(_prepare_here, wanted)
        except (BrokenProcessPool, EOFError, ConnectionError) as error:
            # The last two where the server of processes is gone.
            broken: Future[list[Ready | str]] = Future()
            broken.set_exception(BrokenProcessPool(str(error)))
            return broken

    def _wanted(self, records: Sequence[Record], slots: Sequence[int]) -> list[Wanted]:
        """What a worker is told of the records that can have an image; encoded images that fit lie in the slots."""
        wanted = []
        for record, slot in zip(records, slots, strict=True):
            if _fault(record):
                continue
            data, lent = record.data, -1
            if data is not None and self._slots and self._slots.lend(slot, data):
                lent, data = len(data), None
            caption = self._tokens.cut(record.caption) if self._tokens else ""
            wanted.append(Wanted(record.file, record.offset, record.length, data, caption, slot, lent))
        return wanted

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
            yield record, Prepared(record if record.data is None else replace(record, data=None), outcome, pixels, slot)

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
            for wanted in self._wanted(chunk.records, chunk.slots):
                for _ in range(_TIMES_ALONE):
                    try:
                        outcome = alone.submit(wanted.file, _prepare_here, [wanted]).result()[0]
                        break
                    except LostWorkerError as error:
                        outcome = f"it ends the program that decodes it: {error.found.removeprefix('that ')}"
                        _make_sure(alone)
                found.append(outcome)
        self._executor = self._start()
        return found


def _fault(record: Record) -> str:
    """Why a record is rejected before its image is looked at, if it is."""
    return record.fault or ("" if record.caption.strip() else "no caption")


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


def _settle(quick: bool, preparer: Preparer, slots: Slots | None, tokens: Tokens | None) -> None:
    """In a new worker: knows its work, ends when the run is killed, and keeps to one core."""
    # A terminal interrupts all processes at once: the run decides what that means, and says so alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _own[:] = [(preparer, slots, tokens)]
    hush_pillow()
    if quick:
        import torch

        torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent:
        Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _prepare_here(wanted: Sequence[Wanted]) -> list[Ready | str]:
    return _prepare(*_own[0], wanted)


def _prepare(
    preparer: Preparer, slots: Slots | None, tokens: Tokens | None, wanted: Sequence[Wanted]
) -> list[Ready | str]:
    found: list[Ready | str] = []
    for item in wanted:
        with in_one_line(item.file, "an image that can be prepared"):
            if slots and item.lent >= 0:
                item = item._replace(data=slots.lent(item.slot, item.lent))
            found.append(preparer(item, slots[item.slot] if slots else None))
    if not (tokens and wanted):
        return found
    with in_one_line("the captions", "captions that can be tokenized"):
        rows = tokens([item.caption for item in wanted])
    return [
        each if isinstance(each, str) else each._replace(tokens=row.tobytes())
        for each, row in zip(found, rows, strict=True)
    ]


class Slots:
    """Memory for `count` pictures of one shape, (H, W, 3) uint8, shared with processes that get it at their start.

    A pipe would be slow for pixels. Beside them each slot has room for the encoded picture, where that is not too
    large. Nothing of it stays when the processes end, however they do, and only what was used takes memory.
    """

    def __init__(self, count: int, shape: tuple[int, ...], file: int | None = None) -> None:
        self._count, self._shape = count, shape
        pixels = count * math.prod(shape)
        size = max(1, pixels + count * _ROOM)
        self._file = _nameless(size) if file is None else file
        # Freed with the last array that shows it.
        shared = np.frombuffer(mmap.mmap(self._file, size), np.uint8)[: pixels + count * _ROOM]
        self._pixels, self._rooms = shared[:pixels].reshape(count, *shape), shared[pixels:].reshape(count, _ROOM)
        self._free = list(range(count))[::-1]

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self._count, self._shape, DupFd(self._file))

    def __getitem__(self, slot: int) -> np.ndarray:
        """The pixels of a slot, in place."""
        return self._pixels[slot]

    def lend(self, slot: int, data: bytes) -> bool:
        """Leaves an encoded picture in a slot for whoever prepares it; whether there is room for it."""
        if len(data) > _ROOM:
            return False
        self._rooms[slot, : len(data)] = np.frombuffer(data, np.uint8)
        return True

    def lent(self, slot: int, size: int) -> bytes:
        """The encoded picture of `size` bytes that lies in a slot."""
        return self._rooms[slot, :size].tobytes()

    def take(self) -> int:
        """A slot that nobody has; those that were used before come first."""
        return self._free.pop()

    def give_back(self, slots: Iterable[int]) -> None:
        """Their pixels are not wanted any more."""
        self._free += slots

    def close(self) -> None:
        """No process can be handed it after this; arrays of it can still be read."""
        os.close(self._file)


def _nameless(size: int) -> int:
    """A file in memory that has no name; where the system knows none, one on the disk that is removed already."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("pixels")
    else:
        with tempfile.TemporaryFile() as made:
            file = os.dup(made.fileno())
    os.ftruncate(file, size)
    return file


def _attach(count: int, shape: tuple[int, ...], file: Any) -> Slots:
    return Slots(count, shape, file.detach())
