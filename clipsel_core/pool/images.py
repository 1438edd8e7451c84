"""Where are a pair's image bytes, by uid? In tars, or where the index says that `embed` left; read from there.

What is found is kept in a SQLite database, so that a pool of any size costs no memory.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipsel_core import reach, uids
from clipsel_core.cache import Hold, hold
from clipsel_core.errors import PoolFormatError, UidError, reason_of
from clipsel_core.files import write_atomically
from clipsel_core.places import PATIENT, Place, in_passing, protocol_of
from clipsel_core.pool.conventions import A_ROW, NOWHERE, WHOLE_FILE
from clipsel_core.pool.layout import Pool, parquet_file
from clipsel_core.pool.tar_index import index_tars
from clipsel_core.pool.tar_windows import OutOfOrder as OutOfOrder
from clipsel_core.pool.tar_windows import TarWindows
from clipsel_core.tasks import Report, in_order, silent

_log = logging.getLogger(__name__)
_ROWS_AT_ONCE = 16
_READ_AHEAD = 1 << 18
_FAR_APART = 1 << 14
_LARGEST_IMAGE = (1 << 31) - 1
_CACHED, _KEPT = "images.index", "images.windows"
_AHEAD = 8
# What an image takes in the database, about.
_BYTES_A_PAIR = 80

_ENTRY = (
    "high INTEGER, low INTEGER, file INTEGER, offset INTEGER, length INTEGER, json_offset INTEGER, json_length INTEGER"
)
# high, low: a uid's halves as signed numbers, which SQLite has. A database with other tables is made anew.
_TABLES = [
    "CREATE TABLE about (stamp TEXT, images INTEGER)",
    "CREATE TABLE damaged (file TEXT, reason TEXT, found INTEGER)",
    "CREATE TABLE kinds (id INTEGER PRIMARY KEY, base TEXT, image_column TEXT)",
    "CREATE TABLE files (id INTEGER PRIMARY KEY, kind INTEGER, name TEXT)",
    f"CREATE TABLE images ({_ENTRY}, PRIMARY KEY (high, low)) WITHOUT ROWID",
]
_COLUMNS = ("uid_hi", "uid_lo", "place", "offset", "length", "json_offset", "json_length")
_FIND = """
    SELECT base, image_column, name, offset, length, json_offset, json_length
    FROM images JOIN files ON files.id = images.file JOIN kinds ON kinds.id = files.kind WHERE high = ? AND low = ?
