"""Where a pair's image bytes are: found in tars, or in the index that `embed` left in the pool; reads by uid."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import reach, uids
from clipsel_core.errors import PoolFormatError, UidError
from clipsel_core.pool.ahead import in_order
from clipsel_core.pool.image_lookup import Block, Damaged, Found, Kind, Lookup, write_lookup
from clipsel_core.pool.layout import Pool
from clipsel_core.pool.patience import PATIENT, in_passing
from clipsel_core.pool.places import Place
from clipsel_core.pool.tar_index import index_tars

A_ROW, WHOLE_FILE, NOWHERE = -1, -2, -3
"""In place of an image's length: it is a row of a parquet (offset: which), it is all of its file, there is none."""

_Blocks = Generator[Block, None, None]

_log = logging.getLogger(__name__)
_ROWS_AT_ONCE = 16
_FAR_APART = 1 << 14
_CACHED = "images.index"
_AHEAD = 8

Gone = Callable[[int, int], None]
"""Told how many of how many files were gone through, where images have to be found first."""


class Fetched(NamedTuple):
    """A pair's encoded image, and the bytes of the json beside it, where it lies in a tar.

    image: None where there is none, or it cannot be read. known: whether there is one.
    """

    image: bytes | None = None
    json: bytes = b""
    known: bool = False


class ImageIndex:
    """Knows for each uid the file, the offset and the length of its image.

    Reading one image costs a few small reads, whatever the pool's size, and knowing where they are no memory.
    """

    def __init__(self, lookup: Lookup, believes: Callable[[str], bool]) -> None:
        self._lookup, self._believes = lookup, believes

    @classmethod
    def open(cls, tars: list[Path], cache: Path, gone: Gone | None = None) -> ImageIndex:
        """The index of these tars, looked up in `cache` where that is still true of them, else built and kept there.

        gone: not called where they are looked up. What it raises ends the search, and nothing is kept.
        A tar that is damaged costs the images in it that cannot be found: see `damaged`.
        Raises: PoolFormatError where no image is found and a tar is damaged; OSError where `cache` cannot be written.
        """
        lookup = _kept(cache, tars, lambda: _blocks_of_tars(tars), gone)
        index = cls(lookup, {str(tar) for tar in tars}.__contains__)
        for tar, reason, found in index.damaged:
            if not len(index):
                raise PoolFormatError(tar, expected="a whole tar", found=reason, remedy="download it again")
            _log.warning("%s: not all images can be read, %s can: %s", tar, f"{found:,}", reason)
        return index

    @classmethod
    def of_parts(
        cls, root: Path, paths: list[Path], cache: Path, gone: Gone | None = None, named: Sequence[str] = ()
    ) -> ImageIndex:
        """The index that `embed` left in a pool. root: the pool's folder. paths: its images/*.parquet.

        named: places that images may lie below, beside the pool and the sources that this user embedded.
        cache, gone: as in open. Raises: PoolFormatError on one that cannot be read, or whose images lie elsewhere;
            OSError where `cache` cannot be written.
        """
        lookup = _kept(cache, paths, lambda: _blocks_of_parts(root, paths), gone)
        believed = reach.below((str(root), *named, *reach.remembered()))
        if away := next((base for base in lookup.bases if not believed(base)), None):
            away = away if "://" in away else os.path.normpath(away)
            expected = f"images below {root}, or below a place that somebody named"
            remedy = f"allow it with --read {away}, where you trust this pool"
            raise PoolFormatError(root / "images", expected=expected, found=away, remedy=remedy)
        return cls(lookup, believed)

    def __len__(self) -> int:
        return len(self._lookup)

    @property
    def damaged(self) -> list[Damaged]:
        """The tars that could not be read to their ends."""
        return self._lookup.damaged

    def read(self, uid: str) -> bytes | None:
        """The encoded image of a uid (hex), as it lies in its file; None where there is none, or no such uid."""
        try:
            found = self._find(uid)
            return self._read(found, 1)[0] if found else None
        except OSError:
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
                remedy = "start again when it can be read, or drop the pair"
                where, said = f"the image of {uid}", str(error)
                raise PoolFormatError(where, expected="a store that answers", found=said, remedy=remedy) from error
            return Fetched(known=True)

    def _find(self, uid: str) -> Found | None:
        try:
            return self._lookup.find(uids.from_hex([uid])[0])
        except (UidError, IndexError, ValueError):
            return None

    def _read(self, found: Found, tries: int) -> tuple[bytes | None, bytes]:
        """As _read_found; nothing where the place may not be read on the index's word."""
        try:
            place = Place.of(found.kind.base).patient(tries) / found.name
        except PoolFormatError:
            return None, b""
        return _read_found(found, place) if self._believes(place.address) else (None, b"")


