"""What in a whole run is most like a text, a picture or a pair? Searched from disk, and kept beside the run."""

from __future__ import annotations

import json
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
from clipsel_core.curation.exploring.neighbours import Nearest, nearest, neighbours
from clipsel_core.curation.exploring.projection import read_projection
from clipsel_core.curation.exploring.vectors import PoolVectors, Side
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import RunError, UidError, reason_of
from clipsel_core.files import write_atomically
from clipsel_core.runs.seal import check_seal, sealed
from clipsel_core.runs.store import Run

_KEY = b"clipsel.search"
_ENDINGS = (".parquet", ".csv", ".npy")


@dataclass(frozen=True)
class Asked:
    """What was searched for. query: the text, a picture's file name, the pair's uid or the file of a vector.

    by: which of them it is, text, image, uid or vector.

    side: image or text. among: pool or map. pairs: how many were compared.
    """

    query: str
    by: str
    side: Annotated[str, Field(pattern="^(image|text)$")]
    among: str
    pairs: int


_ASKED = TypeAdapter(Asked)


@dataclass(frozen=True)
class Found:
    """What a search found. pairs: how many were compared."""

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
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """The pairs of a run most like a query, which is a (D,) embedding or the uid of a pair, itself left out.

    side: which embeddings are compared with it. on_map: look only among the pairs on the run's map.
    progress: called with pairs looked at and pairs in all.
    Raises: RunError where the run has no such pair or no map; PoolFormatError on damaged embeddings.
    """
    table, among = ScoreTable.open(run), None
    if on_map:
        places = read_projection(run, table)
        if places is None:
            remedy = "make one with: clipsel project RUN"
            raise RunError(run.root, expected="a map to search on", found="none", remedy=remedy)
        among = places.rows
    vectors = PoolVectors(table, side, among)
    if isinstance(query, str):
        found = neighbours(table, row_of(table, query), side=side, among=vectors, limit=limit, progress=progress)
    else:
        found = nearest(query, vectors, limit=limit, progress=progress)
    return Found(table, found, vectors.rows)


def row_of(table: ScoreTable, uid: str) -> int:
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


def read_vector(path: Path) -> np.ndarray:
    """One embedding: (D,) floats from a .npy of that shape or (1, D). Raises RunError where it is something else."""
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise RunError(path, expected="a .npy of one embedding", found=reason_of(error)) from error
    flat = found.reshape(-1) if found.ndim == 2 and len(found) == 1 else found
    if flat.ndim != 1 or flat.dtype.kind != "f":
        raise RunError(path, expected="one embedding of floats", found=f"shape {found.shape}, dtype {found.dtype}")
    return flat


def write_vector(path: Path, vector: np.ndarray) -> None:
    """Writes one embedding as .npy, whole or not at all."""

    def write(aside: Path) -> None:
        with open(aside, "wb") as file:
            np.save(file, vector, allow_pickle=False)

    write_atomically(path, write)


def check_ending(path: Path, *endings: str) -> None:
    """Raises RunError where a file's name ends in none of these; without any, in none that write_search knows."""
    endings = endings or tuple(_ENDINGS)
    if path.suffix not in endings:
        raise RunError(path, expected=f"a name ending in {', '.join(endings)}", found=path.suffix or "no ending")


def write_search(path: Path, found: Found, asked: Asked) -> None:
    """Writes what was found: uids with their similarity, best first (.parquet, .csv), or a uid list (.npy).

    The .npy is sorted and without similarities, as recipes and `score --target` take lists.
    Raises: RunError on another ending.
    """
    check_ending(path)
    if path.suffix == ".npy":
        uids.write_subset(path, uids.sort(found.table.uids_at(found.nearest.rows)))
        return
    columns = pa.table({"uid": found.names, "similarity": found.nearest.similarity})
    columns = columns.replace_schema_metadata({_KEY: json.dumps(asdict(asked))})

    def write(aside: Path) -> None:
        if path.suffix == ".csv":
            pacsv.write_csv(columns, aside)
        else:
            pq.write_table(sealed(columns, "", ""), aside)

    write_atomically(path, write)


def read_asked(path: Path) -> Asked:
    """What a search was for. Raises RunError where the file is damaged or something else."""
    try:
        return _ASKED.validate_json((pq.read_schema(path).metadata or {})[_KEY])
    except (pa.ArrowException, LookupError, TypeError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error


def read_found(path: Path, table: ScoreTable) -> Nearest:
    """What a search found, less pairs that the run does not have (any more). Raises RunError as read_asked does."""
    try:
        found = pq.read_table(path)
        check_seal(found)
        rows = table.rows_of(uids.from_hex(found.column("uid")))
        similarity = found.column("similarity").cast(pa.float32()).to_numpy()
    except (pa.ArrowException, UidError, LookupError, TypeError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    return Nearest(rows[rows >= 0], similarity[rows >= 0])


def searches_of(run: Run) -> list[Path]:
    """The searches written beside the run, newest first."""
    files = (run.root / "searches").glob("[!.]*.parquet")
    return sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(path, expected="a search of the run", found=reason_of(error), remedy="delete it and search again")
