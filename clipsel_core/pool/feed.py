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
    """The source's records from a cursor on, and where they have got to."""

    def __init__(self, source: Source, cursor: Cursor) -> None:
        self._part, self._before = cursor.part, cursor.before
        self._source, self._ahead = source, list[Record]()
        self._starts = [0, *accumulate(source.sizes)]
        # The number of a record, counted from the cursor on, with which each part from the cursor's on begins.
        self._first, self._begun = cursor.part, list[int]()
        self._records = self._from(cursor)

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        return self._ahead.pop() if self._ahead else next(self._records)

    def reached(self, record: Record, number: int) -> int:
        """How far the source is read with the `number`th record that was handed out, in the unit of its sizes."""
        part = self._first + bisect_left(self._begun, number) - 1
        return self._starts[part] + min(record.position, self._source.sizes[part])

    def following(self) -> Cursor:
        """Where the first record lies that has not been handed out."""
        return Cursor(self._part, self._before)

    def exhausted(self) -> bool:
        """Whether there is no record left."""
        self._ahead += islice(self._records, 1)
        return not self._ahead

    def _from(self, cursor: Cursor) -> Iterator[Record]:
        handed_out = 0
        for part in range(cursor.part, len(self._source.parts)):
            skipped = cursor.before if part == cursor.part else 0
            self._part, self._before = part, skipped
            self._begun.append(handed_out)
            for record in islice(self._source.read(part), skipped, None):
                self._before += 1
                handed_out += 1
                yield record
