"""Where do the image and the texts of a pair come from that a gallery shows?

The browser gets an image from our own route, and from the web only where the curator asks for that. Captions and urls
are read by row, cached, and prefetched for the next page: reading them is most of what a page of a large run costs.
Each gallery of a session prefetches one page, and cancels that when it turns to another.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from clipsel_core.cache import Recent
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import ClipselError
from clipsel_core.places import Place
from clipsel_core.pool.layout import knows_images
from clipsel_core.tasks import Task
from pages.parts import messages, pictures, progress_bars, sessions, state
from pages.parts.catalog import Entry

LONGEST_TEXT = 2_000
_LONGEST_ADDRESS = 2_000
_MOST_NAMED = 3
_CACHED_ROWS = 8_192
_AT_ONCE = 48
_PATIENCE_S = 10.0
_DELAY_S = 0.5
_log = logging.getLogger(__name__)


@dataclass
class _Images:
    """Of the images that the page just drawn would have shown: what they wait for, and the tars that are damaged."""

    awaited: Task | None = None
    damaged: Sequence[tuple[str, str, int]] = field(default_factory=list)


def text_columns(entry: Entry) -> tuple[str, ...]:
    """The metadata that a card needs: its caption, and the url where images come from there."""
    return ("caption", "url") if st.session_state.get(_key(entry)) and not has_images(entry) else ("caption",)


def addresses(entry: Entry, names: Sequence[str], urls: Sequence[str] | None) -> list[str]:
    """The address of each pair's image, "" where there is none. names: uids in hex. urls: see text_columns."""
    if has_images(entry):
        finder, shown = pictures.find_images(entry), sessions.get(_Images)
        if finder.work.finished:
            shown.damaged = finder.index.damaged if finder.index else []
            shown.awaited = None if finder.is_known else finder.search
            return [f"/pairs/{entry.key}/{name}" for name in names]
        shown.awaited = finder.work
        return [""] * len(names)
    if urls is None or not st.session_state.get(_key(entry)):
        return [""] * len(names)
    return [web_address(url) for url in urls]


def placeholder(entry: Entry) -> str:
    """What stands in the place of an image without an address."""
    return "not found yet" if has_images(entry) and pictures.find_images(entry).work.active else "no image"


def show_search() -> None:
    """How far finding the images is that the page just drawn would have shown, with a way to stop it; or why not.

    Also which of the pool's tars are damaged.
    """
    shown = sessions.get(_Images)
    task, damaged, shown.awaited, shown.damaged = shown.awaited, shown.damaged, None, []
    if damaged:
        named = [f"{file}: {found:,} images are shown; {reason}" for file, reason, found in damaged[:_MOST_NAMED]]
        named += [f"and {len(damaged) - _MOST_NAMED:,} more"] * (len(damaged) > _MOST_NAMED)
        messages.show_error("\n".join(named), "Not all of the pool's images can be shown")
    if task is None:
        return
    if task.error:
        messages.show_error(task.error, "The pool's images cannot be shown")
    else:
        progress_bars.watch(task, key="finding images", stopped="Stopped: images are not shown.")


def has_images(entry: Entry) -> bool:
    """Whether the run's pool is at hand and knows where its images are.

    Raises: PoolFormatError where its store does not answer.
    """
    run = state.open_run(entry)
    return run.may_read_pool and _has_images(run.pool_root)


# Asked for each page of cards, where to open a large pool would take a second, and to list its tars some of it.
@state.per_run(32, stamp=state.pool_stamp)
def _has_images(root: Place) -> bool:
    return (root / "metadata").is_dir() and knows_images(root)


def show_switch(entry: Entry) -> None:
    """Lets the curator of a pool without images have them fetched from the web: off at first, and never by a link."""
    if has_images(entry):
        return
    pool = state.find_pool(entry)
    if pool and pool.url_column:
        help_text = (
            "This pool has no images. Switched on, your browser asks for each pair's image at the address in the url "
            "column: whoever runs those servers learns that you look. What they send may have changed since."
        )
        st.toggle("Images from the web", key=_key(entry), help=help_text)


def web_address(url: str) -> str:
    """The url where it is one of the web that a picture may be asked from, else "".

    >>> web_address("https://example.org/a.jpg"), web_address("javascript:alert(1)"), web_address("file:///etc/passwd")
    ('https://example.org/a.jpg', '', '')
    """
    if len(url) > _LONGEST_ADDRESS or not url.isprintable():
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc else ""


def _key(entry: Entry) -> str:
    return f"images from the web {entry.key}"


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
