"""How fast do embeddings come out of an npz, and NormSim to a few exemplars, against reading the same bytes raw?

Everything lies in the page cache, so that memory and not a disk is measured.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.pools import clip_like_pairs, write_pool
from benchmarks.table import Row, at_least, at_most
from benchmarks.turns import median_ratio, take_turns
from clipsel_core.npy import fill_rows, read_members
from clipsel_core.pool.embeddings import read_embeddings, read_pairs
from clipsel_core.pool.layout import Pool, open_pool
from clipsel_core.scoring.normsim import normsim

_ROWS, _EXEMPLARS = 40_000, 20


def measure(rounds: int) -> list[Row]:
    """Rows for reading a shard of 40,000 pairs of width 768, and for one pass over its images."""
    with tempfile.TemporaryDirectory() as folder:
        pool = open_pool(write_pool(Path(folder), [_ROWS]))
        return _measure(pool, Path(folder), rounds)


def _measure(pool: Pool, folder: Path, rounds: int) -> list[Row]:
    shard, arch = pool.shards[0], pool.arch("l14")
    members = (arch.image_member, arch.text_member)
    raw = {member: folder / f"{member}.raw" for member in members}
    for member in members:
        read_embeddings(shard, member).tofile(raw[member])
    image = read_members(shard.npz)[arch.image_member]
    kept = np.zeros(image.shape, image.dtype)
    exemplars = torch.from_numpy(clip_like_pairs(_EXEMPLARS, seed=3)[0])

    def into_kept() -> None:
        with open(raw[arch.image_member], "rb", buffering=0) as file:
            file.readinto(kept.reshape(-1).view(np.uint8))

    def compare() -> None:
        mapped = torch.from_numpy(read_embeddings(shard, arch.image_member))
        normsim(mapped, exemplars, p=math.inf)

    times = take_turns(
        {
            "fromfile": lambda: [np.fromfile(raw[member], np.float16) for member in members],
            "pairs": lambda: read_pairs(shard, arch),
            "readinto": into_kept,
            "rows": lambda: list(fill_rows(shard.npz, image, kept, block=256)),
            "exemplars": compare,
        },
        rounds,
    )
    unchecked = median_ratio(times["readinto"], times["rows"])
    checked = median_ratio(times["fromfile"], times["pairs"])
    one_pass = median_ratio(times["exemplars"], times["readinto"])
    return [
        at_least("reading embeddings from npz, rate against `readinto` of the raw file", unchecked, 0.8, "x"),
        Row("the same with both sides, every row checked, into new memory, against `np.fromfile`", f"{checked:.2f}x"),
        at_most(f"NormSim_inf to {_EXEMPLARS} exemplars, time of a pass over the time of reading", one_pass, 1.3, "x"),
    ]
