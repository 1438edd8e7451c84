"""How do pairs become a pool on disk? Drawn, embedded and written in DataComp's layout, in this order."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.demo.pairs import Pair, Picture, draw_jpegs
from clipsel_core.demo.scenes import SIDE
from clipsel_core.demo.teacher import reproducible_torch
from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.making.embed import Teacher
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.making.packing import new_tar, write_stats
from clipsel_core.pool.sources.look import open_source

ARCH = "demo"
"""The teacher's name in the pool."""

BATCH_SIZE = 256
"""Pairs to a batch; the last digits of embeddings depend on it."""

SHARD_SHARES = (0.4, 0.3, 0.2, 0.1)
"""Shards of different sizes, as pools have them; all are multiples of the smallest, so that their batches are alike."""


def write_pool(root: Path, pairs: Sequence[Pair], teacher: Teacher) -> None:
    """Draw and embed the pairs and write them below `root`: metadata/*.parquet, metadata/*.npz, shards/*.tar."""
    jpegs = list(draw_jpegs([pair.picture for pair in pairs]))
    image, text = embed_pairs(teacher, jpegs, [pair.caption for pair in pairs])
    for folder in ("metadata", "shards"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(shard_rows(len(pairs))):
        name = f"{number:08d}"
        _write_metadata(root / "metadata" / f"{name}.parquet", pairs[rows], jpegs[rows], image[rows], text[rows])
        arrays = {f"{ARCH}_img": image[rows], f"{ARCH}_txt": text[rows]}
        np.savez(root / "metadata" / f"{name}.npz", allow_pickle=False, **arrays)
        _write_tar(root / "shards" / f"{name}.tar", pairs[rows], jpegs[rows], first_key=rows.start)


def write_target(path: Path, pictures: Sequence[Picture], teacher: Teacher) -> None:
    """Draw and embed the pictures of the target task: a .npy of (M, D) float16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    jpegs = list(draw_jpegs(pictures))
    np.save(path, embed_pairs(teacher, jpegs, ["a picture"] * len(jpegs))[0])


def embed_pairs(teacher: Teacher, jpegs: Sequence[bytes], captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Embed pairs the way `embed` does: both sides, (N, D) float16, rows of unit length, in the pairs' order."""
    with tempfile.TemporaryDirectory() as folder:
        source, root = Path(folder) / "source", Path(folder) / "pool"
        source.mkdir()
        with new_tar(source / "0.tar") as packer:
            for number, (jpeg, caption) in enumerate(zip(jpegs, captions, strict=True)):
                packer.add(f"{number:08d}", jpeg, caption, {})
        with reproducible_torch(seed=0):
            make_pool(open_source(source), root, teacher, arch=ARCH, batch_size=BATCH_SIZE)
        with np.load(root / "metadata" / "00000000.npz") as arrays:
            image, text = arrays[f"{ARCH}_img"], arrays[f"{ARCH}_txt"]
    if len(image) != len(jpegs):
        raise PoolFormatError("the demo", expected=f"{len(jpegs):,} pairs embedded", found=f"{len(image):,}")
    return image, text


def shard_rows(count: int) -> list[slice]:
    """Which rows of the pool lie in each shard.

    >>> shard_rows(100)
    [slice(0, 40, None), slice(40, 70, None), slice(70, 90, None), slice(90, 100, None)]
    """
    ends = [round(count * share) for share in np.cumsum(SHARD_SHARES)]
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _write_metadata(
    path: Path, pairs: Sequence[Pair], jpegs: Sequence[bytes], image: np.ndarray, text: np.ndarray
) -> None:
    similarity = np.einsum("nd,nd->n", image.astype(np.float32), text.astype(np.float32))
    columns = {
        "uid": [pair.uid for pair in pairs],
        "url": [f"https://example.org/demo/{pair.uid}.jpg" for pair in pairs],
        "text": [pair.caption for pair in pairs],
        "original_width": pa.array([SIDE] * len(pairs), pa.int64()),
        "original_height": pa.array([SIDE] * len(pairs), pa.int64()),
        f"clip_{ARCH}_similarity_score": pa.array(similarity, pa.float32()),
        "sha256": [hashlib.sha256(jpeg).hexdigest() for jpeg in jpegs],
        "fault": [pair.fault for pair in pairs],
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def _write_tar(path: Path, pairs: Sequence[Pair], jpegs: Sequence[bytes], *, first_key: int) -> None:
    with new_tar(path) as packer:
        for number, (pair, jpeg) in enumerate(zip(pairs, jpegs, strict=True)):
            key = f"{first_key + number:08d}"
            facts = {"uid": pair.uid, "key": key, "caption": pair.caption, "width": SIDE, "height": SIDE}
            packer.add(key, jpeg, pair.caption, facts)
    write_stats(path, len(pairs))
