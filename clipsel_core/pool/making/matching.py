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
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.conventions import A_ROW, WHOLE_FILE, padded_uid
from clipsel_core.pool.layout import Pool, read_uids
from clipsel_core.pool.making.shard_files import read_parquet, write_parquet
from clipsel_core.pool.sources.record import Record, Source, signature_of
from clipsel_core.processes import Crew
from clipsel_core.tasks import Report, allowed_cores, in_batches, in_order

NO_IMAGE = "no image in the source"

# Records whose names decide by what they are matched.
_LOOKED_AT = 1000
_AT_ONCE = 4096
# Bytes of a source below which starting a process takes longer than going through.
_WORTH_A_PROCESS = 64 << 20
_REMOTE_AT_ONCE = 16


PLACE = np.dtype([("file", "i4"), ("offset", "i8"), ("length", "i8")])
"""Where an image lies: the number of its file, -1 for none, and offset and length as in conventions."""


@dataclass(frozen=True)
class Matched:
    """Where each pair's image lies, in the order of the pool's rows.

    by: "uid" or "key". files: names in the source. places: (N,) PLACE, with numbers of `files`.
    faults: why a row's image cannot be used, where the source says.
    strangers: images of the source that belong to no pair of the pool; repeated: those of a pair that had one already.
    """

    by: str
    files: list[str]
    places: np.ndarray
    faults: dict[int, str]
    strangers: int
    repeated: int

    def record(self, row: int, key: str, caption: str) -> Record:
        """A pair of the pool as a record of the source. row: in the pool."""
        file, offset, length = self.places[row].item()
        if file < 0:
            return Record(key, "", fault=self.faults.get(row, NO_IMAGE))
        whole = length in (WHOLE_FILE, A_ROW)
        return Record(key, self.files[file], caption, offset, None if whole else length, in_row=length == A_ROW)

    def in_reading_order(self, first: int, rows: int) -> np.ndarray:
        """A shard's rows, counted from its `first`, in the order in which their images lie in the source."""
        places = self.places[first : first + rows]
        return np.lexsort((places["offset"], places["file"]))


def match(source: Source, pool: Pool, report: Report) -> Matched:
    """Goes through the source once, its images unread, and notes where those of the pool's pairs lie.

    report: told how far the source has been gone through.
    Memory: 60 bytes a pair of the pool. Raises: PoolFormatError where source and pool have no names in common.
    """
    if source.embedded:
        found = f"{source.kind}, without images"
        expected = "tars, a folder or a table of images"
        raise PoolFormatError(source.base, expected=expected, found=found)
    parts = map(source.glance or source.read, range(len(source.parts)))
    first = list(islice(chain.from_iterable(parts), _LOOKED_AT))
    # By what its images can be told to belong to the pool's pairs, the surest first.
    ways = ["uid"] * any(_name_of(record, "uid") for record in first)
    ways += ["key"] * ("key" in pool.columns and any(record.key for record in first))
    if not ways:
        expected = "a uid with each image, in the json or the table, or a column key in the pool"
        remedy = "make a pool of its own of these images"
        raise PoolFormatError(source.base, expected=expected, found="neither", remedy=remedy)
    for by in ways:
        if by == "uid":
            names = [read_uids(shard) for shard in pool.shards]
        else:
            columns = (read_parquet(shard.parquet, ["key"])["key"] for shard in pool.shards)
            keys = (column.cast(pa.string()).to_pylist() for column in columns)
            names = [uids.from_hex([_hashed(key or "") for key in some]) for some in keys]
        work = _Matching(np.concatenate(names))
        total, before = sum(source.sizes), 0
        for part, stretches in _parts(source, by):
            for stretch in stretches:
                work.take(stretch)
                report(before + min(stretch.position, source.sizes[part]), total)
            before += source.sizes[part]
        if (work.places["file"] >= 0).any():
            return Matched(by, list(work.files), work.places, work.faults, work.strangers, work.repeated)
    found = f"none of {work.strangers:,}"
    expected = f"images of pairs of {pool.root}, by {by}"
    raise PoolFormatError(source.base, expected=expected, found=found, remedy="give the pool's own images")


def write_found(source: Source, pool: Pool, matched: Matched) -> None:
    """Keeps in the pool what was found, for a run that goes on and for the next teacher."""
    places, faults = matched.places, [matched.faults.get(row) for row in range(pool.rows)]
    numbers = pa.array(places["file"].copy(), mask=places["file"] < 0)
    columns = {
        "file": pa.DictionaryArray.from_arrays(numbers, pa.array(matched.files, pa.string())),
        "offset": places["offset"].copy(),
        "length": places["length"].copy(),
        "fault": pa.array(faults, pa.string()),
    }
    said = {
        "of": _stamp(source, pool),
        "by": matched.by,
        "strangers": str(matched.strangers),
        "repeated": str(matched.repeated),
    }
    write_parquet(pool.root / "embed" / "found.parquet", pa.table(columns).replace_schema_metadata(said))


