"""What pairs lie in parquet files that hold the images themselves? Columns of {bytes, path}, or of plain bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.columns import Columns, guess_columns, said_in
from clipsel_core.pool.sources.record import Record, Source, clean_text, extent_of, signature_of

# An image may have megabytes; few rows at once keep memory flat.
_ROWS_AT_ONCE = 32
_NO_IMAGE = "a row without an image"


def holds_images(schema: pa.Schema, column: str) -> bool:
    """Whether a column holds encoded images: plain bytes, or a struct with a field `bytes`."""
    kind = schema.field(column).type
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return _is_binary(kind)


def image_columns(schema: pa.Schema) -> list[str]:
    """The columns that hold encoded images."""
    return [name for name in schema.names if holds_images(schema, name)]


def open_image_parquets(base: Place, names: tuple[str, ...], *, image: str | None, text: str | None) -> Source:
    """The pairs of these files, in order; a pair's key is `key`, the path beside the bytes, or file and row."""
    schema = read_parquet_schema(base / names[0])
    chosen = image or image_columns(schema)[0]
    columns = guess_columns(base / names[0], schema.names, image=chosen, text=text)
    rows = tuple(count_rows(base / name) for name in names)
    sizes = [(base / name).size() for name in names]
    several = ", the first of each" * pa.types.is_nested(schema.field(columns.text).type)
    said = f"parquet, images from column {columns.image!r}, captions from {columns.text!r}{several}"
    signature = signature_of(names, sizes, "parquet", *columns.all)
    read, glance = (partial(_read_part, base, names, columns, names_only=only) for only in (False, True))
    extent = extent_of(sizes)
    return Source("parquet", base, names, rows, read, said, signature, extent, columns.image, glance=glance)


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
    base: Place, names: tuple[str, ...], columns: Columns, part: int, *, names_only: bool
) -> Iterator[Record]:
    name, number = names[part], 0
    with _reading(base / name) as file:
        there = file.schema_arrow
        wanted = [column for column in columns.all if column in there.names]
        if names_only:
            wanted = [column for column in wanted if column not in (columns.image, columns.text)]
            wanted += _path_beside(there, columns.image)
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=wanted):
            for row in batch.to_pylist():
                yield _record(row, columns, name, number, unread=names_only)
                number += 1


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
    data, path = _split(value)
    if data is not None:
        return replace(record, data=data)
    return replace(record, file=path or record.file, in_row=False, offset=0, fault="" if path else _NO_IMAGE)


def _split(value: Any) -> tuple[bytes | None, str]:
    """An image's bytes and its path, of which one may be absent."""
    if isinstance(value, dict):
        return value.get("bytes"), clean_text(value.get("path"))
    return value, ""


@contextmanager
def _reading(place: Place) -> Iterator[pq.ParquetFile]:
    """A parquet to read from. Raises PoolFormatError where it is damaged, or its store fails."""
    try:
        with place.open() as raw, pq.ParquetFile(raw) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise PoolFormatError(place, expected="a whole parquet file", found=reason, remedy="get it again") from error


def _record(row: dict[str, Any], columns: Columns, name: str, number: int, *, unread: bool) -> Record:
    """unread: the image was left where it is; whether it is there shows when it is read."""
    data, path = _split(row.get(columns.image))
    key = clean_text(row.get(columns.key)) or path or f"{name}:{number}"
    if data is None and not unread:
        # Some write a path and no bytes: the image lies beside the parquet then.
        fault = "" if path else _NO_IMAGE
        return Record(key, path or name, caption=clean_text(row.get(columns.text)), fault=fault, position=number)
    return Record(
        key=key,
        file=name,
        offset=number,
        data=data,
        in_row=True,
        position=number,
        **said_in(row, columns),
    )


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
