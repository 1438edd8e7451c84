"""Who prepares pictures while the teacher is at work? Processes, which a picture may end without ending the run."""

from __future__ import annotations

import hashlib
import math
import mmap
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.reduction import DupFd
from threading import Thread
from typing import Any, NamedTuple, Self

import numpy as np
from PIL import Image

from clipsel_core.errors import LostWorkerError, PoolFormatError
from clipsel_core.places import Place, why_unread
from clipsel_core.pool.making.decode import Box, Tokens, Unusable, decode_with_size, hush_pillow
from clipsel_core.pool.sources.record import Record
from clipsel_core.processes import Crew, as_worker_error
from clipsel_core.tasks import in_batches, in_order

# Records that go to a worker together: with more, less is spent on handing over, and more waits for one slow picture.
_AT_ONCE = 16
# How often a record is tried alone that ended its worker, or was near another that did: where memory ran out, the
# machine ended a process that had done no wrong.
_TIMES_ALONE = 2
# The most bytes of an encoded picture that a slot has room for. With four cores there are some 600 slots.
_ROOM = 1 << 18


class Wanted(NamedTuple):
    """What a worker needs of a record. caption: where it is to be tokenized.

    slot: where its pixels go. lent: bytes of its encoded image that lie there, -1 where it does not.
    """

    file: str
    offset: int
    length: int | None
    data: bytes | None
    caption: str = ""
    slot: int = -1
    lent: int = -1


class Ready(NamedTuple):
    """What a worker found. size: bytes of the encoded image. width, height: in full. data: the encoded image, if asked.

    pixels: (H, W, 3) uint8, or (3, H, W) float32 of a teacher's own preprocessing; None where they lie in a slot.
    tokens: of the caption, (L,) int32 as bytes, where it was given.
    """

    size: int
    width: int
    height: int
    sha256: str
    data: bytes | None
    pixels: np.ndarray | None
    tokens: bytes | None = None


@dataclass(frozen=True)
class Preparer:
    """Reads, decodes and frames images.

    frame: gives the pixels of the part of an RGB picture that is to be seen. enough: see Framing.
    keep: hand the encoded images on.
    """

    base: Place
    frame: Callable[[Image.Image, Box], np.ndarray]
    enough: int | None
    most_pixels: int
    keep: bool = False

    def __call__(self, wanted: Wanted, slot: np.ndarray | None = None) -> Ready | str:
        """An image as the teacher takes it, its pixels in the slot where one is given; or why it is rejected."""
        data = wanted.data
        try:
            if data is None:
                data = (self.base / wanted.file).read(wanted.offset, wanted.length)
            picture, (width, height), box = decode_with_size(data, most_pixels=self.most_pixels, enough=self.enough)
            pixels = self.frame(picture, box)
        except Unusable as error:
            return str(error)
        except OSError as error:
            return why_unread(error)
        if slot is not None:
            slot[...] = pixels
        sha256 = hashlib.sha256(data).hexdigest()
        return Ready(len(data), width, height, sha256, data if self.keep else None, pixels if slot is None else None)


class Prepared(NamedTuple):
    """A pair whose image is ready. record: without its image. pixels: as Ready has them; those in a slot are released.

    slot: where they lie, -1 where in none.
    """

    record: Record
    ready: Ready
    pixels: np.ndarray
    slot: int


_Chunk = tuple[list[Record], list[int]]
"""Records that are prepared together, and the slots that their pixels go to."""


