"""Where does a file lie: on this machine, or in one of the stores that fsspec opens? Read and written the same way.

A file is written whole or not at all: on this machine under another name first, in a store as one object.

All stores that fsspec knows, chained ones too, but for a few: a pool or a table from somebody else may name addresses,
and what runs something, or opens what a file names, is refused.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import RLock
from time import sleep
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from clipsel_core import files, reach
from clipsel_core.errors import ClipselError, PoolFormatError
from clipsel_core.files import expect_regular, is_hidden, json_bytes, portable_path

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LOCAL = ("file", "local")
REFUSED = {
    "reference": "its files name further addresses and templates",
    "dask": "it sends work to other machines",
    "dvc": "it opens a repository with settings of its own",
    "generic": "name the store itself",
    "dir": "name the store itself",
    "async_wrapper": "name the store itself",
    "asyncwrapper": "name the store itself",
    "asynclocal": "give the path itself",
    "pyscript": "it lives in browsers",
}
"""Protocols of fsspec that are never opened, and why."""

_CACHES = ("simplecache", "filecache", "blockcache", "cached")
_ARCHIVES = ("zip", "tar", "libarchive")
_ONE_AT_A_TIME = {"tar", "libarchive", "filecache", "blockcache", "cached"}
_STALLED_S = 60

PATIENT = 4
"""Tries of whoever would rather wait than do without."""

IN_FLIGHT = 16
"""Small files of a store that are asked for side by side, as most of the time goes by on the way."""

_ONLY_READ = ("http", "https", "hf", "github", "data")

# What gives whoever reads an address the right to its store.
_SIGNED = re.compile(r"[?&](sig|signature|token|key|x-[a-z]+-(signature|credential|security-token))=", re.IGNORECASE)
_FIRST_WAIT_S, _TIMES = 0.5, 4
_IN_PASSING = {408, 425, 429}
_FOR_GOOD = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
# Where stores' listings say which version of a file there is: the first that they have is taken.
_VERSIONS = ("ETag", "etag", "md5Hash", "md5", "generation", "mtime", "LastModified", "last_modified", "created")

_READ_AHEAD = 1 << 20
# What is read in places is asked for in pieces of so many bytes at least; its end in one of so many.
_PIECE, _END = 1 << 14, 1 << 16
_TURN = RLock()

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Place:
    """A file or a folder. fs: its store, or None on this machine. path: how the store calls it.

    Every method that reads or writes raises OSError where that fails, whatever the store raises itself, and
    FileNotFoundError where there is no such thing, and PermissionError where this process may not read it: see reach.
    Those that write raise ClipselError where the store is only read.
    url, around: its address where it lies in a store, the part that holds the path and what comes before and after.
    one_by_one: whether threads take turns in the store. tries: how often it is asked, where it fails in passing.
    named: whether a person named it, or what it lies in: then no limit holds on this machine.

    What takes a path takes a place on this machine as well.

    >>> (Place.of("data/demo") / "pool/teachers.json").address
    'data/demo/pool/teachers.json'
    """

    fs: AbstractFileSystem | None
    path: str
    url: str = ""
    around: tuple[str, str] = ("", "")
    one_by_one: bool = False
    tries: int = 1
    named: bool = False

    @classmethod
    def of(cls, address: str | os.PathLike[str]) -> Place:
        """The place of a path or of an address; of a place itself.

        Raises: PoolFormatError where its store cannot be opened, see stores, or may not be, see reach.
        """
        if isinstance(address, Place):
            return address
        address = os.fspath(address)
        if protocol_of(address) is None:
            return cls(None, address.partition("://")[2] if "://" in address else address)
        try:
            reach.check_place(address)
        except PermissionError as error:
            expected, remedy = "an address below one that was named", "start the dashboard with --read ADDRESS"
            raise PoolFormatError(address, expected=expected, found="another", remedy=remedy) from error
        return open_store(address)

    @classmethod
    def of_named(cls, address: str | os.PathLike[str]) -> Place:
        """The place of a pool or of a run that a person named, or a run after it. Raises: as `of` and expect_plain."""
        if isinstance(address, Place) and address.named:
            return address
        expect_plain(str(address))
        place = replace(cls.of(address), tries=PATIENT, named=True)
        return place if place.remote else replace(place, path=str(Path(place.path)))

    def patient(self, tries: int) -> Place:
        """The same, and all that is found from it, with as many tries."""
        return replace(self, tries=tries)

    @property
    def remote(self) -> bool:
        """Whether it lies elsewhere."""
        return self.fs is not None

    @property
    def address(self) -> str:
        """What `of` makes this place from."""
        before, after = self.around
        return f"{before}{self.url}{after}" if self.fs else self.path

    @property
    def store(self) -> str:
        """What it fails together with: its host or bucket, or the archive it lies in; nothing on this machine."""
        scheme, _, rest = self.url.partition("://")
        return self.around[1] or f"{scheme}://{rest.partition('/')[0]}" if self.fs else ""

    @property
    def name(self) -> str:
        """The last part."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return Path(self.name).stem

    @property
    def ending(self) -> str:
        """What comes after the name's last dot, in lower case."""
        return Path(self.name).suffix.lower().removeprefix(".")

    @property
    def parent(self) -> Place:
        """The folder it lies in."""
        if self.fs is None:
            return replace(self, path=str(Path(self.path).parent))
        folder, _, name = self.path.rpartition("/")
        url = self.url.removesuffix(name)
        return replace(self, path=folder, url=url if url.endswith("://") else url.removesuffix("/"))

    def __truediv__(self, name: str) -> Place:
        """A place below this one; a name that is an address itself is that place, and so is an absolute local path."""
        if "://" in name:
            return Place.of(name).patient(self.tries)
        if self.fs is None:
            # Path takes longer, and a run has thousands of files: it is for names that are to be brought into order.
            plain = "/" not in name and name not in ("", ".") and self.path[-1:] not in ("", ".", "/")
            path = f"{self.path}/{name}" if plain else str(Path(self.path) / name)
            return Place(None, path, tries=self.tries, named=self.named)
        inner = name.lstrip("/")
        if not inner:
            return self
        if not {".", ".."}.isdisjoint(parts := inner.split("/")):
            # In a store these are names like any other.
            place = self
            for part in parts:
                place = place.parent if part == ".." else place if part == "." else place / part
            return place
        path = f"{self.path}/{inner}" if self.path else inner
        return replace(self, path=path, url=f"{self.url}{'' if self.url.endswith('/') else '/'}{inner}")

    def along(self, name: str) -> Place:
        """What a name that a file in this folder holds leads to: as `/`, but that .. leads upwards in a store, too."""
        if self.fs is None or "://" in name:
            return self / name
        place = self
        for part in name.split("/"):
            place = place.parent if part == ".." else place if part in ("", ".") else place / part
        return place

    def with_name(self, name: str) -> Place:
        """What lies beside it under another name."""
        return self.parent / name

    def __str__(self) -> str:
        return self.address

    def __fspath__(self) -> str:
        """The path on this machine, for what knows of paths alone. Raises: PoolFormatError where it lies elsewhere."""
        if self.fs is None:
            return self.path
        remedy = "copy it to this machine first"
        raise PoolFormatError(self.address, expected="a path on this machine", found="an address", remedy=remedy)

    def absolute(self) -> Place:
        """The same, wherever a process stands; links are followed."""
        return self if self.fs else replace(self, path=os.path.realpath(self.path))

    def relative_to(self, folder: str | os.PathLike[str]) -> str:
        """How a file in `folder` refers to it: see files.portable_path; an address where it lies elsewhere."""
        if self.fs:
            return "." if self.address == str(folder) else self.address
        is_remote = isinstance(folder, Place) and folder.remote
        return os.path.realpath(self.path) if is_remote else portable_path(Path(self.path), Path(folder))

    @property
    def for_others(self) -> Path | Place:
        """A path on this machine, for who knows no places; in a store the place itself."""
        return self if self.fs else Path(self.path)

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        fs = self.fs
        if fs is None:
            return os.path.isdir(self.path) and self._within_reach()
        # A cache takes a web server's folders for files; the store behind it knows.
        behind = fs.fs if self.around[0] else fs
        return self._ask(lambda: bool(behind.isdir(self.path)))

    def is_file(self) -> bool:
        """Whether it is a file."""
        fs = self.fs
        if fs is None:
            return os.path.isfile(self.path) and self._within_reach()
        try:
            # A store's own isfile says no to whatever fails.
            return bool(self._ask(lambda: fs.info(self.path)["type"]) == "file")
        except FileNotFoundError:
            return False

    def exists(self) -> bool:
        """Whether there is such a file or folder; a store is asked by its name, as it is now."""
        if self.fs is None:
            return os.path.exists(self._checked())
        try:
            return bool(self._info())
        except FileNotFoundError:
            return False

    def size(self) -> int:
        """Bytes of a file."""
        fs = self.fs
        return self._ask(lambda: int(fs.size(self.path) or 0)) if fs else os.path.getsize(self._checked())

    def stamp(self) -> tuple[int, int | str]:
        """What changes whenever the file does: its size, and the time or its version as its store calls it."""
        fs = self.fs
        if fs is None:
            stat = os.stat(self._checked())
            return stat.st_size, stat.st_mtime_ns
        return stamp_from_info(self._ask(lambda: fs.info(self.path)))

    def names(self) -> list[str]:
        """What lies in a folder itself, in order, hidden ones left out; nothing where there is no such folder."""
        try:
            listed = [name for name, _ in self.files(deep=False)] if self.fs else os.listdir(self._checked())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in listed if not is_hidden(name))

    def folders(self) -> list[str]:
        """The folders in a folder, in order, hidden ones left out; nothing where there is no such folder."""
        fs = self.fs
        try:
            if fs is None:
                with os.scandir(self._checked()) as entries:
                    names = [entry.name for entry in entries if entry.is_dir()]
            else:
                fs.invalidate_cache()
                listed = self._ask(lambda: fs.ls(self.path, detail=True))
                paths = [info["name"].rstrip("/") for info in listed if info["type"] == "directory"]
                names = [path.rpartition("/")[2] for path in paths]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if not is_hidden(name))

    def holding(self, names: Collection[str], *, by_name: bool = False) -> set[str]:
        """Which of these files lie in a folder, as its listing has it.

        by_name: whether a store is asked for each that its listing lacks, which may lag.
        """
        if self.fs is None:
            try:
                return set(os.listdir(self._checked())).intersection(names)
            except (FileNotFoundError, NotADirectoryError):
                return set()
        return set(self._infos(names, by_name))

    def stamps(self, names: Collection[str]) -> dict[str, tuple[int, int | str]]:
        """What changes whenever a file of a folder does, by its name: its size and its time or version.

        names: files of the folder; those that are not there are left out. A store is asked by name for those.
        """
        if self.fs is not None:
            return {name: stamp_from_info(info) for name, info in self._infos(names, True).items()}
        found = dict[str, tuple[int, int | str]]()
        for name in names:
            with suppress(FileNotFoundError):
                stat = os.stat(os.path.join(self._checked(), name))
                found[name] = stat.st_size, stat.st_mtime_ns
        return found

    def listed(self) -> dict[str, tuple[int, int | str]]:
        """What changes whenever a file in a folder does, by its name, in order: its size and its time or version.

        A store is asked once, whatever it lists; where that says no size it is 0. Hidden ones are left out; nothing
        where there is no such folder.
        """
        fs = self.fs
        if fs is None:
            return self.stamps(self.names())
        try:
            infos = self._ask(lambda: _list(fs.fs if self.around[0] else fs, self.path, False))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        named = ((path.removeprefix(self.path).lstrip("/"), info) for path, info in sorted(infos.items()))
        return {name: stamp_from_info(info) for name, info in named if name and not is_hidden(name)}

    def files(self, *endings: str, deep: bool = True) -> list[tuple[str, int]]:
        """The files below a folder by their names relative to it, with their sizes, in the order of the names.

        endings: such as ".jpg", in any case. deep: also in inner folders. Hidden files and folders are left out.
        """
        fs, found = self.fs, list[tuple[str, int]]()
        if fs is None:
            base = self._checked()
            for folder, folders, names in os.walk(base):
                folders[:] = [name for name in folders if deep and not is_hidden(name)]
                inner = os.path.relpath(folder, base)
                for name in names:
                    if not is_hidden(name) and _ends(name, endings):
                        size = 0
                        # A link that leads nowhere is listed all the same: whoever reads it says so.
                        with suppress(FileNotFoundError):
                            size = os.path.getsize(os.path.join(folder, name))
                        found.append((os.path.normpath(os.path.join(inner, name)), size))
            return sorted(found)
        for path, info in self._ask(lambda: _list(fs.fs if self.around[0] else fs, self.path, deep)).items():
            name = path.removeprefix(self.path).lstrip("/")
            if not is_hidden(name) and _ends(name, endings):
                found.append((name, int(info.get("size") or 0)))
        return sorted(found)

    def open(self, *, in_places: bool = False, size: int | None = None) -> BinaryIO:
        """The file, to read and to seek in; a remote one is read ahead in pieces, never as a whole.

        in_places: whether it is read here and there, so that little more is asked of a store than is read.
        size: its bytes, for who knows them; then a store is not asked for them.
        """
        fs = self.fs
        if fs is None:
            expect_regular(self._checked())
            return open(self.path, "rb")
        if in_places:
            return io.BufferedReader(_InPlaces(self, size), _PIECE)
        return io.BufferedReader(_Steady(self._ask(lambda: fs.open(self.path, "rb")), self._ask), _READ_AHEAD)

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file from an offset on, all of them where `length` is None; a remote one is asked for no more."""
        fs, end = self.fs, None if length is None else offset + length
        if fs is None:
            if not os.path.isfile(self.path):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)
            with open(self._checked(), "rb") as file:
                file.seek(offset)
                return file.read() if length is None else file.read(length)
        options = exactly(fs) if length is not None else {}
        data = self._ask(lambda: fs.cat_file(self.path, start=offset or None, end=end, **options))
        # A web server that knows nothing of ranges sends the file.
        return data[offset:end] if length is not None and len(data) > length else data

    def sha256(self) -> str:
        """The SHA-256 of a file's bytes, 64 hex digits."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    @contextmanager
    def here(self) -> Iterator[Path]:
        """The file on this machine; of one in a store a copy, which goes with the context."""
        if self.fs is None:
            yield Path(self._checked())
            return
        with _scratch() as folder:
            copy = folder / self.name
            with self.open() as file, open(copy, "wb") as out:
                shutil.copyfileobj(file, out, _READ_AHEAD)
            yield copy

    def read_into(self, out: memoryview, offset: int) -> None:
        """Fills `out` with a remote file's bytes from an offset on. Raises: OSError also where it has not so many."""

        def read() -> None:
            data = replace(self, tries=1).read(offset, len(out))
            if len(data) < len(out):  # perhaps only the answer ends early: it is asked for again
                raise OSError("it ends in the middle")
            out[:] = data

        ask_again(read, self.tries)

    def write(self, fill: Callable[[Path], object]) -> None:
        """Has `fill` fill a file of this machine, which then is here, whole or not at all; see write_places."""
        write_places({self: fill})

    def change(self, edit: Callable[[Path], object]) -> None:
        """Has `edit` change a file where it lies; of one in a store a copy, which then takes its place."""
        fs = self._written()
        with self.here() as file:
            edit(file)
            if fs is not None:
                self._ask(partial(fs.put_file, str(file), self.path))

    def write_json(self, value: Any) -> None:
        """Writes a value as indented JSON, whole or not at all."""
        self.write_bytes(json_bytes(value))

    def write_bytes(self, data: bytes) -> None:
        """Writes a file, whole or not at all."""
        fs = self._written()
        if fs is None:
            files.write_atomically(Path(self.path), lambda aside: aside.write_bytes(data))
        else:
            self._ask(lambda: fs.pipe_file(self.path, data))

    def create(self, data: bytes) -> None:
        """Writes a file that was not there. Raises: FileExistsError where there is one, which stays as it is.

        Of a store that makes nothing exclusively the last one who writes wins: see `creates`.
        """
        fs = self._written()
        if fs is None:
            with open(self.path, "xb") as file:
                file.write(data)
            return

        def write() -> None:
            try:
                fs.pipe_file(self.path, data, mode="create")
            except OSError as error:
                if _is_taken(error):
                    raise FileExistsError(self.address) from error
                raise

        self._ask(write)

    def remove(self) -> None:
        """Removes a file; nothing where there is none."""
        fs = self._written()
        with suppress(FileNotFoundError):
            if fs is None:
                os.unlink(self.path)
            else:
                self._ask(lambda: fs.rm_file(self.path))

    def remove_tree(self, names: Collection[str] = ()) -> None:
        """Removes a folder and all that lies in it; nothing where there is none. names: files of it that a store's
        listing may lack.
        """
        if self._written() is None:
            with suppress(FileNotFoundError):
                shutil.rmtree(self.path)
            return
        listed = list[str]()
        with suppress(FileNotFoundError):
            listed = [name for name, _ in self.files()]
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            list(threads.map(lambda name: (self / name).remove(), dict.fromkeys([*listed, *names])))

    def expect_written(self) -> None:
        """Raises ClipselError where it lies in a store that is only read."""
        self._written()

    def _written(self) -> AbstractFileSystem | None:
        """The store, to be written to. Raises: ClipselError where it is only read."""
        if self.fs is not None:
            protocol = self.url.partition("://")[0]
            if any(self.around) or protocol in _ONLY_READ:
                found = f"{'a chain' if any(self.around) else f'{protocol}://'}, which is only read"
                raise ClipselError(self.address, expected="a folder or a store that is written to", found=found)
        return self.fs

    def _info(self) -> dict[str, Any]:
        """What the store says of it now: a listing that it keeps may be older."""
        fs = self.fs
        assert fs is not None
        fs.invalidate_cache(self.parent.path)
        return self._ask(lambda: fs.info(self.path))

    def _infos(self, names: Collection[str], by_name: bool) -> dict[str, dict[str, Any]]:
        """What a store says of files in a folder, of those that are there, in the order of the names."""
        fs, listed = self.fs, dict[str, dict[str, Any]]()
        assert fs is not None
        with suppress(FileNotFoundError):
            found = self._ask(lambda: _list(fs, self.path, deep=False))
            listed = {path.rpartition("/")[2]: info for path, info in found.items()}

        def ask(name: str) -> dict[str, Any] | None:
            try:
                return listed.get(name) or ((self / name)._info() if by_name else None)
            except FileNotFoundError:
                return None

        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            infos = zip(names, threads.map(ask, names), strict=True)
            return {name: info for name, info in infos if info}

    def _checked(self) -> str:
        """The path on this machine, where this process may read it. Raises: PermissionError where it may not."""
        if not self.named:
            reach.check_place(self.path)
        return self.path

    def _within_reach(self) -> bool:
        try:
            return bool(self._checked())
        except PermissionError:
            return False

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        """A store's answer, threads in turn where it wants that; its failures as OSError, after all tries."""

        def once() -> Answer:
            with _TURN if self.one_by_one else nullcontext(), _as_os_error():
                return question()

        return ask_again(once, self.tries)


