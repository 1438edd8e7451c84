"""What pairs lie in parquet files that hold the images themselves? Columns of {bytes, path}, or of plain bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.sources.columns import Columns, guess_columns
from clipsel_core.pool.sources.record import Record, Source, clean_text, signature_of, usable_side, usable_uid

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


def open_image_parquets(base: Path, paths: list[Path], *, image: str | None, text: str | None) -> Source:
    """The pairs of these files, in order; a pair's key is `key`, the path beside the bytes, or file and row."""
    schema = pq.read_schema(paths[0])
    chosen = image or image_columns(schema)[0]
    columns = guess_columns(paths[0], schema.names, image=chosen, text=text)
    names = tuple(path.relative_to(base).as_posix() for path in paths)
    rows = tuple(pq.read_metadata(path).num_rows for path in paths)
    sizes = [path.stat().st_size for path in paths]
    said = f"parquet, images from column {columns.image!r}, captions from {columns.text!r}"
    signature = signature_of(names, sizes, "parquet", *columns.all)
    read = partial(_read_part, base, names, columns)
    return Source("parquet", base, names, rows, read, said, signature, image_column=columns.image)


def _read_part(base: Path, names: tuple[str, ...], columns: Columns, part: int) -> Iterator[Record]:
    name, number = names[part], 0
    try:
        with pq.ParquetFile(base / name) as file:
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
        caption=clean_text(row.get(columns.text)),
        offset=number,
        data=data,
        uid=usable_uid(row.get(columns.uid)),
        url=clean_text(row.get(columns.url)),
        width=usable_side(row.get("original_width")),
        height=usable_side(row.get("original_height")),
        position=number,
    )


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