def read_found(source: Source, pool: Pool) -> Matched | None:
    """What write_found kept, where source and pool are still the same."""
    try:
        table = read_parquet(pool.root / "embed" / "found.parquet").combine_chunks()
        said = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
        if said["of"] != _stamp(source, pool):
            return None
        file, places = table["file"].chunk(0), np.empty(len(table), PLACE)
        places["file"] = file.indices.fill_null(-1).to_numpy()
        places["offset"], places["length"] = table["offset"].to_numpy(), table["length"].to_numpy()
        faults = {row: text for row, text in enumerate(table["fault"].to_pylist()) if text}
        counts = int(said["strangers"]), int(said["repeated"])
        return Matched(said["by"], file.dictionary.to_pylist(), places, faults, *counts)
    except (OSError, pa.ArrowException, KeyError, ValueError, AttributeError):
        return None


def _stamp(source: Source, pool: Pool) -> str:
    names, rows = [shard.name for shard in pool.shards], [shard.rows for shard in pool.shards]
    return signature_of(names, rows, source.signature, str(source.base))


def _name_of(record: Record, by: str) -> str:
    """What a record is compared with a pool's pairs by, 32 hex digits, or nothing where it has no such name."""
    if by == "uid":
        return record.uid or padded_uid(record.source_uid)
    return _hashed(record.key) if record.key else ""


def _hashed(key: str) -> str:
    return blake2b(key.encode(), digest_size=16).hexdigest()


class _Stretch(NamedTuple):
    """Some of a source's images, those with a name, in its order.

    names: (N,) UID_DTYPE. files, places: as in Matched. faults: by their number.
    position: how far the source's part has been gone through.
    """

    names: np.ndarray
    files: list[str]
    places: np.ndarray
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
    work, depth = partial(_listed, look, by), 2 * allowed_cores()
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


def _listed(look: Callable[[int], Iterator[Record]], by: str, part: int) -> list[_Stretch]:
    return list(_stretches(look, by, part))


def _stretches(look: Callable[[int], Iterator[Record]], by: str, part: int) -> Iterator[_Stretch]:
    """What a part's records name, some thousands at a time."""
    for batch in in_batches(look(part), _AT_ONCE):
        named = [(name, record) for record in batch if (name := _name_of(record, by))]
        files: dict[str, int] = {}
        places, faults = np.empty(len(named), PLACE), {}
        for number, (_, record) in enumerate(named):
            length = A_ROW if record.in_row else WHOLE_FILE if record.length is None else record.length
            places[number] = files.setdefault(record.file, len(files)), record.offset, length
            if record.fault:
                faults[number] = record.fault
        yield _Stretch(uids.from_hex([name for name, _ in named]), list(files), places, faults, batch[-1].position)


class _Matching:
    """The places found so far, as in Matched. names: (N,) UID_DTYPE, of the pool's pairs. files: with their numbers."""

    def __init__(self, names: np.ndarray) -> None:
        self._order = uids.argsort(names)
        self._high, self._low = (names[half][self._order] for half in ("f0", "f1"))
        self.files: dict[str, int] = {}
        self.places = np.zeros(len(names), PLACE)
        self.places["file"] = -1
        self.faults: dict[int, str] = {}
        self.strangers = self.repeated = 0

    def take(self, stretch: _Stretch) -> None:
        """Notes where these lie, those that belong to a pair; of several for one pair the first."""
        place = uids.find_in_sorted(self._high, self._low, stretch.names)
        row = np.where(place < 0, -1, self._order[place])
        self.strangers += int((row < 0).sum())
        faulty = np.zeros(len(row), bool)
        faulty[list(stretch.faults)] = True
        usable = np.flatnonzero((row >= 0) & ~faulty)
        new = usable[np.unique(row[usable], return_index=True)[1]]
        new = new[self.places["file"][row[new]] < 0]
        self.repeated += len(usable) - len(new)
        found = stretch.places[new]
        # Only files that hold a pair's image get a number.
        numbers, inverse = np.unique(found["file"], return_inverse=True)
        known = [self.files.setdefault(stretch.files[number], len(self.files)) for number in numbers]
        found["file"] = np.array(known, np.int32)[inverse]
        self.places[row[new]] = found
        self.faults |= {int(row[number]): fault for number, fault in stretch.faults.items() if row[number] >= 0}