def common_folder(places: Sequence[Place]) -> tuple[Place, list[str]]:
    """The folder that files lie in, here or all in one folder of a store, and their names from there."""
    if places[0].remote:
        return places[0].parent, [place.name for place in places]
    paths = [os.path.abspath(place) for place in places]
    base = os.path.commonpath([os.path.dirname(path) for path in paths])
    return Place.of(base), [os.path.relpath(path, base) for path in paths]


def write_places(writes: Mapping[Place, Callable[[Path], object]]) -> None:
    """Has files of this machine filled, which then are in their places, each whole or not at all, in their order.

    None is there before all are filled. All lie on this machine, see files.write_together, or all in stores. A store
    gets each as one object, once more where that fails in passing.
    """
    if not any(place.remote for place in writes):
        files.write_together({Path(place): fill for place, fill in writes.items()})
        return
    stores: dict[Place, Any] = {place: place._written() for place in writes}
    with _scratch() as folder:
        asides = {place: folder / f"{number}-{place.name}" for number, place in enumerate(writes)}
        for place, fill in writes.items():
            fill(asides[place])
        for place, aside in asides.items():
            place._ask(partial(stores[place].put_file, str(aside), place.path))


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for temporary files, gone afterwards; those that killed processes left are removed first.

    Raises: OSError which names the folder that it lies in, where that has no room.
    """
    parent = Path(tempfile.gettempdir())
    with suppress(OSError):
        files.tidy(parent)
    folder = Path(tempfile.mkdtemp(prefix=files.SCRATCH))
    try:
        with files.locked(folder, is_folder=True):
            yield folder
    except OSError as error:
        # Some who write do not say which file.
        is_there = error.filename is None or str(error.filename).startswith(str(folder))
        if error.errno in files.NO_ROOM and is_there:
            raise OSError(error.errno, os.strerror(error.errno), str(parent)) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def why_unwritten(place: Place, error: OSError, instead: str) -> tuple[str, str, str]:
    """Where it failed that something was to be written into a folder, what was found there, and what helps.

    instead: what helps on a disk beside making room.
    """
    where = str(error.filename or place)
    remedy = f"make room or {instead}"
    if place.remote:
        remedy = "see whether the store is there, and may be written to"
        if error.errno in files.NO_ROOM:
            remedy = "make room, or set TMPDIR to another folder"
    return where, str(error.strerror or error), f"{remedy}, then start again"


def protocol_of(address: str) -> str | None:
    """What the address begins with, where that makes it one of a store; None for a path on this machine.

    >>> protocol_of("zip://a.jpg::s3://bucket/x.zip"), protocol_of("file:///a"), protocol_of("a::b.jpg")
    ('zip', None, None)
    """
    if "::" not in address and "://" not in address:
        return None
    from fsspec.core import split_protocol  # takes as long to import as a small selection takes

    first, chained, _ = address.partition("::")
    protocol = first if chained and first in _known() else split_protocol(first)[0]
    return None if protocol in LOCAL and not chained else protocol


def expect_plain(address: str) -> None:
    """Makes sure that an address may be noted. Raises: PoolFormatError on one with a password or a signature in it."""
    protocol = protocol_of(address)
    hosts = (link.partition("://")[2].partition("/")[0] for link in address.split("::"))
    if protocol and (any("@" in host for host in hosts) or _SIGNED.search(address)):
        remedy = "leave it to the store's own settings, as its package reads them"
        expected = "an address without a password or a signature, as runs note it"
        raise PoolFormatError(f"{protocol}://", expected=expected, found="one with it", remedy=remedy)


def open_store(address: str) -> Place:
    """Opens the store of an address, such as s3://bucket/x, simplecache::https://host/x or zip://a::s3://bucket/x.zip.

    Raises: PoolFormatError, one line, on a protocol that is unknown, refused, or whose package is not installed.
    """
    from fsspec.core import split_protocol, url_to_fs

    links = []
    for text in address.split("::"):
        # As fsspec takes it; a path on this machine from the root on, as others will read it.
        protocol, rest = split_protocol(text)
        local = f"file://{os.path.abspath(rest)}" if protocol in (None, *LOCAL) else text
        links.append(f"{text}://" if text in _known() else local)
    protocols = [_checked(address, link) for link in links]
    if protocols[-1] in (*_CACHES, *_ARCHIVES):
        expected = f"what it lies in: {protocols[-1]}://PATH::ADDRESS, or {protocols[-1]}::ADDRESS"
        raise PoolFormatError(address, expected=expected, found="nothing after it")
    if loose := next((name for name in protocols[:-1] if name not in (*_CACHES, *_ARCHIVES)), None):
        expected = f"{', '.join((*_CACHES, *_ARCHIVES))} before each ::"
        raise PoolFormatError(address, expected=expected, found=f"{loose}://")
    # The path belongs to the first link that is no cache: those only pass it on.
    head = next(number for number, link in enumerate(links) if link.rstrip(":/") not in _CACHES)
    try:
        fs, path = url_to_fs("::".join(links), **_settings(protocols))
    except ImportError as error:
        remedy = "install it beside clipsel with pip"
        package = "the package for " + " and ".join(f"{name}://" for name in dict.fromkeys(protocols))
        raise PoolFormatError(address, expected=package, found=said(error), remedy=remedy) from error
    except Exception as error:
        raise PoolFormatError(address, expected="a store that can be opened", found=said(error)) from error
    before = "".join(f"{link.rstrip(':/')}::" for link in links[:head])
    after = "".join(f"::{link}" for link in links[head + 1 :])
    one_by_one = not _ONE_AT_A_TIME.isdisjoint(protocols)
    url = links[head] if links[head].endswith("://") else links[head].rstrip("/")
    return Place(fs, path.rstrip("/") or path, url, (before, after), one_by_one)


def ask_again(question: Callable[[], Answer], tries: int) -> Answer:
    """The answer to a question that may raise OSError; asked up to `tries` times, 0.5, 2, 8, ... seconds apart."""
    wait = _FIRST_WAIT_S
    for _ in range(tries - 1):
        try:
            return question()
        except OSError as error:
            if not in_passing(error):
                raise
        sleep(wait)
        wait *= _TIMES
    return question()


def in_passing(error: BaseException) -> bool:
    """Whether what failed may succeed a little later: not where a thing is absent, or a web server says it is at fault.

    >>> in_passing(ConnectionResetError()), in_passing(FileNotFoundError())
    (True, False)
    """
    status = _status(error)
    if status is not None:
        return not 400 <= status < 500 or status in _IN_PASSING
    return not isinstance(error, _FOR_GOOD)


def stands_for(error: Exception) -> BaseException:
    """What really failed: fsspec says of the web that a file is not there, whatever it was that went wrong."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or cause is None:
        return error
    status = _status(cause)
    lost = status is None and (isinstance(cause, TimeoutError) or type(cause).__module__.startswith("aiohttp"))
    return cause if lost or status not in (None, 404, 410) else error


