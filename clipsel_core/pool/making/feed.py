"""Which records of a source come next, and how are their images got from a store that may fail?

A picture that cannot be had is rejected, and the run goes on. Were every picture rejected that was asked for while a
store was down, good pairs would be lost by the thousand. So one that fails is compared with one that was had from the
same store before: where that one can be had no more, the store failed, which ends the run.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, islice
from threading import Event
from typing import NamedTuple

from clipsel_core.errors import PoolFormatError
from clipsel_core.places import PATIENT, Place, why_unread
from clipsel_core.pool.sources.record import Record, Source

# Failures of a store that gave no picture yet, after which its pictures are asked for once, or it counts as away.
_HOPELESS, _AWAY = 3, 20


class Cursor(NamedTuple):
    """Where in the source a shard begins: the part, and how many of its records come before."""

    part: int = 0
    before: int = 0


class Feed:
    """The source's records from a cursor on, and where they have got to. handed_out: how many records were."""

    def __init__(self, source: Source, cursor: Cursor) -> None:
        self._at, self._following = cursor, cursor
        self._source, self._ahead, self.handed_out = source, list[Record](), 0
        self._starts = [0, *accumulate(source.sizes)]
        # The number of a record, counted from the cursor on, with which each part from the cursor's on begins.
        self._first, self._begun = cursor.part, list[int]()
        self._records = self._from(cursor)

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        record = self._ahead.pop() if self._ahead else next(self._records)
        self._following = self._at
        self.handed_out += 1
        return record

    def continued(self, cursor: Cursor) -> Feed:
        """The records from a cursor on: this feed where it stands there, so that what came before is read once."""
        return self if cursor == self._following else Feed(self._source, cursor)

    def reached(self, record: Record, number: int) -> int:
        """How far the source is read with the `number`th record that was handed out, in the unit of its sizes."""
        part = self._first + bisect_left(self._begun, number) - 1
        return self._starts[part] + min(record.position, self._source.sizes[part])

    def following(self) -> Cursor:
        """Where the first record lies that has not been handed out."""
        return self._following

    def exhausted(self) -> bool:
        """Whether there is no record left."""
        if not self._ahead:
            self._ahead += islice(self._records, 1)
        return not self._ahead

    def _from(self, cursor: Cursor) -> Iterator[Record]:
        handed_out = 0
        for part in range(cursor.part, len(self._source.parts)):
            skipped = cursor.before if part == cursor.part else 0
            self._begun.append(handed_out)
            for before, record in enumerate(self._source.records(part, skipped), skipped + 1):
                self._at = Cursor(part, before)
                handed_out += 1
                yield record


class Fetcher:
    """Gets the images that lie elsewhere, for threads.

    A host that gave nothing yet, as tables of the web's pictures name many, is not waited for: its pictures are
    rejected. The source's own store gave the source, and counts as one that was there.
    """

    def __init__(self, source: Source) -> None:
        self._base = source.base.patient(PATIENT)
        self._first = source.parts[0] if source.parts else ""
        self._had: dict[str, tuple[Place, int]] = {}
        self._failed: Counter[str] = Counter()
        self._away = Event()

    def needed(self, record: Record) -> bool:
        """Whether a record's image lies elsewhere and has not been got."""
        return not record.fault and record.data is None and (self._base.remote or "://" in record.file)

    def __call__(self, record: Record) -> Record:
        """The record with its encoded image, where that lies elsewhere and can be got; else with its fault.

        Raises: PoolFormatError where the image's store is away.
        """
        if not self.needed(record):
            return record
        if self._away.is_set():
            return replace(record, fault="its store is away")
        try:
            place = self._base / record.file
        except PoolFormatError as error:
            return replace(record, fault=f"its address cannot be opened: {error}")
        hopeless = self._failed[place.store] >= _HOPELESS and place.store not in self._had
        try:
            data = (place.patient(1) if hopeless else place).read(record.offset, record.length)
        except FileNotFoundError as error:
            return replace(record, fault=why_unread(error))
        except OSError as error:
            self._judge(place, error)
            return replace(record, fault=why_unread(error))
        self._had[place.store] = place, record.offset
        return replace(record, data=data)

    def _judge(self, place: Place, error: OSError) -> None:
        """Raises PoolFormatError where it is not the image that failed but its store."""
        store = place.store
        self._failed[store] += store not in self._had
        if store in self._had:
            there = _gives(*self._had[store])
        elif self._base.remote and store == self._base.store:
            there = self._failed[store] < _AWAY and _gives(self._base / self._first, 0)
        else:
            there = True
        if not there:
            self._away.set()
            remedy = "start again when it answers: finished shards are kept"
            raise PoolFormatError(
                place, expected="a store that answers", found=why_unread(error), remedy=remedy
            ) from error


def _gives(place: Place, offset: int) -> bool:
    """Whether a place that gave something still does: a byte of a file, or a folder's list."""
    try:
        return bool(place.read(offset, 1)) if place.is_file() else place.is_dir()
    except OSError:
        return False
