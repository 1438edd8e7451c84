"""Where in a source does the image of each of a pool's pairs lie? Matched by uid, else by key.

The source is gone through with its images unread, several of its parts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.cores import allowed_cores
from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.conventions import padded_uid
from clipsel_core.pool.images import A_ROW, WHOLE_FILE
from clipsel_core.pool.layout import Pool, read_uids
from clipsel_core.pool.making.shard_files import write_parquet
from clipsel_core.pool.prefetch import in_batches, in_order
from clipsel_core.pool.sources.record import Record, Source, signature_of
from clipsel_core.processes import Crew
from clipsel_core.tasks import Report

NO_IMAGE = "no image in the source"

# Records whose names decide by what they are matched.
_LOOKED_AT = 1000
_AT_ONCE = 4096
# Bytes of a source below which starting a process takes longer than going through.
_WORTH_A_PROCESS = 64 << 20
_REMOTE_AT_ONCE = 16


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
            length=None if length in (WHOLE_FILE, A_ROW) else length,
            in_row=length == A_ROW,
        )

    def in_reading_order(self, first: int, rows: int) -> np.ndarray:
        """A shard's rows, counted from its `first`, in the order in which their images lie in the source."""
        file, offset = (values[first : first + rows] for values in (self.file, self.offset))
        return np.lexsort((offset, file))


def match(source: Source, pool: Pool, report: Report) -> Matched:
    """Goes through the source once, its images unread, and notes where those of the pool's pairs lie.

    report: told how far the source has been gone through.
    Memory: 60 bytes a pair of the pool. Raises: PoolFormatError where source and pool have no names in common.
    """
    for by in _named_by(source, pool):
        work = _Matching(np.concatenate([_names(pool, number, by) for number in range(len(pool.shards))]))
        total, before = sum(source.sizes), 0
        for part, stretches in _parts(source, by):
            for stretch in stretches:
                work.take(stretch)
                report(before + min(stretch.position, source.sizes[part]), total)
            before += source.sizes[part]
        matched = work.matched(by)
        if matched.found:
            return matched
    found = f"none of {matched.strangers:,}"
    expected = f"images of pairs of {pool.root}, by {by}"
    raise PoolFormatError(source.base, expected=expected, found=found, remedy="give the pool's own images")


def write_found(source: Source, pool: Pool, matched: Matched) -> None:
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


def read_found(source: Source, pool: Pool) -> Matched | None:
    """What write_found kept, where source and pool are still the same."""
    try:
        table = pq.read_table(_found_path(pool)).combine_chunks()
        said = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
        if said["of"] != _stamp(source, pool):
            return None
        file = table["file"].chunk(0)
        return Matched(
            by=said["by"],
            files=file.dictionary.to_pylist(),
            file=file.indices.fill_null(-1).to_numpy().astype(np.int32),
            offset=table["offset"].to_numpy(),
            length=table["length"].to_numpy(),
            faults={row: text for row, text in enumerate(table["fault"].to_pylist()) if text},
            strangers=int(said["strangers"]),
            repeated=int(said["repeated"]),
        )
    except (OSError, pa.ArrowException, KeyError, ValueError, AttributeError):
        return None


def _found_path(pool: Pool) -> Path:
    return pool.root / "embed" / "found.parquet"


def _stamp(source: Source, pool: Pool) -> str:
    names, rows = [shard.name for shard in pool.shards], [shard.rows for shard in pool.shards]
    return signature_of(names, rows, source.signature, str(source.base))


def _named_by(source: Source, pool: Pool) -> list[str]:
    """By what the source's images can be told to belong to the pool's pairs, the surest first."""
    if source.embedded:
        found = f"{source.kind}, without images"
        expected = "tars, a folder or a table of images"
        raise PoolFormatError(source.base, expected=expected, found=found)
    parts = map(source.glance or source.read, range(len(source.parts)))
    first = list(islice(chain.from_iterable(parts), _LOOKED_AT))
    ways = {
        "uid": any(_name_of(record, "uid") for record in first),
        "key": "key" in pool.columns and any(record.key for record in first),
    }
    if not any(ways.values()):
        expected = "a uid with each image, in the json or the table, or a column key in the pool"
        remedy = "make a pool of its own of these images"
        raise PoolFormatError(source.base, expected=expected, found="neither", remedy=remedy)
    return [way for way, known in ways.items() if known]


def _names(pool: Pool, shard: int, by: str) -> np.ndarray:
    """The names of a shard's pairs, (N,) UID_DTYPE; keys as 128 bits of their hash."""
    if by == "uid":
        return read_uids(pool, pool.shards[shard])
    keys = pq.read_table(pool.shards[shard].parquet, columns=["key"])["key"].cast(pa.string())
    return uids.from_hex([_hashed(key or "") for key in keys.to_pylist()])


def _name_of(record: Record, by: str) -> str:
    """What a record is compared with a pool's pairs by, 32 hex digits, or nothing where it has no such name."""
    if by == "uid":
        return record.uid or padded_uid(record.source_uid)
    return _hashed(record.key) if record.key else ""


