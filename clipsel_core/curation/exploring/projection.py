"""Where a sample of the pool's images lies on a map of two dimensions, such that similar images lie together."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.curation.exploring.vectors import PoolVectors
from clipsel_core.curation.index import beside
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import RunError, reason_of
from clipsel_core.files import write_atomically
from clipsel_core.runs.seal import check_seal, sealed
from clipsel_core.runs.store import Run

Progress = Callable[[float, str], None]

# Pairs on a map where nobody says how many.
SAMPLE = 50_000

_NEIGHBOURS = 15
_MIN_DIST = 0.1
# A spectral layout wants clearly more points than dimensions; fewer points start from random places.
_FEWEST_FOR_SPECTRAL = 50
_METADATA_KEY = b"clipsel.projection"
_READ, _LINKED = 0.15, 0.4


@dataclass(frozen=True)
class Projection:
    """The map of a run's sample. rows: (M,) int64 row numbers, ascending; x, y: (M,) float32, no unit.

    settings: sample asked for, seed, and the parameters of the layout.
    """

    rows: np.ndarray
    x: np.ndarray
    y: np.ndarray
    settings: dict[str, Any]


def project(run: Run, *, sample: int = SAMPLE, seed: int = 0, progress: Progress | None = None) -> Path:
    """Lays out a random sample of the run's pairs by their images with UMAP (cosine) and writes RUN/projection.parquet.

    sample: pairs to lay out; all where the run has fewer. Pairs that were set aside are not drawn. The same seed gives
        the same sample, and on one machine and one version of umap-learn the same map.
    progress: called with the share done, 0 to 1, and the stage.
    Raises: RunError where the pool is not there or there is nothing to lay out; PoolFormatError on damaged embeddings.
    Reference: McInnes, Healy, Melville, "UMAP", arXiv 1802.03426.
    """
    report = progress or (lambda share, stage: None)
    table = ScoreTable.open(run)
    rows = draw_sample(table, sample, seed)
    rows, images = _read_images(table, rows, report)
    points = _lay_out(images, seed, report)
    settings = {"sample": sample, "seed": seed, "pairs": len(rows), "method": "umap", "metric": "cosine"}
    settings |= {"n_neighbors": _neighbours(len(rows)), "min_dist": _MIN_DIST, "arch": run.config.arch}
    names = table.uids_at(rows)
    columns = {"uid_hi": names["f0"], "uid_lo": names["f1"], "x": points[:, 0], "y": points[:, 1]}
    out = pa.table({name: np.ascontiguousarray(values) for name, values in columns.items()})
    out = out.replace_schema_metadata({_METADATA_KEY: json.dumps(settings)})
    write_atomically(run.projection_file, lambda aside: pq.write_table(sealed(out, "", ""), aside))
    report(1.0, "done")
    return run.projection_file


def read_projection(run: Run, table: ScoreTable | None = None) -> Projection | None:
    """The run's map, None where none was made. Pairs that the run does not have (any more) are left out.

    Raises: RunError where the file is damaged.
    """
    table = table or ScoreTable.open(run)
    try:
        stat = run.projection_file.stat()
        found = pq.read_table(run.projection_file)
        check_seal(found)
        halves = tuple(found.column(name).cast(pa.uint64()).to_numpy() for name in ("uid_hi", "uid_lo"))
        x, y = _coordinates(found)
        settings = json.loads((found.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    except FileNotFoundError:
        return None
    except (pa.ArrowException, LookupError, ValueError, TypeError, OSError) as error:
        expected, remedy = "a map of the run", "make it again with: clipsel project RUN"
        raise RunError(run.projection_file, expected=expected, found=reason_of(error), remedy=remedy) from error
    rows = _kept_rows(table, halves, f"{stat.st_mtime_ns:x}-{stat.st_size:x}")
    order = np.argsort(rows, kind="stable")
    order = order[rows[order] >= 0]
    return Projection(rows[order], x[order], y[order], settings)


def _kept_rows(table: ScoreTable, halves: tuple[np.ndarray, ...], stamp: str) -> np.ndarray:
    """The rows of the map's pairs, (M,) int64, kept beside the index: to look a million of them up reads every uid.

    stamp: changes with the map's file. The index's folder changes with the scores; a run that has none is small.
    """
    folder = table.index_folder

    def look() -> np.ndarray:
        for older in folder.glob("map-*.npy") if folder else ():
            with suppress(OSError):
                older.unlink()
        return table.rows_of(uids.from_halves(*halves))

    return beside.kept(folder / f"map-{stamp}.npy" if folder else None, (len(halves[0]),), np.int64, look)


def draw_sample(table: ScoreTable, sample: int, seed: int) -> np.ndarray:
    """Row numbers of a sample, (M,) int64 ascending, drawn without repeats from the pairs that were scored.

    sample: pairs to draw; all where the run has fewer.
    Raises: RunError where there is none, or less than 1 is asked for.
    """
    if sample < 1:
        raise RunError(table.run.root, expected="a sample of 1 or more pairs", found=f"{sample}")
    candidates = np.flatnonzero(table.selectable())
    if not len(candidates):
        raise RunError(table.run.root, expected="scored pairs", found="none: all were set aside")
    if sample >= len(candidates):
        return candidates
    places = np.random.default_rng(seed).choice(len(candidates), sample, replace=False, shuffle=False)
    return candidates[np.sort(places)]


def _coordinates(found: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    x, y = (found.column(name).to_numpy().astype(np.float32) for name in ("x", "y"))
    return x, y


def _read_images(table: ScoreTable, rows: np.ndarray, report: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Image embeddings of the rows, (M, D) float32, and the rows; those that are not finite or zero are left out."""
    vectors, done = PoolVectors(table, "image", rows), 0
    images = np.empty((len(rows), vectors.width), np.float32)
    for _, block in vectors.blocks():
        images[done : done + len(block)] = block
        done += len(block)
        report(_READ * done / len(rows), "reading embeddings")
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.linalg.norm(images, axis=1)
    usable = np.isfinite(length) & (length > 0)
    return rows[usable], images[usable]


