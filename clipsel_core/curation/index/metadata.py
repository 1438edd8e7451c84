"""What does the pool say about a run's pairs? Captions, urls and other metadata by row number.

Row i of a shard's scores is row i of the shard's metadata, so captions are found by position, without looking up uids.
The uids that stand there are compared with those that were scored, as a pool's files may be written again meanwhile.

Queries to parquet files are put to DuckDB, from any thread: constant text, bound parameters, results as arrays. Column
names are bound too, through COLUMNS(lambda name: ...). Every query has a cursor of its own, since one DuckDB connection
shared by threads returns other threads' rows.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsel_core import uids
from clipsel_core.curation.index.bitmaps import read_only
from clipsel_core.curation.index.columns import kind_in_pool
from clipsel_core.errors import PoolFormatError, RunError, UidError, counted
from clipsel_core.places import Place
from clipsel_core.pool.conventions import as_texts, find_column
from clipsel_core.pool.layout import Pool, Shard, open_pool, read_column, read_columns, read_uid_column
from clipsel_core.runs.columns import MOST_CATEGORIES
from clipsel_core.runs.store import as_array

if TYPE_CHECKING:
    from clipsel_core.curation.index.score_table import ScoreFiles

# The rows of the parquet files that the parameter `files` lists. A folder named text=hello is no column of theirs.
ROWS = "read_parquet($files, hive_partitioning = false)"
# Columns of all rows, in the order of the files.
_COLUMNS = f"SELECT COLUMNS(lambda name: list_contains($names, name)) FROM {ROWS}"
_BATCH_ROWS = 1 << 20
# A column with no more values sorts pairs, however few they are.
_FEW_VALUES = 64
_FIRST_SHARDS = 8
# Shards in a store that are read at once.
_AT_ONCE = 8
_NUMERIC = re.compile("u?int|halffloat|float|double|bool")
# What a query tells the rows of a file by, where the file itself has no such column.
_ROW_NAMES = ("file_index", "file_row_number")
# Types whose values are not the text that they stand for.
_UNUSUAL = re.compile("null|binary|large_binary|list|large_list|fixed_size")
# No column's name begins with a brace.
_AT_POSITIONS = f"""
    SELECT "{{place", COLUMNS(lambda name: list_contains($names, name))
    FROM {ROWS} AS pairs
    JOIN (SELECT unnest($places) AS "{{place", unnest($shards) AS "{{shard", unnest($positions) AS "{{row") AS asked
      ON pairs.file_index = "{{shard" AND pairs.file_row_number = "{{row"
"""
_COUNT_VALUES = f"""
    SELECT value, count(*) AS pairs
    FROM (SELECT CAST(COLUMNS(lambda name: name = $name) AS VARCHAR) AS value FROM {ROWS})
    GROUP BY value ORDER BY pairs DESC, value LIMIT $most
