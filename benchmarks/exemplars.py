"""How long does it take to compare a finished run with 20 exemplars, against reading its images once?

`add-target` as a whole but for the start of its process: opening run and pool, reading the exemplars, reading and
checking every image, both norms, and writing the scores to disk. It takes turns with `readinto` of the same images
from the same npz, one shard after the other into memory at hand. Both from the disk, as of 12.8 million pairs, whose
20 GB few machines keep in memory: the page cache lets go of the files before each turn. And both from the page cache.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.pools import clip_like_pairs
from benchmarks.table import Row, at_most
from clipsel_core import uids
from clipsel_core.npy import read_members
from clipsel_core.pool.layout import Pool, open_pool
from clipsel_core.runs.added import add_target
from clipsel_core.runs.local import score
from clipsel_core.runs.store import Run

_SHARD, _EXEMPLARS = 100_000, 20


def measure(rounds: int, pairs: int = 2_000_000) -> list[Row]:
    """Rows for a pool of 2 million pairs of width 768: 3.1 GB of images, and 6.2 GB of disk with the captions."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pool = _write_pool(root / "pool", math.ceil(pairs / _SHARD))
        run = score(root / "pool", root / "run", divisions=1, batch_size=1024, device="cpu")
        np.save(root / "exemplars.npy", clip_like_pairs(_EXEMPLARS, seed=3)[0])
        return _measure(pool, run, root / "exemplars.npy", rounds)


def _measure(pool: Pool, run: Run, exemplars: Path, rounds: int) -> list[Row]:
    name = f"`add-target` with {_EXEMPLARS} exemplars, {pool.rows:,} pairs, time over the time of reading the images"
    ratio, seconds = _in_turns(pool, run, exemplars, rounds, _let_go)
    again, at_hand = _in_turns(pool, run, exemplars, rounds, lambda pool: None)
    return [
        at_most(f"{name} from the disk", ratio, 1.3, "x"),
        Row("the same, as a whole and the reading alone", seconds),
        Row("the same with all files in the page cache", f"{again:.3g}x, {at_hand}"),
    ]


def _in_turns(pool: Pool, run: Run, exemplars: Path, rounds: int, before: Callable[[Pool], None]) -> tuple[float, str]:
    """The median ratio of comparing to reading, and both times in words. before: what is done before each turn."""
    memory = np.zeros((_SHARD, 768), np.float16)
    times = []
    for number in range(rounds + 1):  # the first does not count
        before(pool)
        ours = _seconds_to_compare(run, exemplars, f"exemplars{number}")
        before(pool)
        times.append((ours, _seconds_to_read(pool, memory)))
        shutil.rmtree(Path(run.root) / "added")
    ratio = statistics.median(ours / reading for ours, reading in times[1:])
    ours, reading = (statistics.median(side) for side in zip(*times[1:], strict=True))
    return ratio, f"{ours:.2f} s and {reading:.2f} s"


def _let_go(pool: Pool) -> None:
    """Has the page cache forget the pool's embeddings."""
    for shard in pool.shards:
        assert shard.npz is not None
        with open(shard.npz, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _seconds_to_compare(run: Run, exemplars: Path, name: str) -> float:
    start = time.perf_counter()
    add_target(run.root, name, exemplars, norms=("inf", "2"))
    return time.perf_counter() - start


def _seconds_to_read(pool: Pool, memory: np.ndarray) -> float:
    start = time.perf_counter()
    for shard in pool.shards:
        assert shard.npz is not None
        image = read_members(shard.npz)[pool.arch(None).image_member]
        assert image.offset is not None
        with open(shard.npz, "rb", buffering=0) as file:
            file.seek(image.offset)
            file.readinto(memory[: image.shape[0]].reshape(-1).view(np.uint8))
    return time.perf_counter() - start


def _write_pool(root: Path, shards: int) -> Pool:
    """Shards of the same pairs in other orders, under uids of their own: drawing them anew would take minutes."""
    (root / "metadata").mkdir(parents=True)
    image, text = clip_like_pairs(_SHARD, seed=5)
    for shard in range(shards):
        names = uids.from_halves(*np.random.default_rng(shard).integers(0, 2**64, (2, _SHARD), dtype=np.uint64))
        stem, turn = root / "metadata" / f"{shard:08d}", 4999 * shard
        pq.write_table(pa.table({"uid": uids.to_hex(names)}), stem.with_suffix(".parquet"))
        np.savez(stem.with_suffix(".npz"), l14_img=np.roll(image, turn, 0), l14_txt=np.roll(text, turn, 0))
    return open_pool(root)
