"""What a run's files say about its pairs: scores, uids and metadata by row number. DuckDB is here and in captions.py.

A *row number* is a pair's place in the run: the files of its finished shards one after another, in the pool's order.
Row i of a shard's scores is row i of the shard's metadata, so captions are found by position, without looking up uids.

Every query is constant text with bound parameters: column names too, through COLUMNS(lambda name: ...). Every query has
a cursor of its own, since one DuckDB connection shared by threads returns other threads' rows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.curation import counts, ordering, passes, uid_order
from clipsel_core.curation.bins import MetricBins
from clipsel_core.curation.index import Index
from clipsel_core.errors import PoolFormatError, RunError
from clipsel_core.pool.layout import Pool, open_pool
from clipsel_core.runs.store import Run

Order = Literal["ascending", "descending", "random"]

_UID_HALVES = ["uid_hi", "uid_lo"]
_BATCH_ROWS = 1 << 20
_MOST_CATEGORIES = 64
_COLUMNS = "SELECT COLUMNS(lambda name: list_contains($names, name)) FROM read_parquet($files)"
_AT_POSITIONS = """
    SELECT asked.place, COLUMNS(lambda name: list_contains($names, name))
    FROM read_parquet($files) AS pairs
    JOIN (SELECT unnest($places) AS place, unnest($shards) AS shard, unnest($positions) AS position) AS asked
      ON pairs.file_index = asked.shard AND pairs.file_row_number = asked.position
"""
_ROWS_OF_UIDS = """
    SELECT wanted.place, pairs.file_index, pairs.file_row_number
    FROM read_parquet($files) AS pairs JOIN wanted USING (uid_hi, uid_lo)
"""
_COUNT_VALUES = """
    SELECT value, count(*) AS pairs
    FROM (SELECT CAST(COLUMNS(lambda name: name = $name) AS VARCHAR) AS value FROM read_parquet($files))
    GROUP BY value ORDER BY pairs DESC, value LIMIT $most