def open_images(pool: Pool, cache: Path, gone: Gone | None = None, named: Sequence[str] = ()) -> ImageIndex | None:
    """The images of a pool: by the index that `embed` left, else of its tars; None where it has neither.

    cache: the folder that the lookup is kept in. gone: as in ImageIndex.open. named: as in ImageIndex.of_parts.
    Raises: PoolFormatError on an index or a tar that cannot be read; OSError where the folder cannot be written to.
    """
    if pool.indexes:
        return ImageIndex.of_parts(pool.root, list(pool.indexes), cache / _CACHED, gone, named)
    return ImageIndex.open(list(pool.tars), cache / _CACHED, gone) if pool.tars else None


def _kept(cache: Path, files: list[Path], blocks: Callable[[], _Blocks], gone: Gone | None) -> Lookup:
    """The lookup of these files that is kept, else a new one."""
    stamp = _stamp(files)
    found = Lookup.open(cache, stamp)
    if found is None:
        write_lookup(cache, stamp, _told(blocks(), len(files), gone) if gone else blocks())
        found = Lookup.open(cache, stamp)
    if found is None:
        raise OSError(f"{cache} was changed while it was written")
    return found


def _told(blocks: _Blocks, total: int, gone: Gone) -> Iterator[Block]:
    """The blocks, a file each, as they are; what finds them ends at once where `gone` raises."""
    with closing(blocks):
        gone(0, total)
        for done, block in enumerate(blocks, 1):
            yield block
            gone(done, total)


def _stamp(paths: list[Path]) -> str:
    """Changes when one of these does, or lies elsewhere."""
    files = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _read_found(found: Found, place: Place) -> tuple[bytes | None, bytes]:
    """An image and its json; raises OSError where its store or disk fails."""
    try:
        if found.length == A_ROW:
            return _read_parquet_row(place, found.kind.image_column, found.offset), b""
        if found.length < 0:
            return place.read(found.offset) if found.length == WHOLE_FILE else None, b""
        spans = [(found.offset, found.length), (found.json_offset, found.json_length)][: 1 + bool(found.json_length)]
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


def _blocks_of_tars(tars: list[Path]) -> _Blocks:
    """Where each image lies; see tar_index."""
    for tar, table, damage in index_tars(tars):
        yield Block(Kind(""), pa.array([str(tar)], pa.string()), table, damage)


def _blocks_of_parts(root: Path, paths: list[Path]) -> _Blocks:
    with ThreadPoolExecutor() as threads:
        for _, block in in_order(paths, lambda path: threads.submit(_block_of_part, root, path), _AHEAD):
            yield block


def _block_of_part(root: Path, path: Path) -> Block:
    try:
        table = pq.read_table(path)
        described = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
        column = table["file"].combine_chunks()
        files = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        kind = Kind((Place.of(root) / described["base"]).address, described["image_column"])
    except (PoolFormatError, OSError, pa.ArrowException, KeyError, AttributeError) as error:
        found, remedy = str(error).split("\n")[0], "embed the pool again"
        raise PoolFormatError(path, expected="an index of images", found=found, remedy=remedy) from error
    return Block(kind, files.dictionary, table.drop_columns(["file"]).append_column("place", files.indices))


def _read_parquet_row(place: Place, column: str, row: int) -> bytes | None:
    """The bytes in one row of a column, plain or {bytes, path}; reads no more than the row's group, bit by bit."""
    with place.open() as raw, pq.ParquetFile(raw) as file:
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
