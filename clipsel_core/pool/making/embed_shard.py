"""How does a stretch of records become rows? Prepared by workers, embedded in batches, none lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import NamedTuple, Self

import numpy as np

from clipsel_core.pool.ahead import Done, in_order
from clipsel_core.pool.making.embed import Teacher, framing_of
from clipsel_core.pool.making.fetching import Fetcher
from clipsel_core.pool.making.lanes import Lanes, rows_at_once
from clipsel_core.pool.making.prepare import Preparer
from clipsel_core.pool.making.rows import Kept, Rows
from clipsel_core.pool.making.tokens import Tokens
from clipsel_core.pool.making.workers import Prepared, Workers
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.record import Record, Source

# Pairs to a batch of the teacher where nobody says how many.
BATCH_SIZE = 64

_FETCHED_AT_ONCE = 32

Took = Callable[[Kept, bytes | None], object]
Reached = Callable[[Record, int], object]
"""Told of a record that was gone through, and how many were."""


class _Batch(NamedTuple):
    """Pairs to embed together. last: the record that was read last for it, read: how many were until then."""

    pairs: list[Prepared]
    last: Record
    read: int


class Embedder(AbstractContextManager):
    """A teacher with all that embedding a source's records takes.

    workers: processes that decode, to be used within `with`. keep: hand the encoded images on.
    """

    def __init__(
        self, teacher: Teacher, source: Source, *, workers: int, batch_size: int, most_pixels: int, keep: bool = False
    ) -> None:
        framing, tokens = framing_of(teacher), Tokens(teacher.tokenizer)
        # A device waits for this process, which therefore leaves to the workers whatever they can do.
        feeding = framing is not None and teacher.device.type != "cpu"
        if framing and feeding:
            framing = replace(framing, quick=True)
        frame = framing or (lambda picture, _: teacher.preprocess(picture).numpy())
        # What lies elsewhere reaches the workers with its bytes; they open no store.
        base = Place.of("") if source.base.remote else source.base
        preparer = Preparer(base, frame, framing.enough if framing else None, most_pixels, keep)
        self._fetch, self._batch_size = Fetcher(source), rows_at_once(teacher, batch_size)
        self._open = ExitStack()
        self._lanes = self._open.enter_context(Lanes(teacher))
        ahead, held = 2 * self._batch_size + 16 * workers, (self._lanes.depth + 2) * self._batch_size
        shape = framing.shape if framing else None
        words = tokens if feeding and tokens.travels else None
        self._workers = self._open.enter_context(
            Workers(preparer, workers, shape, ahead=ahead, held=held, tokens=words)
        )
        self._fetchers = self._open.enter_context(ThreadPoolExecutor(_FETCHED_AT_ONCE))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def embed(self, records: Iterable[Record], progress: Reached, took: Took) -> Rows:
        """Embeds the records, in order; a few batches of images are in memory.

        progress: called after each batch. took: with each pair that is kept, in order, and its encoded image.
        """
        rows = Rows()
        images, texts = [rows.image], [rows.text]
        for batch, (image, text) in in_order(self._batches(records, rows), self._send, self._lanes.depth):
            self._workers.release(batch.pairs)
            good = self._land(batch.pairs, image, text, rows, took)
            images.append(image[good])
            texts.append(text[good])
            progress(batch.last, batch.read)
        rows.image, rows.text = (np.concatenate(parts[1:] or parts) for parts in (images, texts))
        return rows

    def prepare(self, records: Iterable[Record]) -> Iterator[tuple[Record, Prepared | str]]:
        """Each record, ready for the teacher, or why it is rejected. A few batches of pixels may be kept."""
        return self._workers.prepare(self._fetched(records))

    def _batches(self, records: Iterable[Record], rows: Rows) -> Iterator[_Batch]:
        pairs: list[Prepared] = []
        for record, outcome in self.prepare(records):
            rows.read += 1
            if isinstance(outcome, str):
                rows.rejected.append((record.file, record.key, outcome))
            else:
                pairs.append(outcome)
            if len(pairs) == self._batch_size:
                yield _Batch(pairs, record, rows.read)
                pairs = []
        if pairs:
            yield _Batch(pairs, record, rows.read)

    def _fetched(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records, those that lie elsewhere with their images: stores are asked by threads of this process."""
        return (record for _, record in in_order(records, self._fetch_soon, 2 * _FETCHED_AT_ONCE))

    def _fetch_soon(self, record: Record) -> Future[Record] | Done[Record]:
        return self._fetchers.submit(self._fetch, record) if self._fetch.needed(record) else Done(record)

    def _send(self, batch: _Batch) -> Future[tuple[np.ndarray, np.ndarray]]:
        pixels, tokens = [item.pixels for item in batch.pairs], [item.tokens for item in batch.pairs if item.tokens]
        if tokens:
            return self._lanes.embed(pixels, np.frombuffer(bytearray().join(tokens), np.int32).reshape(len(tokens), -1))
        return self._lanes.embed(pixels, [item.kept.record.caption for item in batch.pairs])

    def _land(self, pairs: list[Prepared], image: np.ndarray, text: np.ndarray, rows: Rows, took: Took) -> np.ndarray:
        """Which of a batch's pairs are kept: (B,) bool."""
        good = np.isfinite(image).all(1) & np.isfinite(text).all(1)
        for item, fine in zip(pairs, good, strict=True):
            if fine:
                rows.kept.append(item.kept)
                took(item.kept, item.data)
            else:
                record = item.kept.record
                rows.rejected.append((record.file, record.key, "its embedding is not finite"))
        return good
