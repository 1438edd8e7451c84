"""How long does it take to draw as many samples as there are pairs, how much memory, and is it the published draw?

`python -m benchmarks.sampling 128000000` prints the table for so many pairs: 3 GB of memory, 0.5 GB of disk.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import process
from benchmarks.table import Row, at_least, at_most, machine, markdown
from tests.curation.selecting.test_sampling import p_of_the_published

_PAIRS, _LARGE = 12_800_000, 128_000_000
_PER_ROUND, _BLOCK = 100_000, 1 << 20
_SEEDS = 20


def measure(pairs: int = _PAIRS) -> list[Row]:
    """Rows for each way to draw, a process each, for what it cannot do without, and for the published procedure.

    The scores are normal with a deviation of 3: the best pairs come 70 times, three quarters never.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, few = Path(folder) / "scores.npy", Path(folder) / "few.npy"
        draw = np.random.default_rng(0)
        scores = 3 * draw.standard_normal(pairs, np.float32)
        np.save(file, scores)
        np.save(few, scores[:1000])
        rows = []
        for method in ("soft_cap", "hard_cap", "proportional"):
            _, before = process.measure("benchmarks.sampling_alone", str(few), method)  # compiles as well
            seconds, peak = process.measure("benchmarks.sampling_alone", str(file), method)
            what = f"`{method}`, {pairs:,} samples from as many pairs, a process"
            rows.append(at_most(what, seconds, 600 * pairs / _LARGE, " s"))
            rows.append(
                Row("the same, peak memory", f"{peak:,.0f} MiB, {(peak - before) * 2**20 / pairs:.1f} B a pair")
            )
    rounds = -(-pairs // _PER_ROUND)
    return [
        *rows,
        Row("a random number and a fetch from a random place a sample", f"{_fetch_s(pairs, draw):.3g} s"),
        Row("the largest score, once a round", f"{_look_s(scores) * rounds:,.0f} s"),
        Row("the published procedure, from one round of it", f"{_round_s(scores, draw) * rounds:,.0f} s"),
    ]


def measure_agreement() -> list[Row]:
    """Rows for the draws of 20 seeds against the published procedure's, by decile of the score and by count."""
    draw = np.random.default_rng(1)
    rows = []
    for deviation in (1, 3):
        for per_round, samples, most in ((1000, 100_000, 7), (20_000, 390_000, 7)):
            scores = deviation * draw.standard_normal(100_000, np.float32)
            p = p_of_the_published(scores, samples, per_round, most, _SEEDS)
            what = (
                f"p of the same draw: 100,000 pairs, deviation {deviation}, {samples:,} samples, {per_round:,} a round"
            )
            rows.append(at_least(what, p, 0.001, digits=3))
    return rows


def _fetch_s(pairs: int, draw: np.random.Generator) -> float:
    places = np.zeros(pairs, np.uint32)
    start = time.perf_counter()
    for done in range(0, pairs, _BLOCK):
        places[(draw.random(min(_BLOCK, pairs - done)) * pairs).astype(np.int64)].max()
    return time.perf_counter() - start


def _look_s(scores: np.ndarray) -> float:
    start = time.perf_counter()
    np.max(scores)
    return time.perf_counter() - start


def _round_s(scores: np.ndarray, draw: np.random.Generator) -> float:
    start = time.perf_counter()
    for done in range(0, len(scores), _BLOCK):  # its largest are at least found in parts
        part = scores[done : done + _BLOCK] + draw.gumbel(size=len(scores[done : done + _BLOCK]))
        np.argpartition(part, len(part) // 2)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(f"{machine()}\n\n{markdown([*measure(*map(int, sys.argv[1:])), *measure_agreement()])}")
