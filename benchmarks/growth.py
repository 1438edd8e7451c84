"""How do time and memory grow with the pairs, the shards, the batch and the number of divisions?

    python -m benchmarks growth

measures for some minutes and writes to benchmarks/growth: a plot a question, all numbers (growth.csv), and README.md,
which shows the plots and says in numbers what is on them.
"""

from __future__ import annotations

import csv
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks import process
from benchmarks.pools import clip_like_pairs, write_pool
from benchmarks.table import Row, machine
from clipsel_core.errors import ScoringError
from clipsel_core.runs.store import read_config
from clipsel_core.scoring.checks import check_precision
from clipsel_core.scoring.s_cliploss import normalizer

FOLDER = Path(__file__).parent / "growth"
_WIDTH = 512
_PAIRS, _SHARD, _RUN_BATCH, _RUN_DIVISIONS = (10_000, 100_000, 1_000_000), 50_000, 4096, 2
_SHARDS, _SHARD_ROWS = (1, 2, 4, 8, 16, 32), 2000
_SWEPT, _BATCHES, _BATCH, _DIVISIONS = 16_384, (1024, 2048, 4096, 8192, 16_384), 2048, (1, 2, 5, 10, 20)
_ROUNDS = 3
_COLOURS = ("#1f5fbf", "#8a94a6", "#d08a2e", "#3f8f5f", "#9a5fb5")


@dataclass(frozen=True)
class Plot:
    """One question: what is on the axes, and a line of (x, y) points for each series.

    logarithmic: how x is drawn; both_logarithmic: y as well.
    """

    name: str
    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    logarithmic: bool = False
    both_logarithmic: bool = False


def measure(most_pairs: int) -> list[Row]:
    """Measures, writes plots and numbers, and says in a row a plot how far its right end is from its left.

    most_pairs: larger pools are left out.
    """
    load = os.getloadavg()[0]
    plots = []
    for make in (_rate, _memory, _batches, _divisions):
        plots.append(make(most_pairs) if make is _rate else make())
        print(f"{plots[-1].name}: measured", flush=True)
    return publish(FOLDER, "How cost grows", plots, load)


def publish(folder: Path, heading: str, plots: list[Plot], load: float) -> list[Row]:
    """Writes the plots, their numbers and README.md into a folder. load: of the machine at the start.

    Returns: a row a line: how far its right end is from its left.
    """
    folder.mkdir(exist_ok=True)
    described = f"{machine()}; load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end, its own included"
    _write_numbers(folder / f"{folder.name}.csv", plots, described)
    _write_text(folder, heading, plots, described)
    for plot in plots:
        _draw(folder, plot, described)
    return [row for plot in plots for row in _rows(plot)]


def _rate(most_pairs: int) -> Plot:
    """Scoring pools of growing size, a process each; they share their first shards."""
    what = f"K = {_RUN_DIVISIONS} divisions into batches of {_RUN_BATCH:,}, D = {_WIDTH}"
    title = f"Pairs scored per second, by the size of the pool\n{what}"
    plot = Plot("pairs", title, "pairs in the pool", "pairs/s", logarithmic=True)
    for pairs in (size for size in _PAIRS if size <= most_pairs):
        with tempfile.TemporaryDirectory() as folder:
            pool = write_pool(Path(folder) / "pool", split(pairs, _SHARD), width=_WIDTH)
            run = Path(folder) / "run"
            options = ("--divisions", str(_RUN_DIVISIONS), "--batch-size", str(_RUN_BATCH), "--device", "cpu")
            seconds, _ = process.measure("clipsel_core", "score", str(pool), str(run), *options)
            scoring = read_config(run).outcome.seconds
        plot.lines.setdefault("scoring alone", []).append((pairs, pairs / scoring))
        plot.lines.setdefault("the whole command, start included", []).append((pairs, pairs / seconds))
    return plot


def _memory() -> Plot:
    what = f"{_SHARD_ROWS:,} pairs a shard, D = {_WIDTH}"
    plot = Plot("memory", f"Peak memory of `score`, by the number of shards\n{what}", "shards", "MiB")
    for shards in _SHARDS:
        with tempfile.TemporaryDirectory() as folder:
            pool = write_pool(Path(folder) / "pool", [_SHARD_ROWS] * shards, width=_WIDTH)
            options = ("--divisions", "1", "--device", "cpu")
            _, peak = process.measure("clipsel_core", "score", str(pool), str(Path(folder) / "run"), *options)
        plot.lines.setdefault("peak resident memory", []).append((shards, peak))
    return plot


