"""What does it cost to know where every image of a pool is, and to open one? Time and memory, an image for each pair.

    python -m benchmarks.lookup RUN

RUN is a run that is there, such as benchmarks.synthetic_run makes; its pairs get images from a stock of 64.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.pool.images import ImageIndex
from clipsel_core.pool.making.shard_files import INDEX
from clipsel_core.runs.store import Run

_STOCK, _BYTES, _OPENED = 64, 15_000, 500


def main() -> None:
    """Prints a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    run = Run.open(parser.parse_args().run)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = [_write_part(root, scores) for scores in map(Path, run.score_files)]
        before = _memory_mib()
        start = time.perf_counter()
        index = ImageIndex.of_parts(root, paths, root / "images.index")
        print(f"{'built, once, for':<24}{len(index):>14,} images in {time.perf_counter() - start:.1f} s")
        print(f"{'more memory for that':<24}{_memory_mib() - before:>10,.0f} MiB at most")
        print(f"{'on disk':<24}{(root / 'images.index').stat().st_size / 2**20:>10,.0f} MiB")
        start = time.perf_counter()
        index = ImageIndex.of_parts(root, paths, root / "images.index")
        print(f"{'opened again':<24}{1000 * (time.perf_counter() - start):>10,.1f} ms")
        before, times = _memory_mib(), _times(index, run)
        print(
            f"{'an image by uid':<24}{statistics.median(times):>10.2f} ms, {max(times):.2f} at most of {len(times):,}"
        )
        print(f"{'more memory for those':<24}{_memory_mib() - before:>10,.0f} MiB; load {os.getloadavg()[0]:.1f}")


def _write_part(root: Path, scores: Path) -> Path:
    """The index that embed would have left for a shard."""
    stock = [f"{number:02d}.jpg" for number in range(_STOCK)]
    for name in stock:
        (root / name).write_bytes(bytes(_BYTES))
    halves = pq.read_table(scores, columns=["uid_hi", "uid_lo"]).combine_chunks()
    rows = len(halves)
    files = pa.DictionaryArray.from_arrays(pa.array(np.arange(rows) % _STOCK, pa.int32()), pa.array(stock))
    columns = [*halves.columns, files, np.zeros(rows, np.int64), np.full(rows, _BYTES)]
    path = root / "images" / scores.name
    path.parent.mkdir(exist_ok=True)
    described = {"base": ".", "image_column": ""}
    pq.write_table(pa.table(columns, schema=INDEX).replace_schema_metadata(described), path)
    return path


def _times(index: ImageIndex, run: Run) -> list[float]:
    """Milliseconds of opening images of random pairs."""
    draw, times = np.random.default_rng(0), []
    for scores in draw.choice(np.array(run.score_files), 5):
        table = pq.read_table(scores, columns=["uid_hi", "uid_lo"])
        names = uids.from_halves(table["uid_hi"].to_numpy(), table["uid_lo"].to_numpy())
        for name in uids.to_hex(names[draw.integers(0, len(names), _OPENED // 5)]).to_pylist():
            start = time.perf_counter()
            assert index.read(name)
            times.append(1000 * (time.perf_counter() - start))
    return times


def _memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
