"""What do the score files of a run hold, and where does each row lie in them? Everything is read anew when asked for.

A *row number* is a pair's place in the run: the files of its finished shards one after another, in the pool's order.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.cores import allowed_cores
from clipsel_core.counts import counted
from clipsel_core.curation.database import COLUMNS, ROWS, Database, as_array
from clipsel_core.curation.index import stopping
from clipsel_core.curation.index.passes import read_only
from clipsel_core.errors import RunError
from clipsel_core.runs.store import Run

_readers = ThreadPoolExecutor(allowed_cores(), "read")
_UID_HALVES = ["uid_hi", "uid_lo"]
_ROWS_OF_UIDS = f"""
    SELECT wanted.place, pairs.file_index, pairs.file_row_number
    FROM {ROWS} AS pairs JOIN wanted USING (uid_hi, uid_lo)
"""


class ScoreFiles:
    """The score files of a run's finished shards. Any thread may call its methods. sizes: the rows of each."""

    def __init__(self, run: Run, files: list[Path], sizes: list[int]) -> None:
        self.run = run
        self.shard_names = tuple(file.stem for file in files)
        self.sizes = sizes
        self.database = Database(run.root)
        self._files = [str(file) for file in files]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    @classmethod
    def open(cls, run: Run) -> ScoreFiles:
        """Those of a run. Raises RunError where there is none yet or a file is damaged."""
        files = run.score_files
        if not files:
            remedy = "wait for the first shard, or start the scoring again: it goes on where it stopped"
            raise RunError(run.root / "scores", expected="a finished shard", found="none", remedy=remedy)
        return cls(run, files, [_rows_of(file) for file in files])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def column(self, metric: str, out: np.ndarray | None = None) -> np.ndarray:
        """A metric of every pair: (N,) float32. metric: one of the run's. out: where to put it, else in new memory."""
        out = np.empty(len(self), np.float32) if out is None else out
        self._read(self._files_with(metric), {metric: out})
        return read_only(out)

    def take(self, metric: str, rows: np.ndarray) -> np.ndarray:
        """A metric of the asked rows, in their order: (M,) float32."""
        return self._gather([metric], rows)[metric].astype(np.float32)

    def uids(self) -> np.ndarray:
        """The uids of all pairs, in row order: (N,) UID_DTYPE."""
        out = np.empty(len(self), uids.UID_DTYPE)
        self._read(self._files, dict(zip(_UID_HALVES, (out["f0"], out["f1"]), strict=True)))
        return out

    def uids_at(self, rows: np.ndarray) -> np.ndarray:
        """The uids of the asked rows, in their order: (M,) UID_DTYPE."""
        halves = self._gather(_UID_HALVES, rows)
        return uids.from_halves(halves["uid_hi"], halves["uid_lo"])

    def rows_of(self, wanted: np.ndarray) -> np.ndarray:
        """The row number of each uid: (M,) int64, -1 where the run lacks it. Uids in any order, repeats allowed."""
        places = np.arange(len(wanted), dtype=np.int64)
        halves = [np.ascontiguousarray(wanted[half]) for half in ("f0", "f1")]
        asked = pa.table([places, *halves], ["place", *_UID_HALVES])
        rows = np.full(len(wanted), -1, np.int64)
        for batch in self.database.batches(_ROWS_OF_UIDS, {"files": self._files}, wanted=asked):
            rows[batch["place"]] = self._starts[batch["file_index"].astype(np.int64)] + batch["file_row_number"]
        return rows

    def shard_of(self, rows: np.ndarray) -> np.ndarray:
        """The shard each row lies in, as a place in shard_names: (M,) int64."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def rows_of_shards(self) -> list[range]:
        """The row numbers of each of shard_names."""
        return [range(*ends) for ends in pairwise(self._starts.tolist())]

    def place_in_shard(self, rows: np.ndarray) -> np.ndarray:
        """The row of its shard that each row number stands for: (M,) int64."""
        return rows - self._starts[self.shard_of(rows)]

    def _files_with(self, column: str) -> list[str]:
        """The files that hold a column, one a shard: the scores, or what was added beside them later."""
        return [str(self.run.file_with(column, shard)) for shard in self.shard_names]

    def _read(self, files: list[str], columns: dict[str, np.ndarray]) -> None:
        """Whole columns of one kind of file, (N,) each: several files at once, in a third of a query's time."""

        def read(shard: int) -> None:
            file, start = Path(files[shard]), self._starts[shard]
            try:
                with pq.ParquetFile(file) as parquet:
                    table = parquet.read(columns=list(columns), use_threads=False)
                if table.num_rows != self.sizes[shard]:
                    raise pa.ArrowInvalid(
                        f"{counted(table.num_rows, 'rows')}, {self.sizes[shard]:,} when the run was opened"
                    )
                for name, out in columns.items():
                    ends = np.cumsum([start, *map(len, table.column(name).chunks)])
                    for chunk, place in zip(table.column(name).chunks, ends, strict=False):
                        out[place : place + len(chunk)] = as_array(chunk)
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(file, error) from error

        stopping.in_threads(_readers, read, range(len(files)))

    def _gather(self, names: list[str], rows: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of one kind of file of the asked rows, in their order; opens only the files they lie in."""
        rows = np.asarray(rows, np.int64)
        order = np.argsort(rows, kind="stable")
        shards = self.shard_of(rows[order])
        used = np.unique(shards)
        sizes = np.diff(self._starts)[used]
        shift = np.concatenate([[0], np.cumsum(sizes)[:-1]]) - self._starts[used] if len(used) else np.zeros(0, int)
        places = rows[order] + shift[np.searchsorted(used, shards)]
        out: dict[str, np.ndarray] = {}
        start = 0
        held = self._files_with(names[0])
        files = [held[shard] for shard in used] or held[:1]
        for batch in self.database.batches(COLUMNS, {"names": names, "files": files}):
            stop = start + len(batch[names[0]])
            first, last = np.searchsorted(places, [start, stop])
            for name in names:
                values = batch[name]
                out.setdefault(name, np.empty(len(rows), values.dtype))[order[first:last]] = values[
                    places[first:last] - start
                ]
            start = stop
        return out


def _rows_of(file: Path) -> int:
    try:
        return pq.read_metadata(file).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> RunError:
    remedy = "delete the file and score again: the other shards are kept"
    return RunError(file, expected="a parquet file", found=str(error).split("\n")[0], remedy=remedy)
