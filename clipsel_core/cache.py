"""What is kept of what was worked out, where there is no room for all of it? What was used last.

In memory, `Recent` keeps the answers asked for last. On the disk, the user's cache holds up to one size of what was
made of runs that cannot be written to, or lie in a store: their index, where their pool's images are, what was asked of
a teacher. Each run has a folder there, which goes as a whole, and not while any process uses it. Runs on this machine
that can be written to have theirs beside the scores; it counts for nothing here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from clipsel_core.errors import ClipselError, quoted
from clipsel_core.files import cache_folder

VARIABLE = "CLIPSEL_CACHE_GB"
"""The environment variable that says how many GB (10^9 bytes) the cache may take."""

_USUAL, _SHARE = 50 * 10**9, 4
_LOCK = ".in-use"
T = TypeVar("T")


class Hold:
    """Keeps a folder of the cache from being removed, as long as it is there or until `release`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = _locked(folder, fcntl.LOCK_SH)
        assert self._file is not None
        os.utime(self._file)
        self.release = weakref.finalize(self, os.close, self._file)


def runs_folder() -> Path:
    """The folder that holds one for each run."""
    return cache_folder() / "runs"


def most_bytes() -> int:
    """How much the cache may take: as CLIPSEL_CACHE_GB says, else 50 GB, and a quarter of its disk at most.

    Raises: ClipselError where the variable holds no number.
    """
    said = os.environ.get(VARIABLE, "")
    if said:
        try:
            return gigabytes(float(said))
        except ValueError as error:
            expected, remedy = "a number of GB", "set it to 20, say, or unset it"
            raise ClipselError(VARIABLE, expected=expected, found=quoted(said), remedy=remedy) from error
    folder = next(path for path in (cache_folder(), *cache_folder().parents) if path.exists())
    return min(_USUAL, shutil.disk_usage(folder).total // _SHARE)


def gigabytes(number: float) -> int:
    """So many GB in bytes. Raises: ValueError where it is negative or no number."""
    if not 0 <= number < float("inf"):
        raise ValueError(number)
    return int(number * 10**9)


def hold(folder: Path, needed: int = 0) -> Hold | None:
    """Holds a run's folder in the cache, made where it is missing, and makes room for what is going to be built in it.

    needed: bytes that it is going to take, as far as is known. None where the folder lies elsewhere.
    Raises: OSError where it cannot be made; as expect_room.
    """
    if not folder.is_relative_to(runs_folder()):
        return None
    held = Hold(folder)
    try:
        expect_room(folder, needed)
    except OSError:
        held.release()
        raise
    return held


def expect_room(folder: Path, needed: int) -> None:
    """Makes room in the cache for what is going to be built in a run's folder, which is held.

    Raises: OSError where what others use leaves no such room. Nothing where the folder lies elsewhere.
    """
    left = make_room(needed) if folder.is_relative_to(runs_folder()) else needed
    if left < needed:
        found = f"{needed / 1e9:.1f} GB are needed, and {max(left, 0) / 1e9:.1f} GB of {VARIABLE} are free"
        raise OSError(errno.ENOSPC, found, str(folder))


def make_room(needed: int = 0) -> int:
    """Removes what was used least lately and nobody uses, until so many bytes are free. Returns: how many are then."""
    folders = sorted(_folders())
    left = most_bytes() - sum(size for _, _, size in folders)
    for _, folder, size in folders:
        if left >= needed:
            break
        with _alone(folder) as is_alone:
            if is_alone:
                shutil.rmtree(folder, ignore_errors=True)
                left += size
    return left


def used_bytes() -> int:
    """What the cache takes now."""
    return sum(size for _, _, size in _folders())


def _folders() -> list[tuple[float, Path, int]]:
    """The runs' folders: when each was used last, where it is, and the bytes in it."""
    found = []
    with suppress(FileNotFoundError):
        for folder in runs_folder().iterdir():
            if folder.is_dir() and not folder.is_symlink():
                lock = folder / _LOCK
                used = (lock if lock.exists() else folder).stat().st_mtime
                found.append((used, folder, sum(_sizes(folder))))
    return found


def _sizes(folder: Path) -> Iterator[int]:
    """What each file takes on the disk: of one that has holes that is less than its length."""
    for inner, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                yield os.lstat(os.path.join(inner, name)).st_blocks * 512


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether nobody else uses a folder; nobody begins to meanwhile."""
    file = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield file is not None
    finally:
        if file is not None:
            os.close(file)


def _locked(folder: Path, how: int) -> int | None:
    """An open lock of a folder, which is made where it is missing; None where another has it and is not waited for."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue  # removed meanwhile
        try:
            fcntl.flock(file, how)
        except OSError as error:
            # Some file systems have no locks; there, nothing is ever removed.
            if how == fcntl.LOCK_SH and not isinstance(error, BlockingIOError):
                return file
            os.close(file)
            return None
        # Whoever removed the folder may have had it until now.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(folder / _LOCK)):
                return file
        os.close(file)


class Recent(Generic[T]):
    """The answers asked for last, by name. Two that ask for the same at once may both work it out.

    >>> recent = Recent(2)
    >>> recent.get("a", lambda: 1), recent.get("a", lambda: 2), recent.peek("b")
    (1, 1, None)
    """

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._known: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, name: Hashable, find: Callable[[], T]) -> T:
        """What is known by this name, else what `find` finds."""
        with self._lock:
            if name in self._known:
                self._known.move_to_end(name)
                return self._known[name]
        return self.put(name, find())

    def peek(self, name: Hashable) -> T | None:
        """What is known by this name, None where nothing is."""
        with self._lock:
            if name in self._known:
                self._known.move_to_end(name)
            return self._known.get(name)

    def put(self, name: Hashable, found: T) -> T:
        """Remembers it by this name, and gives it back."""
        with self._lock:
            self._known[name] = found
            self._known.move_to_end(name)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return found

    def forget(self, holds: Callable[[Any], bool]) -> None:
        """Forgets what has such a name."""
        with self._lock:
            for name in [name for name in self._known if holds(name)]:
                del self._known[name]
