"""How is a file of scores noticed that was damaged, exchanged or made for another run? By a seal in its schema.

The seal names the shard and what it was scored with, and has the CRC-32 of each column's values. It is held against the
values as they were read, so whatever happened to the file shows. Files of earlier versions have none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.cores import allowed_cores
from clipsel_core.counts import counted
from clipsel_core.errors import RunError, reason_of
from clipsel_core.runs.store import AddedTarget, RunConfig, ShardInfo, added_file, score_file

_log = logging.getLogger(__name__)
_SEAL = b"clipsel_seal"
UID_HALVES = ("uid_hi", "uid_lo")


class OtherConfigError(RunError):
    """A file of scores is whole, and was made with other settings than the run's description says."""


def sealed(table: pa.Table, shard: str, digest: str) -> pa.Table:
    """A shard's table with its seal in the schema's metadata, where counts may be already.

    table: of columns without nulls. digest: `digest_of` what describes the scores.
    """
    known = table.schema.metadata or {}
    said = {
        "shard": shard,
        "rows": table.num_rows,
        "config": digest,
        "columns": {name: _checksum(table.column(name)) for name in table.column_names},
        "metadata": _checksum_of_metadata(known),
    }
    return table.replace_schema_metadata({**known, _SEAL: json.dumps(said)})


def check_seal(table: pa.Table) -> None:
    """Makes sure that a table that was read whole is what was sealed; one without a seal is of an earlier version.

    Raises: ValueError or LookupError where it is not.
    """
    metadata = table.schema.metadata or {}
    if _SEAL not in metadata:
        return
    said = _seal(metadata)
    if said["rows"] != table.num_rows or said["metadata"] != _checksum_of_metadata(metadata):
        raise ValueError("a damaged description")
    for name, crc in said["columns"].items():
        if crc != _checksum(table[name]):
            raise ValueError(f"other values of {name}")


def is_sealed(table: pa.Table) -> bool:
    """Whether a table that was read has a seal."""
    return _SEAL in (table.schema.metadata or {})


def digest_of(made_by: RunConfig | AddedTarget) -> str:
    """32 hex digits that change with everything that decides scores: not with paths, nor with how far the run is."""
    # A shard may be mended as long as it is not scored: see check_same_pool.
    left_out: Any = {"pool": True, "skipped_rows": True, "complete": True, "shards": {"__all__": {"digest"}}}
    said = made_by.model_dump(mode="json", exclude=left_out)
    for target in (said["target"],) if "target" in said else said["targets"]:
        del target["path"]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class SealedFiles:
    """The files of a run with the same columns, one a shard. added: the target that they belong to, None for scores."""

    root: Path
    config: RunConfig
    added: AddedTarget | None = None

    def file(self, shard: str) -> Path:
        """Where a shard's file lies."""
        return added_file(self.root, self.added.target.name, shard) if self.added else score_file(self.root, shard)

    def read(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of a shard, in its order, held against its seal; None for all of its metrics and its uids.

        Raises: RunError where they are not what was written; OtherConfigError where they are, for another description.
        """
        file, made_by = self.file(shard), self.added or self.config
        names = list(columns or [*UID_HALVES, *made_by.metrics])
        try:
            with pq.ParquetFile(file) as parquet:
                metadata = parquet.schema_arrow.metadata or {}
                table = parquet.read(names, use_threads=False)
            self._check(shard, table, names, metadata)
        except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise RunError(
                file, expected="scores as written", found=reason_of(error), remedy=self._remedy(shard)
            ) from error
        return table

    def _check(self, shard: str, table: pa.Table, names: list[str], metadata: dict[bytes, bytes]) -> None:
        """Raises ValueError or LookupError where this table was not written for this shard; OtherConfigError."""
        file, rows = self.file(shard), self._rows[shard]
        if table.num_rows != rows:
            raise ValueError(f"{counted(table.num_rows, 'rows')} where the run has {rows:,}")
        absent = [name for name in names if name not in table.column_names]
        if absent:
            raise ValueError(f"no column {absent[0]}")
        if _SEAL not in metadata:
            if self._must_be_sealed:
                raise ValueError("no seal")
            return
        said = _seal(metadata)
        if said["shard"] != shard:
            raise ValueError(f"those of shard {said['shard']}")
        if said["rows"] != rows or said["metadata"] != _checksum_of_metadata(metadata):
            raise ValueError("a damaged description")
        for name in names:
            kind = pa.uint64() if name in UID_HALVES else pa.float32()
            if kind != table.schema.field(name).type or said["columns"][name] != _checksum(table[name]):
                raise ValueError(f"other values of {name}")
        if said["config"] != self._digest:
            raise OtherConfigError(
                file.with_name("target.json") if self.added else self.root / "run.json",
                expected=f"what shard {shard} was scored with",
                found="other settings or shards",
                remedy=f"bring it back as it was, or delete {file} and start again",
            )

    def _remedy(self, shard: str) -> str:
        again = "add-target" if self.added else "score"
        return f"start {again} again as before: it makes shard {shard} anew and keeps the others"

    @cached_property
    def _digest(self) -> str:
        return digest_of(self.added or self.config)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {shard.name: shard.rows for shard in self.config.shards}

    @cached_property
    def _must_be_sealed(self) -> bool:
        """Whether the run was begun by a version that seals."""
        return any(shard.digest for shard in self.config.shards)


def keep_whole(files: SealedFiles) -> None:
    """Removes the files that are not as they were written, so that they are made again; says which, as a warning.

    Raises: OtherConfigError where one was made by other settings, RunError where the disk does not give one; others may
        have been removed by then.
    """

    def keep(shard: ShardInfo) -> None:
        file = files.file(shard.name)
        try:
            files.read(shard.name)
        except OtherConfigError:
            raise
        except RunError as error:
            if getattr(error.__cause__, "errno", None) and file.exists():
                raise  # the disk fails, or forbids it: that says nothing of what the file holds
            if file.exists():
                _log.warning("%s: made again, found %s", file, error.found)
                file.unlink()

    with ThreadPoolExecutor(allowed_cores()) as threads:
        list(threads.map(keep, files.config.shards))


def as_array(column: pa.Array) -> np.ndarray:
    """A column's numbers; NaN where there is none."""
    if column.null_count == 0 and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return np.from_dlpack(column)  # to_numpy imports pandas, and that takes longer than a small selection
    return column.to_numpy(zero_copy_only=False)


def _seal(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    said = json.loads(metadata[_SEAL])
    if not isinstance(said, dict) or not isinstance(said["columns"], dict):
        raise ValueError("a damaged seal")
    return said


def _checksum(column: pa.ChunkedArray) -> int:
    found = 0
    for chunk in column.chunks:
        if chunk.null_count:
            raise ValueError("nulls")
        is_text = pa.types.is_string(chunk.type)
        found = zlib.crc32("\0".join(chunk.to_pylist()).encode() if is_text else as_array(chunk).data, found)
    return found


def _checksum_of_metadata(metadata: dict[bytes, bytes]) -> int:
    """Of what else the schema says; Arrow's own entry is made by whoever writes the file."""
    others = sorted((key, value) for key, value in metadata.items() if key not in (_SEAL, b"ARROW:schema"))
    return zlib.crc32(repr(others).encode())
