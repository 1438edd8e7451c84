"""What is most like a text, a picture or a pair: of a run, of a sample, of a target? And how is it kept in a file?

Similarity is the cosine, computed in float32 over blocks of rows; of the pairs seen so far only the best are kept. Rows
rounded to float16 are not quite of unit length, so products are divided by the lengths; NormSim's are not, as scoring
takes such rows as they are. Rows that could not be scored (zero, NaN, far from unit length) are never found. Equal
similarities go to the smaller row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter

from clipsel_core import uids
from clipsel_core.curation.exploring.projection import read_projection
from clipsel_core.curation.exploring.vectors import HeldVectors, PoolVectors, Side, Vectors, vector_of
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import RunError, TargetError, UidError, reason_of
from clipsel_core.npy import put_npy
from clipsel_core.places import Place
from clipsel_core.pool.embeddings import ROUNDING, at_unit_length, row_lengths, row_scale
from clipsel_core.pool.layout import Arch
from clipsel_core.pool.target_files import find_target, read_target
from clipsel_core.runs.store import Run, check_ending, check_seal, placed, sealed
from clipsel_core.tasks import Report, silent
from clipsel_core.workers import Do, Machines, check_asked, results

_KEY = b"clipsel.search"
RESULT_ENDINGS = (".parquet", ".csv", ".npy")


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


@dataclass(frozen=True)
class NearestTargets(Nearest):
    """Images of a target, largest |cosine| first.

    pairs: whether rows are row numbers of the run, as they are where the target is a list of uids of the pool; else
        they are places in the target's file, from 0.
    closest: (D,) the embedding of the first; None where rows are the run's, or there is no image.
    """

    pairs: bool
    closest: np.ndarray | None = None


@dataclass(frozen=True)
class SearchQuery:
    """What was searched for. query: the text, a picture's file name, the pair's uid or the file of a vector.

    by: which of them it is, text, image, uid or vector. side: image or text. among: pool or map. pairs: how many were
    compared.
    """

    query: str
    by: str
    side: Annotated[str, Field(pattern="^(image|text)$")]
    among: str
    pairs: int


_QUERY = TypeAdapter(SearchQuery)


@dataclass(frozen=True)
class SearchResult:
    """What a search of a run found. pairs: how many were compared."""

    table: ScoreTable
    nearest: Nearest
    pairs: int

    @property
    def names(self) -> list[str]:
        """The uids, best first."""
        return uids.to_hex(self.table.uids_at(self.nearest.rows)).to_pylist()


def search_run(
    run: Run,
    query: np.ndarray | str,
    *,
    side: Side = "image",
    on_map: bool = False,
    limit: int = 100,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
    report: Report = silent,
) -> SearchResult:
    """The pairs of a run most like a query, which is a (D,) embedding or the uid of a pair, itself left out.

    side: which embeddings are compared with it. on_map: look only among the pairs on the run's map.
    cluster, cpus_per_worker: a Ray cluster that searches the pool instead, see `workers.Machines`. It finds the same
        pairs, with similarities that may differ in the last digit.
    report: told how many of the pairs were looked at.
    Raises: RunError where the run has no such pair or no map; PoolFormatError on damaged embeddings.
    """
    check_asked("auto", cluster, cpus_per_worker)
    table, among = ScoreTable.open(run), None
    if on_map and cluster:
        raise RunError("--cluster", expected="a search of the pool", found="one of the map, which is small")
    if on_map:
        places = read_projection(run, table)
        if places is None:
            remedy = "make one with: clipsel project RUN"
            raise RunError(run.root, expected="a map to search on", found="none", remedy=remedy)
        among = places.rows
    vectors = PoolVectors(table, side, among)
    if cluster:
        row = find_row(table, query) if isinstance(query, str) else -1
        vector = vector_of(table, row, side) if isinstance(query, str) else query
        work = _Searching(run.root.absolute(), vector, side, limit + 1)
        found = _nearest_of_shards(work, Machines(("cpu",), cluster, cpus_per_worker), table, report)
        found = found.without(row).first(limit)
    elif isinstance(query, str):
        found = neighbours(table, find_row(table, query), side=side, among=vectors, limit=limit, report=report)
    else:
        found = nearest(query, vectors, limit=limit, report=report)
    return SearchResult(table, found, vectors.rows)


@dataclass(frozen=True)
class _Searching:
    """The work that looks through a run's shards, by name, for those most like a vector. root: the run's folder."""

    root: Place
    vector: np.ndarray
    side: Side
    limit: int
    gives: str = "similarities"
    folder: None = None

    @property
    def description(self) -> Place:
        return self.root / "run.json"

    def begin(self, device: str) -> Do:
        table = ScoreTable.open(Run.open(self.root))
        places = dict(zip(table.shard_names, table.files.rows_of_shards(), strict=True))

        def do(shard: str, report: Report) -> Nearest:
            rows = np.arange(places[shard].start, places[shard].stop)
            return nearest(self.vector, PoolVectors(table, self.side, rows), limit=self.limit, report=report)

        return do


def _nearest_of_shards(work: _Searching, machines: Machines, table: ScoreTable, report: Report) -> Nearest:
    """What is most like the work's vector in all shards: what `nearest` finds in all of them at once."""
    best = Nearest(np.empty(0, np.int64), np.empty(0, np.float32))
    with machines.workers(work, len(table.shard_names)) as workers, results(workers, table.shard_names) as found:
        for of_shard, more in zip(table.files.rows_of_shards(), found, strict=True):
            best = _best(best, more, work.limit, np.asarray)
            report(of_shard.stop, len(table), "pairs")
    return best


