"""How do pairs become a pool on disk? Drawn, embedded and written in DataComp's layout, in this order."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clipsel_core.demo.pairs import Pair, Picture, draw_jpegs
from clipsel_core.demo.scenes import SIDE
from clipsel_core.demo.teacher import reproducible_torch
from clipsel_core.pool.embed import Teacher, embed_captions, embed_images

SHARD_SHARES = (0.4, 0.3, 0.2, 0.1)
"""Shards of different sizes, as pools have them; all are multiples of the smallest, so that their batches are alike."""


def write_pool(root: Path, pairs: Sequence[Pair], teacher: Teacher) -> None:
    """Draw and embed the pairs and write them below `root`: metadata/*.parquet, metadata/*.npz, shards/*.tar."""
    jpegs = list(draw_jpegs([pair.picture for pair in pairs]))
    image = embed_jpegs(teacher, jpegs)
    with reproducible_torch(seed=0):
        text = embed_captions(teacher, [pair.caption for pair in pairs])
    for folder in ("metadata", "shards"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(shard_rows(len(pairs))):
        name = f"{number:08d}"
        _write_metadata(root / "metadata" / f"{name}.parquet", pairs[rows], jpegs[rows], image[rows], text[rows])
        np.savez(root / "metadata" / f"{name}.npz", demo_img=image[rows], demo_txt=text[rows])
        _write_tar(root / "shards" / f"{name}.tar", pairs[rows], jpegs[rows], first_key=rows.start)


def write_target(path: Path, pictures: Sequence[Picture], teacher: Teacher) -> None:
    """Draw and embed the pictures of the target task: a .npy of (M, D) float16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, embed_jpegs(teacher, list(draw_jpegs(pictures))))


def embed_jpegs(teacher: Teacher, jpegs: Sequence[bytes]) -> np.ndarray:
    """Embed images as they are on disk. Returns (N, D) float16, rows of unit length."""
    with reproducible_torch(seed=0):
        return embed_images(teacher, (Image.open(BytesIO(jpeg)) for jpeg in jpegs))


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
        "clip_demo_similarity_score": pa.array(similarity, pa.float32()),
        "sha256": [hashlib.sha256(jpeg).hexdigest() for jpeg in jpegs],
        "fault": [pair.fault for pair in pairs],
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def _write_tar(path: Path, pairs: Sequence[Pair], jpegs: Sequence[bytes], *, first_key: int) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (pair, jpeg) in enumerate(zip(pairs, jpegs, strict=True)):
            key = f"{first_key + number:08d}"
            facts = {"uid": pair.uid, "key": key, "caption": pair.caption, "width": SIDE, "height": SIDE}
            _add(tar, f"{key}.jpg", jpeg)
            _add(tar, f"{key}.txt", pair.caption.encode())
            _add(tar, f"{key}.json", json.dumps(facts).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file without an owner and with the date 0, so that the same pairs give the same bytes."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, BytesIO(content))
