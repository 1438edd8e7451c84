"""Which files does a shard of an embedded pool consist of? Each written whole, the report last.

metadata/<shard>.parquet, .npz   as DataComp lays them out
images/<shard>.parquet           where each image lies
shards/<shard>.tar, _stats.json  the pairs themselves, where they are packed
embed/<shard>.json               the report: counts, and where in the source the next shard begins
embed/<shard>.rejected.parquet, embed/<shard>.repeated.parquet
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from clipsel_core import reach, uids
from clipsel_core.counts import counted
from clipsel_core.errors import PoolFormatError
from clipsel_core.files import write_atomically, write_json
from clipsel_core.pool.images import NOWHERE
from clipsel_core.pool.layout import read_schema
from clipsel_core.pool.making.naming import Names
from clipsel_core.pool.making.rows import Kept, Rows
from clipsel_core.pool.npz import read_array, read_members
from clipsel_core.pool.places import Place

REJECTED = pa.schema({"file": pa.string(), "key": pa.string(), "reason": pa.string()})
REPEATED = pa.schema({"file": pa.string(), "key": pa.string(), "uid": pa.string(), "renamed_to": pa.string()})
INDEX = pa.schema(
    {
        "uid_hi": pa.uint64(),
        "uid_lo": pa.uint64(),
        "file": pa.dictionary(pa.int32(), pa.string()),
        "offset": pa.int64(),
        "length": pa.int64(),
    }
)


class Report(BaseModel):
    """What became of a shard's records. following: part and place in it of the first record after them.

    repeated: pairs whose uid another has. derived: those whose source has a uid that cannot be a pool's.
    """

    model_config = ConfigDict(frozen=True)

    read: int
    kept: int
    rejected: int
    repeated: int
    derived: int = 0
    following: tuple[int, int]
    last: bool


class Images(NamedTuple):
    """What a shard's images lie in. base: what their files are relative to. column: of parquets, with the bytes."""

    base: Place
    column: str


class ShardFiles(NamedTuple):
    """A shard of a pool by its name."""

    root: Path
    name: str

    @property
    def parquet(self) -> Path:
        """The shard's metadata."""
        return self.root / "metadata" / f"{self.name}.parquet"

    @property
    def npz(self) -> Path:
        """The shard's embeddings."""
        return self.root / "metadata" / f"{self.name}.npz"

    @property
    def tar(self) -> Path:
        """The shard's pairs as webdataset, where they were packed."""
        return self.root / "shards" / f"{self.name}.tar"

    def side(self, what: str) -> Path:
        """A file beside: what is "images", "rejected" or "repeated"."""
        folder, ending = ("images", "") if what == "images" else ("embed", f".{what}")
        return self.root / folder / f"{self.name}{ending}.parquet"

    def report(self) -> Report | None:
        """The report of a shard that is written, by whichever teacher; else None. Raises PoolFormatError."""
        path = self.root / "embed" / f"{self.name}.json"
        try:
            return Report.model_validate(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, ValidationError) as error:
            reason = str(error).split("\n")[0]
            remedy = "embed into another folder"
            raise PoolFormatError(path, expected="a shard's report", found=reason, remedy=remedy) from error

    def has(self, arch: str) -> bool:
        """Whether this teacher's embeddings and scores are in the shard."""
        return (
            self.npz.exists()
            and {f"{arch}_img", f"{arch}_txt"} <= read_members(self.npz).keys()
            and score_column(arch) in read_schema(self.parquet).names
        )


def score_column(arch: str) -> str:
    """DataComp's name for a teacher's own score."""
    return f"clip_{arch}_similarity_score"


def write_shard(files: ShardFiles, images: Images, rows: Rows, names: Names, arch: str, report: Report) -> None:
    """Writes a new shard. One that kept nothing has a report and rejected rows, but no metadata."""
    write_parquet(files.side("rejected"), _table(rows.rejected, REJECTED))
    write_parquet(files.side("repeated"), _repeated(rows.kept, names))
    if rows.kept:
        write_index(files, images, rows.kept, names.uids)
        _save(files.npz, {f"{arch}_img": rows.image, f"{arch}_txt": rows.text})
        write_parquet(
            files.parquet, _metadata(rows.kept, names.uids).append_column(*_scores(arch, rows.image, rows.text))
        )
    write_json(files.root / "embed" / f"{files.name}.json", report.model_dump())


def add_to_shard(files: ShardFiles, rows: Rows, arch: str) -> None:
    """Adds a teacher's arrays and scores to a shard that is there; what is in it keeps its values.

    Raises: PoolFormatError where the shard's pairs are not the same, in the same order.
    """
    table = pq.read_table(files.parquet)
    if found := _difference(rows.kept, table):
        remedy = "bring the source back as it was, or embed into another folder"
        raise PoolFormatError(
            files.parquet, expected=f"the same {counted(table.num_rows, 'pairs')}", found=found, remedy=remedy
        )
    add_columns(files, table, arch, rows.image, rows.text)