"""


class Damaged(NamedTuple):
    """A file that could not be read to its end. found: images that were found in it all the same."""

    file: str
    reason: str
    found: int


class Fetched(NamedTuple):
    """A pair's encoded image, and the bytes of the json beside it, where it lies in a tar.

    image: None where there is none, or it cannot be read. known: whether there is one.
    """

    image: bytes | None = None
    json: bytes = b""
    known: bool = False


class _Found(NamedTuple):
    """Where an image lies. base: what the file's name is relative to, "" for nothing. image_column: of a parquet.

    json_length: 0 where no json describes it.
    """

    base: str
    image_column: str
    name: str
    offset: int
    length: int
    json_offset: int
    json_length: int


class _Block(NamedTuple):
    """Some images. names: of the files they lie in, relative to `base`.

    table: uid_hi, uid_lo, place (in names), offset and length, perhaps json_offset and json_length too: where the json
    lies that describes the image, in the same file. image_column: of a parquet. damage: what is wrong with the one file
    they lie in, if anything.
    """

    names: list[str]
    table: pa.Table
    base: str = ""
    image_column: str = ""
    damage: str = ""


class ImageIndex:
    """Knows for each uid the file, the offset and the length of its image.

    Reading one image costs a few small reads, whatever the pool's size, and knowing where they are no memory.
    """

    def __init__(self, database: sqlite3.Connection, believes: Callable[[str], bool]) -> None:
        self._database, self._believes, self._turn = database, believes, Lock()
        self.held: Hold | None = None
        [(self._images,)] = database.execute("SELECT images FROM about")
        self.damaged = [Damaged(*row) for row in database.execute("SELECT * FROM damaged")]
        """The tars that could not be read to their ends."""

    @classmethod
    def open(cls, tars: Sequence[str | os.PathLike[str]], cache: Path, report: Report = silent) -> ImageIndex:
        """The index of these tars, looked up in `cache` where that is still true of them, else built and kept there.

        report: told how many files were gone through, where they are not looked up. What it raises ends the search,
            and nothing is kept.
        A tar that is damaged costs the images in it that cannot be found: see `damaged`.
        Raises: PoolFormatError where no image is found and a tar is damaged; OSError where `cache` cannot be written.
        """

        places = list(map(Place.of_named, tars))

        def blocks() -> Generator[_Block, None, None]:
            yield from (_Block([tar.address], table, damage=damage) for tar, table, damage in index_tars(places))

        database = _open_or_write(cache, places, blocks, report)
        index = cls(database, {tar.address for tar in places}.__contains__)
        for tar, reason, found in index.damaged:
            if not len(index):
                raise PoolFormatError(tar, expected="a whole tar", found=reason, remedy="download it again")
            _log.warning("%s: not all images can be read, %s can: %s", tar, f"{found:,}", reason)
        return index

    @classmethod
    def of_parts(
        cls,
        root: str | os.PathLike[str],
        paths: Sequence[str | os.PathLike[str]],
        cache: Path,
        report: Report = silent,
        named: Sequence[str] = (),
    ) -> ImageIndex:
        """The index that `embed` left in a pool. root: the pool's folder. paths: its images/*.parquet.

        named: places that images may lie below, beside the pool and the sources that this user embedded.
        cache, report: as in open. Raises: PoolFormatError on one that cannot be read, or whose images lie elsewhere;
            OSError where `cache` cannot be written.
        """
        home, parts = Place.of_named(root), list(map(Place.of_named, paths))
        database = _open_or_write(cache, parts, lambda: _blocks_of_parts(home, parts), report)
        believed = reach.make_filter((str(root), *named, *reach.read_sources()))
        bases = [base for (base,) in database.execute("SELECT DISTINCT base FROM kinds ORDER BY base")]
        if away := next((base for base in bases if not believed(base)), None):
            away = away if "://" in away else os.path.normpath(away)
            expected = f"images below {root}, or below a place that somebody named"
            remedy = f"allow it with --read {away}, where you trust this pool"
            raise PoolFormatError(home / "images", expected=expected, found=away, remedy=remedy)
        return cls(database, believed)

    def __len__(self) -> int:
        return self._images

    def read(self, uid: str) -> bytes | None:
        """The encoded image of a uid (hex), as it lies in its file; None where there is none, or no such uid.

        Raises: OSError where the store that it lies in fails in passing.
        """
        found = self._find(uid)
        try:
            return self._read(found, 1)[0] if found else None
        except OSError as error:
            if found and protocol_of(found.base) and in_passing(error):
                raise
            return None

    def fetch(self, uid: str) -> Fetched:
        """The same with its json, for whoever would rather wait: a store that fails in passing is asked again.

        Raises: PoolFormatError where it stays away, so that nobody takes its images for lost.
        """
        found = self._find(uid)
        if found is None or found.length == NOWHERE:
            return Fetched()
        try:
            return Fetched(*self._read(found, PATIENT), known=True)
        except OSError as error:
            if in_passing(error):
                raise _away(uid, error) from error
            return Fetched(known=True)

    def _find(self, uid: str) -> _Found | None:
        try:
            [(high, low)] = uids.from_hex([uid]).tolist()
            halves = np.array([high, low], np.uint64).view(np.int64).tolist()
            with self._turn:
                row = self._database.execute(_FIND, halves).fetchone()
        except (UidError, ValueError, sqlite3.Error):
            return None
        return _Found(*row) if row else None

    def _read(self, found: _Found, tries: int) -> tuple[bytes | None, bytes]:
        """An image and its json; nothing where the place may not be read on the index's word.

        Raises: OSError where its store or disk fails.
        """
        try:
            place = Place.of(found.base).patient(tries) / found.name
            if not self._believes(place.address):
                return None, b""
            if found.length == A_ROW:
                return _read_parquet_row(place, found.image_column, found.offset), b""
            if found.length < 0:
                return place.read(found.offset) if found.length == WHOLE_FILE else None, b""
            spans = [(found.offset, found.length), (found.json_offset, found.json_length)]
            spans = spans[: 1 + bool(found.json_length)]
            first, end = min(offset for offset, _ in spans), max(sum(span) for span in spans)
            if end - first > sum(length for _, length in spans) + _FAR_APART:
                image, *json = (place.read(*span) for span in spans)
            else:
                # Mostly they lie side by side: one read takes half the time of two.
                data = place.read(first, end - first)
                image, *json = (data[offset - first : offset - first + length] for offset, length in spans)
            return image, json[0] if json else b""
        except (PoolFormatError, pa.ArrowException, IndexError, ValueError):
            return None, b""


class OrderedImages:
    """The images in the tars of a pool in a store, found by the order of its rows, as ImageIndex has them.

    Any thread may call its methods. damaged: none, as no tar is read to its end.
    """

    damaged: Sequence[Damaged] = ()

    def __init__(self, windows: TarWindows) -> None:
        self.windows = windows
        self.held: Hold | None = None

    def read(self, uid: str) -> bytes | None:
        """The encoded image of a uid (hex); None where there is none. Raises: as TarWindows.find."""
        spot = self.windows.find(uid)
        return self.windows.read(spot)[0] if spot else None

    def fetch(self, uid: str) -> Fetched:
        """The same with its json, for whoever would rather wait: also until a tar without order is gone through.

        Raises: PoolFormatError where the store stays away.
        """
        try:
            try:
                spot = self.windows.find(uid, PATIENT)
            except OutOfOrder as error:
                self.windows.go_through(error.tar)
                spot = self.windows.find(uid, PATIENT)
            return Fetched(*self.windows.read(spot, PATIENT), known=True) if spot else Fetched()
        except OutOfOrder:
            return Fetched()
        except OSError as error:
            raise _away(uid, error) from error


Images = ImageIndex | OrderedImages


def open_images(
    pool: Pool,
    cache: Path,
    report: Report = silent,
    named: Sequence[str] = (),
    rows_of: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Images | None:
    """The images of a pool: by the index that `embed` left, else of its tars; None where it has neither.

    cache: the folder that the lookup is kept in. report: as in ImageIndex.open. named: as in ImageIndex.of_parts.
    rows_of: as in TarWindows; with it tars in a store are not gone through, but looked into as images are asked for.
    Raises: PoolFormatError on an index or a tar that cannot be read; OSError where the folder cannot be written to, or
        is one of the user's cache, and that is full.
    """
    if not pool.has_images:
        return None
    is_ordered = bool(not pool.indexes and pool.root.remote and rows_of)
    held = hold(cache, 0 if is_ordered or (cache / _CACHED).exists() else _BYTES_A_PAIR * pool.rows)
    found: Images
    if pool.indexes:
        found = ImageIndex.of_parts(pool.root, list(pool.indexes), cache / _CACHED, report, named)
    elif is_ordered and rows_of:
        try:
            found = OrderedImages(TarWindows(pool, cache / _KEPT, rows_of))
        except OSError as error:
            expected = "tars that can be read"
            raise PoolFormatError(pool.root / "shards", expected=expected, found=reason_of(error)) from error
    else:
        found = ImageIndex.open(list(pool.tars), cache / _CACHED, report)
    found.held = held
    return found


def _away(uid: str, error: OSError) -> PoolFormatError:
    remedy = "start again when it can be read, or drop the pair"
    return PoolFormatError(f"the image of {uid}", expected="a store that answers", found=str(error), remedy=remedy)


def _open_or_write(
    path: Path, files: list[Place], blocks: Callable[[], Generator[_Block, None, None]], report: Report
) -> sqlite3.Connection:
    """The database of these files that is there, else a new one. blocks: one a file.

    Raises: OSError; whatever `report` raises.
    """
    stamped = [[file.absolute().address, *file.stamp()] for file in files]
    stamp = hashlib.sha256(json.dumps(stamped).encode()).hexdigest()
    if found := _open_database(path, stamp):
        return found
    with closing(blocks()) as parts:
        report(0, len(files), "files")

        def told() -> Iterator[_Block]:
            for done, block in enumerate(parts, 1):
                yield block
                report(done, len(files), "files")

        write_atomically(path, lambda aside: _write_database(aside, stamp, told()))
    if found := _open_database(path, stamp):
        return found
    raise OSError(f"{path} was changed while it was written")


def _open_database(path: Path, stamp: str) -> sqlite3.Connection | None:
    """A database of images, for any thread; None where there is none, or of other files, or not whole."""
    # Immutable: it was renamed into its place and nobody writes to it, and not every file system has locks.
    address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        database = sqlite3.connect(address, uri=True, check_same_thread=False, isolation_level=None)
    except sqlite3.Error:
        return None
    with suppress(sqlite3.Error):
        tables = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")]
        if tables == _TABLES and database.execute("SELECT stamp FROM about").fetchall() == [(stamp,)]:
            [(size,)] = database.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
            if size == path.stat().st_size:
                return database
    database.close()
    return None


def _write_database(path: Path, stamp: str, blocks: Iterable[_Block]) -> None:
    """Writes a database of images, of several with the same uid the first. Memory: a block, and some 100 MB.

    Raises: OSError; whatever `blocks` raises.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            # Nothing is undone: a file that is not finished is removed.
            for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536"):
                database.execute(f"PRAGMA {setting}")
            for table in _TABLES:
                database.execute(table)
            # First as they come, then in the order of uids: SQLite appends rows in a fraction of the time.
            database.execute(f"CREATE TEMP TABLE given ({_ENTRY})")
            database.execute("BEGIN")
            for block in blocks:
                kind = database.execute("INSERT INTO kinds VALUES (NULL, ?, ?)", [block.base, block.image_column])
                [(known,)] = database.execute("SELECT ifnull(max(id), 0) FROM files")
                files = ((kind.lastrowid, name) for name in block.names)
                database.executemany("INSERT INTO files VALUES (NULL, ?, ?)", files)
                if block.damage:
                    damaged = [block.names[0], block.damage, block.table.num_rows]
                    database.execute("INSERT INTO damaged VALUES (?, ?, ?)", damaged)
                # One that is too long to be read at once is left out.
                table = block.table.filter(pc.less_equal(block.table["length"], _LARGEST_IMAGE))
                given = set(table.column_names)
                columns = [np.asarray(table[name]) if name in given else np.zeros(len(table)) for name in _COLUMNS]
                columns[2] = columns[2] + (known + 1)
                rows = zip(*(column.astype(np.int64).tolist() for column in columns), strict=True)
                database.executemany("INSERT INTO given VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            database.execute("INSERT OR IGNORE INTO images SELECT * FROM given ORDER BY high, low, rowid")
            database.execute("INSERT INTO about SELECT ?, count(*) FROM given", [stamp])
            database.execute("COMMIT")
    except sqlite3.Error as error:
        full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error


def _blocks_of_parts(root: Place, paths: list[Place]) -> Generator[_Block, None, None]:
    def read(path: Place) -> _Block:
        try:
            table = parquet_file(path).read()
            described = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
            file = table["file"].combine_chunks()
            file = file.chunk(0) if isinstance(file, pa.ChunkedArray) else file
            base, image_column = described["base"], described["image_column"]
            if not os.path.isabs(base):  # a pool in a store may refer to images of the machine that it was made on
                base = (root / base).address
            entries = table.drop_columns(["file"]).append_column("place", file.indices)
            return _Block(file.dictionary.to_pylist(), entries, base, image_column)
        except (PoolFormatError, OSError, pa.ArrowException, KeyError, AttributeError) as error:
            found, remedy = str(error).split("\n")[0], "embed the pool again"
            raise PoolFormatError(path, expected="an index of images", found=found, remedy=remedy) from error

    with ThreadPoolExecutor() as threads:
        for _, block in in_order(paths, lambda path: threads.submit(read, path), _AHEAD):
            yield block


def _read_parquet_row(place: Place, column: str, row: int) -> bytes | None:
    """The bytes in one row of a column, plain or {bytes, path}; reads no more than the row's group, bit by bit."""
    # A store is asked for no more than is read: without a buffer that is all of the column's part of the group.
    buffer = _READ_AHEAD if place.remote else 0
    with place.open(in_places=place.remote) as raw, pq.ParquetFile(raw, buffer_size=buffer) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                break
            row -= rows
        else:
            return None
        for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[column]):
            if row < len(batch):
                value = batch.column(0)[row].as_py()
                return value["bytes"] if isinstance(value, dict) else value
            row -= len(batch)
    return None