def _hashed(key: str) -> str:
    return blake2b(key.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class _Stretch:
    """Some of a source's images, those with a name, in its order.

    names: (N,) UID_DTYPE. files, file, offset, length: as in Matched. faults: by their number.
    position: how far the source's part has been gone through.
    """

    names: np.ndarray
    files: list[str]
    file: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    faults: dict[int, str]
    position: int


def _parts(source: Source, by: str) -> Iterator[tuple[int, Iterable[_Stretch]]]:
    """Each part's number with its images, in order. Several parts are gone through at once where that is quicker.

    Tars are mostly arithmetic, in Python: on this machine each core takes one. Those in a store are waited for.
    """
    parts, look = range(len(source.parts)), source.glance
    if look is None or len(parts) == 1 or (not source.base.remote and sum(source.sizes) < _WORTH_A_PROCESS):
        for part in parts:
            yield part, _stretches(look or source.read, by, part)
        return
    work, depth = partial(_all_stretches, look, by), 2 * allowed_cores()
    if source.base.remote:
        with ThreadPoolExecutor(min(len(parts), _REMOTE_AT_ONCE)) as threads:
            try:
                yield from in_order(parts, lambda part: threads.submit(work, part), depth)
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
        return
    # The workers, which come from the same server, are started next.
    preload = ["clipsel_core.pool.making.decoders", __name__]
    with Crew(min(len(parts), allowed_cores()), "to go through it for pairs", preload=preload) as crew:
        places = [source.base / name for name in source.parts]
        yield from in_order(parts, lambda part: crew.submit(places[part], work, part), depth)


def _all_stretches(look: Callable[[int], Iterator[Record]], by: str, part: int) -> list[_Stretch]:
    return list(_stretches(look, by, part))


def _stretches(look: Callable[[int], Iterator[Record]], by: str, part: int) -> Iterator[_Stretch]:
    """What a part's records name, some thousands at a time."""
    for batch in in_batches(look(part), _AT_ONCE):
        named = [(name, record) for record in batch if (name := _name_of(record, by))]
        records = [record for _, record in named]
        lengths = [
            A_ROW if record.in_row else WHOLE_FILE if record.length is None else record.length for record in records
        ]
        places: dict[str, int] = {}
        yield _Stretch(
            names=uids.from_hex([name for name, _ in named]),
            file=np.array([places.setdefault(record.file, len(places)) for record in records], np.int32),
            files=list(places),
            offset=np.array([record.offset for record in records], np.int64),
            length=np.array(lengths, np.int64),
            faults={number: record.fault for number, record in enumerate(records) if record.fault},
            position=batch[-1].position,
        )


class _Matching:
    """The places found so far. names: (N,) UID_DTYPE, of the pool's pairs."""

    def __init__(self, names: np.ndarray) -> None:
        self._order = uids.argsort(names)
        self._high, self._low = (names[half][self._order] for half in ("f0", "f1"))
        self._files: dict[str, int] = {}
        self._file = np.full(len(names), -1, np.int32)
        self._offset, self._length = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
        self._faults: dict[int, str] = {}
        self._strangers = self._repeated = 0

    def take(self, stretch: _Stretch) -> None:
        """Notes where these lie, those that belong to a pair; of several for one pair the first."""
        row = self._rows_of(stretch.names)
        self._strangers += int((row < 0).sum())
        faulty = np.zeros(len(row), bool)
        faulty[list(stretch.faults)] = True
        usable = np.flatnonzero((row >= 0) & ~faulty)
        new = usable[np.unique(row[usable], return_index=True)[1]]
        new = new[self._file[row[new]] < 0]
        self._repeated += len(usable) - len(new)
        numbers, inverse = np.unique(stretch.file[new], return_inverse=True)
        places = [self._files.setdefault(stretch.files[number], len(self._files)) for number in numbers]
        self._file[row[new]] = np.array(places, np.int32)[inverse]
        self._offset[row[new]], self._length[row[new]] = stretch.offset[new], stretch.length[new]
        self._faults |= {int(row[number]): fault for number, fault in stretch.faults.items() if row[number] >= 0}

    def matched(self, by: str) -> Matched:
        """All that was found."""
        places = (self._file, self._offset, self._length)
        return Matched(by, list(self._files), *places, self._faults, self._strangers, self._repeated)

    def _rows_of(self, names: np.ndarray) -> np.ndarray:
        """The pool's row of each name, -1 where it has none: (N,) int64. The first of several."""
        first, last = (np.searchsorted(self._high, names["f0"], side) for side in ("left", "right"))
        end = last.copy()
        # Names that are counted up share their high half, all of them: the low one is sought by halving, all at once.
        while (open_ := first < last).any():
            middle = np.where(open_, (first + last) // 2, 0)
            below = open_ & (self._low[middle] < names["f1"])
            first, last = np.where(below, middle + 1, first), np.where(open_ & ~below, middle, last)
        at = np.minimum(first, len(self._low) - 1)
        return np.where((first < end) & (self._low[at] == names["f1"]), self._order[at], -1)
