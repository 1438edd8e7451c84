"""How is the map of a run made? A sample of its images, laid out by UMAP such that similar ones lie together.

umap-learn imports for 3 s, and compiles for 12 to 30 s the first time on a machine. A few thousand images are laid out
here, while somebody waits: by its steps for few rows, in numpy and one compiled loop, which are exact neighbours, their
fuzzy graph, principal components to begin with, and the descent along the graph's edges with five random rows pushed
away for each. Its defaults, spread 1 and min_dist 0.1.

Reference: McInnes, Healy, Melville, "UMAP", arXiv 1802.03426, sections 3 and 4.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.curation.exploring.projection import SAMPLE, SETTINGS_KEY, draw_sample
from clipsel_core.curation.exploring.vectors import PoolVectors
from clipsel_core.curation.index.bitmaps import compiled
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.places import Place
from clipsel_core.runs.store import Run, sealed
from clipsel_core.tasks import Report, part_of, silent

_NEIGHBOURS = 15
_MIN_DIST = 0.1
# So many are laid out here before umap-learn is imported.
_FEW = 3_000
_READ, _LINKED = 0.15, 0.4
_EPOCHS = 500
# Of the curve 1 / (1 + a d^2b) that is nearest to spread 1 and min_dist 0.1.
_A, _B = 1.5769434603113077, 0.8950608779109733
_STEPS, _LEAST_WIDTH = 64, 1e-3
_NOISE = 1e-4


def project(run: Run, *, sample: int = SAMPLE, seed: int = 0, report: Report = silent) -> Path | Place:
    """Lays out a random sample of the run's pairs by their images with UMAP (cosine) and writes RUN/projection.parquet.

    sample: pairs to lay out; all where the run has fewer. Pairs that were set aside are not drawn. The same seed gives
        the same sample, and on one machine and one version of umap-learn the same map.
    report: told the share that is done, and the stage.
    Raises: RunError where the pool is not there or there is nothing to lay out; PoolFormatError on damaged embeddings.
    Reference: McInnes, Healy, Melville, "UMAP", arXiv 1802.03426.
    """
    table = ScoreTable.open(run)
    rows = draw_sample(table, sample, seed)
    vectors = PoolVectors(table, "image", rows)
    images = vectors.read(np.float32, part_of(report, 0, _READ, "reading embeddings"))
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.linalg.norm(images, axis=1)
    usable = np.isfinite(length) & (length > 0)
    rows = rows[usable]
    neighbours = max(1, min(_NEIGHBOURS, len(rows) - 1))
    points = _lay_out(images[usable], neighbours, seed, report)
    settings = {"sample": sample, "seed": seed, "pairs": len(rows), "method": "umap", "metric": "cosine"}
    settings |= {"n_neighbors": neighbours, "min_dist": _MIN_DIST, "arch": run.config.arch}
    names = table.uids_at(rows)
    columns = {"uid_hi": names["f0"], "uid_lo": names["f1"], "x": points[:, 0], "y": points[:, 1]}
    out = pa.table({name: np.ascontiguousarray(values) for name, values in columns.items()})
    out = out.replace_schema_metadata({SETTINGS_KEY: json.dumps(settings)})
    run.projection_file.write(lambda aside: pq.write_table(sealed(out, "", ""), aside))
    report(1, 1, "", "done")
    return run.projection_file.for_others


def _lay_out(images: np.ndarray, neighbours: int, seed: int, report: Report) -> np.ndarray:
    """Places of the images on the map, (M, 2) float32. Up to three lie on a circle: there is nothing to lay out."""
    pairs = len(images)
    if pairs <= 3:
        angle = 2 * np.pi * np.arange(pairs) / max(1, pairs)
        return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32) * (pairs > 1)
    if pairs <= _FEW:
        part_of(report, _READ, 1, "finding neighbours")(0, 1)
        return lay_out_few(images, neighbours, seed, part_of(report, _LINKED, 1, "laying out"))
    part_of(report, _READ, 1, "starting UMAP")(0, 1)
    # Loading numba takes many seconds: whoever only looks at a map that exists need not wait for it.
    import umap
    from numba.core.dispatcher import Dispatcher

    # numba keeps the machine code of UMAP's loops on the disk: to compile them takes 12 s in each process. Where no
    # folder for it can be written, they are compiled as before.
    with suppress(RuntimeError, OSError):
        for module in (umap.distances, umap.layouts, umap.umap_, umap.utils):
            for loop in vars(module).values():
                if isinstance(loop, Dispatcher):
                    loop.enable_caching()
    part_of(report, _READ, 1, "finding neighbours")(0, 1)
    layout = umap.UMAP(
        n_neighbors=neighbours,
        min_dist=_MIN_DIST,
        metric="cosine",
        random_state=seed,
        n_jobs=1,
        tqdm_kwds={"disable": False, "file": _EpochReader(report), "bar_format": "{n_fmt}/{total_fmt} "},
    )
    return layout.fit_transform(images).astype(np.float32)


class _EpochReader:
    """A file that UMAP draws its progress bar into: the only way it tells how far the layout is."""

    def __init__(self, report: Report) -> None:
        self._report = part_of(report, _LINKED, 1, "laying out")

    def write(self, text: str) -> None:
        done, slash, total = text.strip().partition("/")
        if slash and done.isdigit() and total.isdigit() and int(total):
            self._report(int(done), int(total))

    def flush(self) -> None:
        """Nothing is held back."""


def lay_out_few(images: np.ndarray, neighbours: int, seed: int, report: Report) -> np.ndarray:
    """Places of few images on a map: (M, 2) float32. images: (M, D) float32, none of length 0; M squared is held.

    neighbours: that each image is linked to, 1 to M - 1, itself counted among them. report: told the epochs done.
    """
    rng = np.random.default_rng(seed)
    head, tail, weights = edges_of(images, neighbours)
    # What would not be drawn once in all epochs is left out.
    drawn = weights >= weights.max() / _EPOCHS
    head, tail, every = head[drawn], tail[drawn], weights.max() / weights[drawn]
    # It begins with the first two principal components, 0 to 10 each, and a little noise that parts equals.
    centred = (images - images.mean(0)).astype(np.float64)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]
    places, due = np.zeros((len(images), 2)), every.copy()
    places[:, : axes.shape[1]] = centred @ axes
    places *= 10 / (np.abs(places).max() or 1.0)
    places += rng.normal(0, _NOISE, places.shape)
    spans = np.ptp(places, axis=0)
    places = 10 * (places - places.min(0)) / np.where(spans > 0, spans, 1.0)
    state = rng.integers(1, 1 << 62, 1, np.uint64)
    for epoch in range(_EPOCHS):
        _epoch(head, tail, every, due, places, float(epoch), 1 - epoch / _EPOCHS, state, _A, _B)
        report(epoch + 1, _EPOCHS, "", "")
    return places.astype(np.float32)


def edges_of(images: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fuzzy graph of images by cosine: the two rows of each edge, in both directions, and its weight, in (0, 1].

    images, neighbours: as of lay_out_few. Returns: (E,) int32, (E,) int32, (E,) float64.
    """
    unit = images / np.linalg.norm(images, axis=1, keepdims=True)
    distances = np.clip(1 - unit @ unit.T, 0, None).astype(np.float64)
    np.fill_diagonal(distances, -1)  # first of its own neighbours, also among equals
    near = np.argpartition(distances, neighbours - 1, axis=1)[:, :neighbours]
    near = np.take_along_axis(near, np.take_along_axis(distances, near, 1).argsort(1, "stable"), 1)[:, 1:]
    apart = np.take_along_axis(distances, near, 1)
    # The nearest that is not equal is linked for certain.
    nearest = np.where(apart > 0, apart, np.inf).min(1, initial=np.inf, keepdims=True)
    beyond = np.clip(apart - np.where(np.isfinite(nearest), nearest, 0), 0, None)
    # How quickly each row's links fade, such that their sum is the one wanted: by halving.
    low, high, widths = np.zeros((len(beyond), 1)), np.full((len(beyond), 1), np.inf), np.ones((len(beyond), 1))
    for _ in range(_STEPS):
        above = np.exp(-beyond / widths).sum(1, keepdims=True) > np.log2(neighbours)
        low, high = np.where(above, low, widths), np.where(above, widths, high)
        with np.errstate(invalid="ignore"):
            widths = np.where(np.isinf(high), 2 * widths, (low + high) / 2)
    mean = apart.mean(1, keepdims=True)
    least = _LEAST_WIDTH * np.where(mean > 0, mean, apart.mean())
    widths = np.maximum(widths, np.where(least > 0, least, 1.0))
    found = np.zeros(distances.shape)
    np.put_along_axis(found, near, np.exp(-beyond / widths), 1)
    joined = found + found.T - found * found.T
    head, tail = np.nonzero(joined)
    return head.astype(np.int32), tail.astype(np.int32), joined[head, tail]


@compiled
def _epoch(head, tail, every, due, places, epoch, rate, state, a, b):
    """Along each edge that is due: its rows are drawn together, and five random rows pushed away from the first."""
    rows = np.uint64(len(places))
    for edge in range(len(head)):
        if due[edge] > epoch:
            continue
        due[edge] += every[edge]
        one, other = head[edge], tail[edge]
        for turn in range(6):
            if turn:
                state[0] = state[0] * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
                other = np.int64((state[0] >> np.uint64(33)) % rows)
                if other == one:
                    continue
            x, y = places[one, 0] - places[other, 0], places[one, 1] - places[other, 1]
            squared = x * x + y * y
            if squared <= 0:
                continue
            powered = squared**b
            if turn:
                pull = 2 * b / ((0.001 + squared) * (1 + a * powered))
            else:
                pull = -2 * a * b * powered / squared / (1 + a * powered)
            x, y = rate * min(max(pull * x, -4.0), 4.0), rate * min(max(pull * y, -4.0), 4.0)
            places[one, 0] += x
            places[one, 1] += y
            if not turn:
                places[other, 0] -= x
                places[other, 1] -= y
