"""Which pairs does a run have, and how do they lie by a metric? Read from its score files, or taken from its index.

A *row number* is a pair's place in the run: the files of its finished shards one after another, in the pool's order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from clipsel_core import uids
from clipsel_core.cache import Recent
from clipsel_core.curation.index import bitmaps, sorting
from clipsel_core.curation.index.columns import Columns, values_of
from clipsel_core.curation.index.ranking import NO_SCORE, Ranking, extent
from clipsel_core.errors import RunError
from clipsel_core.runs.store import UID_HALVES, Run, SealedFiles, ShardInfo, as_array, files_at_once
from clipsel_core.tasks import in_order, in_threads

if TYPE_CHECKING:
    from clipsel_core.curation.index.index import Index
    from clipsel_core.curation.index.metadata import Database, Metadata

_PAIR = pa.schema([*((half, pa.uint64()) for half in UID_HALVES), ("row", pa.int64())])
_ROWS_OF_UIDS = "SELECT wanted.place, pairs.row FROM pairs JOIN wanted USING (uid_hi, uid_lo)"


# Columns that are made on request take 10 bytes a pair with their ranking: so many are kept, and not much more memory.
_MOST_MADE, _FEWEST_MADE, _MADE_BYTES = 8, 2, 10 << 27


class ScoreTable:
    """The finished shards of a run, as columns. Open one per run and share it: any thread may call its methods.

    A metric's column is read when it is first asked for and kept (4 bytes a pair); uids and captions are read anew each
    time, for the asked rows only. Arrays handed out are read-only. files: what it all comes from.

    >>> table = ScoreTable.open(Run.open("data/demo/run"))     # doctest: +SKIP
    >>> table.ranking("s_cliploss").scored                    # doctest: +SKIP
    3800
    """

    def __init__(self, files: ScoreFiles) -> None:
        self.run = files.run
        self.files = files
        self.shard_names = files.shard_names
        self.metrics = tuple(files.run.metrics)
        # Columns that are made or read from the pool when they are asked for, and their rankings.
        most = min(max(_MADE_BYTES // (10 * max(len(files), 1)), _FEWEST_MADE), _MOST_MADE)
        self._made: Recent[np.ndarray] = Recent(most)
        self._made_rankings: Recent[Ranking] = Recent(most)
        self._lock = threading.Lock()
        self._columns: dict[str, np.ndarray] = {}
        self._extents: dict[str, tuple[float, float]] = {}
        self._index: Index | None = None
        self._ranking = threading.Lock()
        self._rankings: dict[str, Ranking] = {}

    @classmethod
    def open(cls, run: Run) -> ScoreTable:
        """The table of a run's finished shards. Raises RunError where there is none yet or a file is damaged."""
        return cls(ScoreFiles.open(run))

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def metadata(self) -> Metadata:
        """What the pool says of the pairs."""
        from clipsel_core.curation.index.metadata import Metadata

        return Metadata(self.files, self.uids_at)

    @cached_property
    def columns(self) -> Columns:
        """What is known of the pairs: the run's own columns, and those of the pool's table."""
        return Columns(self)

    @property
    def has_index(self) -> bool:
        """Whether its metrics are in order, so that a question takes no look at all pairs."""
        return self._index is not None

    @property
    def index_folder(self) -> Path | None:
        """Where the run's index lies, None where it has none on disk, or not yet under its name."""
        return self._index.folder if self._index is not None and self._index.folder.is_dir() else None

    def column(self, metric: str) -> np.ndarray:
        """A column of every pair: (N,) float32, NaN where it has no value. metric: its name, or that of a derived one.

        Raises: RunError where there is no such column, or it holds no numbers, or what it is made of has no spread.
        """
        if metric not in self.metrics:
            return self._made.get(metric, lambda: bitmaps.read_only(values_of(self, metric)))
        if self._index is not None and (ranking := self._index.ranking(metric)):
            return ranking.values
        found = self._columns.get(metric)
        if found is None:
            with self._lock:
                found = self._columns.get(metric)
                if found is None:
                    found = self._columns[metric] = self.files.column(metric)
        return found

    def column_once(self, metric: str) -> np.ndarray:
        """The same for who needs it once: of the run's own nothing is kept that was not there before."""
        if metric in self.metrics and self._index is None and metric not in self._columns:
            return self.files.column(metric)
        return self.column(metric)

    def take(self, metric: str, rows: np.ndarray) -> np.ndarray:
        """A column of the asked rows: (M,) float32. Of the run's own, nothing is kept that was not there before."""
        if metric not in self.metrics:
            return self.column(metric)[rows]
        kept = self.column(metric) if self._index is not None else self._columns.get(metric)
        return bitmaps.gathered(kept, rows) if kept is not None else self.files.take(metric, rows)

    def use(self, index: Index) -> None:
        """Takes columns, uids and orders from the run's index from now on."""
        self._index = index

    def ranking(self, metric: str) -> Ranking:
        """Where each pair stands by a metric. Found when it is first asked for, and kept."""
        if metric not in self.metrics:
            return self._made_rankings.get(
                metric, lambda: Ranking.of(self.column(metric), sorting.Sorter(self._by_uid))
            )
        found = self._rankings.get(metric)
        if found is None:
            found = self._index.ranking(metric) if self._index is not None else None
            values = self.column(metric)
            with self._ranking:
                found = self._rankings.setdefault(metric, found) if found else self._rankings.get(metric)
                if found is None:
                    found = self._rankings[metric] = Ranking.of(values, sorting.Sorter(self._by_uid))
        return found

    @property
    def _by_uid(self) -> np.ndarray:
        """The rows in ascending order of their uids: (N,) uint32."""
        kept = self._index.by_uid if self._index is not None else None
        return self._ordered_uids if kept is None else kept

    @cached_property
    def _ordered_uids(self) -> np.ndarray:
        return bitmaps.read_only(sorting.order_by_uid(self.uids()))

    def selectable(self) -> np.ndarray:
        """Which pairs may be selected at all: (N,) bool, false for those that the scoring set aside."""
        return ~np.isnan(self.column("clip_score"))

    def selectable_bits(self) -> np.ndarray:
        """The same as a bitmap; where the run has an index, without looking at the scores."""
        if self._index is None:
            return bitmaps.pack(self.selectable())
        scored, pairs = self.ranking("clip_score"), len(self)
        everything = bitmaps.first(pairs)
        if scored.scored == pairs:
            return everything
        return bitmaps.read_only(bitmaps.between(scored.codes, everything, 0, NO_SCORE - 1))

    def uids(self) -> np.ndarray:
        """The uids of all pairs, in row order: (N,) UID_DTYPE. Not kept in memory: 16 bytes a pair."""
        kept = self._index.uids if self._index is not None else None
        return self.files.uids() if kept is None else kept

    def uids_at(self, rows: np.ndarray) -> np.ndarray:
        """The uids of the asked rows, in their order: (M,) UID_DTYPE."""
        kept = self._index.uids if self._index is not None else None
        return self.files.uids_at(rows) if kept is None else kept[rows]

    def rows_of(self, wanted: np.ndarray) -> np.ndarray:
        """The row number of each uid: (M,) int64, -1 where the run lacks it. Uids in any order, repeats allowed."""
        found = self._index.rows_of(wanted) if self._index is not None else None
        return self.files.rows_of(wanted) if found is None else found

    def pool_rows_of(self, wanted: np.ndarray) -> np.ndarray:
        """The row of each uid in the pool, its shards one behind the other: (M,) int64, -1 where run or pool lacks it.

        Raises: PoolFormatError as Metadata.pool.
        """
        rows, pool = self.rows_of(wanted), self.metadata.pool
        starts, start = dict[str, int](), 0
        for shard in pool.shards if pool else ():
            starts[shard.name] = start
            start += shard.rows
        start_of = np.array([starts.get(name, -1) for name in self.shard_names], np.int64)[self.files.shard_of(rows)]
        return np.where((rows >= 0) & (start_of >= 0), start_of + self.files.place_in_shard(rows), -1)

    def extent(self, metric: str) -> tuple[float, float]:
        """The range a metric is drawn over: its smallest and largest finite value, spread by 1 where they are equal."""
        if metric not in self.metrics:
            ranking = self.ranking(metric)
            return ranking.low, ranking.high
        if self._index is not None:
            return self._index.extent(metric)
        if metric in self._rankings:
            return self._rankings[metric].low, self._rankings[metric].high
        if metric not in self._extents:
            self._extents[metric] = extent(self.column(metric))
        return self._extents[metric]


