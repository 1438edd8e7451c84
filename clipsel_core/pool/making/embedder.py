"""How does a stretch of records become rows? Prepared by workers and embedded in batches, or copied; none is lost."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import nn

from clipsel_core.pool.embeddings import describe_row
from clipsel_core.pool.images import A_ROW, NOWHERE, WHOLE_FILE
from clipsel_core.pool.making.decode import Preparer, Tokens
from clipsel_core.pool.making.decoders import Decoders, Prepared
from clipsel_core.pool.making.embed import Teacher, embed_batch, framing_of
from clipsel_core.pool.making.feed import Fetcher
from clipsel_core.pool.making.shard_files import EmbeddedPair, EmbeddedRows
from clipsel_core.pool.places import Place
from clipsel_core.pool.prefetch import Done, in_order
from clipsel_core.pool.sources.record import Record, Source

# Pairs to a batch of the teacher where nobody says how many.
BATCH_SIZE = 64

_FETCHED_AT_ONCE = 32
# Weights of a large teacher, or more.
_LARGE = 50_000_000
_ROWS_OF_A_LARGE_ONE = 16

Took = Callable[[EmbeddedPair, bytes | None], object]
Reached = Callable[[Record, int], object]
"""Told of a record that was gone through, and how many were."""


def copy_embeddings(records: Iterable[Record], progress: Reached, took: Took) -> EmbeddedRows:
    """The records' own embeddings as rows, scaled to unit length, in order; records that have none are rejected.

    progress: called after each record. took: with each pair that is kept.
    """
    rows, sides = EmbeddedRows(), []
    for record in records:
        rows.read += 1
        fault = record.fault or _fault_of(record.embeddings)
        if fault:
            rows.rejected.append((record.file, record.key, fault))
        else:
            exact = np.asarray(record.embeddings, np.float64)
            sides.append((exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float16))
            where = WHOLE_FILE if record.file else NOWHERE
            size = record.width, record.height
            rows.kept.append(EmbeddedPair(replace(record, embeddings=None), record.file, 0, where, *size, None))
            took(rows.kept[-1], None)
        progress(record, rows.read)
    if sides:
        rows.image, rows.text = np.stack(sides, axis=1)
    return rows


def _fault_of(embeddings: np.ndarray | None) -> str:
    if embeddings is None:
        return "no embeddings"
    for side, row in zip(("image", "text"), embeddings, strict=True):
        if not np.isfinite(row).all() or not row.any():
            return f"its {side} embedding has {describe_row(row)}"
    return ""


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
        self._fetch, self._batch_size = Fetcher(source), lane_batch_size(teacher, batch_size)
        self._open = ExitStack()
        self._lanes = self._open.enter_context(Lanes(teacher))
        ahead, held = 2 * self._batch_size + 16 * workers, (self._lanes.depth + 2) * self._batch_size
        shape = framing.shape if framing else None
        words = tokens if feeding and tokens.travels else None
        self._workers = self._open.enter_context(
            Decoders(preparer, workers, shape, ahead=ahead, held=held, tokens=words)
        )
        self._fetchers = self._open.enter_context(ThreadPoolExecutor(_FETCHED_AT_ONCE))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def embed(self, records: Iterable[Record], progress: Reached, took: Took) -> EmbeddedRows:
        """Embeds the records, in order; a few batches of images are in memory.

        progress: called after each batch. took: with each pair that is kept, in order, and its encoded image.
        """
        rows = EmbeddedRows()
        images, texts = [rows.image], [rows.text]
        for batch, (image, text) in in_order(self._batches(records, rows), self._send, self._lanes.depth):
            self._workers.release(batch.pairs)
            good = np.isfinite(image).all(1) & np.isfinite(text).all(1)
            for (record, ready, _, _), fine in zip(batch.pairs, good, strict=True):
                if not fine:
                    rows.rejected.append((record.file, record.key, "its embedding is not finite"))
                    continue
                length = A_ROW if record.in_row else ready.size
                size = record.width or ready.width, record.height or ready.height
                rows.kept.append(EmbeddedPair(record, record.file, record.offset, length, *size, ready.sha256))
                took(rows.kept[-1], ready.data)
            images.append(image[good])
            texts.append(text[good])
            progress(batch.last, batch.read)
        rows.image, rows.text = (np.concatenate(parts[1:] or parts) for parts in (images, texts))
        return rows

    def prepare(self, records: Iterable[Record]) -> Iterator[tuple[Record, Prepared | str]]:
        """Each record, ready for the teacher, or why it is rejected. A few batches of pixels may be kept."""
        # Stores are asked by threads of this process.
        fetched = in_order(records, self._fetch_soon, 2 * _FETCHED_AT_ONCE)
        return self._workers.prepare(record for _, record in fetched)

    def _fetch_soon(self, record: Record) -> Future[Record] | Done[Record]:
        return self._fetchers.submit(self._fetch, record) if self._fetch.needed(record) else Done(record)

    def _batches(self, records: Iterable[Record], rows: EmbeddedRows) -> Iterator[_Batch]:
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

    def _send(self, batch: _Batch) -> Future[tuple[np.ndarray, np.ndarray]]:
        pixels = [pair.pixels for pair in batch.pairs]
        tokens = [pair.ready.tokens for pair in batch.pairs if pair.ready.tokens]
        if tokens:
            return self._lanes.embed(pixels, np.frombuffer(bytearray().join(tokens), np.int32).reshape(len(tokens), -1))
        return self._lanes.embed(pixels, [pair.record.caption for pair in batch.pairs])


class Lanes(AbstractContextManager):
    """Embeds several batches at once, each on a thread of its own. `depth` batches keep them busy.

    On a CPU each lane computes on one core. All cores on one batch would wait for the slowest of them after each
    product, and a core that other work shares, such as decoding, is slow. A GPU has two batches at hand.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher, self._threads = round_weights(teacher), torch.get_num_threads()
        cpu = teacher.device.type == "cpu"
        count = self._threads if cpu else 2
        self.depth = count + 1
        self._pool = ThreadPoolExecutor(count, initializer=compute_on_one_core if cpu else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        # What a lane asked for became the default of threads that start later.
        torch.set_num_threads(self._threads)

    def embed(
        self, pixels: Sequence[np.ndarray], captions: Sequence[str] | np.ndarray
    ) -> Future[tuple[np.ndarray, np.ndarray]]:
        """What `embed_batch` gives, when it is there."""
        return self._pool.submit(embed_batch, self._teacher, pixels, captions)


def compute_on_one_core() -> None:
    """For a new thread or process: its torch starts no others."""
    torch.set_num_threads(1)


def lane_batch_size(teacher: Teacher, batch_size: int) -> int:
    """Pairs to a lane's batch, given those that were asked for.

    A large teacher is as quick on a core with 16 of them, takes less memory so, and leaves fewer cores idle at a
    shard's end. A small one is quicker with more.
    """
    large = sum(weights.numel() for weights in teacher.model.parameters()) > _LARGE
    return min(batch_size, _ROWS_OF_A_LARGE_ONE) if large and teacher.device.type == "cpu" else batch_size


def round_weights(teacher: Teacher) -> Teacher:
    """The teacher with its weights rounded once, where they would be for every batch: bf16 on a CPU. Else itself.

    Measured for ViT-B-32: twice as fast as float32, and four times as fast as rounding them for every batch.
    """
    if teacher.precision != "bf16" or teacher.device.type != "cpu":
        return teacher
    rounded: dict[int, Any] = {id(weights): weights for weights in teacher.model.parameters()}
    for module in teacher.model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            for weights in module.parameters(recurse=False):
                if weights.ndim > 1:
                    # Of weights that want no gradient torch makes a copy for each place of a sequence (`should_fold`).
                    rounded[id(weights)] = nn.Parameter(weights.detach().bfloat16(), requires_grad=True)
    return replace(teacher, model=copy.deepcopy(teacher.model, rounded))
