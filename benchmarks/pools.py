"""Where do the benchmarks and tests get embeddings that behave like CLIP's, and pools that hold them?

    python -m benchmarks.pools DIR --rows 5000 3000 4100

writes a pool in DataComp's layout without images, a shard for each number of rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_CONCEPTS = 900
_WRONG, _GENERIC = 0.10, 0.08


def clip_like_pairs(n: int, *, width: int = 768, seed: int | tuple[int, ...] = 0) -> tuple[np.ndarray, np.ndarray]:
    """Image and text embeddings of n pairs as a CLIP teacher would give: (n, width) float16 each, unit rows.

    Own pairs have a cosine of about 0.22 (spread 0.08), other pairs one of about 0.08 (spread 0.06). Both kinds lie in
    narrow cones, one for images and one for captions; common concepts are shared by many pairs; one caption in ten
    belongs elsewhere and some are generic, close to the centre of all captions. All seeds share one world of concepts.
    """
    world, draw = np.random.default_rng([20240519, width]), np.random.default_rng(seed)
    spectrum = ((1 + np.arange(width)) ** -0.3).astype(np.float32)
    cone_image, cone_text = _unit(world.standard_normal((2, width), dtype=np.float32) * spectrum)
    concepts = _unit(world.standard_normal((_CONCEPTS, width), dtype=np.float32) * spectrum)
    popularity = world.permutation((3.0 + np.arange(_CONCEPTS)) ** -0.9)

    def pick() -> np.ndarray:
        return draw.choice(_CONCEPTS, n, p=popularity / popularity.sum())

    def own(size: float) -> np.ndarray:
        return size * _unit(draw.standard_normal((n, width), dtype=np.float32) * spectrum)

    seen = pick()
    told = np.where(draw.random(n) < _WRONG, pick(), seen)
    matched = (told == seen).astype(np.float32)[:, None]
    clarity = draw.lognormal(-0.05, 0.3, n).astype(np.float32)[:, None]
    relevance = draw.beta(2.5, 1.5, n).astype(np.float32)[:, None]
    relevance[draw.random(n) < _GENERIC] = 0.05
    particular = own(1.0)
    image = 0.72 * cone_image + 0.36 * clarity * concepts[seen] + 0.32 * particular + own(0.38)
    text = 0.76 * cone_text + 0.04 * cone_image + relevance * (0.36 * concepts[told] + 0.36 * matched * particular)
    return _unit(image).astype(np.float16), _unit(text + own(0.34)).astype(np.float16)


def write_pool(root: Path, rows: list[int], *, width: int = 768, arch: str = "l14", seed: int = 0) -> Path:
    """Writes root/metadata with one shard for each number of rows; same bytes for the same arguments. Returns root."""
    folder = Path(root) / "metadata"
    folder.mkdir(parents=True, exist_ok=True)
    for shard, n in enumerate(rows):
        image, text = clip_like_pairs(n, width=width, seed=(seed, shard))
        names = np.random.default_rng([seed, shard, 7]).integers(0, 2**64, (n, 2), dtype=np.uint64)
        hexes = [f"{high:016x}{low:016x}" for high, low in names.tolist()]
        columns = {"uid": hexes, "text": [f"caption {row} of shard {shard}" for row in range(n)]}
        pq.write_table(pa.table(columns), folder / f"{shard:08d}.parquet")
        np.savez(folder / f"{shard:08d}.npz", **{f"{arch}_img": image, f"{arch}_txt": text})
    return Path(root)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def main() -> None:
    """Writes what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[5000])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--arch", default="l14")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(write_pool(asked.root, asked.rows, width=asked.width, arch=asked.arch, seed=asked.seed))


if __name__ == "__main__":
    main()
