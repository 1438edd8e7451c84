"""Where do workers leave pixels? In memory that the processes share, so that no picture goes through a pipe."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Iterable
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np


class Slots:
    """Room for `count` pictures of one shape, (H, W, 3) uint8, which processes share that get it at their start.

    Nothing of it stays when they end, however they do, and only what was used takes memory.
    """

    def __init__(self, count: int, shape: tuple[int, ...], file: int | None = None) -> None:
        self._count, self._shape = count, shape
        size = max(1, count * math.prod(shape))
        self._file = _nameless(size) if file is None else file
        # Freed with the last array that shows it.
        self._pixels = np.frombuffer(mmap.mmap(self._file, size), np.uint8)[: count * math.prod(shape)]
        self._pixels = self._pixels.reshape(count, *shape)
        self._free = list(range(count))[::-1]

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self._count, self._shape, DupFd(self._file))

    def __getitem__(self, slot: int) -> np.ndarray:
        """The pixels of a slot, in place."""
        return self._pixels[slot]

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
