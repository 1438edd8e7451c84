"""What becomes of a stretch of records on the way into a shard?"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from clipsel_core.pool.sources.record import Record


@dataclass(frozen=True)
class Kept:
    """A pair that has its embeddings; the record's image bytes are let go.

    file, offset, length: where its image is, for the index; see images.py.
    sha256: of the image's bytes; nothing where they were not seen.
    """

    record: Record
    file: str
    offset: int
    length: int
    width: int | None
    height: int | None
    sha256: str | None


@dataclass
class Rows:
    """What became of a stretch of records: M kept with (M, D) float16 embeddings, and the rejected.

    rejected: file, key and reason. read: how many records there were; kept and rejected add up to it.
    """

    kept: list[Kept] = field(default_factory=list)
    image: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float16))
    text: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float16))
    rejected: list[tuple[str, str, str]] = field(default_factory=list)
    read: int = 0


def kind_of(reason: str) -> str:
    """A reason without what differs from one picture to the next."""
    return re.sub(r" at byte [\d,]+", "", reason.partition(":")[0])
