"""What do Ray's workers cost? Two of one core each against one, and against our own worker processes on the same cores.

Measured is the time from the end of each worker's first shard to the end of the last, by the files' times: what grows
with the pool. Starting Ray is left out; the whole command has a row of its own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.pools import write_pool
from benchmarks.table import Row, at_least, at_most

_SHARDS, _ROWS = 16, 10_000


def measure(rounds: int) -> list[Row]:
    """Rows for `score` of 16 shards of 10,000 pairs of width 768, in the page cache, the contenders in turns."""
    one, two = (",".join(map(str, sorted(os.sched_getaffinity(0))[:cores])) for cores in (1, 2))
    on_ray = ["--cluster", "local", "--cpus-per-worker", "1"]
    contenders = {"one": (one, on_ray, 1), "two": (two, on_ray, 2), "own": (two, ["--device", "cpu,cpu"], 2)}
    with tempfile.TemporaryDirectory() as folder:
        pool = write_pool(Path(folder) / "pool", [_ROWS] * _SHARDS)
        # Every other round backwards: whoever comes later may find the machine warmer, or busier.
        orders = [list(contenders.items()), list(contenders.items())[::-1]]
        times = [
            {name: _score(pool, Path(folder) / f"{name}{number}", *how) for name, how in orders[number % 2]}
            for number in range(rounds)
        ]
    linear = statistics.median(time["one"][0] / (2 * time["two"][0]) for time in times)
    ratio = statistics.median(time["two"][0] / time["own"][0] for time in times)
    before = statistics.median(time["two"][1] - time["own"][1] for time in times)
    name = f"`score` on Ray, {_SHARDS} shards of {_ROWS:,}"
    return [
        at_least(f"{name}, two workers of one core each: share of twice one's rate", linear, 0.9),
        at_most("the same against our own two worker processes, from the first shard on", ratio, 1.05, "x"),
        Row("the same, the whole command: longer by", f"{before:.0f} s"),
    ]


def _score(pool: Path, run: Path, cores: str, options: list[str], workers: int) -> tuple[float, float]:
    """Seconds a shard once each worker has done one, and of the whole command."""
    command = ["taskset", "-c", cores, sys.executable, "-m", "clipsel_core", "score", str(pool), str(run), *options]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole = time.perf_counter() - start
    ends = sorted(file.stat().st_mtime for file in (run / "scores").iterdir())
    return (ends[-1] - ends[workers - 1]) / (len(ends) - workers), whole