def _neighbours(pairs: int) -> int:
    return max(1, min(_NEIGHBOURS, pairs - 1))


def _lay_out(images: np.ndarray, seed: int, report: Progress) -> np.ndarray:
    """Places of the images on the map, (M, 2) float32. Up to three lie on a circle: there is nothing to lay out."""
    pairs = len(images)
    if pairs <= 3:
        angle = 2 * np.pi * np.arange(pairs) / max(1, pairs)
        return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32) * (pairs > 1)
    report(_READ, "starting UMAP")
    # Loading numba takes many seconds: whoever only looks at a map that exists need not wait for it.
    import umap

    _keep_compiled()
    report(_READ, "finding neighbours")
    layout = umap.UMAP(
        n_neighbors=_neighbours(pairs),
        min_dist=_MIN_DIST,
        metric="cosine",
        init="spectral" if pairs >= _FEWEST_FOR_SPECTRAL else "random",
        random_state=seed,
        n_jobs=1,
        tqdm_kwds={"disable": False, "file": _EpochReader(report), "bar_format": "{n_fmt}/{total_fmt} "},
    )
    return layout.fit_transform(images).astype(np.float32)


def _keep_compiled() -> None:
    """Has numba keep the machine code of UMAP's loops on the disk: to compile them takes 12 s in each process."""
    from numba.core.dispatcher import Dispatcher
    from umap import distances, layouts, umap_, utils

    loops = [value for module in (distances, layouts, umap_, utils) for value in vars(module).values()]
    # Where no folder for it can be written, they are compiled as before.
    with suppress(RuntimeError, OSError):
        for loop in loops:
            if isinstance(loop, Dispatcher):
                loop.enable_caching()


class _EpochReader:
    """A file that UMAP draws its progress bar into: the only way it tells how far the layout is."""

    def __init__(self, report: Progress) -> None:
        self._report = report

    def write(self, text: str) -> None:
        done, slash, total = text.strip().partition("/")
        if slash and done.isdigit() and total.isdigit() and int(total):
            self._report(_LINKED + (1 - _LINKED) * int(done) / int(total), "laying out")

    def flush(self) -> None:
        """Nothing is held back."""
