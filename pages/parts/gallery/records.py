"""What do pairs say of themselves? Captions and urls by row: kept for those seen last, fetched ahead for the next page.

Reading them is most of what a page of a large run costs. So while a page is looked at, those of the next one are read
in the background: one page for each gallery of a session, given up when it turns to another.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from streamlit.runtime.scriptrunner import get_script_run_ctx

from clipsel_core.curation.index.recent import Recent
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import ClipselError
from pages.parts import state
from pages.parts.catalog import Entry

LONGEST_TEXT = 2_000
_KEPT_ROWS = 8_192
_AT_ONCE = 48
_PATIENCE_S = 10.0
_LOOK_S = 0.5
_log = logging.getLogger(__name__)

_Texts = tuple[str, ...]


@dataclass(frozen=True)
class _Book:
    """Certain columns of a run as it is now."""

    root: Path
    stamp: state.Stamp
    columns: tuple[str, ...]


@dataclass
class _Flight:
    """Texts that are being read ahead for a session."""

    book: _Book
    rows: frozenset[int] = frozenset()
    given_up: threading.Event = field(default_factory=threading.Event)
    landed: threading.Event = field(default_factory=threading.Event)
    future: Future | None = None


_texts: Recent[_Texts] = Recent(_KEPT_ROWS)
_flights: dict[tuple[str, str], _Flight] = {}
_lock = threading.Lock()
_threads = ThreadPoolExecutor(16, "ahead")
_reading = threading.Semaphore(2)


def of(entry: Entry, rows: np.ndarray, columns: Sequence[str]) -> dict[str, list[str]]:
    """Metadata of some rows as texts, in their order, by column; "" where there is none, cut off behind 2,001 letters.

    Raises: ClipselError as ScoreTable.metadata does.
    """
    book = _book(entry, columns)
    _wait_for(book, frozenset(rows.tolist()))
    found = _read(book, state.open_table(entry), rows)
    return {name: [texts[place] for texts in found] for place, name in enumerate(book.columns)}


def ahead(entry: Entry, gallery: str, next_rows: Callable[[], np.ndarray], columns: Sequence[str]) -> None:
    """Reads what a gallery's next page will need, in the background; what this session asked before is given up."""
    context = get_script_run_ctx()
    if context is None:
        return
    flight, table = _Flight(_book(entry, columns)), state.open_table(entry)
    name = (context.session_id, gallery)
    with _lock:
        earlier = _flights.get(name)
        if earlier is not None:
            earlier.given_up.set()
        _flights[name] = flight
    flight.future = _threads.submit(_fly, name, flight, table, next_rows)


def _book(entry: Entry, columns: Sequence[str]) -> _Book:
    return _Book(entry.root, state.scores_stamp(entry), tuple(columns))


def _fly(name: tuple[str, str], flight: _Flight, table: ScoreTable, next_rows: Callable[[], np.ndarray]) -> None:
    try:
        # The images of the page that was just drawn come first.
        if flight.given_up.wait(_LOOK_S):
            return
        with _reading:
            rows = next_rows()
            flight.rows = frozenset(rows.tolist())
            for start in range(0, len(rows), _AT_ONCE):
                if flight.given_up.is_set():
                    return
                _read(flight.book, table, rows[start : start + _AT_ONCE])
    except ClipselError as error:
        # Whoever turns the page is told.
        _log.debug("nothing was read ahead: %s", error)
    finally:
        flight.landed.set()
        with _lock:
            if _flights.get(name) is flight:
                del _flights[name]


def _wait_for(book: _Book, rows: frozenset[int]) -> None:
    """Waits where just these are being read, instead of reading them twice."""
    with _lock:
        flights = [flight for flight in _flights.values() if flight.book == book and flight.rows & rows]
    for flight in flights:
        flight.landed.wait(_PATIENCE_S)


def _read(book: _Book, table: ScoreTable, rows: np.ndarray) -> list[_Texts]:
    asked = dict.fromkeys(rows.tolist())
    known = {row: texts for row in asked if (texts := _texts.peek((book, row))) is not None}
    missing = [row for row in asked if row not in known]
    if missing:
        frame = table.metadata(np.array(missing), book.columns)
        columns = [[str(text)[: LONGEST_TEXT + 1] for text in frame[name]] for name in book.columns]
        for row, texts in zip(missing, zip(*columns, strict=True), strict=True):
            known[row] = _texts.put((book, row), texts)
    return [known[row] for row in rows.tolist()]
