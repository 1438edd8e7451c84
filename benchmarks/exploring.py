"""How long do the sums behind Gallery, pair view and Distributions take at a pool's size?

    python -m benchmarks exploring --rows 12800000

Everything is measured on a run whose index exists, each figure the median over the rounds; the ratios are to plain
numpy within the same round.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.synthetic_run import write_run
from benchmarks.table import Row
from clipsel_core.curation.exploring.agreement import disagreement
from clipsel_core.curation.exploring.captions import CaptionScan
from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.counts import group_means
from clipsel_core.curation.index.index import open_indexed
from clipsel_core.curation.index.ordering import Listing
from clipsel_core.curation.index.ranking import percentile_groups, standing
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.runs.store import Run

_PAGE = 768  # The gallery fetches 16 pages of 48 at once.
_X, _Y = "clip_score", "s_cliploss"


def measure(rows: int, folder: Path | None = None, rounds: int = 7) -> list[Row]:
    """The rows of the table. folder: where the synthetic run is, or is left for the next time; None throws it away."""
    with tempfile.TemporaryDirectory() as aside:
        root = folder or Path(aside)
        if not (root / "run" / "run.json").exists():
            write_run(root, rows=rows, shards=max(1, rows // 100_000))
        table = open_indexed(Run.open(root / "run"))
        named = dict(_compared(table, rounds)) | dict(_alone(table, rounds))
    size = f"{len(table) / 1e6:g} million pairs"
    return [Row(f"{name}, {size}", shown, hold, held) for name, (shown, hold, held) in named.items()]


Shown = tuple[str, str, bool | None]


def _compared(table: ScoreTable, rounds: int) -> Iterator[tuple[str, Shown]]:
    """What has a plain way to compare with."""
    x, y = table.ranking(_X), table.ranking(_Y)
    mask = y.values > np.median(y.values[: 1 << 16])
    half = Listing.of(x, bitmaps.pack(mask))
    ways: dict[str, tuple[Callable[[], object], Callable[[], object], float]] = {
        "gallery page in the middle of half the pool": (
            lambda: half.page("descending", offset=len(half) // 2, limit=_PAGE),
            lambda: _plain_page(x.values, mask, len(half) // 2),
            200,
        ),
        "a pair's rank and percentile": (
            lambda: standing(x, 0.25),
            lambda: (int((x.values > 0.25).sum()), int((x.values < 0.25).sum())),
            50,
        ),
        "rank disagreement": (
            lambda: disagreement(x, y),
            lambda: (_plain_ranks(x.values), _plain_ranks(y.values)),
            2000,
        ),
    }
    for name, (ours, plain, most_ms) in ways.items():
        pairs = [(_ms(ours), _ms(plain)) for _ in range(rounds)]
        took = statistics.median(ms for ms, _ in pairs)
        ratio = statistics.median(plain_ms / ms for ms, plain_ms in pairs)
        yield name, (f"{_in_words(took)}, {ratio:.1f}x numpy", f"<= {most_ms:g} ms", took <= most_ms)


def _alone(table: ScoreTable, rounds: int) -> Iterator[tuple[str, Shown]]:
    x = table.ranking(_X)
    everyone = Listing.of(x)
    halves = [table.column(name) for name in ("r_image", "r_text")]
    ways: dict[str, tuple[Callable[[], object], float]] = {
        "gallery page near a score": (lambda: everyone.page("near", centre=0.3, limit=_PAGE), 200),
        "gallery page at random": (lambda: everyone.page("random", limit=_PAGE), 500),
        "mean r_image and r_text by percentile": (lambda: group_means(percentile_groups(x, 50), 50, halves), 1000),
    }
    for name, (ours, most_ms) in ways.items():
        took = statistics.median(_ms(ours) for _ in range(rounds))
        yield name, (_in_words(took), f"<= {most_ms:g} ms", took <= most_ms)
    if table.metadata.pool is None:
        return
    text = table.metadata.of(np.array([77]), ("caption",))["caption"][0]
    scans = {
        "two words in all captions": lambda: CaptionScan.for_words(table, ["red", "house"]),
        "one caption in all captions": lambda: CaptionScan.for_caption(table, text),
    }
    for name, make in scans.items():
        steps, total = _scanned(make())
        yield name, (f"{total / 1000:.1f} s, a step at most {steps:.0f} ms", "", None)


def _scanned(scan: CaptionScan) -> tuple[float, float]:
    """The longest step of a search, which is how long a stop may take, and the whole of it, in milliseconds."""
    steps = []
    while not scan.finished:
        steps.append(_ms(scan.step))
    return max(steps), sum(steps)


def _plain_page(values: np.ndarray, mask: np.ndarray, offset: int) -> np.ndarray:
    rows = np.flatnonzero(mask & ~np.isnan(values))
    return rows[np.argpartition(-values[rows], (offset, offset + _PAGE))[offset : offset + _PAGE]]


def _plain_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks without care for ties, as one writes them down."""
    ranks = np.empty(len(values), np.int64)
    ranks[np.argsort(values)] = np.arange(len(values))
    return ranks


def _ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def _in_words(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
