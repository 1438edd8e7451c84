"""How does a record become pixels that a teacher takes? Read, decoded and framed; this is what the workers do.

Imports nothing of torch: a worker starts in a fraction of a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clipsel_core.pool.images import A_ROW
from clipsel_core.pool.making.decode import Box, Unusable, decode_with_size
from clipsel_core.pool.making.rows import Kept
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.record import Record


@dataclass(frozen=True)
class Prepared:
    """A pair whose image is ready. pixels: (H, W, 3) uint8, or (3, H, W) float32 where the teacher's ways are its own.

    data: the encoded image, where it was asked for.
    """

    kept: Kept
    pixels: np.ndarray
    data: bytes | None


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

    def all(self, records: Sequence[Record]) -> list[Prepared | str]:
        """Each record prepared, or why it is rejected."""
        return [self.one(record) for record in records]

    def one(self, record: Record) -> Prepared | str:
        """A record's image as the teacher takes it, with what the pool keeps of it; or why it is rejected."""
        if record.fault or not record.caption.strip():
            return record.fault or "no caption"
        try:
            data = read_image(self.base, record)
            picture, (width, height), box = decode_with_size(data, most_pixels=self.most_pixels, enough=self.enough)
            pixels = self.frame(picture, box)
        except Unusable as error:
            return str(error)
        except OSError as error:
            return why_unread(error)
        kept = Kept(
            record=Record(record.key, record.file, record.caption, uid=record.uid, url=record.url),
            file=record.file,
            offset=record.offset,
            length=A_ROW if record.in_row else len(data),
            width=record.width or width,
            height=record.height or height,
            sha256=hashlib.sha256(data).hexdigest(),
        )
        return Prepared(kept, pixels, data if self.keep else None)


def read_image(base: Place, record: Record) -> bytes:
    """A record's encoded image. Raises OSError."""
    return record.data if record.data is not None else (base / record.file).read(record.offset, record.length)


def why_unread(error: OSError) -> str:
    """Why an image cannot be read, for people."""
    return "no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read: {error.strerror or error}"
