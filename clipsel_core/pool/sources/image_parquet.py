"""What pairs lie in parquet files that hold the images themselves? Columns of {bytes, path}, or of plain bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.columns import Columns, guess_columns, said_in
from clipsel_core.pool.sources.record import Record, Source, clean_text, signature_of

# An image may have megabytes; few rows at once keep memory flat.
_ROWS_AT_ONCE = 32


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
    said = f"parquet, images from column {columns.image!r}, captions from {columns.text!r}"
    signature = signature_of(names, sizes, "parquet", *columns.all)
    read = partial(_read_part, base, names, columns)
    return Source("parquet", base, names, rows, read, said, signature, image_column=columns.image)


def read_parquet_schema(place: Place) -> pa.Schema:
    """The columns of a parquet, wherever it lies."""
    with place.open() as file:
        return pq.read_schema(file)


def count_rows(place: Place) -> int:
    """The rows of a parquet, wherever it lies."""
    with place.open() as file:
        return pq.read_metadata(file).num_rows


def _read_part(base: Place, names: tuple[str, ...], columns: Columns, part: int) -> Iterator[Record]:
    name, number = names[part], 0
    try:
        with (base / name).open() as raw, pq.ParquetFile(raw) as file:
            wanted = [column for column in columns.all if column in file.schema_arrow.names]
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=wanted):
                for row in batch.to_pylist():
                    yield _record(row, columns, name, number)
                    number += 1
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise PoolFormatError(
            base / name, expected="a whole parquet file", found=reason, remedy="get it again"
        ) from error


def _record(row: dict[str, Any], columns: Columns, name: str, number: int) -> Record:
    value = row.get(columns.image)
    data = value.get("bytes") if isinstance(value, dict) else value
    path = clean_text(value.get("path")) if isinstance(value, dict) else ""
    key = clean_text(row.get(columns.key)) or path or f"{name}:{number}"
    if data is None:
        # Some write a path and no bytes: the image lies beside the parquet then.
        fault = "" if path else "a row without an image"
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
