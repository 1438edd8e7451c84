"""How does a stretch of records become rows? Prepared by workers, embedded in batches, none lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from clipsel_core.pool.ahead import in_order
from clipsel_core.pool.embed import Teacher, caption_rows, framing_of, image_rows
from clipsel_core.pool.fetching import Fetcher
from clipsel_core.pool.places import Place
from clipsel_core.pool.prepare import Prepared, Preparer
from clipsel_core.pool.rows import Kept, Rows
from clipsel_core.pool.sources.record import Record, Source
from clipsel_core.pool.workers import Workers

_FETCHED_AT_ONCE = 32

Took = Callable[[Kept, bytes | None], object]


@dataclass(frozen=True)
class _Flight:
    """A batch that the device may still be at work on."""

    batch: list[Prepared]
    image: torch.Tensor
    text: torch.Tensor


class Embedder(AbstractContextManager):
    """A teacher with all that embedding a source's records takes.

    workers: processes that decode, to be used within `with`. keep: hand the encoded images on.
    """

    def __init__(
        self, teacher: Teacher, source: Source, *, workers: int, batch_size: int, most_pixels: int, keep: bool = False
    ) -> None:
        framing = framing_of(teacher)
        frame = framing or (lambda picture: teacher.preprocess(picture).numpy())
        # What lies elsewhere reaches the workers with its bytes; they open no store.
        base = Place.of("") if source.base.remote else source.base
        preparer = Preparer(base, frame, framing.enough if framing else None, most_pixels, keep)
        self._teacher, self._fetch, self._batch_size = teacher, Fetcher(source), batch_size
        self._ahead, self._open = batch_size + 16 * workers, ExitStack()
        self._workers = self._open.enter_context(Workers(preparer, workers, processes=framing is not None))
        self._fetchers = self._open.enter_context(ThreadPoolExecutor(_FETCHED_AT_ONCE))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def embed(self, records: Iterable[Record], progress: Callable[[Record], None], took: Took) -> Rows:
        """Embeds the records, in order; a few batches of images are in memory.

        progress: called after each record. took: with each pair that is kept, in order, and its encoded image.
        """
        rows, flight = Rows(), None
        images, texts = [rows.image], [rows.text]
        for batch in self._batches(records, rows, progress):
            # While the device works on one batch, this process prepares the next and takes the one before apart.
            before, flight = flight, self._send(batch)
            self._land(before, rows, images, texts, took)
        self._land(flight, rows, images, texts, took)
        rows.image, rows.text = (np.concatenate(parts[1:] or parts) for parts in (images, texts))
        return rows

    def _batches(
        self, records: Iterable[Record], rows: Rows, progress: Callable[[Record], None]
    ) -> Iterator[list[Prepared]]:
        batch: list[Prepared] = []
        for record, outcome in self._workers.prepare(self._fetched(records), self._ahead):
            rows.read += 1
            if isinstance(outcome, str):
                rows.rejected.append((record.file, record.key, outcome))
            else:
                batch.append(outcome)
            progress(record)
            if len(batch) == self._batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _fetched(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records, those that lie elsewhere with their images: stores are asked by threads of this process."""
        fetched = in_order(records, lambda record: self._fetchers.submit(self._fetch, record), 2 * _FETCHED_AT_ONCE)
        return (record for _, record in fetched)

    def _send(self, batch: list[Prepared]) -> _Flight:
        pixels = torch.from_numpy(np.stack([item.pixels for item in batch]))
        captions = [item.kept.record.caption for item in batch]
        return _Flight(batch, image_rows(self._teacher, pixels), caption_rows(self._teacher, captions))

    def _land(
        self, flight: _Flight | None, rows: Rows, images: list[np.ndarray], texts: list[np.ndarray], took: Took
    ) -> None:
        if flight is None:
            return
        image, text = flight.image.cpu().numpy(), flight.text.cpu().numpy()
        good = np.isfinite(image).all(1) & np.isfinite(text).all(1)
        for item, fine in zip(flight.batch, good, strict=True):
            if fine:
                rows.kept.append(item.kept)
                took(item.kept, item.data)
            else:
                record = item.kept.record
                rows.rejected.append((record.file, record.key, "its embedding is not finite"))
        images.append(image[good])
        texts.append(text[good])
