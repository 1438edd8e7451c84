"""What does `score` cost beyond its arithmetic: reading embeddings, and everything between the shards?"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.pools import clip_like_pairs, write_pool
from benchmarks.table import Row, at_least, at_most
from clipsel_core.pool.embeddings import read_embeddings, read_pairs
from clipsel_core.pool.layout import open_pool
from clipsel_core.runs.local import score
from clipsel_core.runs.score_group import usable_rows
from clipsel_core.scoring.clip_score import clip_score
from clipsel_core.scoring.normsim import normsim, normsim_2, second_moment
from clipsel_core.scoring.s_cliploss import normalizer

_ROWS, _SHARDS, _TARGETS = 20_000, 10, 2000


def measure(rounds: int) -> list[Row]:
    """Rows for reading a shard's npz and for a run of ten shards, both from the page cache, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pool(root / "pool", [_ROWS] * _SHARDS)
        np.save(root / "target.npy", clip_like_pairs(_TARGETS, seed=99)[0])
        return [*_reading_rows(root, 15), _end_to_end_row(root, rounds)]


def _reading_rows(root: Path, rounds: int) -> list[Row]:
    """Both sides of a shard as tensors that can be computed with, against as many bytes of the same file."""
    pool = open_pool(root / "pool")
    shard, teacher = pool.shards[0], pool.arch(None)

    def raw() -> None:
        shard.npz.read_bytes()

    def unchecked() -> None:
        for member in (teacher.image_member, teacher.text_member):
            torch.from_numpy(np.array(read_embeddings(shard, member)))

    def checked() -> None:
        pairs = read_pairs(pool, shard, teacher)
        for rows in (pairs.image, pairs.text):
            usable_rows(rows, pairs.usable)

    return [
        at_least(
            "reading embeddings from npz, against reading the raw file", _median_ratio(raw, unchecked, rounds), 0.8
        ),
        Row("the same with every row checked for its length", f"{_median_ratio(raw, checked, rounds):.2f}"),
    ]


def _end_to_end_row(root: Path, rounds: int) -> Row:
    """A run with a target, NormSim_inf and NormSim_2, start of the process not counted, against its arithmetic."""
    target = np.load(root / "target.npy")
    pool = open_pool(root / "pool")
    pairs = [read_pairs(pool, shard, pool.arch(None)) for shard in pool.shards]
    sides = [[usable_rows(rows, pair.usable) for rows in (pair.image, pair.text)] for pair in pairs]
    runs = iter(range(rounds + 1))

    def whole() -> None:
        score(root / "pool", root / f"run-{next(runs)}", targets={"task": root / "target.npy"}, device="cpu")

    def arithmetic() -> None:
        rows = torch.from_numpy(target)
        moment = second_moment(rows)
        for number, (image, text) in enumerate(sides):
            options = {"batch_size": 32768, "divisions": 10, "seed": 0, "name": f"{number:08d}"}
            normalizer(image, text, temperature=0.01, **options)
            clip_score(image, text)
            normsim(image, rows, p=float("inf"))
            normsim_2(image, moment)

    ratio = _median_ratio(whole, arithmetic, rounds)
    what = f"`score`, {_SHARDS} shards of {_ROWS:,}, against its arithmetic alone"
    return at_most(what, ratio, 1.15, "x")


def _median_ratio(above: Callable[[], object], below: Callable[[], object], rounds: int) -> float:
    """The median over rounds of one's time over the other's, after one round that does not count."""
    ratios = []
    for _ in range(rounds + 1):
        times = [_seconds(run) for run in (above, below)]
        ratios.append(times[0] / times[1])
    return statistics.median(ratios[1:])


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
