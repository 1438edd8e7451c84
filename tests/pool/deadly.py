"""A way to take pictures that some do not survive, and a tokenizer. Apart: a worker starts without anything heavy."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clipsel_core.pool.making.decoders import Slots


@dataclass(frozen=True)
class Deadly:
    """Takes a picture's corner, and ends the process where the picture is of one size."""

    shape = (2, 2, 3)

    def __call__(self, picture: Image.Image, _: object) -> np.ndarray:
        if picture.size == (7, 7):
            os._exit(9)
        return np.array(picture)[:2, :2]


@dataclass(frozen=True)
class Killed:
    """Takes a picture's corner. The machine ends the process at pictures of one size, so many times each.

    folder: where it is noted how often that was.
    """

    folder: str
    times: int
    shape = (2, 2, 3)

    def __call__(self, picture: Image.Image, _: object) -> np.ndarray:
        if picture.size == (7, 7):
            note = os.path.join(self.folder, hashlib.sha256(picture.tobytes()).hexdigest())
            with open(note, "ab") as file:
                before = file.tell()
                file.write(b".")
            if before < self.times:
                os.kill(os.getpid(), signal.SIGKILL)
        return np.array(picture)[:2, :2]


@dataclass(frozen=True)
class Failing:
    """Takes a picture's corner, and fails at pictures of one size as nothing should."""

    shape = (2, 2, 3)

    def __call__(self, picture: Image.Image, _: object) -> np.ndarray:
        if picture.size == (7, 7):
            raise ZeroDivisionError("in between\nand more")
        return np.array(picture)[:2, :2]


@dataclass(frozen=True)
class Letters:
    """Tokens of captions: the numbers of their first letters."""

    context_length: int = 5

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        return np.array([[ord(letter) for letter in f"{caption:5.5}"] for caption in captions])


def fill(slots: Slots, slot: int) -> None:
    """Numbers the bytes of a slot."""
    slots[slot][...] = np.arange(slots[slot].size).reshape(slots[slot].shape)
