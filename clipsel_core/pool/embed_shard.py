"""How does a stretch of records become rows? Read and decoded by threads, embedded in batches, none lost on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from clipsel_core.pool.ahead import in_order
from clipsel_core.pool.decode import Unusable, decode
from clipsel_core.pool.embed import Teacher, embed_captions, embed_pixels
from clipsel_core.pool.images import A_ROW
from clipsel_core.pool.places import Place
from clipsel_core.pool.rows import Kept, Rows
from clipsel_core.pool.sources.record import Record


@dataclass(frozen=True)
class Embedder:
    """A teacher with all that embedding records takes."""

    teacher: Teacher
    base: Place
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
        work = partial(prepare, self.teacher, self.base, self.most_pixels)
        ahead = self.batch_size + 2 * self.workers
        return in_order(records, lambda record: self.threads.submit(work, record), ahead)

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


def prepare(teacher: Teacher, base: Place, most_pixels: int, record: Record) -> tuple[Kept, torch.Tensor] | str:
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
        length=A_ROW if record.in_row else len(data),
        width=record.width or picture.width,
        height=record.height or picture.height,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    return kept, pixels


def _read(base: Place, record: Record) -> bytes:
    if record.data is not None:
        return record.data
    return (base / record.file).read(record.offset, record.length)
