"""Does `embed` keep a device busy that is quicker than decoding? As a GPU is, which costs no core."""

from __future__ import annotations

import multiprocessing
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import open_clip
import torch

from benchmarks.decoding import decode_all
from benchmarks.table import Row
from benchmarks.turns import median_ratio, take_turns
from clipsel_core.pool.making.embed import Teacher, framing_of
from clipsel_core.pool.making.embed_shard import Embedder
from clipsel_core.pool.making.prepare import Preparer
from clipsel_core.pool.making.quick import compute_alone
from clipsel_core.pool.sources.record import Record, Source

_WORKERS, _BATCH, _SIDE, _WIDTH = 4, 64, 224, 512
_BATCH_S = 0.005
# What a machine of 16 cores decodes of these pictures, 270 a second and core.
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


def rows(source: Source, records: Sequence[Record], turns: int) -> list[Row]:
    """`embed` with such a device and decoding alone, in turns on the same records; and what of it one process takes."""
    teacher = Teacher(
        model=_Device(),  # type: ignore[arg-type]
        preprocess=open_clip.image_transform(_SIDE, is_train=False),
        tokenizer=open_clip.get_tokenizer("ViT-B-32"),
        device=torch.device("meta"),
    )
    framing = framing_of(teacher)
    assert framing is not None
    preparer = Preparer(source.base, replace(framing, quick=True), framing.enough, 10**8)
    spent: dict[str, list[float]] = defaultdict(list)
    with (
        Embedder(teacher, source, workers=_WORKERS, batch_size=_BATCH, most_pixels=10**8) as embedder,
        ProcessPoolExecutor(_WORKERS, multiprocessing.get_context("forkserver"), compute_alone) as decoders,
    ):

        def embed() -> None:
            start = time.process_time()
            embedder.embed(source.read(0), lambda *_: None, lambda *_: None)
            spent["embed"].append((time.process_time() - start) / len(records))

        times = take_turns({"embed": embed, "decoding": lambda: decode_all(decoders, preparer, records)}, turns)
    share = median_ratio(times["decoding"], times["embed"])
    rates = {what: len(records) / sorted(seconds)[len(seconds) // 2] for what, seconds in times.items()}
    own = sorted(spent["embed"][1:])[turns // 2]
    return [
        Row(
            f"`embed` for a device that costs no core, {_SIDE} px, {len(records):,} pairs, share of decoding alone",
            f"{share:.2f} ({rates['embed']:,.0f} of {rates['decoding']:,.0f} pairs/s)",
            ">= 0.9",
            share >= 0.9,
        ),
        Row(
            "the same, what the process that feeds the device takes of a pair; at most so many pairs/s go through it",
            f"{1000 * own:.2f} ms; {1 / own:,.0f}",
            f">= {_SIXTEEN_CORES:,}",
            1 / own >= _SIXTEEN_CORES,
        ),
    ]
