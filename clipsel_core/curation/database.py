"""How is a query put to parquet files, from any thread? Constant text, bound parameters, results as arrays.

Column names are bound too, through COLUMNS(lambda name: ...). Every query has a cursor of its own, since one DuckDB
connection shared by threads returns other threads' rows.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from clipsel_core.errors import RunError
from clipsel_core.runs.store import as_array

# The rows of the parquet files that the parameter `files` lists. A folder named text=hello is no column of theirs.
ROWS = "read_parquet($files, hive_partitioning = false)"
# Columns of all rows, in the order of the files.
COLUMNS = f"SELECT COLUMNS(lambda name: list_contains($names, name)) FROM {ROWS}"
_BATCH_ROWS = 1 << 20


class Database:
    """DuckDB over the parquet files of a run. root: the run's folder, as errors name it."""

    def __init__(self, root: Path) -> None:
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
            raise self._unreadable(error) from error

    def table(self, query: str, parameters: dict[str, Any]) -> pa.Table:
        """The whole result of a query. Raises RunError as record_batches does."""
        batches = list(self.record_batches(query, parameters))
        return pa.Table.from_batches(batches)

    def _unreadable(self, error: Exception) -> RunError:
        reason = str(error).split("\n")[0]
        remedy = "if it was replaced or cut short, score or download that shard again"
        return RunError(self.root, expected="readable parquet files", found=reason, remedy=remedy)


def as_named(files: Iterable[str]) -> list[str]:
    """Paths as ROWS takes them, so that no character of theirs is read as a pattern."""
    return [glob.escape(file) for file in files]
