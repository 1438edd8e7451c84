"""How long does it take to pick a subset from 12.8 million pairs, or 128 million, and how much memory?

`python -m benchmarks.selection RUN` mixes twelve columns of a run, and does nothing else.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

from benchmarks import process
from benchmarks.synthetic_run import write_run
from benchmarks.table import Row, at_most
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.runs.columns import Mix
from clipsel_core.runs.store import Run

_PAIRS, _SHARDS, _ROUNDS = 12_800_000, 128, 3
_RECIPE = "steps:\n- {metric: s_cliploss, keep_top: 0.30}\n- {metric: normsim_inf_task, keep_top: 0.20}\n"
_TARGETS = 4
_WEIGHTS = (0.8, 0.65, 0.6, 0.55, 0.51, 0.45, 0.36, 0.21, 0.17, 0.08, -0.05, 0.02)


def measure_mixed(rows: int = _PAIRS) -> list[Row]:
    """Rows for twelve columns: mixed and drawn by soft cap to .npy, and mixed alone, a process each."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = write_run(root, rows=rows, shards=rows // 100_000, bad=0.001, pool=False, targets=_TARGETS)
        by = dict(zip(Run.open(run).metrics, _WEIGHTS, strict=False))
        step = {"sample": rows, "by": by, "standardise": "zscore", "method": "soft_cap"}
        (root / "recipe.yaml").write_text(json.dumps({"steps": [step]}))
        options = ("--recipe", str(root / "recipe.yaml"), "--out", str(root / "ours.npy"))
        drawn, drawn_peak = process.measure("clipsel_core", "select", str(run), *options)
        mixed, mixed_peak = process.measure("benchmarks.selection", str(run))
    share = rows / _PAIRS
    return [
        at_most(
            f"`select`, 12 columns mixed and as many samples drawn, {rows:,} pairs to .npy", drawn, 40 * share, " s"
        ),
        at_most("the same, peak memory", drawn_peak, 3072 * share, " MiB"),
        at_most(f"12 columns mixed, {rows:,} pairs", mixed, 6 * share, " s"),
        at_most("the same, peak memory", mixed_peak, max(1024, 512 * share), " MiB"),
    ]


def measure_large() -> list[Row]:
    """Rows for the same with the medium pool's 128 million pairs, once, without DuckDB beside it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = write_run(root, rows=10 * _PAIRS, shards=10 * _SHARDS, bad=0.001, pool=False)
        (root / "recipe.yaml").write_text(_RECIPE)
        options = ("--recipe", str(root / "recipe.yaml"), "--out", str(root / "ours.npy"))
        seconds, peak = process.measure("clipsel_core", "select", str(run), *options)
    return [
        at_most("`select`, two steps, 128 million pairs to .npy", seconds, 60, " s"),
        at_most("the same, peak memory", peak, 8192, " MiB"),
    ]


def measure(rounds: int = _ROUNDS) -> list[Row]:
    """Rows for `select` with the paper's two steps, a process each time, and for DuckDB alone in the same rounds."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = write_run(root, rows=_PAIRS, shards=_SHARDS, bad=0.001, pool=False)
        (root / "recipe.yaml").write_text(_RECIPE)
        ours, plain = root / "ours.npy", root / "plain.npy"
        select = ["clipsel_core", "select", str(run), "--recipe", str(root / "recipe.yaml"), "--out", str(ours)]
        alone = ["benchmarks.plain_duckdb", str(run), str(plain)]
        times = [(process.measure(*select), process.measure(*alone)) for _ in range(rounds)]
        same = ours.read_bytes() == plain.read_bytes()
    seconds, seconds_alone = (statistics.median(time[which][0] for time in times) for which in (0, 1))
    peak, peak_alone = (max(time[which][1] for time in times) for which in (0, 1))
    return [
        at_most("`select`, two steps, 12.8 million pairs to .npy", seconds, 10, " s"),
        at_most("the same, peak memory", peak, 3072, " MiB"),
        Row("the same with DuckDB's ORDER BY and LIMIT", f"{seconds_alone:.3g} s, {peak_alone:.0f} MiB"),
        Row("DuckDB's time over ours; the same bytes", f"{seconds_alone / seconds:.2f}; {same}", "same bytes", same),
    ]


def _mix(run: Run) -> None:
    by = tuple(sorted(zip(run.metrics, map(Decimal, map(str, _WEIGHTS)), strict=False)))
    ScoreTable.open(run).column(Mix(by, "zscore", None).name)


if __name__ == "__main__":
    _mix(Run.open(Path(sys.argv[1])))
