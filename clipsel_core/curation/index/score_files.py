"""What do the score files of a run hold, and where does each row lie in them? Everything is read anew when asked for.

A *row number* is a pair's place in the run: the files of its finished shards one after another, in the pool's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from clipsel_core import tasks, uids
from clipsel_core.cores import allowed_cores
from clipsel_core.curation.database import Database
from clipsel_core.curation.index.passes import read_only
from clipsel_core.errors import RunError
from clipsel_core.runs.store import UID_HALVES, Run, SealedFiles, as_array

_readers = ThreadPoolExecutor(allowed_cores(), "read")
_PAIR = pa.schema([*((half, pa.uint64()) for half in UID_HALVES), ("row", pa.int64())])
_ROWS_OF_UIDS = "SELECT wanted.place, pairs.row FROM pairs JOIN wanted USING (uid_hi, uid_lo)"


class ScoreFiles:
    """The score files of a run's finished shards. Any thread may call its methods. sizes: the rows of each.

    Every value is held against the seal of the file that it was read from.
    """

    def __init__(self, run: Run, files: list[Path]) -> None:
        rows = {shard.name: shard.rows for shard in run.config.shards}
        self.run = run
        self.shard_names = tuple(file.stem for file in files)
        self.sizes = [rows[name] for name in self.shard_names]
        self.database = Database(run.root)
        self._held: dict[str, SealedFiles] = {}
        self._starts = np.concatenate([[0], np.cumsum(self.sizes, dtype=np.int64)])

    @classmethod
    def open(cls, run: Run) -> ScoreFiles:
        """Those of a run. Raises RunError where there is none yet or a file is damaged."""
        files = run.score_files
        if not files:
            remedy = "wait for the first shard, or start the scoring again: it goes on where it stopped"
            raise RunError(run.root / "scores", expected="a finished shard", found="none", remedy=remedy)
        return cls(run, files)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def column(self, metric: str) -> np.ndarray:
        """A metric of every pair: (N,) float32. metric: one of the run's."""
        out = np.empty(len(self), np.float32)
        self._read({metric: out})
        return read_only(out)

    def take(self, metric: str, rows: np.ndarray) -> np.ndarray:
        """A metric of the asked rows, in their order: (M,) float32."""
        return self._gather([metric], rows)[metric]

    def uids(self) -> np.ndarray:
        """The uids of all pairs, in row order: (N,) UID_DTYPE."""
        out = np.empty(len(self), uids.UID_DTYPE)
        self._read(dict(zip(UID_HALVES, (out["f0"], out["f1"]), strict=True)))
        return out

    def uids_at(self, rows: np.ndarray) -> np.ndarray:
        """The uids of the asked rows, in their order: (M,) UID_DTYPE."""
        halves = self._gather(list(UID_HALVES), rows)
        return uids.from_halves(halves["uid_hi"], halves["uid_lo"])

    def rows_of(self, wanted: np.ndarray) -> np.ndarray:
        """The row number of each uid: (M,) int64, -1 where the run lacks it. Uids in any order, repeats allowed."""
        places = np.arange(len(wanted), dtype=np.int64)
        halves = [np.ascontiguousarray(wanted[half]) for half in ("f0", "f1")]
        asked = pa.table([places, *halves], ["place", *UID_HALVES])
        pairs = pa.RecordBatchReader.from_batches(_PAIR, self._uid_batches())
        rows = np.full(len(wanted), -1, np.int64)
        for batch in self.database.batches(_ROWS_OF_UIDS, {}, wanted=asked, pairs=pairs):
            rows[batch["place"]] = batch["row"]
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

    def _sealed(self, column: str) -> SealedFiles:
        """The files that hold a column: the scores, or what was added beside them later."""
        added = self.run.added_with(column)
        name = added.target.name if added else ""
        if name not in self._held:
            self._held[name] = SealedFiles(self.run.root, self.run.config, added)
        return self._held[name]

    def _read(self, columns: dict[str, np.ndarray]) -> None:
        """Whole columns of one kind of file, (N,) each: several files at once, in a third of a query's time."""
        names = list(columns)
        files = self._sealed(names[0])

        def read(shard: int) -> None:
            table = files.read(self.shard_names[shard], names)
            for name, out in columns.items():
                chunks = table.column(name).chunks
                ends = np.cumsum([self._starts[shard], *map(len, chunks)])
                for chunk, place in zip(chunks, ends, strict=False):
                    out[place : place + len(chunk)] = as_array(chunk)

        tasks.in_threads(_readers, read, range(len(self.shard_names)))

    def _gather(self, names: list[str], rows: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of one kind of file of the asked rows, in their order; opens only the files they lie in."""
        rows = np.asarray(rows, np.int64)
        order = np.argsort(rows, kind="stable")
        used, firsts = np.unique(self.shard_of(rows[order]), return_index=True)
        files = self._sealed(names[0])
        out = {name: np.empty(len(rows), np.uint64 if name in UID_HALVES else np.float32) for name in names}

        def take(shard: int, places: np.ndarray) -> None:
            table = files.read(self.shard_names[shard], names)
            for name in names:
                values = table.column(name).combine_chunks()
                out[name][places] = as_array(values)[rows[places] - self._starts[shard]]

        tasks.in_threads(_readers, take, used.tolist(), np.split(order, firsts[1:]))
        return out

    def _uid_batches(self) -> Iterator[pa.RecordBatch]:
        """The uids of all pairs with their rows, a shard at a time."""
        files = self._sealed(UID_HALVES[0])
        for shard, rows in zip(self.shard_names, self.rows_of_shards(), strict=True):
            table = files.read(shard, UID_HALVES).select(UID_HALVES)
            yield from table.append_column("row", pa.array(np.arange(rows.start, rows.stop))).to_batches()
