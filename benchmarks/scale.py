"""What does scoring cost as pools grow, how many shards can one driver hand out, and what will a large pool take?

    python -m benchmarks scale

measures for a quarter of an hour, with up to 6 GB of disk, and writes to benchmarks/scale as `growth` does. The tables
of docs/scale.md are made from what it measured and from the formulas of `clipsel score --plan`.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import repeat
from pathlib import Path

from benchmarks.growth import Plot, publish, split
from benchmarks.pools import write_pool
from benchmarks.table import Row
from clipsel_core.errors import duration
from clipsel_core.runs.cost import GPUS, count_work, expect, in_units
from clipsel_core.runs.store import RunConfig, TargetInfo, read_config

FOLDER = Path(__file__).parent / "scale"
_WIDTH, _PAIRS, _SHARD, _BATCH, _DIVISIONS = 64, (10_000, 100_000, 1_000_000, 12_800_000), 100_000, 4096, 2
_SHARDS, _SHARD_ROWS = (10, 100, 1000, 10_000), 100
_FEWEST_SHARDS = 1000  # with fewer a shard's time is that of beginning and ending
_DRIVER_MS = "the driver's cores"
_BEGINNING = "before the first shard, by the clock"
# Of the model: a pool like DataComp's, on nodes of eight GPUs that read 100 Gbit/s at four fifths.
_GPU, _GPUS_A_NODE, _NODE_BYTES_S, _GPU_COUNTS = "H100", 8, 10e9, (8, 64, 512)
_POOLS, _MODEL_SHARD, _MODEL_WIDTH, _TARGET = (
    (12_800_000, 128_000_000, 1_280_000_000, 12_800_000_000),
    100_000,
    768,
    1_281_167,
)


def measure(most_pairs: int) -> list[Row]:
    """Measures, writes plots and numbers. most_pairs: larger pools are left out."""
    load = os.getloadavg()[0]
    plots = [_cost(most_pairs), *_driver(most_pairs)]
    return publish(FOLDER, "Scale", plots, load)


def _cost(most_pairs: int) -> Plot:
    """Scoring pools of growing size, and what --plan said before."""
    title = f"What `score` takes, by the size of the pool\nK = {_DIVISIONS} divisions into batches of {_BATCH:,}"
    plot = Plot("cost", f"{title}, D = {_WIDTH}", "pairs in the pool", "seconds", both_logarithmic=True)
    options = ("--divisions", str(_DIVISIONS), "--batch-size", str(_BATCH), "--device", "cpu")
    for pairs in (size for size in _PAIRS if size <= most_pairs):
        with tempfile.TemporaryDirectory() as folder:
            pool, run = write_pool(Path(folder) / "pool", split(pairs, _SHARD), width=_WIDTH), Path(folder) / "run"
            command = [sys.executable, "-m", "clipsel_core", "score", str(pool), str(run), *options]
            told = subprocess.run([*command, "--plan", "--json"], check=True, capture_output=True, text=True).stdout
            said = json.loads(told)
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            took = read_config(run).outcome
        for line, seconds in (
            ("of all cores", took.cpu_seconds),
            ("the same, as --plan said before", said["cpu_seconds"]),
            ("by the clock", took.seconds),
            (_BEGINNING, said["speed"]["begin_s"]),
        ):
            plot.lines.setdefault(line, []).append((pairs, seconds))
        print(f"{pairs:,} pairs: {took}", flush=True)
    return plot


def _driver(most_pairs: int) -> list[Plot]:
    """Scoring many small shards on a cluster of this machine, two workers of a core each."""
    what = f"{_SHARD_ROWS} pairs a shard, D = {_WIDTH}, on a Ray cluster of two workers"
    memory = Plot("driver_memory", f"Memory of the driver, by the number of shards\n{what}", "shards", "MiB", {}, True)
    shard = Plot("driver_time", f"Time a shard, by the number of shards\n{what}", "shards", "ms a shard", {}, True)
    for shards in (count for count in _SHARDS if count * _SHARD_ROWS <= most_pairs):
        with tempfile.TemporaryDirectory() as folder:
            pool, run = write_pool(Path(folder) / "pool", [_SHARD_ROWS] * shards, width=_WIDTH), Path(folder) / "run"
            options = ("--cluster", "local", "--cpus-per-worker", "1", "--device", "cpu")
            seen = _watch(["score", str(pool), str(run), *options], run)
            took, ends = read_config(run).outcome, sorted(file.stat().st_mtime for file in (run / "scores").iterdir())
        # Ending is left out.
        first, last = seen[0], next((one for one in reversed(seen) if one[2] < shards * _SHARD_ROWS), seen[0])
        (first_mib, first_s, first_pairs), (last_mib, last_s, last_pairs) = first, last
        lines = [
            (memory, "when the first shard was done", first_mib),
            (memory, "when the last was begun", last_mib),
            (shard, "by the clock, two workers", 1000 * (ends[-1] - ends[0]) / (shards - 1)),
            (shard, "all cores, the start of the workers included", 1000 * took.cpu_seconds / shards),
        ]
        if last_pairs > first_pairs:
            each_s = (last_s - first_s) * _SHARD_ROWS / (last_pairs - first_pairs)
            lines.append((shard, _DRIVER_MS, 1000 * each_s))
        for plot, line, value in lines:
            if plot is memory or shards >= _FEWEST_SHARDS:
                plot.lines.setdefault(line, []).append((shards, value))
        print(f"{shards:,} shards: {took}, driver {first} to {last}, {seen[-1]}", flush=True)
    return [memory, shard]


def _watch(arguments: list[str], run: Path) -> list[tuple[float, float, int]]:
    """MiB that a command's process holds, seconds that its cores have worked, and pairs done, while it scores."""
    process = subprocess.Popen([sys.executable, "-m", "clipsel_core", *arguments], stderr=subprocess.DEVNULL)
    seen, tick, page = [], os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    while process.poll() is None:
        about = Path(f"/proc/{process.pid}")
        try:
            pages = int((about / "statm").read_text().split()[1])
            times = (about / "stat").read_text().rpartition(")")[2].split()[11:13]
            done = json.loads((run / "status.json").read_text())["done"]
        except (OSError, ValueError, IndexError):
            done, pages, times = 0, 0, []
        if done and pages:  # a process that has ended has none
            seen.append((pages * page / 2**20, sum(map(int, times)) / tick, done))
        time.sleep(0.1)
    if process.returncode or not seen:
        raise RuntimeError(f"{arguments[0]} failed with exit code {process.returncode}")
    return seen


