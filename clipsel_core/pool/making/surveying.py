"""Which pairs does a source name, and where do their images lie? Gone through unread, several of its parts at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

import numpy as np

from clipsel_core import uids
from clipsel_core.cores import allowed_cores
from clipsel_core.pool.ahead import in_batches, in_order
from clipsel_core.pool.conventions import padded_uid
from clipsel_core.pool.images import A_ROW, WHOLE_FILE
from clipsel_core.pool.sources.record import Record, Source
from clipsel_core.processes import Crew

_AT_ONCE = 4096
# Below this, starting a process takes longer than going through.
_WORTH_A_PROCESS = 64 << 20
_REMOTE_AT_ONCE = 16


@dataclass(frozen=True)
class Named:
    """Some of a source's images, those with a name, in its order.

    names: (N,) UID_DTYPE; keys as 128 bits of their hash. files: names in the source. file: (N,) int32, a place in
    `files`. offset, length: (N,) int64; see images.py. faults: by their number, why images cannot be used.
    position: how far the source's part has been gone through.
    """

    names: np.ndarray
    files: list[str]
    file: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    faults: dict[int, str]
    position: int


def survey(source: Source, by: str, progress: Callable[[int, int], None]) -> Iterator[Named]:
    """The source's images, in order. by: "uid" or "key". progress: how far it has been gone through, of how far.

    Tars are mostly arithmetic, in Python: on this machine each core takes one. Those in a store are waited for.
    """
    total, before = sum(source.sizes), 0
    for part, found in _parts(source, by):
        for named in found:
            yield named
            progress(before + min(named.position, source.sizes[part]), total)
        before += source.sizes[part]


def hashed(key: str) -> str:
    """A key as 32 hex digits."""
    return blake2b(key.encode(), digest_size=16).hexdigest()


def name_of(record: Record, by: str) -> str:
    """What a record is compared with a pool's pairs by, 32 hex digits, or nothing where it has no such name."""
    if by == "uid":
        return record.uid or padded_uid(record.source_uid)
    return hashed(record.key) if record.key else ""


def _parts(source: Source, by: str) -> Iterator[tuple[int, Iterable[Named]]]:
    """Each part with what it names. Several are gone through at once where that is quicker."""
    parts, look = range(len(source.parts)), source.glance
    if look is None or len(parts) == 1 or (not source.base.remote and sum(source.sizes) < _WORTH_A_PROCESS):
        for part in parts:
            yield part, _gather((look or source.read)(part), by)
        return
    work, depth = partial(_whole_part, look, by), 2 * allowed_cores()
    if source.base.remote:
        with ThreadPoolExecutor(min(len(parts), _REMOTE_AT_ONCE)) as threads:
            try:
                yield from in_order(parts, lambda part: threads.submit(work, part), depth)
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
        return
    # The workers, which come from the same server, are started next.
    preload = ["clipsel_core.pool.making.workers", __name__]
    with Crew(min(len(parts), allowed_cores()), "to go through it for pairs", preload=preload) as crew:
        places = [source.base / name for name in source.parts]
        yield from in_order(parts, lambda part: crew.submit(places[part], work, part), depth)


def _whole_part(look: Callable[[int], Iterator[Record]], by: str, part: int) -> list[Named]:
    return list(_gather(look(part), by))


def _gather(records: Iterable[Record], by: str) -> Iterator[Named]:
    """What records name, some thousands at a time."""
    for batch in in_batches(records, _AT_ONCE):
        named = [(record, name) for record in batch if (name := name_of(record, by))]
        yield _named([record for record, _ in named], [name for _, name in named], batch[-1].position)


def _named(records: Sequence[Record], names: list[str], position: int) -> Named:
    places: dict[str, int] = {}
    return Named(
        names=uids.from_hex(names),
        file=np.array([places.setdefault(record.file, len(places)) for record in records], np.int32),
        files=list(places),
        offset=np.array([record.offset for record in records], np.int64),
        length=np.array([_length_of(record) for record in records], np.int64),
        faults={number: record.fault for number, record in enumerate(records) if record.fault},
        position=position,
    )


def _length_of(record: Record) -> int:
    if record.in_row:
        return A_ROW
    return WHOLE_FILE if record.length is None else record.length
