"""How long does NormSim_2-D take, beside computing each round in full at the rate of this machine's float32 product?

Times are CPU seconds of all threads, which other load on the machine changes less than the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.pools import clip_like_pairs
from benchmarks.table import Row, at_most
from clipsel_core.scoring.normsim import second_moment
from clipsel_core.scoring.normsim_2d import falling_order
from clipsel_core.scoring.threads import float32_products, for_each

WIDTH, _START, _KEEP = 768, 0.6, 0.2
_SHARD, _TILE, _TRIED = 25_000, 1024, 64 * 1024
_CPU = torch.device("cpu")


def measure(pairs: int = 1_000_000, rounds: int = 500) -> list[Row]:
    """Rows for a pool of CLIP-like pairs of width 768, of which 60 % start and 20 % remain; images in memory."""
    image = torch.empty((pairs, WIDTH), dtype=torch.float16)
    for shard, start in enumerate(range(0, pairs, _SHARD)):
        count = min(_SHARD, pairs - start)
        image[start : start + count] = torch.from_numpy(clip_like_pairs(count, width=WIDTH, seed=(11, shard))[0])
    chosen = np.sort(np.random.default_rng(0).permutation(pairs)[: int(_START * pairs)])
    keep, asked = int(_KEEP * pairs), []

    def read(rows: np.ndarray) -> Tensor:
        asked.append(len(rows))
        return image[torch.from_numpy(chosen[rows])]

    def fall() -> None:
        pool, own = second_moment(image), second_moment(read(np.arange(len(chosen))))
        asked.clear()
        falling_order(read, pool, own, count=len(chosen), keep=keep, rounds=rounds)

    before = _seconds_a_row(image)
    cpu_s, clock_s = _timed(fall)
    a_row = (before + _seconds_a_row(image)) / 2
    per_round = -(-(len(chosen) - keep) // rounds)
    in_full = sum(range(len(chosen), keep, -per_round))
    what = f"NormSim_2-D, {pairs:,} pairs, {len(chosen):,} to start from, {keep:,} kept, {rounds} rounds"
    computed = f"{sum(asked) / len(chosen):.1f}, {sum(asked) / in_full:.1%}"
    return [
        Row(what, f"{cpu_s:.0f} CPU s, {clock_s:.0f} s on the clock"),
        Row("float32 product of all pairs that are left, every round (counted)", f"{in_full * a_row:.0f} CPU s"),
        at_most("NormSim_2-D over that", cpu_s / (in_full * a_row), 0.2),
        Row("values computed (and rows read) a pair that starts; share of all", computed),
    ]


def _seconds_a_row(image: Tensor) -> float:
    """CPU seconds that x^T M takes in float32 for one row x, in tiles of one thread, the fastest way."""
    rows, moment = image[:_TRIED].float(), torch.randn(WIDTH, WIDTH)

    def tile(i: int, scratch: Tensor) -> None:
        strip = rows[i * _TILE : (i + 1) * _TILE]
        torch.mm(strip, moment, out=scratch.view(_TILE, WIDTH)[: len(strip)])

    def product() -> None:
        with float32_products(_CPU):
            for_each(tile, -(-len(rows) // _TILE), device=_CPU, scratch=_TILE * WIDTH)

    return min(_timed(product)[0] for _ in range(5)) / len(rows)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of this process, and seconds on the clock."""
    cpu, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - clock
