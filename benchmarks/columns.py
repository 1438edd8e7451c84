"""How long does it take to join values by uid to a run of 12.8 million pairs, or 128 million, and how much memory?"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import process
from benchmarks.synthetic_run import write_run
from benchmarks.table import Row, at_most
from clipsel_core import uids
from clipsel_core.columns.join import ShardUids
from clipsel_core.runs.store import Run

_PAIRS, _SHARDS, _ROUNDS = 12_800_000, 128, 3
_ROWS_A_FILE = 1 << 20


def measure(rounds: int = _ROUNDS) -> list[Row]:
    """Rows for a shuffled parquet of hex uids, for one in the run's order, and for what the former is held against."""
    with tempfile.TemporaryDirectory() as folder:
        run, shuffled, alike = _write(Path(folder), _PAIRS, _SHARDS)
        out = Path(folder) / "out.npy"
        ways = {"join": shuffled, "copy": alike, "read": shuffled, "duckdb": shuffled}
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        results = dict[str, bytes]()
        for _ in range(rounds):
            for way, source in ways.items():
                times[way].append(_once("join" if way == "copy" else way, run, source, out))
                results[way] = out.read_bytes()
    seconds = {way: statistics.median(time for time, _ in found) for way, found in times.items()}
    peaks = {way: max(peak for _, peak in found) for way, found in times.items()}
    same = results["join"] == results["copy"] == results["duckdb"]
    return [
        at_most("join 12.8 million values of a shuffled parquet to a run", seconds["join"], 18, " s"),
        at_most("the same, peak memory", peaks["join"], 1024, " MiB"),
        Row("its floor: both sides read, a column written", f"{seconds['read']:.3g} s, {peaks['read']:.0f} MiB"),
        Row("the same values in the run's order", f"{seconds['copy']:.3g} s, {peaks['copy']:.0f} MiB"),
        Row("the same join by DuckDB", f"{seconds['duckdb']:.3g} s, {peaks['duckdb']:.0f} MiB"),
        Row(
            "DuckDB's time over ours; the same bytes",
            f"{seconds['duckdb'] / seconds['join']:.2f}; {same}",
            "same bytes",
            same,
        ),
    ]


def measure_large() -> list[Row]:
    """Rows for 128 million pairs, once: 12 GB of disk."""
    with tempfile.TemporaryDirectory() as folder:
        run, shuffled, alike = _write(Path(folder), 10 * _PAIRS, 10 * _SHARDS)
        out = Path(folder) / "out.npy"
        (seconds, peak), floor, copied = (
            _once(way, run, source, out) for way, source in (("join", shuffled), ("read", shuffled), ("join", alike))
        )
    return [
        at_most("join 128 million values of a shuffled parquet to a run", seconds, 180, " s"),
        at_most("the same, peak memory", peak, 4096, " MiB"),
        Row("its floor: both sides read, a column written", f"{floor[0]:.3g} s, {floor[1]:.0f} MiB"),
        Row("the same values in the run's order", f"{copied[0]:.3g} s, {copied[1]:.0f} MiB"),
    ]


def _write(root: Path, rows: int, shards: int) -> tuple[Path, Path, Path]:
    """A run, a folder of parquet files with a value a pair in random order, and one with the same in the run's."""
    run = write_run(root, rows=rows, shards=shards, pool=False)
    side, names, row = ShardUids.of(Run.open(run)), np.empty(rows, uids.UID_DTYPE), 0
    for shard, size in enumerate(side.sizes):
        names[row : row + size] = side.read(shard)
        row += size
    draw = np.random.default_rng(0)
    values, order = draw.standard_normal(rows, np.float32), np.arange(rows, dtype=np.uint32)
    draw.shuffle(order)
    folders = root / "shuffled", root / "alike"
    for folder in folders:
        folder.mkdir()
    for start in range(0, rows, _ROWS_A_FILE):
        here = slice(start, start + _ROWS_A_FILE)
        for folder, places in zip(folders, (order[here], here), strict=True):
            table = pa.table({"uid": uids.to_hex(names[places]), "score": values[places]})
            pq.write_table(table, folder / f"{start:012d}.parquet", use_dictionary=False)
    return run, *folders


def _once(way: str, run: Path, source: Path, out: Path) -> tuple[float, float]:
    out.unlink(missing_ok=True)
    return process.measure("benchmarks.joining", way, str(run), f"{source}#score", str(out))
