"""Gives a synthetic run what pages with pictures need: a map of some of its pairs, images for what is looked at.

The images come from a stock of 64, since nobody needs 12.8 million different ones to time a gallery. The index names
one for each pair on the map and for the first and last few thousand by each metric, where galleries begin.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.pool.making.shard_files import INDEX
from clipsel_core.runs.store import Run

_STOCK, _SIDE, _ENDS = 64, 256, 4096


def add_map(run: Run, pairs: int, seed: int = 0) -> None:
    """Writes RUN/projection.parquet with so many random pairs in a few hundred clusters, and images into the pool."""
    table, draw = ScoreTable.open(run), np.random.default_rng(seed)
    rows = np.sort(draw.choice(len(table), min(pairs, len(table)), replace=False))
    names = table.uids_at(rows)
    centres = draw.normal(0, 6, (300, 2))
    places = (centres[draw.integers(0, len(centres), len(rows))] + draw.normal(0, 0.6, (len(rows), 2))).astype("f4")
    columns = {"uid_hi": names["f0"].copy(), "uid_lo": names["f1"].copy(), "x": places[:, 0], "y": places[:, 1]}
    pq.write_table(pa.table(columns), run.projection_file)
    ends = [_ends(table.files.column(metric)) for metric in table.metrics]
    _write_images(Path(run.pool_address), table, np.unique(np.concatenate([rows, *ends])), draw)


def _ends(values: np.ndarray) -> np.ndarray:
    """Rows of the lowest and the highest values."""
    usable = np.flatnonzero(~np.isnan(values))
    some = min(_ENDS, len(usable) - 1)
    order = np.argpartition(values[usable], (some, len(usable) - 1 - some))
    return usable[np.concatenate([order[: some + 1], order[-some - 1 :]])]


def _write_images(pool: Path, table: ScoreTable, rows: np.ndarray, draw: np.random.Generator) -> None:
    folder = pool / "pictures"
    folder.mkdir()
    sizes = []
    for number in range(_STOCK):
        data = _picture(draw)
        (folder / f"{number:02d}.jpg").write_bytes(data)
        sizes.append(len(data))
    (pool / "images").mkdir()
    names, which = table.uids_at(rows), rows % _STOCK
    stock = pa.array([f"pictures/{number:02d}.jpg" for number in range(_STOCK)])
    files = pa.DictionaryArray.from_arrays(pa.array(which, pa.int32()), stock)
    halves = [pa.array(names[half].copy()) for half in ("f0", "f1")]
    found = pa.table([*halves, files, np.zeros(len(rows), np.int64), np.array(sizes, np.int64)[which]], schema=INDEX)
    described = {"base": ".", "image_column": ""}
    pq.write_table(found.replace_schema_metadata(described), pool / "images" / "00000000.parquet")


def _picture(draw: np.random.Generator) -> bytes:
    """A JPEG of the size that pools have: blurred noise, about 15 kB."""
    small = Image.fromarray(draw.integers(0, 256, (24, 24, 3), dtype=np.uint8).astype(np.uint8))
    file = io.BytesIO()
    small.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()
