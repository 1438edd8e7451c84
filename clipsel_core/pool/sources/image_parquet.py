"""What pairs lie in parquet files that hold the images themselves? Columns of {bytes, path}, or of plain bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.conventions import IMAGE_ENDINGS
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.columns import Columns, check_texts, guess_columns, is_image_name, rows_in, said_in
from clipsel_core.pool.sources.record import Record, Source, clean_text, extent_of, signature_of

# An image may have megabytes; few rows at once keep memory flat.
_ROWS_AT_ONCE = 32
NO_IMAGE = "a row without an image"
# Values that show whether a column holds pictures, and bytes that are read for them at once.
_SEEN, _BUFFER = 8, 1 << 16
_PICTURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|BM.{4}\0{4}|RIFF.{4}WEBP|II\*\0|MM\0\*|.{4}ftyp|\xff\x0a|\0\0\0\x0cJXL",
    re.DOTALL,
)

_ENDINGS = tuple(ending.encode() for ending in IMAGE_ENDINGS)


def image_column(schema: pa.Schema, given: str | None, values: Callable[[str], Iterable[Any]]) -> str:
    """The column that holds encoded images, plain bytes or a struct with a field `bytes`; nothing where none does.

    Of several, and of plain bytes, which may be a hash, it is the first that has pictures by their first bytes.

    given: a column that somebody named, which is not looked into. values: the first values of a column.
    """
    able = [name for name in schema.names if _may_hold_images(schema.field(name).type)]
    if given or (len(able) == 1 and pa.types.is_struct(schema.field(able[0]).type)):
        return next((name for name in able if given in (None, name)), "")
    seen = (name for name in able if any(_is_picture(split_image(value)[0]) for value in values(name)))
    # Bytes that are no picture are faults of their rows, where the name leaves no doubt. Paths may be bytes as well.
    usual = (name for name in able if is_image_name(name) or pa.types.is_struct(schema.field(name).type))
    return next(seen, next((name for name in usual if not any(map(_is_path, values(name)))), ""))


def parquet_image_column(place: Place, given: str | None = None) -> str:
    """The column of a parquet that holds encoded images; nothing where none does."""

    def values(column: str) -> Iterable[Any]:
        with _reading(place, buffer_size=_BUFFER) as file:
            batch = next(file.iter_batches(_SEEN, columns=[column]), None)
            return [] if batch is None else batch.column(0).to_pylist()

    return image_column(read_parquet_schema(place), given, values)


def open_image_parquets(base: Place, names: tuple[str, ...], *, image: str, text: str | None) -> Source:
    """The pairs of these files, in order; a pair's key is `key`, the path beside the bytes, or file and row.

    image: the column of images, the same in all; the others are found for each file.
    Raises: PoolFormatError naming a file without such columns.
    """
    heads = [_head(base / name) for name in names]
    columns = [_columns(base / name, schema, image, text) for name, (schema, _) in zip(names, heads, strict=True)]
    first = columns[0]
    sizes = [(base / name).size() for name in names]
    several = ", the first of each" * pa.types.is_nested(heads[0][0].field(first.text).type)
    said = f"parquet, images from column {image!r}, captions from {first.text!r}{several}{parts_said(names)}"
    every = dict.fromkeys(name for part in columns for name in part.all)
    signature = signature_of(names, sizes, "parquet", *every)
    read, glance = (partial(_read_part, base, names, columns, names_only=only) for only in (False, True))
    rows, extent = tuple(count for _, count in heads), extent_of(sizes)
    return Source("parquet", base, names, rows, read, said, signature, extent, image, glance=glance)


def parts_said(names: Sequence[str]) -> str:
    """Which folders files lie in, for people; nothing where all lie in the one that was given."""
    folders = dict.fromkeys(name.rpartition("/")[0] for name in names)
    return f", in {', '.join(f'{folder}/' if folder else '.' for folder in folders)}" * (list(folders) != [""])


def with_images(base: Place, column: str, records: Iterable[Record]) -> Iterator[Record]:
    """The records, those that are rows of a parquet with their images.

    records: those of a file one after the other, in the order of their rows, so that each is gone through once.
    Raises: PoolFormatError where a file cannot be read.
    """
    for (name, in_row), some in groupby(records, lambda record: (record.file, record.in_row)):
        if not in_row:
            yield from some
            continue
        listed = list(some)
        values = _read_values(base / name, column, [record.offset for record in listed])
        yield from (_with_image(record, value) for record, value in zip(listed, values, strict=True))


def read_parquet_schema(place: Place) -> pa.Schema:
    """The columns of a parquet, wherever it lies."""
    with place.open() as file:
        return pq.read_schema(file)


def count_rows(place: Place) -> int:
    """The rows of a parquet, wherever it lies."""
    with place.open() as file:
        return pq.read_metadata(file).num_rows


def _read_part(
    base: Place, names: tuple[str, ...], parts: Sequence[Columns], part: int, *, names_only: bool
) -> Iterator[Record]:
    name, columns, number = names[part], parts[part], 0
    with _reading(base / name) as file:
        there = file.schema_arrow
        wanted = [column for column in columns.all if column in there.names]
        if names_only:
            wanted = [column for column in wanted if column not in (columns.image, columns.text)]
            wanted += _path_beside(there, columns.image)
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=wanted):
            for row in rows_in(batch):
                yield _record(row, columns, name, number, unread=names_only)
                number += 1


def _head(place: Place) -> tuple[pa.Schema, int]:
    """A parquet's columns and rows."""
    with _reading(place) as file:
        return file.schema_arrow, file.metadata.num_rows


