"""What does a store say of a run that lies in it? What it said when it was asked last, so that no page waits for it.

A page asks the same many times: which files there are, what they hold, whether there is one. A `View` stands in a
store's place. It asks once, keeps the answer, and asks again in the background some seconds later: so what was changed
is seen by the next page that is drawn after that. Ranges of large files pass through it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, cast

from clipsel_core.cache import Recent
from clipsel_core.places import Place, exactly

FRESH_S, _REST = 5.0, 20
_MOST_KEPT, _MOST_FILES, _LARGEST_FILE = 8_192, 256, 1 << 19


@lru_cache(maxsize=256)
def view(address: str) -> Place:
    """The place of an address, seen through a View. Raises: as Place.of_named."""
    place = Place.of_named(address)
    return replace(place, fs=cast(Any, View(place.fs))) if place.fs is not None else place


def bare(place: Place) -> Place:
    """The same place, whose store is asked itself."""
    fs = cast(Any, place.fs)
    return replace(place, fs=fs.store) if isinstance(fs, View) else place


def ask_anew(place: Place) -> None:
    """Has a View ask anew for what lies in the folder of a place that was changed."""
    fs = cast(Any, place.fs)
    if isinstance(fs, View):
        fs.forget(place.parent.path)


@dataclass
class _Answer:
    """What was answered last, be it that there is no such thing. again_s: when it is asked for again."""

    value: Any = None
    absent: FileNotFoundError | None = None
    known: bool = False
    again_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class View:
    """A store of fsspec as pages see it. What is not kept is its own. Any thread may call its methods."""

    async_impl = False

    def __init__(self, store: Any) -> None:
        self.store = store
        self._answers: Recent[_Answer] = Recent(_MOST_KEPT)
        self._files: Recent[bytes] = Recent(_MOST_FILES)
        self._since = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and self.store == other.store

    def __hash__(self) -> int:
        return hash(self.store)

    def ls(self, path: str, detail: bool = True) -> Any:
        """What lies in a folder."""
        return self._kept(("ls", path, detail), lambda: self._now().ls(path, detail=detail))

    def info(self, path: str) -> Any:
        """What there is to say of a file or a folder."""
        return self._kept(("info", path), lambda: self._now().info(path))

    def isdir(self, path: str) -> bool:
        """Whether it is a folder."""
        return self._kept(("isdir", path), lambda: self._now().isdir(path))

    def size(self, path: str) -> int | None:
        """The size of a file."""
        return self.info(path).get("size")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """Bytes of a file; a small one is kept as a whole for as long as it stays the same."""
        if start or end is not None:
            return self.store.cat_file(path, start=start, end=end, **exactly(self.store))
        info = self.info(path)
        if (info.get("size") or _LARGEST_FILE) >= _LARGEST_FILE:
            return self.store.cat_file(path)
        return self._files.get((path, repr(sorted(map(str, info.items())))), lambda: self.store.cat_file(path))

    def find(self, path: str, **given: Any) -> Any:
        """All files below a folder, as the store says now."""
        return self._now().find(path, **given)

    def pipe_file(self, path: str, *given: Any, **named: Any) -> Any:
        """Writes a file."""
        try:
            return self.store.pipe_file(path, *given, **named)
        finally:
            self.forget(path.rpartition("/")[0])

    def rm_file(self, path: str) -> Any:
        """Removes a file."""
        try:
            return self.store.rm_file(path)
        finally:
            self.forget(path.rpartition("/")[0])

    def invalidate_cache(self, path: str | None = None) -> None:
        """Nothing: what was answered holds for its time."""

    def forget(self, folder: str) -> None:
        """Forgets all answers: they belong together."""
        self._answers = Recent(_MOST_KEPT)

    def _now(self) -> Any:
        """The store, without what it remembers of its listings itself."""
        self.store.invalidate_cache()
        return self.store

    def _kept(self, name: tuple, ask: Callable[[], Any]) -> Any:
        answer = self._answers.get(name, _Answer)
        if not answer.known:
            with answer.lock:
                if not answer.known:
                    _ask(answer, ask)
        elif time.monotonic() >= answer.again_s and answer.lock.acquire(blocking=False):
            threading.Thread(target=_ask_again, args=(answer, ask), name="ask a store", daemon=True).start()
        if answer.absent:
            raise FileNotFoundError(*answer.absent.args)
        return answer.value


def _ask(answer: _Answer, ask: Callable[[], Any]) -> None:
    begun = time.monotonic()
    try:
        answer.value, answer.absent = ask(), None
    except FileNotFoundError as error:
        answer.absent = error
    now = time.monotonic()
    answer.known, answer.again_s = True, now + max(FRESH_S, _REST * (now - begun))


def _ask_again(answer: _Answer, ask: Callable[[], Any]) -> None:
    """Asks in the background; where that fails, what was known stays."""
    try:
        _ask(answer, ask)
    except Exception:
        answer.again_s = time.monotonic() + FRESH_S
    finally:
        answer.lock.release()
