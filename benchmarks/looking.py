"""How long does the server think when somebody lassoes a million pairs, zooms the map, or searches the sample?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.table import Row, at_least, at_most
from clipsel_core.curation.exploring.projection import SMOOTHING, CaptionWords, find_regions
from clipsel_core.curation.exploring.searches import nearest
from clipsel_core.curation.exploring.vectors import HeldVectors
from clipsel_core.curation.index.counts import map_cells, span_around
from pages.parts.map.canvas import Shape

_ON_MAP, _NAMED, _CORNERS = 1_000_000, 50_000, 120
_SAMPLE, _WIDTH, _LIMIT = 50_000, 768, 48
_WORDS = np.array([f"{a}{b}" for a in "bcdfghklmnprst" for b in ("al", "en", "ir", "os", "um")])


def measure(rounds: int) -> list[Row]:
    """Rows for the map's and the search's sums, without the browser; `dashboard` measures them with it."""
    return [*_map_rows(rounds), *_search_rows(rounds)]


def _map_rows(rounds: int) -> list[Row]:
    draw = np.random.default_rng(0)
    centres = draw.normal(0, 6, (300, 2))
    x, y = (centres[draw.integers(0, 300, _ON_MAP)] + draw.normal(0, 0.6, (_ON_MAP, 2))).astype(np.float32).T
    angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    lasso = Shape(tuple(5 * np.cos(angle)), tuple(5 * np.sin(angle)))
    captions = [" ".join(words) for words in _WORDS[draw.integers(0, len(_WORDS), (_NAMED, 8))]]
    score, span = draw.normal(0.22, 0.06, _ON_MAP).astype(np.float32), span_around(x, y)

    def name_regions() -> None:
        said = CaptionWords(captions)
        for smoothing in SMOOTHING:
            find_regions(x[:_NAMED], y[:_NAMED], said, smoothing)

    works: dict[str, Callable[[], object]] = {
        f"a lasso of {_CORNERS} corners over {_ON_MAP:,} pairs": lambda: lasso.holds(x, y),
        f"{_ON_MAP:,} pairs binned, with the mean of a metric": lambda: map_cells(x, y, span, values=score),
        f"regions named by {_NAMED:,} captions, once": name_regions,
    }
    return [at_most(what, 1000 * _median(work, rounds), 500, " ms") for what, work in works.items()]


def _search_rows(rounds: int) -> list[Row]:
    draw = np.random.default_rng(1)
    rows = draw.standard_normal((_SAMPLE, _WIDTH), dtype=np.float32)
    held = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    vectors, query = HeldVectors(np.arange(_SAMPLE), held), held[7].astype(np.float32)

    def plainly() -> np.ndarray:
        return np.argsort(-(held.astype(np.float32) @ query), kind="stable")[:_LIMIT]

    times = [(_once(lambda: nearest(query, vectors, limit=_LIMIT)), _once(plainly)) for _ in range(rounds)]
    exact = np.argsort(-(held.astype(np.float64) @ query.astype(np.float64)), kind="stable")[:_LIMIT]
    found = nearest(query, vectors, limit=_LIMIT).rows
    ratio = statistics.median(plain / ours for ours, plain in times)
    ours = statistics.median(first for first, _ in times)
    return [
        at_most(f"{_LIMIT} nearest of {_SAMPLE:,} embeddings, D = {_WIDTH}", 1000 * ours, 500, " ms"),
        at_least("numpy's product and sort over ours, which also checks each row's length", ratio, 0.5),
        at_least("the nearest in common with float64", float(np.isin(found, exact).mean()), 0.97),
    ]


def _median(work: Callable[[], object], rounds: int) -> float:
    return statistics.median(_once(work) for _ in range(rounds))


def _once(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