def _columns(place: Place, schema: pa.Schema, image: str, text: str | None) -> Columns:
    columns = guess_columns(place, schema.names, image=image, text=text)
    if not _may_hold_images(schema.field(image).type):
        found = str(schema.field(image).type)
        raise PoolFormatError(place, expected=f"images in column {image}", found=found, remedy="give the files alone")
    check_texts(place, columns.text, schema.field(columns.text).type)
    return columns


def _path_beside(schema: pa.Schema, column: str) -> list[str]:
    """The name of the path that stands beside an image's bytes, if there is one."""
    kind = schema.field(column).type
    return [f"{column}.path"] if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 else []


def _read_values(place: Place, column: str, rows: Sequence[int]) -> Iterator[Any]:
    """A column's values in these rows, which ascend; of a file that is read from the first to the last of them."""
    wanted, first = iter(rows), 0
    row = next(wanted)
    with _reading(place) as file:
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            if row < last:
                for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[column]):
                    while first <= row < first + len(batch):
                        yield batch.column(0)[row - first].as_py()
                        row = next(wanted, -1)
                    if row < 0:
                        return
                    first += len(batch)
            first = last


def _with_image(record: Record, value: Any) -> Record:
    data, path = split_image(value)
    if data is not None:
        return replace(record, data=data)
    return replace(record, file=path or record.file, in_row=False, offset=0, fault="" if path else NO_IMAGE)


def split_image(value: Any) -> tuple[bytes | None, str]:
    """An image's bytes and its path, of which one may be absent."""
    if isinstance(value, dict):
        return value.get("bytes"), clean_text(value.get("path"))
    return value, ""


@contextmanager
def _reading(place: Place, **options: Any) -> Iterator[pq.ParquetFile]:
    """A parquet to read from. Raises PoolFormatError where it is damaged, or its store fails."""
    try:
        with place.open() as raw, pq.ParquetFile(raw, **options) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).split("\n")[0]
        raise PoolFormatError(place, expected="a whole parquet file", found=reason, remedy="get it again") from error


def _record(row: dict[str, Any], columns: Columns, name: str, number: int, *, unread: bool) -> Record:
    """unread: the image was left where it is; whether it is there shows when it is read."""
    data, path = split_image(row.get(columns.image))
    key = (clean_text(row.get(columns.key)) if columns.key else "") or path or f"{name}:{number}"
    if data is None and not unread:
        # Some write a path and no bytes: the image lies beside the parquet then.
        fault = "" if path else NO_IMAGE
        return Record(key, path or name, fault=fault, position=number, **said_in(row, columns))
    return Record(
        key=key,
        file=name,
        offset=number,
        data=data,
        in_row=True,
        position=number,
        **said_in(row, columns),
    )


def _may_hold_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return _is_binary(kind)


def _is_picture(data: bytes | None) -> bool:
    return bool(data and _PICTURE.match(data))


def _is_path(value: Any) -> bool:
    return isinstance(value, bytes) and value.lower().endswith(_ENDINGS)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
