"""Where does a file lie: on this machine, or in one of the stores that fsspec opens? Read the same way in either."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fsspec import AbstractFileSystem
from fsspec.core import split_protocol, url_to_fs

from clipsel_core.errors import PoolFormatError
from clipsel_core.files import portable_path

PROTOCOLS = (
    *("abfs", "abfss", "adl", "az", "ftp", "gcs", "gs", "hdfs", "hf", "http", "https", "memory", "oci", "oss"),
    *("s3", "s3a", "sftp", "smb", "ssh", "webdav", "webhdfs"),
)
"""Those that only store: a pool from somebody else may name addresses, and fsspec knows protocols that do more."""

_READ_AHEAD = 1 << 20


@dataclass(frozen=True)
class Place:
    """A file or a folder. fs: its store, or None on this machine. path: how the store calls it.

    Every method that reads raises OSError where that fails, whatever the store raises itself, and FileNotFoundError
    where there is no such thing.

    >>> (Place.of("data/demo") / "pool/teachers.json").address
    'data/demo/pool/teachers.json'
    """

    fs: AbstractFileSystem | None
    path: str

    @classmethod
    def of(cls, address: str | Path) -> Place:
        """The place of a path or of a URL. Raises PoolFormatError on a protocol unknown or not installed."""
        address = str(address)
        protocol, rest = split_protocol(address)
        if protocol in (None, "file", "local"):
            return cls(None, rest if protocol else address)
        if protocol not in PROTOCOLS or "::" in address:
            raise PoolFormatError(address, expected=f"a path or one of {', '.join(PROTOCOLS)}", found=protocol)
        try:
            fs, path = url_to_fs(address)
        except ImportError as error:
            remedy = "install it beside clipsel with pip"
            raise PoolFormatError(
                address, expected=f"the package for {protocol}://", found=str(error), remedy=remedy
            ) from error
        except Exception as error:
            raise PoolFormatError(address, expected="a store that can be opened", found=_said(error)) from error
        return cls(fs, path.rstrip("/") or path)

    @property
    def remote(self) -> bool:
        """Whether it lies elsewhere."""
        return self.fs is not None

    @property
    def address(self) -> str:
        """What `of` makes this place from."""
        return str(self.fs.unstrip_protocol(self.path)) if self.fs else self.path

    @property
    def name(self) -> str:
        """The last part."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def ending(self) -> str:
        """What comes after the name's last dot, in lower case."""
        return Path(self.name).suffix.lower().removeprefix(".")

    @property
    def parent(self) -> Place:
        """The folder it lies in."""
        return Place(self.fs, self.path.rpartition("/")[0]) if self.fs else Place(None, str(Path(self.path).parent))

    def __truediv__(self, name: str) -> Place:
        """A place below this one; a name that is an address itself is that place, and so is an absolute local path."""
        if "://" in name:
            return Place.of(name)
        if self.fs is None:
            return Place(None, str(Path(self.path) / name))
        return Place(self.fs, f"{self.path}/{name.lstrip('/')}" if name else self.path)

    def __str__(self) -> str:
        return self.address

    def relative_to(self, folder: Path) -> str:
        """How a file in `folder` refers to it: see files.portable_path; an address where it lies elsewhere."""
        return self.address if self.fs else portable_path(Path(self.path), folder)

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        with _as_os_error():
            return self.fs.isdir(self.path) if self.fs else os.path.isdir(self.path)

    def is_file(self) -> bool:
        """Whether it is a file."""
        with _as_os_error():
            return self.fs.isfile(self.path) if self.fs else os.path.isfile(self.path)

    def size(self) -> int:
        """Bytes of a file."""
        with _as_os_error():
            return int(self.fs.size(self.path) or 0) if self.fs else os.path.getsize(self.path)

    def files(self, *endings: str, deep: bool = True) -> list[tuple[str, int]]:
        """The files below a folder by their names relative to it, with their sizes, in the order of the names.

        endings: such as ".jpg", in any case. deep: also in inner folders. Hidden files and folders are left out.
        """
        with _as_os_error():
            found = self._found(deep) if self.fs else _walk(self.path, deep, endings)
            return sorted((name, size) for name, size in found if _ends(name, endings))

    def open(self) -> BinaryIO:
        """The file, to read and to seek in; a remote one is read ahead in pieces, never as a whole."""
        if self.fs is None:
            return open(self.path, "rb")
        with _as_os_error():
            return io.BufferedReader(_Steady(self.fs.open(self.path, "rb")), _READ_AHEAD)

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file from an offset on, all of them where `length` is None; a remote one is asked for no more."""
        if self.fs is None:
            if not os.path.isfile(self.path):
                raise FileNotFoundError(self.path)
            with open(self.path, "rb") as file:
                file.seek(offset)
                return file.read() if length is None else file.read(length)
        with _as_os_error():
            return self.fs.cat_file(self.path, offset or None, None if length is None else offset + length)

    def _found(self, deep: bool) -> Iterator[tuple[str, int]]:
        assert self.fs is not None
        listed = self.fs.find(self.path, maxdepth=None if deep else 1, detail=True)
        for path, info in listed.items():
            name = path.removeprefix(self.path).lstrip("/")
            if not any(part.startswith(".") for part in name.split("/")):
                yield name, int(info.get("size") or 0)


class _Steady(io.RawIOBase):
    """A remote file whose every failure is an OSError."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _as_os_error():
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        with _as_os_error():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextmanager
def _as_os_error() -> Iterator[None]:
    """What stores raise is as manifold as they are; here it becomes one kind."""
    try:
        yield
    except (OSError, PoolFormatError):
        raise
    except Exception as error:
        raise OSError(_said(error)) from error


def _said(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n")[0][:300]


def _walk(base: str, deep: bool, endings: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    for folder, folders, names in os.walk(base):
        folders[:] = [name for name in folders if deep and not name.startswith(".")]
        inner = os.path.relpath(folder, base)
        for name in names:
            if not name.startswith(".") and _ends(name, endings):
                # A link that leads nowhere is listed all the same: whoever reads it says so.
                size = _size(os.path.join(folder, name))
                yield os.path.normpath(os.path.join(inner, name)), size


def _ends(name: str, endings: tuple[str, ...]) -> bool:
    return not endings or name.lower().endswith(endings)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0
