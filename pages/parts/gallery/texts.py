"""What do pairs say of themselves? Captions and urls by row, cached, and prefetched for the next page.

Reading them is most of what a page of a large run costs. Each gallery of a session prefetches one page, and cancels
that when it turns to another.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from streamlit.runtime.scriptrunner import get_script_run_ctx

from clipsel_core.cache import Recent
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import ClipselError
from clipsel_core.places import Place
from pages.parts import state
from pages.parts.catalog import Entry

LONGEST_TEXT = 2_000
_CACHED_ROWS = 8_192
_AT_ONCE = 48
_PATIENCE_S = 10.0
_DELAY_S = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """Certain columns of a run as it is now."""

    root: Place
    stamp: state.Stamp
    columns: tuple[str, ...]


@dataclass
class _Prefetch:
    """Texts that are being read for a gallery's next page."""

    source: _Source
    rows: frozenset[int] = frozenset()
    cancelled: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)


_cache: Recent[tuple[str, ...]] = Recent(_CACHED_ROWS)
_prefetches: dict[tuple[str, str], _Prefetch] = {}
_lock = threading.Lock()
_threads = ThreadPoolExecutor(16, "prefetch")
_reading = threading.Semaphore(2)


def read_texts(entry: Entry, rows: np.ndarray, columns: Sequence[str]) -> dict[str, list[str]]:
    """Metadata of some rows as texts, in their order, by column; "" where there is none, cut off behind 2,001 letters.

    Raises: ClipselError as ScoreTable.metadata does.
    """
    source, asked = _Source(entry.root, state.scores_stamp(entry), tuple(columns)), frozenset(rows.tolist())
    # What is being prefetched just now is waited for, instead of being read twice.
    with _lock:
        under_way = [one for one in _prefetches.values() if one.source == source and one.rows & asked]
    for prefetch in under_way:
        prefetch.done.wait(_PATIENCE_S)
    found = _read(source, state.open_table(entry), rows)
    return {name: [texts[place] for texts in found] for place, name in enumerate(source.columns)}


def prefetch(entry: Entry, gallery: str, next_rows: Callable[[], np.ndarray], columns: Sequence[str]) -> None:
    """Reads what a gallery's next page will need, in the background; what it asked for before is cancelled."""
    context = get_script_run_ctx()
    if context is None:
        return
    name, table = (context.session_id, gallery), state.open_table(entry)
    begun = _Prefetch(_Source(entry.root, state.scores_stamp(entry), tuple(columns)))
    with _lock:
        earlier = _prefetches.get(name)
        if earlier is not None:
            earlier.cancelled.set()
        _prefetches[name] = begun

    def work() -> None:
        try:
            # The images of the page that was just drawn come first.
            if begun.cancelled.wait(_DELAY_S):
                return
            with _reading:
                rows = next_rows()
                begun.rows = frozenset(rows.tolist())
                for start in range(0, len(rows), _AT_ONCE):
                    if begun.cancelled.is_set():
                        return
                    _read(begun.source, table, rows[start : start + _AT_ONCE])
        except ClipselError as error:
            # Whoever turns the page is told.
            _log.debug("nothing was prefetched: %s", error)
        finally:
            begun.done.set()
            with _lock:
                if _prefetches.get(name) is begun:
                    del _prefetches[name]

    _threads.submit(work)


def _read(source: _Source, table: ScoreTable, rows: np.ndarray) -> list[tuple[str, ...]]:
    asked = dict.fromkeys(rows.tolist())
    known = {row: texts for row in asked if (texts := _cache.peek((source, row))) is not None}
    missing = [row for row in asked if row not in known]
    if missing:
        found = table.metadata.of(np.array(missing), source.columns)
        columns = [[str(text)[: LONGEST_TEXT + 1] for text in found[name]] for name in source.columns]
        for row, texts in zip(missing, zip(*columns, strict=True), strict=True):
            known[row] = _cache.put((source, row), texts)
    return [known[row] for row in rows.tolist()]