class Decoders:
    """Prepares records in worker processes, in order; in threads of this one where the preparer cannot travel.

    shape: of a picture's pixels, for processes; None for threads. ahead: about how many records are under way or ready
    at once. held: how many prepared pairs there are at most that were handed out and not released. tokens: for
    processes, to tokenize the captions too. captions: whether a record without one is rejected.
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
        captions: bool = True,
    ) -> None:
        self._preparer, self._tokens, self._captions, self._open = preparer, tokens, captions, ExitStack()
        self._depth = count + -(-ahead // _AT_ONCE)
        self._slots: Slots | None = None
        if shape is None:
            self._threads = self._open.enter_context(ThreadPoolExecutor(count))
            return
        self._slots = Slots(self._depth * _AT_ONCE + held, shape)
        self._open.callback(self._slots.close)
        quick = getattr(preparer.frame, "quick", False)
        # The server of processes imports what they need once: they start in milliseconds, and without torch's threads.
        preload = [__name__, "PIL.JpegImagePlugin", *(["torch"] if quick else [])]
        preload += [type(tokens.tokenizer).__module__] if tokens else []
        given = (quick, preparer, self._slots, tokens)
        self._crew = self._open.enter_context(
            Crew(count, "to be prepared", preload=preload, settle=_settle, given=given)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def prepare(self, records: Iterable[Record]) -> Iterator[tuple[Record, Prepared | str]]:
        """Each record, ready for the teacher, or why it is rejected. Whoever is done with a pair's pixels says so."""
        batches = in_batches(records, _AT_ONCE)
        chunks = ((some, [self._slots.take() if self._slots else -1 for _ in some]) for some in batches)
        for (some, slots), found in in_order(chunks, self._submit, self._depth, failed=self._one_by_one):
            ready = iter(found)
            for record, slot in zip(some, slots, strict=True):
                outcome = self._fault(record) or next(ready)
                if isinstance(outcome, str):
                    if self._slots:
                        self._slots.give_back([slot])
                    yield record, outcome
                    continue
                pixels = self._slots[slot] if self._slots else outcome.pixels
                assert pixels is not None
                record = record if record.data is None else replace(record, data=None)
                yield record, Prepared(record, outcome, pixels, slot)

    def release(self, pairs: Iterable[Prepared]) -> None:
        """The pixels of these pairs are not wanted any more: others will lie in their place."""
        if self._slots:
            self._slots.give_back(pair.slot for pair in pairs)

    def _fault(self, record: Record) -> str:
        """Why a record is rejected before its image is looked at, if it is."""
        return record.fault or "no caption" * (self._captions and not record.caption.strip())

    def _submit(self, chunk: _Chunk) -> Future[list[Ready | str]]:
        wanted = self._wanted(chunk)
        if self._slots is None:
            return self._threads.submit(_prepare, self._preparer, None, None, wanted)
        return self._crew.submit("the workers", _prepare_here, wanted)

    def _wanted(self, chunk: _Chunk) -> list[Wanted]:
        """What a worker is told of the records that can have an image; encoded images that fit lie in the slots."""
        wanted = []
        for record, slot in zip(*chunk, strict=True):
            if self._fault(record):
                continue
            data, lent = record.data, -1
            if data is not None and self._slots and self._slots.lend(slot, data):
                lent, data = len(data), None
            caption = self._tokens.cut(record.caption) if self._tokens else ""
            wanted.append(Wanted(record.file, record.offset, record.length, data, caption, slot, lent))
        return wanted

    def _one_by_one(self, chunk: _Chunk, error: Exception) -> list[Ready | str]:
        """The outcomes of records one of which ended its worker. Who ends one alone is rejected."""
        if not isinstance(error, LostWorkerError):
            raise error
        self._make_sure()
        found: list[Ready | str] = []
        outcome: Ready | str
        for wanted in self._wanted(chunk):
            for _ in range(_TIMES_ALONE):
                try:
                    outcome = self._crew.submit(wanted.file, _prepare_here, [wanted]).result()[0]
                    break
                except LostWorkerError as lost:
                    outcome = f"it ends the program that decodes it: {lost.found.removeprefix('that ')}"
                    self._make_sure()
            found.append(outcome)
        return found

    def _make_sure(self) -> None:
        """Raises PoolFormatError where it is not for a picture that workers end."""
        try:
            self._crew.submit("the workers", int).result()
        except LostWorkerError as error:
            remedy = "see whether memory runs out; a script that embeds needs the line if __name__ == '__main__'"
            expected = "processes that prepare pictures"
            raise PoolFormatError("the workers", expected=expected, found=error.found, remedy=remedy) from error


# In a worker: what it prepares with, and where pixels go.
_own: list[tuple[Preparer, Slots | None, Tokens | None]] = []


def _settle(quick: bool, preparer: Preparer, slots: Slots | None, tokens: Tokens | None) -> None:
    """In a new worker: knows its work, ends when the run is killed, and keeps to one core."""
    _own[:] = [(preparer, slots, tokens)]
    hush_pillow()
    if quick:
        import torch

        torch.set_num_threads(1)
    if parent := multiprocessing.parent_process():
        Thread(target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def _prepare_here(wanted: Sequence[Wanted]) -> list[Ready | str]:
    return _prepare(*_own[0], wanted)


def _prepare(
    preparer: Preparer, slots: Slots | None, tokens: Tokens | None, wanted: Sequence[Wanted]
) -> list[Ready | str]:
    found: list[Ready | str] = []
    for item in wanted:
        with as_worker_error(item.file, "an image that can be prepared"):
            if slots and item.lent >= 0:
                item = item._replace(data=slots.lent(item.slot, item.lent))
            found.append(preparer(item, slots[item.slot] if slots else None))
    if not (tokens and wanted):
        return found
    with as_worker_error("the captions", "captions that can be tokenized"):
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

    def __init__(self, count: int, shape: tuple[int, ...], file: int = -1) -> None:
        self._count, self._shape = count, shape
        pixels = count * math.prod(shape)
        size = max(1, pixels + count * _ROOM)
        if file < 0:
            if hasattr(os, "memfd_create"):
                file = os.memfd_create("pixels")
            else:
                with tempfile.TemporaryFile() as made:
                    file = os.dup(made.fileno())
            os.ftruncate(file, size)
        self._file = file
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


def _attach(count: int, shape: tuple[int, ...], file: Any) -> Slots:
    return Slots(count, shape, file.detach())
