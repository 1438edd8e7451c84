"""Which files does a shard of an embedded pool consist of? Each written whole, the report last.

metadata/<shard>.parquet, .npz   as DataComp lays them out
images/<shard>.parquet           where each image lies
shards/<shard>.tar, _stats.json  the pairs themselves, where they are packed
embed/<shard>.json               the report: counts, and where in the source the next shard begins
embed/<shard>.rejected.parquet, embed/<shard>.repeated.parquet
embed/<shard>.draft.parquet      until shards before it are there, in the place of the report: see drafts
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipsel_core import reach, uids
from clipsel_core.errors import PoolFormatError, counted
from clipsel_core.leases import confirm
from clipsel_core.npy import read_array, read_members
from clipsel_core.places import IN_FLIGHT, Place
from clipsel_core.pool.conventions import A_ROW, NOWHERE, WHOLE_FILE
from clipsel_core.pool.layout import parquet_file, read_schema
from clipsel_core.pool.sources.record import Record
from clipsel_core.tasks import in_threads

Found = TypeVar("Found")
SHARD_SIZE = 100_000
"""Pairs to a shard where nobody says."""
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


@dataclass
class EmbeddedRows:
    """What became of a stretch of records: M kept, without their images' bytes, with (M, D) float16 embeddings.

    rejected: file, key and reason. read: how many records there were; kept and rejected add up to it.
    """

    kept: list[Record] = field(default_factory=list)
    image: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float16))
    text: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float16))
    rejected: list[tuple[str, str, str]] = field(default_factory=list)
    read: int = 0


class ShardReport(BaseModel):
    """What became of a shard's records. following: part and place in it of the first record after them.

    repeated: pairs whose uid another has. derived: those whose source has a uid that cannot be a pool's.
    left_out: columns of the source, see making.carried.
    """

    model_config = ConfigDict(frozen=True)

    read: int
    kept: int
    rejected: int
    repeated: int
    derived: int = 0
    following: tuple[int, int]
    last: bool
    left_out: dict[str, dict[str, int]] = Field(default={}, exclude_if=lambda left_out: not left_out)


ImagePlace = tuple[str, int, int]
"""The file that an image lies in, its offset and its length there, see conventions."""


class ImagePlaces(NamedTuple):
    """What a shard's images lie in. base: what their files are relative to. column: of parquets, with the bytes.

    places: where they lie, in the order of the pairs kept.
    """

    base: Place
    column: str
    places: Sequence[ImagePlace]

    @property
    def sources(self) -> set[str]:
        """The folders that they lie in, or below."""
        elsewhere = {os.path.dirname(file) for file, _, _ in self.places if "://" in file or os.path.isabs(file)}
        return {self.base.address, *elsewhere}


class ShardFiles(NamedTuple):
    """A shard of a pool by its name. root: the pool's folder, on this machine or in a store."""

    root: Place
    name: str

    @property
    def parquet(self) -> Place:
        """The shard's metadata."""
        return self.root / "metadata" / f"{self.name}.parquet"

    @property
    def npz(self) -> Place:
        """The shard's embeddings."""
        return self.root / "metadata" / f"{self.name}.npz"

    @property
    def tar(self) -> Place:
        """The shard's pairs as webdataset, where they were packed."""
        return self.root / "shards" / f"{self.name}.tar"

    def side(self, what: str) -> Place:
        """A file beside: what is "images", "rejected" or "repeated"."""
        folder, ending = ("images", "") if what == "images" else ("embed", f".{what}")
        return self.root / folder / f"{self.name}{ending}.parquet"

    @property
    def report_file(self) -> Place:
        """What says that the shard is done."""
        return self.root / "embed" / f"{self.name}.json"

    def report(self) -> ShardReport | None:
        """The report of a shard that is written, by whichever teacher; else None. Raises PoolFormatError."""
        path = self.report_file
        try:
            return ShardReport.model_validate(json.loads(path.read()))
        except FileNotFoundError:
            return None
        except (ValueError, ValidationError) as error:
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


def of_each(shards: Sequence[ShardFiles], find: Callable[[ShardFiles], Found]) -> list[Found]:
    """What is found of each of some shards; of several at a time in a store, which most of the time is waited for."""
    if not (shards and shards[0].root.remote):
        return list(map(find, shards))
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        return in_threads(threads, find, shards)


def read_parquet(path: Place, columns: Sequence[str] | None = None) -> pa.Table:
    """A table, or some of its columns. Raises: OSError, ArrowException."""
    with parquet_file(path) as file:
        return file.read(columns)


