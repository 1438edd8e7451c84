"""Where a pair's image bytes are: an index over tars, or the one that `embed` left in the pool; reads by uid."""

from __future__ import annotations

import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError, UidError
from clipsel_core.files import write_atomically
from clipsel_core.pool.layout import Pool
from clipsel_core.pool.places import Place

A_ROW, WHOLE_FILE, NOWHERE = -1, -2, -3
"""In place of an image's length: it is a row of a parquet (offset: which), it is all of its file, there is none."""

_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
_LARGEST_JSON = 1 << 20
_ROWS_AT_ONCE = 16
_WHERE = ("place", "offset", "length")
_SCHEMA = pa.schema(
    {"uid_hi": pa.uint64(), "uid_lo": pa.uint64(), "tar": pa.int32(), "offset": pa.int64(), "length": pa.int64()}
)


@dataclass(frozen=True)
class _Part:
    """Files that images lie in, relative to `base`, absolute or addresses; `image_column` of those that are parquet."""

    base: Place
    files: pa.Array
    image_column: str = ""


class ImageIndex:
    """Knows for each uid the file, the offset and the length of its image.

    Reading one image is a binary search and one read, whatever the pool's size; 36 bytes of memory a pair.
    """

    def __init__(self, parts: list[_Part], tables: list[pa.Table]) -> None:
        """parts: one for each table. tables: columns uid_hi, uid_lo, place (in the part's files), offset, length."""
        numbers = [np.full(table.num_rows, number, np.int32) for number, table in enumerate(tables)]
        table = pa.concat_tables(tables)
        keys = uids.from_halves(table["uid_hi"].to_numpy(), table["uid_lo"].to_numpy())
        order = uids.argsort(keys)
        self._parts = parts
        self._uids = keys[order]
        self._part = np.concatenate(numbers)[order]
        self._place, self._offset, self._length = (table[name].to_numpy()[order] for name in _WHERE)

    @classmethod
    def open(cls, tars: list[Path], cache: Path) -> ImageIndex:
        """The index of these tars, read from `cache` where that is still true of them, else built and kept there.

        Raises: PoolFormatError on a tar that cannot be read.
        """
        stamp = json.dumps([[tar.name, tar.stat().st_size, tar.stat().st_mtime_ns] for tar in tars])
        table = _read_cache(cache, stamp)
        if table is None:
            table = build_index(tars).replace_schema_metadata({"tars": stamp})
            write_atomically(cache, lambda aside: pq.write_table(table, aside))
        part = _Part(Place.of(""), pa.array([str(tar) for tar in tars], pa.string()))
        return cls([part], [table.rename_columns({"tar": "place"})])

    @classmethod
    def of_parts(cls, root: Path, paths: list[Path]) -> ImageIndex:
        """The index that `embed` left in a pool. root: the pool's folder. paths: its images/*.parquet.

        Raises: PoolFormatError on one that cannot be read.
        """
        parts, tables = [], []
        for path in paths:
            try:
                table = pq.read_table(path)
                described = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
                column = table["file"].combine_chunks()
                files = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
                base, image_column = Place.of(root) / described["base"], described["image_column"]
            except (PoolFormatError, OSError, pa.ArrowException, KeyError, AttributeError) as error:
                found, remedy = str(error).split("\n")[0], "embed the pool again"
                raise PoolFormatError(path, expected="an index of images", found=found, remedy=remedy) from error
            parts.append(_Part(base, files.dictionary, image_column))
            tables.append(table.drop_columns(["file"]).append_column("place", files.indices))
        return cls(parts, tables)

    def __len__(self) -> int:
        return len(self._uids)

    def read(self, uid: str) -> bytes | None:
        """The encoded image of a uid (hex), as it lies in its file; None where there is none, or no such uid."""
        try:
            wanted = uids.from_hex([uid])[0]
        except UidError:
            return None
        high, low = self._uids["f0"], self._uids["f1"]
        # In two steps, so that uids that differ in their low half alone, such as counted ones, are found as quickly.
        first, last = np.searchsorted(high, wanted["f0"], "left"), np.searchsorted(high, wanted["f0"], "right")
        row = int(first + np.searchsorted(low[first:last], wanted["f1"]))
        return self._read_row(row) if row < last and low[row] == wanted["f1"] else None

    def _read_row(self, row: int) -> bytes | None:
        part, offset, length = self._parts[self._part[row]], int(self._offset[row]), int(self._length[row])
        try:
            place = part.base / part.files[int(self._place[row])].as_py()
            if length == A_ROW:
                return _read_parquet_row(place, part.image_column, offset)
            return place.read(offset, None if length == WHOLE_FILE else length)
        except (PoolFormatError, OSError, pa.ArrowException, IndexError, ValueError):
            return None


def open_images(pool: Pool, cache: Path) -> ImageIndex | None:
    """The images of a pool: by the index that `embed` left, else of its tars; None where it has neither.

    cache: where an index of tars is kept. Raises: PoolFormatError on an index or a tar that cannot be read.
    """
    if pool.indexes:
        return ImageIndex.of_parts(pool.root, list(pool.indexes))
    return ImageIndex.open(list(pool.tars), cache) if pool.tars else None


def build_index(tars: list[Path]) -> pa.Table:
    """Where each image lies: columns uid_hi, uid_lo (uint64), tar (int32: place in `tars`), offset, length (int64).

    Reads headers and the json members only. An image whose key has no json, or no uid in it, is left out.
    """
    with ThreadPoolExecutor() as pool:
        return pa.concat_tables([_SCHEMA.empty_table(), *pool.map(_index_tar, range(len(tars)), tars)])


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


def _index_tar(number: int, path: Path) -> pa.Table:
    images: dict[str, tuple[int, int]] = {}
    names: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                key, dot, ending = member.name.rpartition(".")
                if not member.isfile():
                    continue
                if dot + ending.lower() in _IMAGE_ENDINGS:
                    images[key] = (member.offset_data, member.size)
                elif ending == "json" and member.size <= _LARGEST_JSON and (text := archive.extractfile(member)):
                    names[key] = _uid_of(text.read())
    except (tarfile.TarError, OSError, EOFError) as error:
        raise PoolFormatError(path, expected="a whole tar", found=str(error), remedy="download it again") from error
    return _table(number, [(names[key], *place) for key, place in images.items() if names.get(key)])


def _table(number: int, found: list[tuple[str, int, int]]) -> pa.Table:
    names, offsets, lengths = zip(*found, strict=True) if found else ((), (), ())
    keys = uids.from_hex(list(names))
    columns = [keys["f0"].copy(), keys["f1"].copy(), np.full(len(keys), number), offsets, lengths]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)


def _uid_of(text: bytes) -> str:
    """The uid of a json member, or nothing where it holds none that is well formed."""
    try:
        uid = json.loads(text).get("uid", "")
        uids.from_hex([uid])
    except (ValueError, AttributeError, TypeError, UidError):
        return ""
    return uid


def _read_cache(cache: Path, stamp: str) -> pa.Table | None:
    try:
        table = pq.read_table(cache)
    except (OSError, pa.ArrowInvalid):
        return None
    return table if (table.schema.metadata or {}).get(b"tars") == stamp.encode() else None
