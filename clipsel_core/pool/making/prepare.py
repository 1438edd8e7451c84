"""How does an image become pixels that a teacher takes? Read, decoded and framed; this is what the workers do.

Imports nothing of torch: a worker starts in a fraction of a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from clipsel_core.pool.making.decode import Box, Unusable, decode_with_size
from clipsel_core.pool.places import Place


class Wanted(NamedTuple):
    """What of a record a worker needs, named as there. caption: where it is to be tokenized."""

    file: str
    offset: int
    length: int | None
    data: bytes | None
    caption: str = ""


class Ready(NamedTuple):
    """What a worker found. size: bytes of the encoded image. width, height: in full. data: the encoded image, if asked.

    pixels: (H, W, 3) uint8, or (3, H, W) float32 where the teacher's ways are its own; None where they lie in a slot.
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
    """All that preparing takes.

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
        try:
            data = self._read(wanted)
            picture, (width, height), box = decode_with_size(data, most_pixels=self.most_pixels, enough=self.enough)
            pixels = self.frame(picture, box)
        except Unusable as error:
            return str(error)
        except OSError as error:
            return why_unread(error)
        if slot is not None:
            slot[...] = pixels
        kept = data if self.keep else None
        sha256 = hashlib.sha256(data).hexdigest()
        return Ready(len(data), width, height, sha256, kept, pixels if slot is None else None)

    def _read(self, wanted: Wanted) -> bytes:
        if wanted.data is not None:
            return wanted.data
        return (self.base / wanted.file).read(wanted.offset, wanted.length)


def why_unread(error: OSError) -> str:
    """Why an image cannot be read, for people."""
    return "no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read: {error.strerror or error}"