"""


class TooManyValues(PoolFormatError):
    """A column of the pool has more distinct values than are told apart."""


@dataclass(frozen=True)
class Categories:
    """A metadata column with at most 10,000 distinct values. labels: most frequent first, "" where a value is absent.

    codes: (N,) int16, for each pair the place of its value in labels. counts: (len(labels),) int64.
    """

    labels: tuple[str, ...]
    codes: np.ndarray
    counts: np.ndarray


class Metadata:
    """The metadata of the pairs in a run's score files, read from the pool where it is at hand.

    uids_at: gives the uids that were scored, (M,) UID_DTYPE of (M,) row numbers.
    """

    def __init__(self, files: ScoreFiles, uids_at: Callable[[np.ndarray], np.ndarray]) -> None:
        self._files, self._uids_at = files, uids_at
        self._checked: dict[str, tuple[int | str, ...]] = {}
        self._root = files.run.pool_address
        self._pool: Pool | None = None  # Looked for again until it is there: a disk may be brought back.

    @property
    def pool(self) -> Pool | None:
        """The pool that was scored, None where it is not at hand: scores alone are enough to select by.

        Raises: PoolFormatError where it cannot be read, or a shard has other rows than were scored.
        """
        if self._pool is None and self._files.run.has_pool:
            pool = open_pool(self._root)
            scored = dict(zip(self._files.shard_names, self._files.sizes, strict=True))
            for shard in pool.shards:
                if scored.get(shard.name, shard.rows) != shard.rows:
                    expected = f"{counted(scored[shard.name], 'rows')}, as were scored"
                    raise self._other(shard.parquet, expected, f"{shard.rows:,}")
            self._pool = pool
        return self._pool

    def of(self, rows: np.ndarray, columns: tuple[str, ...] = ("caption", "url")) -> dict[str, np.ndarray]:
        """Metadata of the asked rows, in their order, read by position from the pool's parquet files.

        columns: names of the pool's columns; "caption" and "url" stand for whatever the pool calls them.
        Returns: by column, (M,) objects in the order of `rows`; "" where the pool or a shard's file is not there, or
            has no captions or urls.
        Raises: PoolFormatError on any other column that the pool lacks, or where the pool is not as it was scored: it
            has other rows, or another uid in one of those asked.
        """
        rows = np.asarray(rows, np.int64)
        found: dict[str, np.ndarray] = {name: np.full(len(rows), "", object) for name in columns}
        sources = {name: source for name in columns if (source := self._source(name))}
        if self.pool is None or not len(rows) or not sources:
            return found
        uid = self.pool.uid_column or ""
        known = {shard.name: shard for shard in self.pool.shards}
        number_of = self._files.shard_of(rows)
        asked = {number: known.get(self._files.shard_names[number]) for number in np.unique(number_of).tolist()}
        positions = self._files.place_in_shard(rows)
        names = [uid, *sources.values()]
        alike = {number: shard for number, shard in asked.items() if shard and self._is_alike(shard, names)}
        places = np.flatnonzero(np.isin(number_of, list(alike)))
        try:
            if len(places):
                files, file_of = np.unique(number_of[places], return_inverse=True)
                paths = [str(alike[number].parquet) for number in files.tolist()]
                self._fill_together(found, rows, sources, places, paths, file_of, positions[places])
        except RunError:
            alike = {}  # DuckDB reads none of a column that is not UTF-8 throughout
        apart = [(number, shard) for number, shard in asked.items() if shard and number not in alike]

        def read(number: int, shard: Shard) -> None:
            places = np.flatnonzero(number_of == number)
            own = {name: column for name in sources if (column := _own_name(shard, name))}
            if shard.uid_column is None:
                read_uid_column(shard)  # says so
            table = read_columns(shard, [*{str(shard.uid_column), *own.values()}]).take(pa.array(positions[places]))
            self.check_uids(rows[places], table[shard.uid_column])
            for name, column in own.items():
                found[name][places] = _as_values(table[column], as_stored=True)

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for _ in threads.map(read, *zip(*apart, strict=True)) if apart else ():
                pass
        return found

    def _is_alike(self, shard: Shard, sources: Iterable[str]) -> bool:
        """Whether a shard has these columns of the pool, of the usual types, and none that have to be looked into.

        One in a store is read apart: DuckDB knows of none. So is one where two columns differ by case alone: DuckDB
        calls one of them otherwise.
        """
        assert self.pool is not None
        kinds = {name: self.pool.columns.get(name, "null") for name in sources}
        return (
            not shard.parquet.remote
            and find_column(shard.columns, _ROW_NAMES) is None
            and len({name.lower() for name in shard.columns}) == len(shard.columns)
            and all(shard.columns.get(name) == kind and not _UNUSUAL.match(kind) for name, kind in kinds.items())
        )

    def _fill_together(
        self,
        filled: dict[str, np.ndarray],
        rows: np.ndarray,
        sources: dict[str, str],
        places: np.ndarray,
        files: list[str],
        file_of: np.ndarray,
        positions: np.ndarray,
    ) -> None:
        """Fills these places in one query. file_of, positions: where in the files each place's row is."""
        assert self.pool is not None
        uid = self.pool.uid_column or ""
        asked = {
            "names": list({uid, *sources.values()}),
            "files": files,
            "places": places.tolist(),
            "shards": file_of.tolist(),
            "positions": positions.tolist(),
        }
        found = self._files.database.table(_AT_POSITIONS, asked)
        order = np.array(found.column("{place").to_pylist(), np.int64)  # to_numpy imports pandas, which takes 0.3 s
        if len(order) != len(places):
            raise self._other(
                f"{self._root}/metadata", f"the {counted(len(places), 'rows')} asked for", f"{len(order):,}"
            )
        self.check_uids(rows[order], found.column(uid))
        for name, source in sources.items():
            values: list[Any] = found.column(source).to_pylist()
            # What is absent is not equal to itself where numbers are: NaN.
            filled[name][order] = ["" if value is None or value != value else value for value in values]

    def check_uids(self, rows: np.ndarray, found: pa.ChunkedArray) -> None:
        """Makes sure that uids which the pool's files have at some rows are those that were scored.

        Raises: PoolFormatError naming the first shard and row with another.
        """
        scored = self._uids_at(rows)
        try:
            now = uids.from_hex(found)
        except UidError as error:
            raise self._other(f"{self._root}/metadata", "the uids that were scored", error.found) from error
        other = np.flatnonzero((now["f0"] != scored["f0"]) | (now["f1"] != scored["f1"]))[:1]
        if len(other):
            shard = self._files.shard_names[self._files.shard_of(rows[other])[0]]
            where = f"{self._parquets()[shard]}, row {self._files.place_in_shard(rows[other])[0]:,}"
            was, uid = uids.to_hex(np.concatenate([scored[other], now[other]])).to_pylist()
            raise self._other(where, f"the pair that was scored, {was}", uid)

    def check_shard(self, shard: Shard) -> None:
        """The same for all rows of a shard, for whoever takes its embeddings by row; once as long as the file stays."""
        stamp = shard.parquet.stamp()
        if self._checked.get(shard.name) != stamp:
            rows = self._files.rows_of_shards()[self._files.shard_names.index(shard.name)]
            found = read_uid_column(shard)
            if len(found) != len(rows):
                raise self._other(shard.parquet, f"{counted(len(rows), 'rows')}, as were scored", f"{len(found):,}")
            self.check_uids(np.arange(rows.start, rows.stop), found)
            self._checked[shard.name] = stamp

    def _other(self, where: object, expected: str, found: str) -> PoolFormatError:
        remedy = "bring back the pool that was scored, or score this one into a new folder"
        return PoolFormatError(where, expected=expected, found=found, remedy=remedy)

    def category_columns(self) -> list[str]:
        """Metadata columns of text or truth values that sort pairs: in the first shard there are half as many values as
        pairs at most.

        One of them may have more values than categories() takes in all shards together.
        """
        stored = self.pool.columns if self.pool else {}
        names = [name for name, kind in stored.items() if kind_in_pool(kind) in ("text", "flag")]
        first = self._metadata_files()[:1]
        if not first:
            return []
        most = min(max(-(-self._files.sizes[0] // 2), _FEW_VALUES), MOST_CATEGORIES)
        return [name for name in names if len(self._value_counts(name, first)) <= most]

    def categories(self, column: str) -> Categories:
        """A metadata column as labels and a code for each pair; the labels are the column's values as text.

        Raises: PoolFormatError where the pool or the column is not there, or has more than 10,000 distinct values.
        """
        files = self._metadata_files()
        if self.pool is None or self._source(column) is None or len(files) != len(self._files.shard_names):
            found = "no such column" if self.pool else "no pool"
            raise PoolFormatError(self._root, expected=f"a column {column!r} in every shard", found=found)
        if all(self._is_alike(shard, [column]) for shard in self.pool.shards):
            # Where the first shards have too many, the others are not read.
            values = self._value_counts(column, files[:_FIRST_SHARDS])
            values = self._value_counts(column, files) if len(values) <= MOST_CATEGORIES else values
        else:
            values = list(self._counted_apart(column, files))
        if len(values) > MOST_CATEGORIES:
            expected, found = f"at most {MOST_CATEGORIES:,} distinct values", "more"
            raise TooManyValues(f"{self._root}: {column}", expected=expected, found=found)
        labels = tuple(dict.fromkeys(value or "" for value in values))
        codes, start = np.zeros(len(self._files), np.int16), 0
        known = pa.array(labels, pa.string())
        for shard in self.pool.shards:
            self.check_shard(shard)
        for text in self._texts(column, files):
            part = pc.index_in(text, known).to_numpy()
            codes[start : start + len(part)] = part
            start += len(part)
        return Categories(labels, read_only(codes), np.bincount(codes, minlength=len(labels)))

    def numbers(self, column: str) -> np.ndarray:
        """A column of numbers or truth values of every pair: (N,) float32, NaN where it has none. column: as the pool
        calls it.

        Raises: PoolFormatError where a shard is not as it was scored, or holds something else in the column.
        """
        out, start = np.empty(len(self._files), np.float32), 0
        for shard in self._checked_shards(column):
            found = read_column(shard, column) if column in shard.columns else pa.nulls(shard.rows, pa.float32())
            try:
                values = pc.cast(found, pa.float32(), safe=False).to_numpy(zero_copy_only=False)
            except pa.ArrowException as error:
                found_kind = str(found.type)
                raise PoolFormatError(f"{shard.parquet}: {column}", expected="numbers", found=found_kind) from error
            out[start : start + shard.rows] = values
            start += shard.rows
        return out

    def texts(self, column: str) -> Iterator[pa.Array]:
        """A column of every pair as texts, in the order of the rows, part by part; "" where a pair has none.

        column: as the pool calls it; "caption" and "url" stand for what it calls them. Raises: as `numbers`.
        """
        for _ in self._checked_shards(column):
            pass
        yield from self._texts(column, self._metadata_files())

    def _checked_shards(self, column: str) -> Iterator[Shard]:
        """The shards of the run in its order, each made sure to be as it was scored."""
        known = {shard.name: shard for shard in self.pool.shards} if self.pool else {}
        for name in self._files.shard_names:
            if name not in known:
                remedy = "bring back the pool that was scored"
                raise PoolFormatError(self._root, expected=f"shard {name}, for {column}", found="none", remedy=remedy)
            self.check_shard(known[name])
            yield known[name]

    def _texts(self, column: str, files: list[str]) -> Iterator[pa.Array]:
        """A column of all shards as text, in their order; "" where there is none."""
        assert self.pool is not None
        given = 0
        if all(self._is_alike(shard, [column]) for shard in self.pool.shards):
            try:
                for batch in self._files.database.record_batches(_COLUMNS, {"names": [column], "files": files}):
                    yield pc.fill_null(pc.cast(batch.column(0), pa.string()), "")
                    given += len(batch)
                return
            except RunError:
                pass  # DuckDB reads none of a column that is not UTF-8 throughout
        known = {str(shard.parquet): shard for shard in self.pool.shards}
        for file in files:
            shard = known[file]
            passed_over = min(given, shard.rows)
            given -= passed_over
            if passed_over < shard.rows or not shard.rows:
                yield pa.array(_values(shard, column, np.arange(passed_over, shard.rows)), pa.string())

    def _counted_apart(self, column: str, files: list[str]) -> list[str]:
        """As _value_counts, where shards differ: distinct values, most frequent first."""
        counts: Counter[str] = Counter()
        for texts in self._texts(column, files):
            counts.update(texts.to_pylist())
            if len(counts) > MOST_CATEGORIES:
                break
        return [value for value, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]

    def _value_counts(self, column: str, files: list[str]) -> list[str | None]:
        """A column's distinct values, most frequent first, and one more than there may be where there are too many."""
        assert self.pool is not None
        known = {str(shard.parquet): shard for shard in self.pool.shards}
        if all(self._is_alike(known[file], [column]) for file in files):
            asked = {"name": column, "files": files, "most": MOST_CATEGORIES + 1}
            try:
                return self._files.database.table(_COUNT_VALUES, asked).column("value").to_pylist()
            except RunError:
                pass  # as in _texts
        return list(self._counted_apart(column, files))

    def _parquets(self) -> dict[str, str]:
        return {shard.name: str(shard.parquet) for shard in self.pool.shards} if self.pool else {}

    def _metadata_files(self) -> list[str]:
        parquets = self._parquets()
        return [parquets[name] for name in self._files.shard_names if name in parquets]

    def _source(self, column: str) -> str | None:
        """The pool's own name of a column, None where it has none. Raises PoolFormatError on an unknown name."""
        if self.pool is None:
            return None
        roles = {"caption": self.pool.text_column, "url": self.pool.url_column, "uid": self.pool.uid_column}
        if column in self.pool.columns:
            return column
        if column in roles:
            return roles[column]
        known = ", ".join(self.pool.columns)
        raise PoolFormatError(self.pool.root, expected=f"one of the columns {known}", found=repr(column))


def _values(shard: Shard, column: str, positions: np.ndarray) -> list[Any]:
    """A column's values at these rows of a shard, as text; "" where the shard has no such column. column: see
    _own_name."""
    own = _own_name(shard, column)
    return _as_values(read_column(shard, own).take(pa.array(positions))) if own else [""] * len(positions)


def _own_name(shard: Shard, column: str) -> str | None:
    """What a shard calls a column of the pool, None where it lacks it; "caption", "url": whatever it calls them."""
    return column if column in shard.columns else {"caption": shard.text_column, "url": shard.url_column}.get(column)


def _as_values(column: pa.ChunkedArray, *, as_stored: bool = False) -> list[Any]:
    """A column's values as text. as_stored: numbers and truth values are not made texts."""
    if as_stored and _NUMERIC.match(str(column.type)):
        return ["" if value is None or value != value else value for value in column.to_pylist()]
    return as_texts(column)


class Database:
    """DuckDB over the parquet files of a run. root: the run's folder, as errors name it."""

    def __init__(self, root: Place) -> None:
        self.root = root
        self._connection = duckdb.connect(":memory:", config={"preserve_insertion_order": True})

    def batches(self, query: str, parameters: dict[str, Any], **tables: pa.Table) -> Iterator[dict[str, np.ndarray]]:
        """The result of a query, streamed: arrays by column. The rest as in record_batches."""
        for batch in self.record_batches(query, parameters, **tables):
            columns = zip(batch.schema.names, batch.columns, strict=True)
            yield {name: as_array(column) for name, column in columns}

    def record_batches(self, query: str, parameters: dict[str, Any], **tables: pa.Table) -> Iterator[pa.RecordBatch]:
        """The result of a query, streamed; a plain scan keeps the order of the files. tables: named in the query.

        parameters: bound by name. files: paths as they are; none is read as a pattern.

        Raises: RunError where a file cannot be read.
        """
        if "files" in parameters:
            parameters = {**parameters, "files": as_named(parameters["files"])}
        try:
            with self._connection.cursor() as cursor:
                for name, table in tables.items():
                    cursor.register(name, table)
                yield from cursor.sql(query, params=parameters).to_arrow_reader(_BATCH_ROWS)
        except (duckdb.Error, OSError) as error:  # OSError once batches have begun to come
            found = str(error).split("\n")[0]
            remedy = "if it was replaced or cut short, score or download that shard again"
            raise RunError(self.root, expected="readable parquet files", found=found, remedy=remedy) from error

    def table(self, query: str, parameters: dict[str, Any]) -> pa.Table:
        """The whole result of a query. Raises RunError as record_batches does."""
        batches = list(self.record_batches(query, parameters))
        return pa.Table.from_batches(batches)


def as_named(files: Iterable[str]) -> list[str]:
    """Paths as ROWS takes them, so that no character of theirs is read as a pattern."""
    return [glob.escape(file) for file in files]