class ScoreFiles:
    """The score files of a run's finished shards. Any thread may call its methods. sizes: the rows of each shard.

    Everything is read anew when it is asked for. Every value is held against the seal of its file.
    """

    def __init__(self, run: Run, shards: Sequence[ShardInfo]) -> None:
        self.run, self.shards = run, tuple(shards)
        self.shard_names = tuple(shard.name for shard in shards)
        self.sizes = [shard.rows for shard in shards]
        self._held: dict[str, SealedFiles] = {}
        self._starts = np.concatenate([[0], np.cumsum(self.sizes, dtype=np.int64)])

    @classmethod
    def open(cls, run: Run) -> ScoreFiles:
        """Those of a run. Raises RunError where there is none yet or a file is damaged."""
        shards = run.scored_shards
        if not shards:
            remedy = "wait for the first shard, or start the scoring again: it goes on where it stopped"
            raise RunError(run.root / "scores", expected="a finished shard", found="none", remedy=remedy)
        return cls(run, shards)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def database(self) -> Database:
        """What answers questions in SQL, with the run's folder for what does not fit into memory."""
        from clipsel_core.curation.index.metadata import Database

        return Database(self.run.root)

    def column(self, metric: str) -> np.ndarray:
        """A metric of every pair: (N,) float32. metric: one of the run's."""
        out = np.empty(len(self), np.float32)
        self._read({metric: out})
        return bitmaps.read_only(out)

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

        def batches() -> Iterator[pa.RecordBatch]:
            files = self._sealed(UID_HALVES[0])
            depth = files_at_once(self.run.root) if self.run.root.remote else 1
            with ThreadPoolExecutor(depth) as threads:
                read = in_order(self.shard_names, lambda shard: threads.submit(files.read, shard, UID_HALVES), depth)
                for (_, table), numbers in zip(read, self.rows_of_shards(), strict=True):
                    rows = pa.array(np.arange(numbers.start, numbers.stop))
                    yield from table.select(UID_HALVES).append_column("row", rows).to_batches()

        pairs = pa.RecordBatchReader.from_batches(_PAIR, batches())
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
        name = added.folder if added else ""
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

        self._each(read, range(len(self.shard_names)))

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

        self._each(take, used.tolist(), np.split(order, firsts[1:]))
        return out

    def _each(self, work: Callable[..., object], *items: Iterable) -> None:
        """Does some work for each item in threads: on all cores; of a store, for as many files as are asked for."""
        if not self.run.root.remote:
            bitmaps.on_all_cores(work, *items)
            return
        with ThreadPoolExecutor(files_at_once(self.run.root)) as threads:
            in_threads(threads, work, *items)
