"""What does a teacher compute in where nobody says? As the pool was begun; on a CPU in bf16 where a trial says so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import cast

import numpy as np
import torch

from clipsel_core.counts import counted
from clipsel_core.pool.making.decode import MOST_PIXELS, quiet_pillow
from clipsel_core.pool.making.embed import Precision, Teacher, embed_batch
from clipsel_core.pool.making.embedder import Embedder, compute_on_one_core, round_weights
from clipsel_core.pool.sources.record import Source
from clipsel_core.pool.teachers import read_teachers

# A trial's pairs, and the records in which they are sought.
_PAIRS, _RECORDS = 8, 64
# Rounds of a trial: the first prepares the products for their sizes; small teachers take many, which costs little.
_LEAST_ROUNDS, _MOST_ROUNDS, _ROUNDS_S = 2, 20, 2.0
# Embeddings may be off by 2e-3; a trial sees a few of them only.
_FASTER, _FURTHEST = 1.5, 1e-3


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
    teacher: Teacher, source: Source, root: Path, arch: str, *, most_pixels: int = MOST_PIXELS
) -> tuple[Teacher, Trial | None]:
    """The teacher as it is to embed into this pool, and the trial that decided it, if one did.

    A choice made by the clock may be another one next time: what a pool was begun with, it goes on with.
    """
    noted = read_teachers(root).get(arch)
    if noted:
        possible = noted.precision != "fp16" or teacher.device.type != "cpu"
        return (replace(teacher, precision=cast(Precision, noted.precision)) if possible else teacher), None
    if source.embedded or teacher.device.type != "cpu" or not _multiplies_bf16():
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
    furthest = max(_furthest(one, other) for one, other in zip(*rows, strict=True))
    slow, quick = map(min, seconds)
    return Trial(len(pixels), slow / quick, furthest)


def _furthest(exact: np.ndarray, rounded: np.ndarray) -> float:
    """The greatest 1 - cosine; infinite where a row is not finite."""
    one, other = exact.astype(np.float64), rounded.astype(np.float64)
    cosines = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    return float((1 - cosines).max()) if np.isfinite(cosines).all() else float("inf")


def _multiplies_bf16() -> bool:
    """Whether this CPU does; others would take many times as long to find out."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