"""


@dataclass(frozen=True)
class Categories:
    """A metadata column with few distinct values. labels: most frequent first, "" where a value is absent.

    codes: (N,) int16, for each pair the place of its value in labels. counts: (len(labels),) int64.
    """

    labels: tuple[str, ...]
    codes: np.ndarray
    counts: np.ndarray


class ScoreTable:
    """The finished shards of a run, as columns. Open one per run and share it: any thread may call its methods.

    A metric's column is read when it is first asked for and kept (4 bytes a pair); uids and captions are read anew each
    time, for the asked rows only. Arrays handed out are read-only.

    >>> table = ScoreTable.open(Run.open("data/demo/run"))     # doctest: +SKIP
    >>> len(table.page("s_cliploss", "descending", limit=48))  # doctest: +SKIP
    48
    """

    def __init__(self, run: Run, files: list[Path], sizes: list[int]) -> None:
        self.run = run
        self.shard_names = tuple(file.stem for file in files)
        self.metrics = tuple(run.metrics)
        self._files = [str(file) for file in files]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._database = duckdb.connect(":memory:", config={"preserve_insertion_order": True})
        self._lock = threading.Lock()
        self._columns: dict[str, np.ndarray] = {}
        self._extents: dict[str, tuple[float, float]] = {}
        self._index: Index | None = None
        self._binning = threading.Lock()
        self._bins: dict[str, MetricBins] = {}

    @classmethod
    def open(cls, run: Run) -> ScoreTable:
        """The table of a run's finished shards. Raises RunError where there is none yet or a file is damaged."""
        files = run.score_files
        if not files:
            remedy = "wait for the first shard, or start the scoring again: it goes on where it stopped"
            raise RunError(run.root / "scores", expected="a finished shard", found="none", remedy=remedy)
        return cls(run, files, [_rows_of(file) for file in files])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def pool(self) -> Pool | None:
        """The pool that was scored, None where it is not on this machine: scores alone are enough to select by.

        Raises: PoolFormatError where it cannot be read, or a shard has other rows than were scored.
        """
        if not (self.run.pool_root / "metadata").is_dir():
            return None
        pool = open_pool(self.run.pool_root)
        scored = dict(zip(self.shard_names, np.diff(self._starts).tolist(), strict=True))
        for shard in pool.shards:
            if scored.get(shard.name, shard.rows) != shard.rows:
                expected, found = f"{scored[shard.name]:,} rows, as were scored", f"{shard.rows:,}"
                remedy = "bring back the pool that was scored, or score this one into a new folder"
                raise PoolFormatError(shard.parquet, expected=expected, found=found, remedy=remedy)
        return pool

    def column(self, metric: str) -> np.ndarray:
        """A metric of every pair: (N,) float32, NaN where it was set aside. Raises RunError on an unknown metric."""
        if self._index is not None:
            return self._index.bins[self._known(metric)].values
        found = self._columns.get(metric)
        if found is None:
            with self._lock:
                found = self._columns.get(metric)
                if found is None:
                    found = self._columns[metric] = self.read_column(metric)
        return found

    def take(self, metric: str, rows: np.ndarray) -> np.ndarray:
        """A metric of the asked rows: (M,) float32. Keeps nothing in memory that was not there before."""
        kept = self.column(metric) if self._index is not None else self._columns.get(metric)
        return kept[rows] if kept is not None else self._gather([self._known(metric)], rows)[metric].astype(np.float32)

    def use(self, index: Index) -> None:
        """Takes columns, uids and orders from the run's index from now on."""
        self._index = index
        self._bins = dict(index.bins)

    def bins(self, metric: str) -> MetricBins:
        """Where each pair stands by a metric. Found when it is first asked for, and kept."""
        found = self._bins.get(metric)
        if found is None:
            values = self.column(metric)
            with self._binning:
                found = self._bins.get(metric)
                if found is None:
                    found = self._bins[metric] = MetricBins.of(values, self._by_uid)
        return found

    @cached_property
    def _by_uid(self) -> np.ndarray:
        """The rows in ascending order of their uids: (N,) uint32."""
        return passes.read_only(uid_order.order_by_uid(self.uids()))

    def selectable(self) -> np.ndarray:
        """Which pairs may be selected at all: (N,) bool, false for those that the scoring set aside."""
        return ~np.isnan(self.column("clip_score"))

    def uids(self) -> np.ndarray:
        """The uids of all pairs, in row order: (N,) UID_DTYPE. Not kept: 16 bytes a pair."""
        out, start = np.empty(len(self), uids.UID_DTYPE), 0
        for batch in self._batches(_COLUMNS, {"names": _UID_HALVES, "files": self._files}):
            part = out[start : start + len(batch["uid_hi"])]
            part["f0"], part["f1"] = batch["uid_hi"], batch["uid_lo"]
            start += len(part)
        return out

    def uids_at(self, rows: np.ndarray) -> np.ndarray:
        """The uids of the asked rows, in their order: (M,) UID_DTYPE."""
        if self._index is not None:
            return self._index.uids[rows]
        halves = self._gather(_UID_HALVES, rows)
        return uids.from_halves(halves["uid_hi"], halves["uid_lo"])

    def rows_of(self, wanted: np.ndarray) -> np.ndarray:
        """The row number of each uid: (M,) int64, -1 where the run lacks it. Uids in any order, repeats allowed."""
        if self._index is not None:
            return self._index.rows_of(wanted)
        places = np.arange(len(wanted), dtype=np.int64)
        halves = [np.ascontiguousarray(wanted[half]) for half in ("f0", "f1")]
        asked = pa.table([places, *halves], ["place", *_UID_HALVES])
        rows = np.full(len(wanted), -1, np.int64)
        for batch in self._batches(_ROWS_OF_UIDS, {"files": self._files}, wanted=asked):
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

    def histogram(self, metric: str, bins: int = 100, mask: np.ndarray | None = None) -> counts.Histogram:
        """Counts of a metric in equal bins over its whole range in the run, whatever the mask: layers share an axis.

        mask: (N,) bool, the pairs to count; None for all.
        """
        if mask is None and self._index is not None:
            return self.bins(metric).histogram(bins)
        return counts.histogram(self.column(metric), bins, self.extent(metric), mask)

    def density(self, metric_x: str, metric_y: str, bins: int = 100, mask: np.ndarray | None = None) -> counts.Density:
        """Joint counts of two metrics over their ranges; mask as in histogram."""
        x, y = self.column(metric_x), self.column(metric_y)
        return counts.density(x, y, bins, self.extent(metric_x), self.extent(metric_y), mask)

    def extent(self, metric: str) -> tuple[float, float]:
        """The range a metric is drawn over: its smallest and largest finite value, spread by 1 where they are equal."""
        if metric in self._bins:
            return self._bins[metric].low, self._bins[metric].high
        if metric not in self._extents:
            self._extents[metric] = counts.extent(self.column(metric))
        return self._extents[metric]

    def page(
        self,
        metric: str,
        order: Order = "descending",
        *,
        offset: int = 0,
        limit: int = 48,
        mask: np.ndarray | None = None,
        seed: int = 0,
    ) -> np.ndarray:
        """Row numbers from place `offset` of an ordering on, `limit` at most: (M,) int64.

        Pairs without the metric (NaN) and pairs outside the mask (N,) are on no page; equal values come in row order.
        "random" is a shuffle by seed that leaves each pair its place relative to the others whatever the mask.
        """
        values = self.column(metric)
        listed = ~np.isnan(values) if mask is None else mask & ~np.isnan(values)
        rows = np.flatnonzero(listed)
        if order == "random":
            keys = ordering.shuffled_keys(rows, seed)
        else:
            keys = values[rows] if order == "ascending" else -values[rows]
        return ordering.page_of(keys, rows, offset, limit)

    def metadata(self, rows: np.ndarray, columns: tuple[str, ...] = ("caption", "url")) -> pd.DataFrame:
        """Metadata of the asked rows, in their order, read by position from the pool's parquet files.

        columns: names of the pool's columns; "caption" and "url" stand for whatever the pool calls them.
        Returns: a row for each of `rows`, indexed by row number; "" where the pool or a shard's file is not there, or
            has no captions or urls.
        Raises: PoolFormatError on any other column that the pool lacks, or where the pool is not as it was scored.
        """
        rows = np.asarray(rows, np.int64)
        frame = pd.DataFrame(dict.fromkeys(columns, ""), index=pd.Index(rows, name="row"), dtype=object)
        sources = {name: source for name in columns if (source := self._source(name))}
        shards = self.shard_of(rows)
        parquets = self._parquets()
        paths = np.array([parquets.get(name, "") for name in self.shard_names], object)[shards]
        places = np.flatnonzero(paths != "")
        if not len(places) or not sources:
            return frame
        files, file_of = np.unique(paths[places], return_inverse=True)
        asked = {
            "names": list(set(sources.values())),
            "files": files.tolist(),
            "places": places.tolist(),
            "shards": file_of.tolist(),
            "positions": self.place_in_shard(rows)[places].tolist(),
        }
        found = self._table(_AT_POSITIONS, asked)
        order = found.column("place").to_numpy()
        for name, source in sources.items():
            frame.iloc[order, frame.columns.get_loc(name)] = found.column(source).to_pandas().fillna("").to_numpy()
        return frame

    def category_columns(self) -> list[str]:
        """Metadata columns of text or truth values with few distinct values, as categories() takes them."""
        kinds = ("string", "large_string", "bool")
        names = [name for name, kind in self.pool.columns.items() if kind in kinds] if self.pool else []
        first = self._metadata_files()[:1]
        return [name for name in names if first and self._is_categorical(name, first)]

    def categories(self, column: str) -> Categories:
        """A metadata column as labels and a code for each pair; the labels are the column's values as text.

        Raises: PoolFormatError where the pool or the column is not there, or has more than 64 distinct values.
        """
        files = self._metadata_files()
        if self._source(column) is None or len(files) != len(self.shard_names):
            found = "no such column" if self.pool else "no pool"
            raise PoolFormatError(self.run.pool_root, expected=f"a column {column!r} in every shard", found=found)
        values = self._value_counts(column, files)
        if len(values) > _MOST_CATEGORIES:
            expected, found = f"at most {_MOST_CATEGORIES} distinct values", "more"
            raise PoolFormatError(f"{self.run.pool_root}: {column}", expected=expected, found=found)
        labels = tuple(dict.fromkeys(value or "" for value in values))
        codes, start = np.zeros(len(self), np.int16), 0
        known = pa.array(labels, pa.string())
        for batch in self._record_batches(_COLUMNS, {"names": [column], "files": files}):
            text = pa.compute.fill_null(pa.compute.cast(batch.column(0), pa.string()), "")
            part = pa.compute.index_in(text, known).to_numpy()
            codes[start : start + len(part)] = part
            start += len(part)
        return Categories(labels, _frozen(codes), np.bincount(codes, minlength=len(labels)))

    def _is_categorical(self, column: str, files: list[str]) -> bool:
        return len(self._value_counts(column, files)) <= _MOST_CATEGORIES

    def _value_counts(self, column: str, files: list[str]) -> list[str | None]:
        """A column's distinct values, most frequent first, and one more than there may be where there are too many."""
        found = self._table(_COUNT_VALUES, {"name": column, "files": files, "most": _MOST_CATEGORIES + 1})
        return found.column("value").to_pylist()

    def _parquets(self) -> dict[str, str]:
        return {shard.name: str(shard.parquet) for shard in self.pool.shards} if self.pool else {}

    def _metadata_files(self) -> list[str]:
        parquets = self._parquets()
        return [parquets[name] for name in self.shard_names if name in parquets]

    def _source(self, column: str) -> str | None:
        """The pool's own name of a column, None where it has none. Raises PoolFormatError on an unknown name."""
        if self.pool is None:
            return None
        roles = {"caption": self.pool.text_column, "url": self.pool.url_column}
        if column in self.pool.columns:
            return column
        if column in roles:
            return roles[column]
        known = ", ".join(self.pool.columns)
        raise PoolFormatError(self.pool.root, expected=f"one of the columns {known}", found=repr(column))

    def _known(self, metric: str) -> str:
        if metric not in self.metrics:
            raise RunError(self.run.root, expected=f"one of the metrics {', '.join(self.metrics)}", found=repr(metric))
        return metric

    def read_column(self, metric: str) -> np.ndarray:
        """A metric of every pair, read anew from the files and not kept: (N,) float32."""
        out, start = np.empty(len(self), np.float32), 0
        for batch in self._batches(_COLUMNS, {"names": [self._known(metric)], "files": self._files_with(metric)}):
            out[start : start + len(batch[metric])] = batch[metric]
            start += len(batch[metric])
        return _frozen(out)

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
        for batch in self._batches(_COLUMNS, {"names": names, "files": files}):
            stop = start + len(batch[names[0]])
            first, last = np.searchsorted(places, [start, stop])
            for name in names:
                values = batch[name]
                out.setdefault(name, np.empty(len(rows), values.dtype))[order[first:last]] = values[
                    places[first:last] - start
                ]
            start = stop
        return out

    def _batches(self, query: str, parameters: dict[str, Any], **tables: pa.Table) -> Iterator[dict[str, np.ndarray]]:
        for batch in self._record_batches(query, parameters, **tables):
            columns = zip(batch.schema.names, batch.columns, strict=True)
            yield {name: column.to_numpy(zero_copy_only=False) for name, column in columns}

    def _record_batches(self, query: str, parameters: dict[str, Any], **tables: pa.Table) -> Iterator[pa.RecordBatch]:
        """The result of a query, streamed; a plain scan keeps the order of the files. tables: named in the query."""
        try:
            with self._database.cursor() as cursor:
                for name, table in tables.items():
                    cursor.register(name, table)
                yield from cursor.sql(query, params=parameters).to_arrow_reader(_BATCH_ROWS)
        except duckdb.Error as error:
            raise self._unreadable(error) from error

    def _table(self, query: str, parameters: dict[str, Any]) -> pa.Table:
        batches = list(self._record_batches(query, parameters))
        return pa.Table.from_batches(batches)

    def _unreadable(self, error: duckdb.Error) -> RunError:
        reason = str(error).split("\n")[0]
        remedy = "if it was replaced or cut short, score or download that shard again"
        return RunError(self.run.root, expected="readable parquet files", found=reason, remedy=remedy)


def _rows_of(file: Path) -> int:
    try:
        return pq.read_metadata(file).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        remedy = "delete the file and score again: the other shards are kept"
        raise RunError(file, expected="a parquet file", found=str(error).split("\n")[0], remedy=remedy) from error


def _frozen(values: np.ndarray) -> np.ndarray:
    values.setflags(write=False)
    return values