def _difference(kept: list[Kept], table: pa.Table) -> str:
    """Where pairs are not those of a shard that is there: the first that is another; nothing where they are."""
    if len(kept) != table.num_rows:
        return f"{len(kept):,}"
    keys = [item.record.key for item in kept]
    compared: list[tuple[str, str, list[Any]]] = [
        ("key", "pair", keys),
        ("sha256", "image", [item.sha256 for item in kept]),
        ("text", "caption", [item.record.caption for item in kept]),
    ]
    for column, word, now in compared:
        was = table[column].to_pylist()
        if now != was:
            row = next(row for row, (one, other) in enumerate(zip(now, was, strict=True)) if one != other)
            return f"another {word} in row {row:,}, {keys[row]}"
    return ""


def add_columns(files: ShardFiles, table: pa.Table, arch: str, image: np.ndarray, text: np.ndarray) -> None:
    """Writes a shard's npz and parquet again with a teacher's arrays and scores beside what they hold.

    table: all that the parquet holds. image, text: (N, D) float16, its rows in order; rows of zeros get no score.
    """
    new = {f"{arch}_img": image, f"{arch}_txt": text}
    there = read_members(files.npz) if files.npz.exists() else {}
    old = {name: read_array(files.npz, member) for name, member in there.items() if name not in new}
    _save(files.npz, {**old, **new})
    if score_column(arch) in table.column_names:
        table = table.drop_columns([score_column(arch)])
    write_parquet(files.parquet, table.append_column(*_scores(arch, image, text)))


def write_index(files: ShardFiles, images: Images, kept: list[Kept], named: np.ndarray) -> None:
    """Writes where the images of these pairs lie, for the gallery. named: (M,) UID_DTYPE, their uids."""
    elsewhere = {os.path.dirname(item.file) for item in kept if "://" in item.file or os.path.isabs(item.file)}
    reach.remember({images.base.address, *elsewhere})
    described = {"base": images.base.relative_to(files.root), "image_column": images.column}
    write_parquet(files.side("images"), _index(kept, named).replace_schema_metadata(described))


def write_parquet(path: Path, table: pa.Table) -> None:
    """Writes a table, whole or not at all."""
    write_atomically(path, partial(pq.write_table, table, compression="zstd"))


def _save(npz: Path, arrays: dict[str, np.ndarray]) -> None:
    def write(aside: Path) -> None:
        with open(aside, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    write_atomically(npz, write)


def _metadata(kept: list[Kept], named: np.ndarray) -> pa.Table:
    names = uids.to_hex(named)
    own = [
        item.record.source_uid or (item.record.uid if item.record.uid != name else "") or None
        for item, name in zip(kept, names.to_pylist(), strict=True)
    ]
    columns = {
        "uid": names,
        "url": pa.array([item.record.url for item in kept], pa.string()),
        "text": pa.array([item.record.caption for item in kept], pa.string()),
        "original_width": pa.array([item.width for item in kept], pa.int64()),
        "original_height": pa.array([item.height for item in kept], pa.int64()),
        "sha256": pa.array([item.sha256 for item in kept], pa.string()),
        "key": pa.array([item.record.key for item in kept], pa.string()),
        "source_uid": pa.array(own, pa.string()),
        # Read back by `export`, which writes it into the pair's json again.
        "json": pa.array([item.record.facts or None for item in kept], pa.string()),
    }
    return pa.table(columns)


def _scores(arch: str, image: np.ndarray, text: np.ndarray) -> tuple[str, pa.Array]:
    similarity = np.einsum("nd,nd->n", image.astype(np.float32), text.astype(np.float32))
    return score_column(arch), pa.array(similarity, pa.float32(), mask=~image.any(1))


def _index(kept: list[Kept], named: np.ndarray) -> pa.Table:
    there = [row for row, item in enumerate(kept) if item.length != NOWHERE]
    kept, named = [kept[row] for row in there], named[there]
    columns = [
        pa.array(named["f0"].copy()),
        pa.array(named["f1"].copy()),
        pa.array([item.file for item in kept], pa.string()).dictionary_encode(),
        pa.array([item.offset for item in kept], pa.int64()),
        pa.array([item.length for item in kept], pa.int64()),
    ]
    return pa.table(columns, schema=INDEX)


def _repeated(kept: list[Kept], names: Names) -> pa.Table:
    new = uids.to_hex(names.uids)
    rows = [(kept[row].record.file, kept[row].record.key, old, new[row].as_py()) for row, old in names.repeated]
    return _table(rows, REPEATED)


def _table(rows: Sequence[tuple[str, ...]], schema: pa.Schema) -> pa.Table:
    return pa.table(
        [pa.array(column, pa.string()) for column in zip(*rows, strict=True)] or [[]] * len(schema), schema=schema
    )
