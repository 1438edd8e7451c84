"""How much longer does `score` take than its arithmetic alone?

Two processes take turns: `score` into a new folder, and `benchmarks.arithmetic` on the same pool. Two ratios come out:
of the time between the first shard's reading and the last file's renaming, which is what grows with the pool, and of
the whole process, start, imports and the checks of the pool included, which are the same few seconds for any pool.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import process
from benchmarks.pools import write_pool
from benchmarks.table import Row, at_most
from clipsel_core.runs.store import read_config

_SHARDS, _ROWS = 10, 20_000


def measure(rounds: int) -> list[Row]:
    """Rows for `score` with its default options on 10 shards of 20,000 pairs of width 768, in the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        pool = write_pool(Path(folder) / "pool", [_ROWS] * _SHARDS)
        times = [_round(pool, Path(folder) / f"run{number}") for number in range(rounds)]
    steady, whole = (statistics.median(time[which] / time[2] for time in times) for which in (0, 1))
    alone = statistics.median(time[2] for time in times)
    name = f"`score`, {_SHARDS} shards of {_ROWS:,}, against its arithmetic alone"
    return [
        at_most(f"{name}, from the first shard on", steady, 1.15, "x"),
        Row("the same, the whole process", f"{whole:.3g}x"),
        Row("the arithmetic alone", f"{alone:.1f} s"),
    ]


def _round(pool: Path, run: Path) -> tuple[float, float, float]:
    """Seconds of `score` from the first shard on and as a process, and of the arithmetic."""
    whole, _ = process.measure("clipsel_core", "score", str(pool), str(run), "--device", "cpu")
    steady = read_config(run).outcome.seconds
    command = [sys.executable, "-m", "benchmarks.arithmetic", str(pool)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return steady, whole, float(told)
