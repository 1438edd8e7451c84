"""How quickly do processes decode that do nothing else? Apart: a process that starts for it imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

from clipsel_core.pool.making.decoders import Preparer, Wanted
from clipsel_core.pool.sources.record import Record
from clipsel_core.tasks import in_batches

_AT_ONCE = 16


def decode_all(processes: Executor, preparer: Preparer, records: Sequence[Record]) -> int:
    """How many images were decoded; each process lets go of their pixels."""
    some = list(in_batches(wanted_of(records), _AT_ONCE))
    return sum(processes.map(_decoded, [preparer] * len(some), some))


def wanted_of(records: Sequence[Record]) -> list[Wanted]:
    """What a worker is told of records."""
    return [Wanted(record.file, record.offset, record.length, record.data) for record in records]


def _decoded(preparer: Preparer, wanted: Sequence[Wanted]) -> int:
    return sum(not isinstance(preparer(each), str) for each in wanted)