def said(error: BaseException) -> str:
    """What an error says, on one line."""
    return (str(error) or type(error).__name__).split("\n")[0][:300]


def why_unread(error: OSError) -> str:
    """Why an image cannot be read, for people."""
    return "no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read: {error.strerror or error}"


class _InPlaces(io.RawIOBase):
    """A remote file that is read here and there; its end, where directories of what is in it lie, is asked for once."""

    def __init__(self, place: Place, size: int | None) -> None:
        self._place, self._size, self._at = place, place.size() if size is None else size, 0
        self._end = memoryview(bytearray(min(self._size, _END)))
        # At once: zipfile takes an OSError at the end of a file for no zip.
        place.read_into(self._end, self._size - len(self._end))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = self._size - len(self._end)
        out = memoryview(buffer).cast("B")
        if self._at >= end:
            held = self._end[self._at - end :][: len(out)]
            out[: len(held)] = held
            self._at += len(held)
            return len(held)
        out = out[: end - self._at]
        self._place.read_into(out, self._at)
        self._at += len(out)
        return len(out)


class _Steady(io.RawIOBase):
    """A remote file whose every failure is an OSError. ask: as Place asks its store."""

    def __init__(self, file: Any, ask: Callable[[Callable[[], bytes]], bytes]) -> None:
        self._file, self._ask = file, ask

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
        place = self._file.tell()

        def read() -> bytes:
            if self._file.tell() != place:
                self._file.seek(place)
            return self._file.read(len(buffer))

        data = self._ask(read)
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
    except PoolFormatError:
        raise
    except Exception as error:
        failure = stands_for(error)
        if "Credential" in type(failure).__name__:
            raise PermissionError(f"no credentials: {said(failure)}") from failure
        if isinstance(failure, TimeoutError):
            raise TimeoutError("no answer in time") from failure
        if isinstance(failure, OSError):
            raise failure from failure.__cause__
        raise OSError(said(failure)) from failure


