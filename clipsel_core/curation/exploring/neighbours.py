"""Which pairs, or which images of a target, have embeddings most like a given one?

Similarity is the cosine, computed in float32 over blocks of rows; of the pairs seen so far only the best are kept. Rows
rounded to float16 are not quite of unit length, so products are divided by the lengths; NormSim's are not, as scoring
takes such rows as they are. Rows that could not be scored (zero, NaN, far from unit length) are never found. Equal
similarities go to the smaller row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clipsel_core import uids
from clipsel_core.curation.exploring.vectors import HeldVectors, PoolVectors, Side, Vectors, vector_of
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import RunError, TargetError
from clipsel_core.pool.embeddings import ROUNDING, at_unit_length, row_lengths, row_scale
from clipsel_core.pool.target_files import read_target_rows, split_part
from clipsel_core.runs.config import TargetInfo

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Nearest:
    """What was found, most similar first. rows: (M,) int64; similarity: (M,) float32 cosines in [-1, 1]."""

    rows: np.ndarray
    similarity: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def without(self, row: int) -> Nearest:
        """The same, less one row."""
        others = self.rows != row
        return Nearest(self.rows[others], self.similarity[others])

    def first(self, limit: int) -> Nearest:
        """The best of them, `limit` at most."""
        return Nearest(self.rows[:limit], self.similarity[:limit])


def neighbours(
    table: ScoreTable,
    row: int,
    *,
    side: Side = "image",
    among: Vectors | np.ndarray | None = None,
    limit: int = 48,
    progress: Progress | None = None,
) -> Nearest:
    """The pairs whose images (or captions) are most like those of a pair; the pair itself is not among them.

    side: which embeddings are compared, "image" or "text". among: the pairs to look through, as (M,) ascending row
        numbers or as vectors of that side; None for the whole run, which reads all of its embeddings.
    progress: called with pairs looked at and pairs in all.
    Raises: RunError where the pool is not there or the pair has no usable embedding, PoolFormatError on damaged files.

    >>> table = ScoreTable.open(Run.open("data/demo/run"))  # doctest: +SKIP
    >>> neighbours(table, 0, limit=3).similarity            # doctest: +SKIP
    """
    vectors: Vectors = PoolVectors(table, side, among) if among is None or isinstance(among, np.ndarray) else among
    return nearest(vector_of(table, row, side), vectors, limit=limit + 1, progress=progress).without(row).first(limit)


def nearest(
    query: np.ndarray, vectors: Vectors, *, limit: int = 48, as_normsim: bool = False, progress: Progress | None = None
) -> Nearest:
    """The rows whose vectors are most like a query. query: (D,) floats of any length but 0.

    as_normsim: rank by the absolute value, with unit rows taken as rounding left them, so that the first is the score;
        it may lie past 1 by that rounding. The similarities keep their signs.
    progress: called with rows looked at and rows in all.
    Raises: RunError where the query is not a direction, or has another width than the vectors.
    """
    direction = _unit(query, vectors.width, rounded=as_normsim)
    similarities = _products if as_normsim else _cosines
    best, done = Nearest(np.empty(0, np.int64), np.empty(0, np.float32)), 0
    for rows, block in vectors.blocks():
        best = _merge(best, Nearest(rows, similarities(block, direction)), limit, either_sign=as_normsim)
        done += len(rows)
        if progress:
            progress(done, vectors.rows)
    return best


@dataclass(frozen=True)
class NearestTargets(Nearest):
    """Images of a target, largest |cosine| first.

    pairs: whether rows are row numbers of the run, as they are where the target is a list of uids of the pool; else
        they are places in the target's file, from 0.
    closest: (D,) the embedding of the first; None where rows are the run's, or there is no image.
    """

    pairs: bool
    closest: np.ndarray | None = None


def nearest_targets(table: ScoreTable, target: str, embedding: np.ndarray, *, limit: int = 8) -> NearestTargets:
    """The target's images that make a pair's NormSim_inf what it is: abs(similarity[0]) is that score.

    target: its name in the run. embedding: (D,) the pair's image.
    Raises: RunError on an unknown target; TargetError where its file is gone, has changed its size, or is a .pt, which
        nothing but torch reads.

    >>> table = ScoreTable.open(Run.open("data/demo/run"))               # doctest: +SKIP
    >>> nearest_targets(table, "task", vector_of(table, 0)).rows         # doctest: +SKIP
    """
    info = next((info for info in table.run.targets if info.name == target), None)
    if info is None:
        known = ", ".join(info.name for info in table.run.targets) or "none"
        raise RunError(table.run.root, expected=f"one of the targets {known}", found=repr(target))
    vectors = _target_vectors(table, info)
    nearest_images = nearest(embedding, vectors, limit=limit, as_normsim=True)
    first = nearest_images.rows[:1]
    closest = vectors.held[first[0]].astype(np.float32) if isinstance(vectors, HeldVectors) and len(first) else None
    return NearestTargets(nearest_images.rows, nearest_images.similarity, info.kind == "uids", closest)


def _target_vectors(table: ScoreTable, info: TargetInfo) -> Vectors:
    """A target's images: those of the pool that it names, or the rows of its file."""
    file, part = split_part(table.run.root / info.path)
    if not file.is_file():
        raise TargetError(file, expected=f"the target {info.name}", found="no such file", remedy="bring it back")
    if info.kind == "uids":
        rows = np.sort(table.rows_of(uids.unique(read_target_rows(file, part, ""))))
        return PoolVectors(table, "image", rows[rows >= 0])
    arch = table.run.config.arch
    usual = table.pool.arch(arch).image_member if table.pool else f"{arch}_img"
    stored = read_target_rows(file, part, usual)
    if stored.shape != (info.rows, info.width):
        expected, found = f"shape ({info.rows}, {info.width}), as was scored", f"{stored.shape}"
        raise TargetError(file, expected=expected, found=found, remedy="bring back the file that was scored")
    return HeldVectors(np.arange(info.rows), _as_prepared(stored))


