"""How does a stretch of records become rows, and in which precision? Prepared by workers and embedded in batches."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Self, cast

import numpy as np
import torch
from torch import nn

from clipsel_core.errors import counted
from clipsel_core.places import Place
from clipsel_core.pool.embeddings import describe_row
from clipsel_core.pool.layout import read_teachers
from clipsel_core.pool.making.decode import MOST_PIXELS, Tokens, quiet_pillow
from clipsel_core.pool.making.decoders import Decoders, Prepared, Preparer
from clipsel_core.pool.making.embed import Precision, Teacher, embed_batch, framing_of
from clipsel_core.pool.making.feed import Fetcher
from clipsel_core.pool.making.shard_files import EmbeddedRows
from clipsel_core.pool.sources.record import Record, Source
from clipsel_core.tasks import Done, in_order

# Pairs to a batch of the teacher where nobody says how many.
BATCH_SIZE = 64

_FETCHED_AT_ONCE = 32
# Weights of a large teacher, or more.
_LARGE = 50_000_000
_ROWS_OF_A_LARGE_ONE = 16

# A trial's pairs, and the records in which they are sought.
_PAIRS, _RECORDS = 8, 64
# Rounds of a trial: the first prepares the products for their sizes; small teachers take many, which costs little.
_LEAST_ROUNDS, _MOST_ROUNDS, _ROUNDS_S = 2, 20, 2.0
# Embeddings may be off by 2e-3; a trial sees a few of them only.
_FASTER, _FURTHEST = 1.5, 1e-3
_BF16 = ("avx512_bf16", "amx_bf16", "bf16")

Took = Callable[[Record, bytes | None], object]
"""Told of a pair that is kept, and its encoded image."""
Reached = Callable[[Record, int], object]
"""Told of a record that was gone through, and how many were."""


def copy_embeddings(records: Iterable[Record], progress: Reached, took: Took) -> EmbeddedRows:
    """The records' own embeddings as rows, scaled to unit length, in order; records that have none are rejected.

    progress: called after each record. took: with each pair that is kept.
    """
    rows, sides = EmbeddedRows(), []
    for record in records:
        rows.read += 1
        fault = record.fault or "no embeddings" * (record.embeddings is None)
        if record.embeddings is not None and not fault:
            for side, row in zip(("image", "text"), record.embeddings, strict=True):
                if not (np.isfinite(row).all() and row.any()):
                    fault = fault or f"its {side} embedding has {describe_row(row)}"
        if fault:
            rows.rejected.append((record.file, record.key, fault))
        else:
            exact = np.asarray(record.embeddings, np.float64)
            sides.append((exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float16))
            rows.kept.append(replace(record, embeddings=None))
            took(rows.kept[-1], None)
        progress(record, rows.read)
    if sides:
        rows.image, rows.text = np.stack(sides, axis=1)
    return rows


_Batch = tuple[list[Prepared], Record, int]
"""Pairs to embed together, the record that was read last for them, and how many were until then."""


class Embedder(AbstractContextManager):
    """A teacher with all that embedding a source's records takes.

    workers: processes that decode, to be used within `with`. keep: hand the encoded images on. captions: whether these
    are embedded; else their rows have no columns.
    """

    def __init__(
        self,
        teacher: Teacher,
        source: Source,
        *,
        workers: int,
        batch_size: int,
        most_pixels: int,
        keep: bool = False,
        captions: bool = True,
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
        self._captions = captions
        self._open = ExitStack()
        self._lanes = self._open.enter_context(Lanes(teacher))
        ahead, held = 2 * self._batch_size + 16 * workers, (self._lanes.depth + 2) * self._batch_size
        shape = framing.shape if framing else None
        words = tokens if captions and feeding and tokens.travels else None
        self._workers = self._open.enter_context(
            Decoders(preparer, workers, shape, ahead=ahead, held=held, tokens=words, captions=captions)
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
        for (pairs, last, read), (image, text) in in_order(self._batches(records, rows), self._send, self._lanes.depth):
            self._workers.release(pairs)
            good = np.isfinite(image).all(1) & np.isfinite(text).all(1)
            for (record, ready, _, _), fine in zip(pairs, good, strict=True):
                if not fine:
                    rows.rejected.append((record.file, record.key, "its embedding is not finite"))
                    continue
                length = None if record.in_row else ready.size
                width, height = record.width or ready.width, record.height or ready.height
                rows.kept.append(replace(record, length=length, width=width, height=height, sha256=ready.sha256))
                took(rows.kept[-1], ready.data)
            images.append(image[good])
            texts.append(text[good])
            progress(last, read)
        rows.image, rows.text = (np.concatenate(parts[1:] or parts) for parts in (images, texts))
        return rows

    def prepare(self, records: Iterable[Record]) -> Iterator[tuple[Record, Prepared | str]]:
        """Each record, ready for the teacher, or why it is rejected. A few batches of pixels may be kept."""

        def fetch(record: Record) -> Future[Record] | Done[Record]:
            return self._fetchers.submit(self._fetch, record) if self._fetch.needed(record) else Done(record)

        # Stores are asked by threads of this process.
        return self._workers.prepare(record for _, record in in_order(records, fetch, 2 * _FETCHED_AT_ONCE))

    def _batches(self, records: Iterable[Record], rows: EmbeddedRows) -> Iterator[_Batch]:
        pairs: list[Prepared] = []
        for record, outcome in self.prepare(records):
            rows.read += 1
            if isinstance(outcome, str):
                rows.rejected.append((record.file, record.key, outcome))
            else:
                pairs.append(outcome)
            if len(pairs) == self._batch_size:
                yield pairs, record, rows.read
                pairs = []
        if pairs:
            yield pairs, record, rows.read

    def _send(self, batch: _Batch) -> Future[tuple[np.ndarray, np.ndarray]]:
        pairs = batch[0]
        pixels, tokens = [pair.pixels for pair in pairs], [pair.ready.tokens for pair in pairs if pair.ready.tokens]
        if tokens:
            return self._lanes.embed(pixels, np.frombuffer(bytearray().join(tokens), np.int32).reshape(len(tokens), -1))
        return self._lanes.embed(pixels, [pair.record.caption for pair in pairs] if self._captions else None)


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
        self, pixels: Sequence[np.ndarray], captions: Sequence[str] | np.ndarray | None
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


@dataclass(frozen=True)
class Trial:
    """bf16 beside float32, on a source's first pairs.

    faster: how many times as fast. furthest: the greatest 1 - cosine between the two embeddings of an image or caption.
    """

    pairs: int
    faster: float
    furthest: float

    @property
    def pays(self) -> bool:
        """Whether bf16 is worth it: much faster, and the embeddings hardly move."""
        return self.faster >= _FASTER and self.furthest <= _FURTHEST

    @property
    def said(self) -> str:
        """What came out, for people."""
        return (
            f"on this CPU bf16 takes {1 / self.faster:.2f} of float32's time, and moves embeddings by "
            f"{self.furthest:.0e} (1 - cosine) at most, tried on {counted(self.pairs, 'pairs')}"
        )


def choose_precision(
    teacher: Teacher, source: Source, root: str | os.PathLike[str], arch: str, *, most_pixels: int = MOST_PIXELS
) -> tuple[Teacher, Trial | None]:
    """The teacher as it is to embed into this pool, and the trial that decided it, if one did.

    A choice made by the clock may be another one next time: what a pool was begun with, it goes on with.
    """
    noted = read_teachers(root).get(arch)
    if noted:
        possible = noted.precision != "fp16" or teacher.device.type != "cpu"
        return (replace(teacher, precision=cast(Precision, noted.precision)) if possible else teacher), None
    # Where the CPU has no such product, finding out would take many times as long.
    able = torch.cpu.get_capabilities()
    if source.embedded or teacher.device.type != "cpu" or not any(able.get(name) for name in _BF16):
        return teacher, None
    records = islice(chain.from_iterable(map(source.read, range(len(source.parts)))), _RECORDS)
    with quiet_pillow(), Embedder(teacher, source, workers=1, batch_size=_PAIRS, most_pixels=most_pixels) as embedder:
        outcomes = (outcome for _, outcome in embedder.prepare(records))
        prepared = list(islice((pair for pair in outcomes if not isinstance(pair, str)), _PAIRS))
    if not prepared:
        return teacher, None
    trial = try_bf16(teacher, [pair.pixels for pair in prepared], [pair.record.caption for pair in prepared])
    return (replace(teacher, precision="bf16") if trial.pays else teacher), trial


def try_bf16(teacher: Teacher, pixels: Sequence[np.ndarray], captions: Sequence[str]) -> Trial:
    """Embeds a few pairs in float32 and in bf16, by the time of one core, which other work beside it hardly changes."""
    threads = torch.get_num_threads()
    contenders = [replace(teacher, precision="float32"), round_weights(replace(teacher, precision="bf16"))]
    seconds: list[list[float]] = [[], []]
    rows: list[tuple[np.ndarray, np.ndarray]] = []

    def take_turns() -> None:
        start = time.thread_time()
        for turn in range(_MOST_ROUNDS):
            if turn >= _LEAST_ROUNDS and time.thread_time() - start > _ROUNDS_S:
                break
            rows.clear()
            for each, spent in zip(contenders, seconds, strict=True):
                before = time.thread_time()
                rows.append(embed_batch(each, pixels, captions))
                spent.append(time.thread_time() - before)

    with ThreadPoolExecutor(1, initializer=compute_on_one_core) as core:
        core.submit(take_turns).result()
    torch.set_num_threads(threads)
    furthest = 0.0
    for exact, rounded in zip(*rows, strict=True):
        one, other = exact.astype(np.float64), rounded.astype(np.float64)
        cosines = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
        furthest = max(furthest, float((1 - cosines).max()) if np.isfinite(cosines).all() else float("inf"))
    slow, quick = map(min, seconds)
    return Trial(len(pixels), slow / quick, furthest)
