"""Which pairs does a run have, and how do they lie by a metric? What was read is kept, and taken from the index if any.

Rows are numbered as in score_files.
"""

from __future__ import annotations

import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipsel_core.curation.index import bitmaps, counts, passes, sorting
from clipsel_core.curation.index.metadata import Categories, Metadata
from clipsel_core.curation.index.ranking import NO_SCORE, Ranking
from clipsel_core.curation.index.score_files import ScoreFiles
from clipsel_core.errors import RunError
from clipsel_core.pool.layout import Pool, Shard
from clipsel_core.runs.store import Run

if TYPE_CHECKING:
    import pyarrow as pa

    from clipsel_core.curation.index.index import Index


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
        self._metadata = Metadata(files, self.uids_at)
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

    @property
    def pool(self) -> Pool | None:
        """The pool that was scored, None where it is not on this machine. Raises PoolFormatError as Metadata.pool."""
        return self._metadata.pool

    @property
    def has_index(self) -> bool:
        """Whether its metrics are in order, so that a question takes no look at all pairs."""
        return self._index is not None

    @property
    def index_folder(self) -> Path | None:
        """Where the run's index lies, None where it has none on disk, or not yet under its name."""
        return self._index.folder if self._index is not None and self._index.folder.is_dir() else None

    def column(self, metric: str) -> np.ndarray:
        """A metric of every pair: (N,) float32, NaN where it was set aside. Raises RunError on an unknown metric."""
        if self._index is not None and (ranking := self._index.ranking(self._known(metric))):
            return ranking.values
        found = self._columns.get(metric)
        if found is None:
            with self._lock:
                found = self._columns.get(metric)
                if found is None:
                    found = self._columns[metric] = self.files.column(self._known(metric))
        return found

    def take(self, metric: str, rows: np.ndarray) -> np.ndarray:
        """A metric of the asked rows: (M,) float32. Keeps nothing in memory that was not there before."""
        kept = self.column(metric) if self._index is not None else self._columns.get(metric)
        return passes.gathered(kept, rows) if kept is not None else self.files.take(self._known(metric), rows)

    def use(self, index: Index) -> None:
        """Takes columns, uids and orders from the run's index from now on."""
        self._index = index

    def ranking(self, metric: str) -> Ranking:
        """Where each pair stands by a metric. Found when it is first asked for, and kept."""
        found = self._rankings.get(metric)
        if found is None:
            found = self._index.ranking(self._known(metric)) if self._index is not None else None
            values = self.column(metric)
            with self._ranking:
                found = self._rankings.setdefault(metric, found) if found else self._rankings.get(metric)
                if found is None:
                    found = self._rankings[metric] = Ranking.of(values, sorting.Sorter(self._by_uid))
        return found

    @cached_property
    def _by_uid(self) -> np.ndarray:
        """The rows in ascending order of their uids: (N,) uint32."""
        return passes.read_only(sorting.order_by_uid(self.uids()))

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
        return passes.read_only(bitmaps.between(scored.codes, everything, 0, NO_SCORE - 1))

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

    def density(self, metric_x: str, metric_y: str, bins: int = 100) -> counts.Density:
        """Joint counts of two metrics over their ranges."""
        x, y = self.column(metric_x), self.column(metric_y)
        return counts.density(x, y, bins, self.extent(metric_x), self.extent(metric_y))

    def extent(self, metric: str) -> tuple[float, float]:
        """The range a metric is drawn over: its smallest and largest finite value, spread by 1 where they are equal."""
        if self._index is not None:
            return self._index.extent(self._known(metric))
        if metric in self._rankings:
            return self._rankings[metric].low, self._rankings[metric].high
        if metric not in self._extents:
            self._extents[metric] = counts.extent(self.column(metric))
        return self._extents[metric]

    def metadata(self, rows: np.ndarray, columns: tuple[str, ...] = ("caption", "url")) -> dict[str, np.ndarray]:
        """Metadata of the asked rows by column, (M,) objects each, "" where there is none; as Metadata.of."""
        return self._metadata.of(rows, columns)

    def check_uids(self, rows: np.ndarray, found: pa.ChunkedArray) -> None:
        """Makes sure that the pool has the pairs that were scored at these rows; as Metadata.check_uids."""
        self._metadata.check_uids(rows, found)

    def check_shard(self, shard: Shard) -> None:
        """The same for all rows of one of the pool's shards; as Metadata.check_shard."""
        self._metadata.check_shard(shard)

    def category_columns(self) -> list[str]:
        """Metadata columns with few distinct values; as Metadata.category_columns."""
        return self._metadata.category_columns()

    def categories(self, column: str) -> Categories:
        """A metadata column as labels and a code for each pair; as Metadata.categories."""
        return self._metadata.categories(column)

    def _known(self, metric: str) -> str:
        if metric not in self.metrics:
            raise RunError(self.run.root, expected=f"one of the metrics {', '.join(self.metrics)}", found=repr(metric))
        return metric
