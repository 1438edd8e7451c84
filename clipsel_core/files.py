"""How files are written so that nobody ever meets half of one, and what is a file that can be opened."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from clipsel_core.errors import ClipselError

_LOCK = ".lock"
# Names that files and folders have while they are filled, and nothing of anybody else's.
SCRATCH = ".clipsel-"
"""What folders of temporary files are called, before the letters that tells them apart."""
_ASIDE = re.compile(r"\..+\.(\d+-\d+|[0-9a-f]{8})\.partial|\.(images|clipsel)-\w{8}")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write ends with where a disk has no room, or not for this file. Some who write do not say which file."""
_tidied: set[Path] = set()


def bundled() -> Path:
    """The folder that holds app.py, pages and data/demo: within the package where it is installed, beside it in a
    checkout.
    """
    package = Path(__file__).resolve().parent
    return package / "dashboard" if (package / "dashboard").is_dir() else package.parent


def expect_regular(path: str | os.PathLike[str]) -> None:
    """Makes sure that a path leads to a file, before it is opened: a pipe would be waited for without end.

    Raises: OSError where it does not, or where nothing is there.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a pipe, a socket or a device", str(path))


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder it lies in, has a name that begins with a dot, as AppleDouble's ._x does.

    >>> is_hidden("shards/._000.tar"), is_hidden("./a.jpg"), is_hidden("../a.jpg")
    (True, False, False)
    """
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Has `write` fill a file under another name in the same folder, syncs it, and renames it to `path`.

    Whatever `write` raises goes on to the caller; then nothing new is left behind and an older file stays as it was.
    Where the disk has no room, the OSError names the path, whoever wrote.
    """
    write_together({path: write})


def write_together(writes: Mapping[Path, Callable[[Path], object]]) -> None:
    """write_atomically for files that belong together: none is renamed before all are filled, in order, and synced."""
    asides = {path: path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial") for path in writes}
    for folder in {path.parent for path in writes}:
        folder.mkdir(parents=True, exist_ok=True)
        tidy(folder)
    holding, filling = ExitStack(), Path()
    try:
        for filling, write in writes.items():
            aside = asides[filling]
            holding.enter_context(locked(aside))
            write(aside)
            with open(aside, "rb") as file:
                os.fsync(file.fileno())
        for path, aside in asides.items():
            os.replace(aside, path)
    except OSError as error:
        # Nobody knows the other name.
        meant = next((path for path, aside in asides.items() if str(aside) in f"{error.filename} {error}"), None)
        meant = filling if error.filename is None and error.errno in NO_ROOM else meant
        if meant is None or not error.errno:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(meant)) from error
    finally:
        for aside in asides.values():
            aside.unlink(missing_ok=True)
        holding.close()


@contextmanager
def and_at_last(write: Callable[[], object]) -> Iterator[None]:
    """Writes something afterwards, also where what is done within fails: then as far as a disk that failed it takes it.

    What was raised within is raised, whatever becomes of the write.
    """
    try:
        yield
    except BaseException:
        with suppress(OSError):
            write()
        raise
    write()


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Makes a folder where there is none, and takes it away again where in the end nothing lies in it but a lock."""
    missing = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if missing and {path.name for path in folder.iterdir()} <= {_LOCK}:
            (folder / _LOCK).unlink(missing_ok=True)
            folder.rmdir()


@contextmanager
def lock_folder(folder: Path, busy: ClipselError) -> Iterator[None]:
    """Holds a folder for this process; the kernel lets go of it however the process ends.

    Raises: busy where another process holds it.
    """
    with open(folder / _LOCK, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield


@contextmanager
def locked(path: Path, *, is_folder: bool = False) -> Iterator[None]:
    """Locks what is being filled, a folder or a file, made here, so that `remove_abandoned` lets it be."""
    while True:
        if is_folder:
            path.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_RDONLY if is_folder else os.O_WRONLY | os.O_CREAT, 0o666)
        except FileNotFoundError:
            if is_folder:  # Somebody removed it meanwhile, as nobody held it yet.
                continue
            raise
        with suppress(OSError):  # Some file systems have no locks; there, nothing is ever taken for abandoned.
            fcntl.flock(file, fcntl.LOCK_EX)
        # Between the two somebody may have found it unheld, and removed it.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                break
        os.close(file)
    try:
        yield
    finally:
        os.close(file)


def remove_abandoned(folder: Path) -> None:
    """Removes what processes that are gone were still writing in a folder: what has such a name and nobody holds."""
    for name in os.listdir(folder):
        if not _ASIDE.fullmatch(name):
            continue
        path = folder / name
        with suppress(OSError):
            file = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(file)


def tidy(folder: Path) -> None:
    """remove_abandoned, once in this process."""
    if folder not in _tidied:
        remove_abandoned(folder)
        _tidied.add(folder)


def leave_asides(folder: Path) -> None:
    """Has this process remove nothing from a folder that looks abandoned: other machines may be filling it."""
    _tidied.add(folder)


def remove_leftovers(*folders: Path) -> None:
    """Removes what a killed process was still writing there; for whoever holds the folder alone."""
    for folder in folders:
        for leftover in folder.glob(".*.partial"):
            leftover.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, whole or not at all."""
    write_atomically(path, lambda aside: put_json(aside, value))


def put_json(path: Path, value: Any) -> None:
    """Fills a file with a value as indented JSON."""
    path.write_bytes(json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A value as indented JSON, a file's bytes."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def cache_folder() -> Path:
    """Where this user's files lie that can be made again: below XDG_CACHE_HOME, or ~/.cache where that is not set."""
    return _own_folder("XDG_CACHE_HOME", ".cache")


def state_folder() -> Path:
    """Where it is noted what this user did: below XDG_STATE_HOME, or ~/.local/state where that is not set."""
    return _own_folder("XDG_STATE_HOME", ".local/state")


def _own_folder(variable: str, usual: str) -> Path:
    root = os.environ.get(variable, "")
    return (Path(root) if os.path.isabs(root) else Path.home() / usual) / "clipsel"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def portable_path(path: Path, folder: Path) -> str:
    """How `folder` refers to `path`: relative where they share a parent closely enough to move together, else absolute.

    >>> portable_path(Path("/data/demo/pool"), Path("/data/demo/run"))
    '../pool'
    """
    path, folder = path.resolve(), folder.resolve()
    together = path.is_relative_to(folder.parent)
    return Path(os.path.relpath(path, folder)).as_posix() if together else path.as_posix()
