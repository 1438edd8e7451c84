"""Where do workers find pictures and leave pixels? In memory that all processes share: a pipe is slow for either."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Iterable
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np

# The most bytes of an encoded picture that a slot has room for. With four cores there are some 600 slots.
_ROOM = 1 << 18


class Slots:
    """Room for `count` pictures of one shape, (H, W, 3) uint8, which processes share that get it at their start.

    Beside its pixels each has room for the encoded picture, where that is not too large. Nothing of it stays when the
    processes end, however they do, and only what was used takes memory.
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