def _as_prepared(rows: np.ndarray) -> np.ndarray:
    """A target's rows, those of another length scaled, as scoring takes them."""
    return at_unit_length(rows) if np.isnan(row_scale(rows)).any() else rows


def _unit(query: np.ndarray, width: int, *, rounded: bool) -> np.ndarray:
    """The query as a float32 unit row. rounded: as it is where rounding explains the difference, as in scoring."""
    if query.shape != (width,):
        raise RunError("the query", expected=f"shape ({width},)", found=f"{query.shape}")
    length = float(np.linalg.norm(query.astype(np.float64)))
    if not np.isfinite(length) or length == 0:
        raise RunError("the query", expected="an embedding of length 1", found="one that could not be scored")
    as_is = rounded and abs(length - 1) <= ROUNDING
    return (query if as_is else query.astype(np.float64) / length).astype(np.float32)


def _cosines(block: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """(B, D) rows to (B,) float32 cosines, NaN for rows that cannot be used."""
    rows = np.asarray(block, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.clip(rows @ direction / row_lengths(rows), -1, 1)


def _products(block: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """(B, D) rows to (B,) float32 products as scoring takes them, NaN for rows that cannot be used."""
    rows = np.asarray(block, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        return (rows @ direction) * row_scale(rows)


def _merge(best: Nearest, more: Nearest, limit: int, either_sign: bool) -> Nearest:
    """The best of both. Rows of `more` come after those of `best`, so that a stable sort settles equal similarities."""
    strength = np.abs if either_sign else np.asarray
    usable = np.flatnonzero(~np.isnan(more.similarity))
    values = strength(more.similarity[usable])
    if len(values) > limit > 0:
        least = np.partition(values, len(values) - limit)[len(values) - limit]
        usable = usable[values >= least]
    rows = np.concatenate([best.rows, more.rows[usable]])
    similarity = np.concatenate([best.similarity, more.similarity[usable]])
    order = np.argsort(-strength(similarity), kind="stable")[:limit]
    return Nearest(rows[order], similarity[order])