def _list(fs: AbstractFileSystem, path: str, deep: bool) -> dict[str, Any]:
    """The files below a folder, as the store says now. fsspec's own walk leaves out folders whose listing fails."""
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    fs.invalidate_cache()
    kind = type(fs)
    walks = kind._find is AsyncFileSystem._find if fs.async_impl else kind.find is AbstractFileSystem.find
    if deep and not walks:
        return fs.find(path, detail=True)
    found, folders = dict[str, Any](), [path]
    for folder in folders:
        try:
            listed = fs.ls(folder, detail=True)
        except Exception as error:
            if folder != path and isinstance(stands_for(error), FileNotFoundError):
                continue  # a link that leads nowhere
            raise
        found |= {info["name"]: info for info in listed if info["type"] == "file"}
        inner = (info["name"].rstrip("/") for info in listed if info["type"] == "directory")
        folders += [name for name in inner if name not in folders] if deep else []
    return found


def exactly(fs: AbstractFileSystem) -> dict[str, str]:
    """What has a store read a range and no more: without a way of its own, it opens a file that reads ahead."""
    from fsspec import AbstractFileSystem

    opens = not fs.async_impl and type(fs).cat_file is AbstractFileSystem.cat_file
    return {"cache_type": "none"} if opens else {}


def stamp_from_info(info: Mapping[str, Any]) -> tuple[int, int | str]:
    """What changes whenever a file does, as its store tells of it: its size and its version."""
    version = next((str(info[key]) for key in _VERSIONS if info.get(key)), "")
    return int(info.get("size") or 0), version


