"""How does a stretch of records become rows? Read and decoded by threads, embedded in batches, none lost on the way."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from clipsel_core.pool.decode import Unusable, decode
from clipsel_core.pool.embed import Teacher, embed_captions, embed_pixels
from clipsel_core.pool.sources.record import Record

A_ROW_OF_THE_FILE = -1
"""Stands for a length in the index where an image is a parquet's row, and its offset the row's number."""


@dataclass(frozen=True)
class Kept:
    """A pair that has its embeddings; the record's image bytes are let go. offset, length: for the index."""

    record: Record
    offset: int
    length: int
    width: int
    height: int
    sha256: str


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


@dataclass(frozen=True)
class Embedder:
    """A teacher with all that embedding records takes."""

    teacher: Teacher
    base: Path
    threads: ThreadPoolExecutor
    workers: int
    batch_size: int
    most_pixels: int

    def embed(self, records: Iterable[Record], progress: Callable[[Record], None]) -> Rows:
        """Embeds the records, in order; at most two batches of images are in memory. progress: called after each."""
        rows = Rows()
        images, texts = [rows.image], [rows.text]
        batch: list[tuple[Kept, torch.Tensor]] = []
        for record, outcome in self._prepare(records):
            rows.read += 1
            if isinstance(outcome, str):
                rows.rejected.append((record.file, record.key, outcome))
            else:
                batch.append(outcome)
            if len(batch) == self.batch_size:
                self._embed_batch(batch, rows, images, texts)
            progress(record)
        self._embed_batch(batch, rows, images, texts)
        rows.image, rows.text = (np.concatenate(parts[1:] or parts) for parts in (images, texts))
        return rows

    def _prepare(self, records: Iterable[Record]) -> Iterator[tuple[Record, tuple[Kept, torch.Tensor] | str]]:
        rest = iter(records)
        work = partial(prepare, self.teacher, self.base, self.most_pixels)
        ahead = self.batch_size + 2 * self.workers
        waiting: deque[tuple[Record, Future]] = deque(
            (record, self.threads.submit(work, record)) for record in islice(rest, ahead)
        )
        while waiting:
            record, future = waiting.popleft()
            outcome = future.result()
            yield record, outcome
            waiting.extend((record, self.threads.submit(work, record)) for record in islice(rest, 1))

    def _embed_batch(self, batch: list, rows: Rows, images: list[np.ndarray], texts: list[np.ndarray]) -> None:
        if not batch:
            return
        kept = [item for item, _ in batch]
        image = embed_pixels(self.teacher, torch.stack([pixels for _, pixels in batch]))
        text = embed_captions(self.teacher, (item.record.caption for item in kept), batch_size=len(batch))
        good = np.isfinite(image).all(1) & np.isfinite(text).all(1)
        rows.kept += [item for item, fine in zip(kept, good, strict=True) if fine]
        fault, bad = "its embedding is not finite", np.flatnonzero(~good)
        rows.rejected += [(kept[row].record.file, kept[row].record.key, fault) for row in bad]
        images.append(image[good])
        texts.append(text[good])
        batch.clear()


def prepare(teacher: Teacher, base: Path, most_pixels: int, record: Record) -> tuple[Kept, torch.Tensor] | str:
    """A record's image as the teacher takes it, with what the pool keeps of it; or why it is rejected."""
    if record.fault or not record.caption.strip():
        return record.fault or "no caption"
    try:
        data = _read(base, record)
        picture = decode(data, most_pixels=most_pixels)
        pixels = teacher.preprocess(picture)
    except Unusable as error:
        return str(error)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    bare = Record(record.key, record.file, record.caption, uid=record.uid, url=record.url)
    kept = Kept(
        record=bare,
        offset=record.offset,
        length=len(data) if record.data is None else A_ROW_OF_THE_FILE,
        width=record.width or picture.width,
        height=record.height or picture.height,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    return kept, pixels


def _read(base: Path, record: Record) -> bytes:
    if record.data is not None:
        return record.data
    path = base / record.file
    if not path.is_file():
        raise FileNotFoundError(path)
    with open(path, "rb") as file:
        file.seek(record.offset)
        return file.read() if record.length is None else file.read(record.length)
