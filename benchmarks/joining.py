"""One join of values by uid to a run, in a process of its own:

    python -m benchmarks.joining join|read|duckdb RUN FILE#COLUMN OUT.npy

join: with the core. read: both sides are read and a result of the same size is written, which is the floor. duckdb:
with DuckDB, which is given the uids and values as the core reads them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from clipsel_core.columns.join import ShardUids, join_group
from clipsel_core.columns.keyed_values import KeyedGroup, open_keyed
from clipsel_core.npy import write_npy
from clipsel_core.runs.store import Run

_MATCH = "SELECT run.row, file.value FROM run JOIN file USING (uid_hi, uid_lo)"


def _join(run: Run, source: str) -> np.ndarray:
    (found,) = join_group(ShardUids.of(run), KeyedGroup.of(open_keyed(source)))
    return found.values


def _read(run: Run, source: str) -> np.ndarray:
    """What the join cannot do without: each uid and each value is read once."""
    side = ShardUids.of(run)
    values, row = np.empty(sum(side.sizes), np.float32), 0
    for shard in range(len(side.sizes)):
        side.read(shard)
    for batch in open_keyed(source).batches():
        values[row : row + len(batch.values)] = batch.values
        row += len(batch.values)
    return values


def _duckdb(run: Run, source: str) -> np.ndarray:
    def reader(name: str, kind: pa.DataType, columns: Iterator[tuple[np.ndarray, np.ndarray]]) -> pa.RecordBatchReader:
        schema = pa.schema([("uid_hi", pa.uint64()), ("uid_lo", pa.uint64()), (name, kind)])
        tables = ((np.ascontiguousarray(keys["f0"]), np.ascontiguousarray(keys["f1"]), more) for keys, more in columns)
        batches = (pa.record_batch(list(map(pa.array, table)), schema=schema) for table in tables)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def rows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        side, row = ShardUids.of(run), 0
        for shard, size in enumerate(side.sizes):
            yield side.read(shard), np.arange(row, row + size)
            row += size

    limits = {"memory_limit": "3GB", "temp_directory": str(Path(source).parent / "spilled"), "threads": os.cpu_count()}
    values = np.full(run.pairs, np.nan, np.float32)
    with duckdb.connect(config={**limits, "preserve_insertion_order": False}) as connection:
        connection.register("run", reader("row", pa.int64(), rows()))
        found = ((batch.uids, batch.values) for batch in open_keyed(source).batches())
        connection.register("file", reader("value", pa.float32(), found))
        for batch in connection.sql(_MATCH).to_arrow_reader(1 << 20):
            values[batch.column("row").to_numpy()] = batch.column("value").to_numpy()
    return values


def main() -> None:
    """Does what the command line asks for."""
    way, run, source, out = sys.argv[1:]
    write_npy(Path(out), {"join": _join, "read": _read, "duckdb": _duckdb}[way](Run.open(run), source))


if __name__ == "__main__":
    main()