def uids_of(files: ShardFiles, report: ShardReport) -> np.ndarray:
    """The uids of a shard that is written, UID_DTYPE."""
    return uids.from_hex(read_parquet(files.parquet, ["uid"])["uid"] if report.kept else [])


def score_column(arch: str) -> str:
    """DataComp's name for a teacher's own score."""
    return f"clip_{arch}_similarity_score"


def write_shard(
    files: ShardFiles,
    images: ImagePlaces,
    rows: EmbeddedRows,
    namer: Namer,
    arch: str,
    carried: Mapping[str, pa.Array],
) -> None:
    """Writes a new shard, but for its report. One that kept nothing has rejected rows, but no metadata.

    carried: the source's further columns, a value a pair that was kept.
    Raises: OSError; PoolFormatError where another process took a pool in a store over meanwhile, see leases.
    """
    confirm(files.root)
    rejected = [dict(zip(REJECTED.names, row, strict=True)) for row in rows.rejected]
    write_parquet(files.side("rejected"), pa.Table.from_pylist(rejected, REJECTED))
    named = namer.uids()
    names = uids.to_hex(named).to_pylist()
    write_repeated(files, rows.kept, namer, names)
    if rows.kept:
        write_index(files, images, named)
        _save(files.npz, {f"{arch}_img": rows.image, f"{arch}_txt": rows.text})
        columns = {**_metadata(rows.kept, names), **carried}
        write_parquet(files.parquet, pa.table(columns).append_column(*_scores(arch, rows.image, rows.text)))


def write_repeated(files: ShardFiles, kept: Sequence[Record], namer: Namer, names: Sequence[str]) -> None:
    """Writes which of a shard's pairs have another uid than they came with. names: of all of them, hex."""
    repeated = [
        {"file": kept[row].file, "key": kept[row].key, "uid": old, "renamed_to": names[row]}
        for row, old in namer.repeated
    ]
    write_parquet(files.side("repeated"), pa.Table.from_pylist(repeated, REPEATED))


def write_report(files: ShardFiles, report: ShardReport) -> None:
    """Writes a shard's report: it is done. Raises: as write_shard."""
    confirm(files.root)
    files.report_file.write_json(report.model_dump())


def add_to_shard(files: ShardFiles, report: ShardReport, rows: EmbeddedRows, arch: str) -> None:
    """Adds a teacher's arrays and scores to a shard that is there; what is in it keeps its values.

    report: the shard's. Raises: PoolFormatError where its pairs are not the same in the same order, or others rejected.
    """
    table = read_parquet(files.parquet)
    found = "" if len(rows.kept) == table.num_rows else f"{len(rows.kept):,}"
    for column, name, word in (("key", "key", "pair"), ("sha256", "sha256", "image"), ("text", "caption", "caption")):
        pairs = enumerate(zip(rows.kept, table[column].to_pylist(), strict=False))
        others = (f"row {row:,}, {kept.key}" for row, (kept, was) in pairs if getattr(kept, name) != was)
        found = found or next((f"another {word} in {where}" for where in others), "")
    if found:
        remedy = "bring the source back as it was, or embed into another folder"
        raise PoolFormatError(
            files.parquet, expected=f"the same {counted(table.num_rows, 'pairs')}", found=found, remedy=remedy
        )
    add_columns(files, table, arch, rows.image, rows.text)
    if len(rows.rejected) != report.rejected:
        expected, found = (f"{count:,} rejected" for count in (report.rejected, len(rows.rejected)))
        raise PoolFormatError(files.parquet, expected=expected, found=found)


def add_columns(files: ShardFiles, table: pa.Table, arch: str, image: np.ndarray, text: np.ndarray) -> None:
    """Writes a shard's npz and parquet again with a teacher's arrays and scores beside what they hold.

    table: all that the parquet holds. image, text: (N, D) float16, its rows in order; rows of zeros get no score.
    Raises: as write_shard.
    """
    confirm(files.root)
    new = {f"{arch}_img": image, f"{arch}_txt": text}
    there = read_members(files.npz) if files.npz.exists() else {}
    old = {name: read_array(files.npz, member) for name, member in there.items() if name not in new}
    _save(files.npz, {**old, **new})
    if score_column(arch) in table.column_names:
        table = table.drop_columns([score_column(arch)])
    write_parquet(files.parquet, table.append_column(*_scores(arch, image, text)))


def place_of(record: Record) -> ImagePlace:
    """Where a record's image lies in its source."""
    length = A_ROW if record.in_row else record.length
    return record.file, record.offset, length if length is not None else WHOLE_FILE if record.file else NOWHERE


