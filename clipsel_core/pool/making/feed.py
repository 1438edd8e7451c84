"""Which records come into the next shard? Read from a cursor on, so that a run goes on where it stopped."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice

from clipsel_core.pool.sources.record import Record, Source


@dataclass(frozen=True)
class Cursor:
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
            for before, record in enumerate(islice(self._source.read(part), skipped, None), skipped + 1):
                self._at = Cursor(part, before)
                handed_out += 1
                yield record
