"""Where in a source does the image of each of a pool's pairs lie? Matched by uid, else by key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.ahead import in_batches
from clipsel_core.pool.check import read_uids
from clipsel_core.pool.images import WHOLE_FILE
from clipsel_core.pool.layout import Pool
from clipsel_core.pool.shard_files import write_parquet
from clipsel_core.pool.sources.record import Record, Source, signature_of

_LOOKED_AT = 1000
_AT_ONCE = 4096
NO_IMAGE = "no image in the source"


@dataclass(frozen=True)
class Matched:
    """Where each pair's image lies, in the order of the pool's rows.

    by: "uid" or "key". files: names in the source. file: (N,) int32, a place in `files`, -1 where there is no image.
    offset, length: (N,) int64; see images.py. faults: why a row's image cannot be used, where the source says.
    strangers: images of the source that belong to no pair of the pool; repeated: those of a pair that had one already.
    """

    by: str
    files: list[str]
    file: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    faults: dict[int, str]
    strangers: int
    repeated: int

    @property
    def found(self) -> int:
        """Pairs that have an image."""
        return int((self.file >= 0).sum())

    def record(self, row: int, key: str, caption: str) -> Record:
        """A pair of the pool as a record of the source. row: in the pool."""
        if self.file[row] < 0:
            return Record(key, "", fault=self.faults.get(row, NO_IMAGE))
        length = int(self.length[row])
        return Record(
            key=key,
            file=self.files[self.file[row]],
            caption=caption,
            offset=int(self.offset[row]),
            length=None if length == WHOLE_FILE else length,
        )


def match(source: Source, pool: Pool, progress: Callable[[int, int], None]) -> Matched:
    """Goes through the source once, its images unread, and notes where those of the pool's pairs lie.

    progress: called with how far the source has been gone through, and how far it goes.
    Memory: 60 bytes a pair of the pool. Raises: PoolFormatError where source and pool have no names in common.
    """
    by = _named_by(source, pool)
    names = np.concatenate([_names(pool, number, by) for number in range(len(pool.shards))])
    order = uids.argsort(names)
    work = _Matching(names[order], order, len(names))
    total, before = sum(source.sizes), 0
    for part, size in enumerate(source.sizes):
        for batch in in_batches(source.read(part), _AT_ONCE):
            work.take(batch, by)
            progress(before + min(batch[-1].position, size), total)
        before += size
    matched = work.matched(by)
    if not matched.found:
        found = f"none of {matched.strangers:,}"
        expected = f"images of pairs of {pool.root}, by {by}"
        raise PoolFormatError(source.base, expected=expected, found=found, remedy="give the pool's own images")
    return matched


def keep_found(source: Source, pool: Pool, matched: Matched) -> None:
    """Keeps in the pool what was found, for a run that goes on and for the next teacher."""
    file = pa.DictionaryArray.from_arrays(
        pa.array(matched.file, mask=matched.file < 0), pa.array(matched.files, pa.string())
    )
    faults = (
        [matched.faults.get(row) for row in range(pool.rows)] if matched.faults else pa.nulls(pool.rows, pa.string())
    )
    columns = {"file": file, "offset": matched.offset, "length": matched.length, "fault": pa.array(faults, pa.string())}
    said = {
        "of": _stamp(source, pool),
        "by": matched.by,
        "strangers": str(matched.strangers),
        "repeated": str(matched.repeated),
    }
    write_parquet(_found_path(pool), pa.table(columns).replace_schema_metadata(said))


def found_before(source: Source, pool: Pool) -> Matched | None:
    """What keep_found kept, where source and pool are still the same."""
    try:
        table = pq.read_table(_found_path(pool)).combine_chunks()
        said = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
        if said["of"] != _stamp(source, pool):
            return None
        file = table["file"].chunk(0)
        faults = {row: text for row, text in enumerate(table["fault"].to_pylist()) if text}
        numbers = file.indices.fill_null(-1).to_numpy().astype(np.int32)
        counts = int(said["strangers"]), int(said["repeated"])
        offset, length = (table[name].to_numpy() for name in ("offset", "length"))
        return Matched(said["by"], file.dictionary.to_pylist(), numbers, offset, length, faults, *counts)
    except (OSError, pa.ArrowException, KeyError, ValueError, AttributeError):
        return None


def _found_path(pool: Pool) -> Path:
    return pool.root / "embed" / "found.parquet"


def _stamp(source: Source, pool: Pool) -> str:
    names, rows = [shard.name for shard in pool.shards], [shard.rows for shard in pool.shards]
    return signature_of(names, rows, source.signature, str(source.base))


class _Matching:
    """The places found so far. names: the pool's, sorted. order: the rows they stand on."""

    def __init__(self, names: np.ndarray, order: np.ndarray, rows: int) -> None:
        self._high, self._low = (np.ascontiguousarray(names[half]) for half in ("f0", "f1"))
        self._order = order
        self._files: dict[str, int] = {}
        self._file = np.full(rows, -1, np.int32)
        self._offset, self._length = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self._faults: dict[int, str] = {}
        self._counts: Counter[str] = Counter()

    def take(self, records: list[Record], by: str) -> None:
        """Notes where these lie, those that belong to a pair."""
        named = [(record, name) for record in records if (name := _name_of(record, by))]
        if not named:
            return
        wanted = uids.from_hex([name for _, name in named])
        for (record, _), high, low in zip(named, wanted["f0"], wanted["f1"], strict=True):
            first, last = np.searchsorted(self._high, high, "left"), np.searchsorted(self._high, high, "right")
            place = int(first + np.searchsorted(self._low[first:last], low))
            if place < last and self._low[place] == low:
                self._note(int(self._order[place]), record)
            else:
                self._counts["strangers"] += 1

    def _note(self, row: int, record: Record) -> None:
        if self._file[row] >= 0:
            self._counts["repeated"] += 1
        elif record.fault:
            self._faults[row] = record.fault
        else:
            self._file[row] = self._files.setdefault(record.file, len(self._files))
            self._offset[row] = record.offset
            self._length[row] = WHOLE_FILE if record.length is None else record.length

    def matched(self, by: str) -> Matched:
        """All that was found."""
        files, counts = list(self._files), self._counts
        places = (self._file, self._offset, self._length)
        return Matched(by, files, *places, self._faults, counts["strangers"], counts["repeated"])