def write_index(files: ShardFiles, images: ImagePlaces, named: np.ndarray) -> None:
    """Writes where the images of some pairs lie, for the gallery. named: (M,) UID_DTYPE, the pairs' uids."""
    reach.remember_sources(images.sources)
    there = [row for row, (_, _, length) in enumerate(images.places) if length != NOWHERE]
    file, offset, length = zip(*(images.places[row] for row in there), strict=True) if there else ((), (), ())
    columns = [
        pa.array(named["f0"][there]),
        pa.array(named["f1"][there]),
        pa.array(file, pa.string()).dictionary_encode(),
        pa.array(offset, pa.int64()),
        pa.array(length, pa.int64()),
    ]
    described = {"base": images.base.relative_to(files.root), "image_column": images.column}
    write_parquet(files.side("images"), pa.table(columns, schema=INDEX).replace_schema_metadata(described))


def write_parquet(path: Place, table: pa.Table) -> None:
    """Writes a table, whole or not at all."""
    path.write(partial(pq.write_table, table, compression="zstd"))


def kind_of(reason: str) -> str:
    """A reason of a rejection without what differs from one picture to the next."""
    return re.sub(r" at byte [\d,]+", "", reason.partition(":")[0])


def _save(npz: Place, arrays: dict[str, np.ndarray]) -> None:
    def write(aside: Path) -> None:
        with open(aside, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    npz.write(write)


def _metadata(kept: list[Record], names: list[str]) -> dict[str, pa.Array]:
    own = [
        record.source_uid or (record.uid if record.uid != name else "") or None
        for record, name in zip(kept, names, strict=True)
    ]
    return {
        "uid": pa.array(names, pa.string()),
        "url": pa.array([record.url for record in kept], pa.string()),
        "text": pa.array([record.caption for record in kept], pa.string()),
        "original_width": pa.array([record.width for record in kept], pa.int64()),
        "original_height": pa.array([record.height for record in kept], pa.int64()),
        "sha256": pa.array([record.sha256 for record in kept], pa.string()),
        "key": pa.array([record.key for record in kept], pa.string()),
        "source_uid": pa.array(own, pa.string()),
        # Read back by `export`, which writes it into the pair's json again.
        "json": pa.array([record.facts or None for record in kept], pa.string()),
    }


def _scores(arch: str, image: np.ndarray, text: np.ndarray) -> tuple[str, pa.Array]:
    similarity = np.einsum("nd,nd->n", image.astype(np.float32), text.astype(np.float32))
    return score_column(arch), pa.array(similarity, pa.float32(), mask=~image.any(1))


def derive_uid(key: str, caption: str, turn: int = 0) -> str:
    """128 bits of BLAKE2b over key and caption as 32 hex digits: the same on every machine.

    turn: for pairs whose uid is taken already, 1, 2, ... until one is free.

    >>> derive_uid("000000012", "a red boat")
    '5b83b73440f95326b5d715b98ad9bd18'
    """
    parts = [key.encode(), caption.encode(), str(turn).encode() if turn else b""]
    framed = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return hashlib.blake2b(framed, digest_size=16).hexdigest()


class Namer:
    """Gives a shard's records their uids as they come: their own where they have one, else one of key and caption.

    The first of several pairs with one uid keeps it; each further one gets a derived uid, decided by the order alone.

    taken: the uids of the shards before it. repeated: rows whose first uid was taken, with that uid (hex).
    """

    def __init__(self, taken: uids.Growing) -> None:
        self._taken = taken
        # In the order of the records: dicts keep it.
        self._here: dict[str, None] = {}
        self.repeated: list[tuple[int, str]] = []

    def name(self, record: Record) -> str:
        """The uid of the next record, 32 hex digits."""
        wanted = new = record.uid or derive_uid(record.key, record.caption)
        turn = 0
        while new in self._here or new in self._taken:
            turn += 1
            new = derive_uid(record.key, record.caption, turn)
        if turn:
            self.repeated.append((len(self._here), wanted))
        self._here[new] = None
        return new

    def uids(self) -> np.ndarray:
        """Those of all records so far, in their order: (M,) UID_DTYPE."""
        return uids.from_hex(list(self._here))


class ShardWriter(AbstractContextManager):
    """Writes one shard at a time while the next is embedded. What fails is raised by the next call."""

    def __init__(self) -> None:
        self._thread, self._last = ThreadPoolExecutor(1), Future[object]()
        self._last.set_result(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def begin(self, work: Callable[[], object]) -> None:
        """Begins with this when the shard before is written, so that no more than one waits in memory."""
        self.wait()
        self._last = self._thread.submit(work)

    def check(self) -> None:
        """Raises what went wrong, if anything did by now."""
        if self._last.done():
            self.wait()

    def wait(self) -> None:
        """Until all is done."""
        self._last.result()