def _best(known: Nearest, more: Nearest, limit: int, strength: Callable[[np.ndarray], np.ndarray]) -> Nearest:
    """The best of both. more: rows that come later, so that a stable sort settles equal similarities."""
    rows, similarity = np.append(known.rows, more.rows), np.append(known.similarity, more.similarity)
    order = np.argsort(-strength(similarity), kind="stable")[:limit]
    return Nearest(rows[order], similarity[order])


def neighbours(
    table: ScoreTable,
    row: int,
    *,
    side: Side = "image",
    among: Vectors | np.ndarray | None = None,
    limit: int = 48,
    report: Report = silent,
) -> Nearest:
    """The pairs whose images (or captions) are most like those of a pair; the pair itself is not among them.

    side: which embeddings are compared, "image" or "text". among: the pairs to look through, as (M,) ascending row
        numbers or as vectors of that side; None for the whole run, which reads all of its embeddings.
    report: told how many of the pairs were looked at.
    Raises: RunError where the pool is not there or the pair has no usable embedding, PoolFormatError on damaged files.

    >>> table = ScoreTable.open(Run.open("data/demo/run"))  # doctest: +SKIP
    >>> neighbours(table, 0, limit=3).similarity            # doctest: +SKIP
    """
    vectors: Vectors = PoolVectors(table, side, among) if among is None or isinstance(among, np.ndarray) else among
    return nearest(vector_of(table, row, side), vectors, limit=limit + 1, report=report).without(row).first(limit)