def _named_by(source: Source, pool: Pool) -> str:
    """By what the source's images are told to belong to the pool's pairs."""
    first = list(islice(_records(source), _LOOKED_AT))
    if source.embedded or any(record.in_row for record in first):
        found = f"{source.kind}, without image files"
        expected = "tars, a folder or a table of images"
        raise PoolFormatError(source.base, expected=expected, found=found)
    if any(record.uid for record in first):
        return "uid"
    if "key" in pool.columns and any(record.key for record in first):
        return "key"
    expected = "a uid with each image, in the json or the table, or a column key in the pool"
    remedy = "make a pool of its own of these images"
    raise PoolFormatError(source.base, expected=expected, found="neither", remedy=remedy)


def _records(source: Source) -> Iterator[Record]:
    return chain.from_iterable(source.read(part) for part in range(len(source.parts)))


def _names(pool: Pool, shard: int, by: str) -> np.ndarray:
    """The names of a shard's pairs, (N,) UID_DTYPE; keys as 128 bits of their hash."""
    if by == "uid":
        return read_uids(pool, pool.shards[shard])
    keys = pq.read_table(pool.shards[shard].parquet, columns=["key"])["key"].cast(pa.string())
    return uids.from_hex([_hashed(key or "") for key in keys.to_pylist()])


def _name_of(record: Record, by: str) -> str:
    return record.uid if by == "uid" else _hashed(record.key) if record.key else ""


def _hashed(key: str) -> str:
    return blake2b(key.encode(), digest_size=16).hexdigest()
