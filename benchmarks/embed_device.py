"""Does `embed` keep a device busy that is quicker than decoding? As a GPU is, which costs no core."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import open_clip
import torch

from benchmarks.decoding import decode_all
from benchmarks.table import Row
from benchmarks.turns import median_ratio, take_turns
from clipsel_core.pool.making.decoders import Preparer
from clipsel_core.pool.making.embed import Teacher, framing_of
from clipsel_core.pool.making.embedder import Embedder, compute_on_one_core
from clipsel_core.pool.sources.record import Record, Source

_WORKERS, _BATCH, _SIDE, _WIDTH = 4, 64, 224, 512
_BATCH_S = 0.005
# What 16 cores decode of photographs of 500 pixels, 270 a second each.
_SIXTEEN_CORES = 4320


class _Device(torch.nn.Module):
    """Takes a batch, and gives rows after a while, for which it waits without a core."""

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, D) float32."""
        time.sleep(_BATCH_S)
        return torch.ones(len(pixels), _WIDTH)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, D) float32."""
        return torch.ones(len(tokens), _WIDTH)


def rows(source: Source, records: Sequence[Record], light: Source, turns: int) -> list[Row]:
    """`embed` for such a device and decoding alone, in turns on the source's records; and what it hands on at most.

    light: pairs whose pictures are hardly any work.
    """
    teacher = Teacher(
        model=_Device(),  # type: ignore[arg-type]
        preprocess=open_clip.image_transform(_SIDE, is_train=False),
        tokenizer=open_clip.get_tokenizer("ViT-B-32"),
        device=torch.device("meta"),
    )
    framing = framing_of(teacher)
    assert framing is not None
    preparer = Preparer(source.base, replace(framing, quick=True), framing.enough, 10**8)
    context = multiprocessing.get_context("forkserver")
    with ExitStack() as opened:
        embed, embed_light = (_embed_with(teacher, each, opened) for each in (source, light))
        decoders = opened.enter_context(ProcessPoolExecutor(_WORKERS, context, compute_on_one_core))
        contenders = {"embed": embed, "decoding": lambda: decode_all(decoders, preparer, records), "light": embed_light}
        times = take_turns(contenders, turns)
    share = median_ratio(times["decoding"], times["embed"])
    rates = {what: len(records) / statistics.median(seconds) for what, seconds in times.items()}
    handed_on = sum(1 for _ in light.read(0)) / statistics.median(times["light"])
    return [
        Row(
            f"`embed` for a device that costs no core, {_SIDE} px, {len(records):,} pairs, share of decoding alone",
            f"{share:.2f} ({rates['embed']:,.0f} of {rates['decoding']:,.0f} pairs/s)",
            ">= 0.9",
            share >= 0.9,
        ),
        Row(
            "the same with pictures that are hardly any work: what one process hands on to a device",
            f"{handed_on:,.0f} pairs/s",
            f">= {_SIXTEEN_CORES:,}",
            handed_on >= _SIXTEEN_CORES,
        ),
    ]


def _embed_with(teacher: Teacher, source: Source, opened: ExitStack) -> Callable[[], object]:
    embedder = opened.enter_context(Embedder(teacher, source, workers=_WORKERS, batch_size=_BATCH, most_pixels=10**8))
    return lambda: embedder.embed(source.read(0), lambda *_: None, lambda *_: None)
