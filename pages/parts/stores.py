"""What does a store say of what lies in it? What it said when it was asked last, so that no page waits for it.

A page asks the same many times: which files there are, what they hold, whether there is one, whether it changed. A
`View` stands in a store's place. It asks once, keeps the answer, and asks again in the background some seconds later:
what was changed is seen by the next page that is drawn after that. Ranges of large files pass through it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, cast

from clipsel_core.cache import Recent
from clipsel_core.files import is_hidden
from clipsel_core.places import Place, exactly, stamp_from_info, stands_for

# A store is asked again after so many seconds, or so many times as long as it took to answer.
FRESH_S, _REST = 5.0, 20
_MOST_KEPT, _MOST_FILES, _LARGEST_FILE = 8_192, 256, 1 << 19
ABSENT, _UNKNOWN = (0, 0), (-1, 0)


@lru_cache(maxsize=256)
def view(address: str) -> Place:
    """The place of an address, seen through the View of its store. Raises: as Place.of_named."""
    return _seen(Place.of_named(address))


def known_version(place: Place) -> tuple[int, int]:
    """Two numbers that change whenever a file or a folder in a store does; zeros where there is none.

    They are what the View knows. The store is waited for where it was never asked, and not again for some seconds where
    it did not answer.
    """
    return cast(View, _seen(place).fs).version(place.path)


def ask_anew(place: Place) -> None:
    """Has a View ask anew for a place that was changed, for what lies in it, and for the folders that it lies in."""
    if place.remote:
        cast(View, _seen(place).fs).forget(place.path)


def _seen(place: Place) -> Place:
    if place.fs is None or isinstance(place.fs, View):
        return place
    return replace(place, fs=cast(Any, _view_of(place.fs, bool(place.around[0]))))


@lru_cache(maxsize=64)
def _view_of(store: Any, is_cache: bool) -> View:
    return View(store, store.fs if is_cache else store)


@dataclass
class _Said:
    """What a store said of a path. absent: that there is no such thing."""

    path: str
    value: Any = None
    absent: FileNotFoundError | None = None

    @cached_property
    def version(self) -> tuple[int, int]:
        """As known_version, of a folder that has files in it or of what was said of a file; ABSENT of anything else."""
        found: Any = None
        files = 0
        if isinstance(self.value, dict):
            found = stamp_from_info(self.value)
        elif isinstance(self.value, list):
            # Some stores list a file as the only one in it.
            infos = (info for info in self.value if info["type"] == "file" and info["name"] != self.path)
            named = ((info["name"].rpartition("/")[2], stamp_from_info(info)) for info in infos)
            found = sorted((name, stamp) for name, stamp in named if not is_hidden(name))
            files = len(found)
        if not found:
            return ABSENT
        return int.from_bytes(hashlib.sha256(repr(found).encode()).digest()[:7]), files


@dataclass
class _Answer:
    """What was said last, None before. again_s: when it is asked for again, also where the store did not answer."""

    said: _Said | None = None
    again_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class View:
    """A store of fsspec as pages see it. What is not kept is its own. Any thread may call its methods.

    listing: the store that lists folders: a cache takes a web server's for files, and the one behind it knows.
    """

    async_impl = False

    def __init__(self, store: Any, listing: Any = None) -> None:
        self.store = store
        self._listing = listing or store
        self._answers: Recent[_Answer] = Recent(_MOST_KEPT)
        self._files: Recent[bytes] = Recent(_MOST_FILES)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and self.store == other.store

    def __hash__(self) -> int:
        return hash(self.store)

    def ls(self, path: str, detail: bool = True) -> Any:
        """What lies in a folder."""
        return self._kept(("ls", path, detail), lambda: self._now(self._listing).ls(path, detail=detail))

    def info(self, path: str) -> Any:
        """What there is to say of a file or a folder."""
        return self._kept(("info", path), lambda: self._now().info(path))

    def isdir(self, path: str) -> bool:
        """Whether it is a folder."""
        return self._kept(("isdir", path), lambda: self._now().isdir(path))

    def version(self, path: str) -> tuple[int, int]:
        """As known_version. It follows from what `ls` and `info` say, so that what is read after it is no older."""
        asks: dict[tuple, Callable[[], Any]] = {
            ("ls", path, True): lambda: self._now(self._listing).ls(path, detail=True),
            ("info", path): lambda: self._now().info(path),
        }
        try:
            for name, ask in asks.items():
                if (found := self._said(name, ask, hurried=True).version) != ABSENT:
                    return found
        except Exception:  # stores raise whatever they like
            return _UNKNOWN
        return ABSENT

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
            self.forget(path)

    def put_file(self, file: str, path: str, **named: Any) -> Any:
        """Writes a file of this machine."""
        try:
            return self.store.put_file(file, path, **named)
        finally:
            self.forget(path)

    def rm_file(self, path: str) -> Any:
        """Removes a file."""
        try:
            return self.store.rm_file(path)
        finally:
            self.forget(path)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Nothing: what was answered holds for its time."""

    def forget(self, path: str) -> None:
        """Forgets what was said of a path, of what lies below it, and of the folders that it lies in."""
        self._answers.forget(lambda name: _lies_in(path, name[1]) or _lies_in(name[1], path))

    def _now(self, store: Any = None) -> Any:
        """The store, without what it remembers of its listings itself."""
        store = store or self.store
        store.invalidate_cache()
        return store

    def _kept(self, name: tuple, ask: Callable[[], Any]) -> Any:
        said = self._said(name, ask)
        if said.absent:
            raise FileNotFoundError(*said.absent.args)
        return said.value

    def _said(self, name: tuple, ask: Callable[[], Any], *, hurried: bool = False) -> _Said:
        """What was said last. hurried: whether a store that did not answer lately is not asked.

        Raises: what asking does; TimeoutError where it is hurried.
        """
        answer = self._answers.get(name, _Answer)
        if answer.said is None:
            with answer.lock:
                if answer.said is None:
                    if hurried and time.monotonic() < answer.again_s:
                        raise TimeoutError
                    _ask(answer, name[1], ask)
        elif time.monotonic() >= answer.again_s and answer.lock.acquire(blocking=False):
            threading.Thread(target=_ask_again, args=(answer, name[1], ask), name="ask a store", daemon=True).start()
        return cast(_Said, answer.said)


def _lies_in(path: str, folder: str) -> bool:
    """Whether a path is a folder's or lies below it."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/") or not folder


def _ask(answer: _Answer, path: str, ask: Callable[[], Any]) -> None:
    begun = time.monotonic()
    try:
        said = _Said(path, ask())
    except FileNotFoundError as error:
        if stands_for(error) is not error:
            raise
        said = _Said(path, absent=error)
    finally:
        now = time.monotonic()
        answer.again_s = now + max(FRESH_S, _REST * (now - begun))
    before = answer.said
    # The same again keeps what was worked out of it.
    if before is None or (said.value, said.absent is None) != (before.value, before.absent is None):
        answer.said = said


def _ask_again(answer: _Answer, path: str, ask: Callable[[], Any]) -> None:
    """Asks in the background; where that fails, what was known stays."""
    try:
        _ask(answer, path, ask)
    except Exception:
        pass
    finally:
        answer.lock.release()