def model() -> str:
    """Tables of what pools of up to 12.8 billion pairs are counted to take, in Markdown."""
    with open(FOLDER / "scale.csv", newline="", encoding="utf-8") as file:
        measured = {row["line"]: (float(row["y"]), int(row["x"])) for row in csv.DictReader(file)}  # of the largest
    beginning_s, largest = measured[_BEGINNING]
    target = TargetInfo(name="task", path="task.npy", kind="npy", sha256="", rows=_TARGET, width=_MODEL_WIDTH)
    speed = GPUS[_GPU].speed(_NODE_BYTES_S)
    lines = []
    for title, targets in (("Without a target", ()), (f"With NormSim to {_TARGET:,} images", (target,))):
        config = RunConfig(pool="pool", arch="l14", width=_MODEL_WIDTH, device="cuda", targets=targets)
        gpus = "".join(f" {count} {_GPU} |" for count in _GPU_COUNTS)
        lines += [f"{title}:", "", f"| pairs | to read | to compute | before the first shard | the driver |{gpus}"]
        lines += ["|---" * (5 + len(_GPU_COUNTS)) + "|"]
        for pairs in _POOLS:
            work = count_work(config, repeat(_MODEL_SHARD, pairs // _MODEL_SHARD))
            before = beginning_s * pairs / largest
            driver = work.groups * measured[_DRIVER_MS][0] / 1000
            cells = [f"{pairs:,}", in_units(work.bytes_read, "B"), in_units(work.all_operations, "FLOP")]
            cells += [duration(before), duration(driver)]
            for count in _GPU_COUNTS:
                found = expect(work, speed, workers=count, readers=count // _GPUS_A_NODE)
                seconds, by = max((found.seconds, found.bound_by), (driver, "the driver"))
                cells.append(f"{duration(seconds)}, {by}")
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)
