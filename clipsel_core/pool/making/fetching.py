"""How is an image got from a store that may fail? Asked again in passing; a store that stays away ends the run.

One picture that cannot be had is rejected, and the run goes on. But were every picture rejected that was asked for
while a store was down, good pairs would be lost by the thousand. So whoever fails is compared with one that was had
from the same store before: where that one can be had no more, it is the store that failed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from threading import Event

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.making.prepare import why_unread
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.record import Record, Source
from clipsel_core.pool.stores import PATIENT

# Failures of a store that gave no picture yet, after which its pictures are asked for once, or it counts as away.
_HOPELESS, _AWAY = 3, 20


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
