"""What do the score files of a run hold, and where does each row lie in them? Everything is read anew when asked for.

A *row number* is a pair's place in the run: the files of its finished shards one after another, in the pool's order.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.curation.database import COLUMNS, Database
from clipsel_core.curation.passes import read_only
from clipsel_core.errors import RunError
from clipsel_core.runs.store import Run

_UID_HALVES = ["uid_hi", "uid_lo"]
_ROWS_OF_UIDS = """
    SELECT wanted.place, pairs.file_index, pairs.file_row_number
    FROM read_parquet($files) AS pairs JOIN wanted USING (uid_hi, uid_lo)
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

    def column(self, metric: str) -> np.ndarray:
        """A metric of every pair: (N,) float32. metric: one of the run's."""
        out, start = np.empty(len(self), np.float32), 0
        for batch in self.database.batches(COLUMNS, {"names": [metric], "files": self._files_with(metric)}):
            out[start : start + len(batch[metric])] = batch[metric]
            start += len(batch[metric])
        return read_only(out)

    def take(self, metric: str, rows: np.ndarray) -> np.ndarray:
        """A metric of the asked rows, in their order: (M,) float32."""
        return self._gather([metric], rows)[metric].astype(np.float32)

    def uids(self) -> np.ndarray:
        """The uids of all pairs, in row order: (N,) UID_DTYPE."""
        out, start = np.empty(len(self), uids.UID_DTYPE), 0
        for batch in self.database.batches(COLUMNS, {"names": _UID_HALVES, "files": self._files}):
            part = out[start : start + len(batch["uid_hi"])]
            part["f0"], part["f1"] = batch["uid_hi"], batch["uid_lo"]
            start += len(part)
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
        remedy = "delete the file and score again: the other shards are kept"
        raise RunError(file, expected="a parquet file", found=str(error).split("\n")[0], remedy=remedy) from error