def _is_taken(error: OSError) -> bool:
    """Whether a store refused to write since there is such an object already."""
    told = getattr(error.__cause__, "response", None)
    code = told.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(told, dict) else _status(error)
    return isinstance(error, FileExistsError) or code == 412


def _ends(name: str, endings: tuple[str, ...]) -> bool:
    return not endings or name.lower().endswith(endings)


def _known() -> set[str]:
    from fsspec import available_protocols

    return {*available_protocols(), *_CACHES}


def _checked(address: str, link: str) -> str:
    protocol = link.partition("://")[0]
    if protocol in REFUSED:
        found = f"{protocol}://, which is not opened"
        raise PoolFormatError(address, expected="a store", found=found, remedy=REFUSED[protocol])
    if protocol not in _known():
        stores = ", ".join(sorted(_known() - REFUSED.keys()))
        raise PoolFormatError(address, expected=f"a path or one of {stores}", found=protocol)
    return protocol


def _settings(protocols: list[str]) -> dict[str, Any]:
    """What stores are opened with beyond their addresses: the web's ends a request that stalls, not a long one."""
    web = [number for number, protocol in enumerate(protocols) if protocol in ("http", "https")]
    if not web:
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=_STALLED_S, sock_read=_STALLED_S)
    settings = {"client_kwargs": {"timeout": timeout}}
    # fsspec hands what is not under a protocol's name to the first link.
    return {protocols[number]: settings for number in web}


def _status(error: BaseException) -> int | None:
    """The number that a web server gave for its answer, in whichever attribute the store's package keeps it."""
    for told in (error, error.__cause__):
        for name in ("status", "code", "status_code"):
            value = getattr(told, name, None)
            if isinstance(value, int) and 100 <= value < 600:
                return value
    return None