def _batches() -> Plot:
    title = f"Time for one division of {_SWEPT:,} pairs, by the batch size\nD = {_WIDTH}"
    plot = Plot("batch", title, "batch size B", "seconds")
    return _timed(plot, _BATCHES, lambda size: {"batch_size": size, "divisions": 1})


def _divisions() -> Plot:
    title = f"Time for {_SWEPT:,} pairs, by the number of divisions\nbatches of {_BATCH:,}, D = {_WIDTH}"
    plot = Plot("divisions", title, "divisions K", "seconds")
    return _timed(plot, _DIVISIONS, lambda count: {"batch_size": _BATCH, "divisions": count})


def _timed(plot: Plot, values: tuple[int, ...], options: Callable[[int], dict[str, int]]) -> Plot:
    """The median time of the normalizer for each value, which take turns."""
    image, text = (torch.from_numpy(rows) for rows in clip_like_pairs(_SWEPT, width=_WIDTH, seed=1))
    shared = {"temperature": 0.01, "seed": 0, "name": "growth"}
    for precision in _precisions():
        times: dict[int, list[float]] = {value: [] for value in values}
        for _ in range(_ROUNDS):
            for value in values:
                start = time.perf_counter()
                normalizer(image, text, precision=precision, **options(value), **shared)
                times[value].append(time.perf_counter() - start)
        plot.lines[precision] = [(value, statistics.median(found)) for value, found in times.items()]
    return plot


def _precisions() -> Iterator[str]:
    yield "exact"
    try:
        check_precision("bf16", "cpu")
    except ScoringError:
        return
    yield "bf16"


def split(pairs: int, shard: int) -> list[int]:
    """The rows of each shard of a pool."""
    return [min(shard, pairs - start) for start in range(0, pairs, shard)]


def _rows(plot: Plot) -> Iterator[Row]:
    for line, points in plot.lines.items():
        (left, first), (right, last) = points[0], points[-1]
        what = f"{plot.y} at {left:,} and {right:,} {plot.x} ({line})"
        yield Row(what, f"{_short(first)} and {_short(last)}")


def _write_numbers(path: Path, plots: list[Plot], described: str) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["plot", "line", "x", "x_is", "y", "y_is", "measured_on"])
        for plot in plots:
            for line, points in plot.lines.items():
                table.writerows([plot.name, line, x, plot.x, f"{y:.5g}", plot.y, described] for x, y in points)


def _write_text(folder: Path, heading: str, plots: list[Plot], described: str) -> None:
    lines = [f"# {heading}", "", f"Written by `python -m benchmarks {folder.name}`. Measured on {described}."]
    for plot in plots:
        title, what = plot.title.split("\n")
        lines += ["", f"## {title}", "", f"{what[0].upper()}{what[1:]}.", ""]
        for line, points in plot.lines.items():
            found = ", ".join(f"{_short(y)} at {x:,}" for x, y in points)
            lines += [f"- {line}, {plot.y} by {plot.x}: {found}"]
        lines += ["", f"![{title}]({plot.name}.svg)"]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _short(value: float) -> str:
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


def _draw(folder: Path, plot: Plot, described: str) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    figure, axes = pyplot.subplots(figsize=(7.2, 4.2), layout="constrained")
    for colour, (line, points) in zip(_COLOURS, plot.lines.items(), strict=False):
        axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=line)
    if plot.logarithmic or plot.both_logarithmic:
        axes.set_xscale("log")
        axes.set_xticks(sorted({x for points in plot.lines.values() for x, _ in points}))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.3f}".rstrip("0").rstrip(".")))
    if plot.both_logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0, top=1.15 * max(y for points in plot.lines.values() for _, y in points))
    axes.set_xlabel(f"{plot.x} (logarithmic)" if plot.logarithmic or plot.both_logarithmic else plot.x)
    axes.set_ylabel(f"{plot.y} (logarithmic)" if plot.both_logarithmic else plot.y)
    axes.set_title(plot.title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6eb")
    if len(plot.lines) > 1:
        axes.legend(frameon=False)
    figure.supxlabel(described, fontsize=6.5, color="#6b7280")
    figure.savefig(folder / f"{plot.name}.svg", metadata={"Date": None})
    pyplot.close(figure)