def nearest(
    query: np.ndarray, vectors: Vectors, *, limit: int = 48, as_normsim: bool = False, report: Report = silent
) -> Nearest:
    """The rows whose vectors are most like a query. query: (D,) floats of any length but 0.

    as_normsim: rank by the absolute value, with unit rows taken as rounding left them, so that the first is the score;
        it may lie past 1 by that rounding. The similarities keep their signs.
    report: told how many of the rows were looked at.
    Raises: RunError where the query is not a direction, or has another width than the vectors.
    """
    if query.shape != (vectors.width,):
        raise RunError("the query", expected=f"shape ({vectors.width},)", found=f"{query.shape}")
    length = float(np.linalg.norm(query.astype(np.float64)))
    if not np.isfinite(length) or length == 0:
        raise RunError("the query", expected="an embedding of length 1", found="one that could not be scored")
    as_is = as_normsim and abs(length - 1) <= ROUNDING
    direction = (query if as_is else query.astype(np.float64) / length).astype(np.float32)
    strength = np.abs if as_normsim else np.asarray
    best, done = Nearest(np.empty(0, np.int64), np.empty(0, np.float32)), 0
    for rows, block in vectors.blocks():
        block = np.asarray(block, np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            # NaN for rows that cannot be used.
            products = block @ direction
            found = products * row_scale(block) if as_normsim else np.clip(products / row_lengths(block), -1, 1)
        usable = np.flatnonzero(~np.isnan(found))
        values = strength(found[usable])
        if len(values) > limit > 0:
            least = np.partition(values, len(values) - limit)[len(values) - limit]
            usable = usable[values >= least]
        best = _best(best, Nearest(rows[usable], found[usable]), limit, strength)
        done += len(rows)
        report(done, vectors.rows, "pairs")
    return best


def nearest_targets(table: ScoreTable, target: str, embedding: np.ndarray, *, limit: int = 8) -> NearestTargets:
    """The target's images that make a pair's NormSim_inf what it is: abs(similarity[0]) is that score.

    target: its name in the run. embedding: (D,) the pair's image.
    Raises: RunError on an unknown target; TargetError where its file is gone, has changed its size, is a .pt, which
        nothing but torch reads, or a second moment.

    >>> table = ScoreTable.open(Run.open("data/demo/run"))               # doctest: +SKIP
    >>> nearest_targets(table, "task", vector_of(table, 0)).rows         # doctest: +SKIP
    """
    info = next((info for info in table.run.targets if info.name == target), None)
    if info is None:
        known = ", ".join(info.name for info in table.run.targets) or "none"
        raise RunError(table.run.root, expected=f"one of the targets {known}", found=repr(target))
    if info.kind == "moment":
        raise TargetError(placed(table.run.root, info.path), expected="a target of images", found="a second moment")
    name, width = table.run.config.arch, table.run.config.width
    arch = table.metadata.pool.arch(name) if table.metadata.pool else Arch(name, f"{name}_img", "", width, None)
    given = find_target(placed(table.run.root, info.path), info.name)
    read = read_target(given, arch)
    vectors: Vectors
    if info.kind == "uids":
        rows = np.sort(table.rows_of(uids.unique(read.rows)))
        vectors = PoolVectors(table, "image", rows[rows >= 0])
    else:  # The rows of its files, scaled as scoring takes them.
        stored = read.rows
        if stored.shape != (info.rows, info.width):
            expected, found = f"shape ({info.rows}, {info.width}), as was scored", f"{stored.shape}"
            raise TargetError(given.place, expected=expected, found=found, remedy="bring back the file that was scored")
        if np.isnan(row_scale(stored)).any():
            stored = at_unit_length(stored)
        vectors = HeldVectors(np.arange(info.rows), stored)
    best = nearest(embedding, vectors, limit=limit, as_normsim=True)
    closest = None
    if isinstance(vectors, HeldVectors) and len(best):
        closest = vectors.held[best.rows[0]].astype(np.float32)
    return NearestTargets(best.rows, best.similarity, info.kind == "uids", closest)


def find_row(table: ScoreTable, uid: str) -> int:
    """The row number of a uid as a person gives it, see `uids.from_hex`.

    Raises: UidError where it is none, RunError where the run lacks it.
    """
    try:
        (row,) = table.rows_of(uids.from_hex([uid]))
    except UidError as error:
        raise UidError("the pair", expected=error.expected, found=error.found, remedy=error.remedy) from error
    if row < 0:
        raise RunError(table.run.root, expected="a pair of the run", found=f"no pair {uid[:40]}")
    return int(row)


def read_vector(path: str | os.PathLike[str]) -> np.ndarray:
    """One embedding: (D,) floats from a .npy of that shape or (1, D). Raises RunError where it is something else."""
    try:
        with Place.of_named(path).here() as file:
            found = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise RunError(path, expected="a .npy of one embedding", found=reason_of(error)) from error
    flat = found.reshape(-1) if found.ndim == 2 and len(found) == 1 else found
    if flat.ndim != 1 or flat.dtype.kind != "f":
        raise RunError(path, expected="one embedding of floats", found=f"shape {found.shape}, dtype {found.dtype}")
    return flat


def write_search(path: str | os.PathLike[str], result: SearchResult, query: SearchQuery) -> None:
    """Writes what was found: uids with their similarity, best first (.parquet, .csv), or a uid list (.npy).

    The .npy is sorted and without similarities, as recipes and `score --target` take lists.
    Raises: RunError on another ending.
    """
    check_ending(path, *RESULT_ENDINGS)
    path = Place.of_named(path)
    if path.ending == "npy":
        names = uids.sort(result.table.uids_at(result.nearest.rows))
        path.write(lambda aside: put_npy(aside, names))
        return
    columns = pa.table({"uid": result.names, "similarity": result.nearest.similarity})
    columns = columns.replace_schema_metadata({_KEY: json.dumps(asdict(query))})

    def write(aside: Path) -> None:
        if path.ending == "csv":
            pacsv.write_csv(columns, aside)
        else:
            pq.write_table(sealed(columns, "", ""), aside)

    path.write(write)


def read_query(path: str | os.PathLike[str]) -> SearchQuery:
    """What a search was for. Raises RunError where the file is damaged or something else."""
    try:
        with Place.of_named(path).here() as file:
            return _QUERY.validate_json((pq.read_schema(file).metadata or {})[_KEY])
    except (pa.ArrowException, LookupError, TypeError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error


def read_nearest(path: str | os.PathLike[str], table: ScoreTable) -> Nearest:
    """What a search found, less pairs that the run does not have (any more). Raises RunError as read_query does."""
    try:
        with Place.of_named(path).here() as file:
            found = pq.read_table(file)
        check_seal(found)
        rows = table.rows_of(uids.from_hex(found.column("uid")))
        similarity = found.column("similarity").cast(pa.float32()).to_numpy()
    except (pa.ArrowException, UidError, LookupError, TypeError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    return Nearest(rows[rows >= 0], similarity[rows >= 0])


def _unreadable(path: str | os.PathLike[str], error: Exception) -> RunError:
    return RunError(path, expected="a search of the run", found=reason_of(error), remedy="delete it and search again")


def list_searches(run: Run) -> list[Place]:
    """The searches written beside the run, newest first; in a store by name."""
    folder = run.root / "searches"
    stamps = folder.stamps([name for name in folder.names() if name.endswith(".parquet")])
    newest = sorted(stamps, key=lambda name: 0 if folder.remote else stamps[name][1], reverse=True)
    return [folder / name for name in newest]
