"""What pairs lie in tables that hold the images themselves? Parquet files, and data sets that `datasets` saved to disk.

An image is a value of plain bytes, or of {bytes, path}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from clipsel_core.errors import PoolFormatError
from clipsel_core.places import Place
from clipsel_core.pool.conventions import IMAGE_COLUMNS, IMAGE_ENDINGS, clean_text, facts_in
from clipsel_core.pool.sources.record import Record, Source, source_of_files
from clipsel_core.pool.sources.tables import (
    TableColumns,
    captions_said,
    check_texts,
    guess_columns,
    open_parquet,
    others_of,
    parts_said,
    read_parquet_metadata,
    rows_in,
)

# An image may have megabytes; few rows at once keep memory flat.
_ROWS_AT_ONCE = 32
_NO_IMAGE = "a row without an image"
# Values that show whether a column holds pictures, and bytes that are read for them at once.
_SEEN, _BUFFER = 8, 1 << 16
_PICTURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|BM.{4}\0{4}|RIFF.{4}WEBP|II\*\0|MM\0\*|.{4}ftyp|\xff\x0a|\0\0\0\x0cJXL",
    re.DOTALL,
)
_ENDINGS = tuple(ending.encode() for ending in IMAGE_ENDINGS)
_SPLITS, _STATE = "dataset_dict.json", "state.json"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def parquet_image_column(place: Place, given: str | None = None) -> str:
    """The column of a parquet that holds encoded images; nothing where none does. given: that which somebody named."""

    def values(column: str) -> Iterable[Any]:
        with open_parquet(place, buffer_size=_BUFFER) as file:
            batch = next(file.iter_batches(_SEEN, columns=[column]), None)
            return [] if batch is None else batch.column(0).to_pylist()

    return _image_column(read_parquet_metadata(place)[0], given, values)


def open_image_parquets(
    base: Place, names: tuple[str, ...], *, image: str, text: str | None, captions: bool = True
) -> Source:
    """The pairs of these files, in order; a pair's key is `key`, the path beside the bytes, or file and row.

    image: the column of images, the same in all; the others are found for each file. captions: whether there have to be
    any.
    Raises: PoolFormatError naming a file without such columns.
    """
    rows, columns, several = list[int](), list[TableColumns](), ""
    for name in names:
        with open_parquet(base / name) as file:
            schema, count = file.schema_arrow, file.metadata.num_rows
        given = guess_columns(base / name, schema.names, image=image, text=text, captions=captions, schema=schema)
        holds = _may_hold_images(schema.field(image).type)
        columns.append(_checked(base / name, schema, given, holds, "give the files alone"))
        if not rows and given.text:
            several = ", the first of each" * pa.types.is_nested(schema.field(given.text).type)
        rows.append(count)
    said = f"parquet, images from column {image!r}{captions_said(columns[0])}{several}{parts_said(names)}"
    read, glance = (partial(_read_parquet, base, names, columns, names_only=only) for only in (False, True))
    read_columns = [name for part in columns for name in part.all]
    more: dict[str, Any] = {"image_column": image, "glance": glance, **others_of(columns)}
    return source_of_files("parquet", base, names, read, said, columns=read_columns, sizes=tuple(rows), **more)


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
        for record, value in zip(listed, values, strict=True):
            data, path = _split_image(value)
            if data is not None:
                yield replace(record, data=data)
            else:
                fault = "" if path else _NO_IMAGE
                yield replace(record, file=path or record.file, in_row=False, offset=0, fault=fault)


def is_saved(folder: Place) -> bool:
    """Whether a folder is what `save_to_disk` writes: a data set, or one with several splits."""
    return (folder / _SPLITS).is_file() or (folder / _STATE).is_file()


def saved_files(folder: Place) -> list[str]:
    """The files of a saved data set, in the order of its splits and rows; what else lies beside them is a cache.

    Raises: PoolFormatError where it does not say which they are, or in which order their rows come.
    """
    if (folder / _SPLITS).is_file():
        splits = facts_in((folder / _SPLITS).read()).get("splits") or []
        return [f"{split}/{name}" for split in splits for name in saved_files(folder / split)]
    state = facts_in((folder / _STATE).read()) if (folder / _STATE).is_file() else {}
    if state.get("_indices_data_files"):
        remedy = "save it again after flatten_indices()"
        raise PoolFormatError(folder, expected="rows in their order", found="a file of indices", remedy=remedy)
    try:
        return [file["filename"] for file in state["_data_files"]]
    except (KeyError, TypeError) as error:
        expected = f"a {_STATE} with _data_files, as save_to_disk writes it"
        raise PoolFormatError(folder, expected=expected, found="none", remedy="save it again") from error


def open_arrow(
    base: Place, names: Sequence[str], *, image: str | None, text: str | None, captions: bool = True
) -> Source:
    """The pairs of these files, in order; a pair's key is `key`, the path beside the bytes, or file and row.

    Images lie in the file byte for byte, and are found there like those of a tar. image, text: the columns; guessed for
    each file where None. captions: whether there have to be any.
    Raises: PoolFormatError naming a file that has no such columns, or cannot be read.
    """
    columns = [_arrow_columns(base / name, image, text, captions) for name in names]
    said = f"arrow, images from column {columns[0].image!r}{captions_said(columns[0])}{parts_said(names)}"
    read, read_columns = partial(_read_arrow, base, names, columns), [name for part in columns for name in part.all]
    return source_of_files("arrow", base, names, read, said, columns=read_columns, **others_of(columns))


def _image_column(schema: pa.Schema, given: str | None, values: Callable[[str], Iterable[Any]]) -> str:
    """The column that holds encoded images, plain bytes or a struct with a field `bytes`; nothing where none does.

    Of several, and of plain bytes, which may be a hash, it is the first that has pictures by their first bytes.

    given: a column that somebody named, which is not looked into. values: the first values of a column.
    """
    able = [name for name in schema.names if _may_hold_images(schema.field(name).type)]
    if given or (len(able) == 1 and pa.types.is_struct(schema.field(able[0]).type)):
        return next((name for name in able if given in (None, name)), "")
    for name in able:
        if any((data := _split_image(value)[0]) and _PICTURE.match(data) for value in values(name)):
            return name
    for name in able:
        # Bytes that are no picture are faults of their rows, where the name leaves no doubt. Paths may be bytes too.
        if name.strip().lower() in IMAGE_COLUMNS or pa.types.is_struct(schema.field(name).type):
            paths = (isinstance(value, bytes) and value.lower().endswith(_ENDINGS) for value in values(name))
            if not any(paths):
                return name
    return ""


def _may_hold_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        if index < 0:
            return False
        kind = kind.field(index).type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _checked(place: Place, schema: pa.Schema, columns: TableColumns, holds_images: bool, remedy: str) -> TableColumns:
    """The columns, where they hold images and texts. Raises PoolFormatError."""
    if not holds_images:
        found = str(schema.field(columns.image).type)
        raise PoolFormatError(place, expected=f"images in column {columns.image}", found=found, remedy=remedy)
    if columns.text:
        check_texts(place, columns.text, schema.field(columns.text).type)
    return columns


def _read_parquet(
    base: Place, names: tuple[str, ...], parts: Sequence[TableColumns], part: int, *, names_only: bool
) -> Iterator[Record]:
    """names_only: images are left where they are; whether one is there shows when it is read."""
    name, columns, number = names[part], parts[part], 0
    with open_parquet(base / name) as file:
        there = file.schema_arrow
        wanted = [column for column in (*columns.all, *(columns.others or ())) if column in there.names]
        if names_only:
            used = [column for column in columns.all if column in there.names]
            wanted = [column for column in used if column not in (columns.image, columns.text)]
            kind = there.field(columns.image).type
            has_path = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
            wanted += [f"{columns.image}.path"] * has_path
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=wanted):
            for row in rows_in(batch):
                data, path = _split_image(row.get(columns.image))
                image = {"offset": number, "data": data, "in_row": True} if data is not None or names_only else None
                yield _record(row, columns, name, number, number, path, image)
                number += 1


def _arrow_columns(place: Place, image: str | None, text: str | None, captions: bool) -> TableColumns:
    with _open_stream(place) as (schema, batches):
        first = next(batches, None)

    def values(column: str) -> list[Any]:
        return first[0].column(column)[:_SEEN].to_pylist() if first else []

    inside = _image_column(schema, image, values)
    columns = guess_columns(place, schema.names, image=inside or image, text=text, captions=captions, schema=schema)
    return _checked(place, schema, columns, bool(inside), "name another with --image-column")


def _read_arrow(base: Place, names: Sequence[str], parts: Sequence[TableColumns], part: int) -> Iterator[Record]:
    place, columns, number, position = base / names[part], parts[part], 0, 0
    with _open_stream(place) as (schema, batches):
        described = [column for column in columns.all if column in schema.names and column != columns.image]
        described += columns.others or ()
        for rows, shift, position in batches:
            images = _images_in(place, rows.column(columns.image), shift, position, keep=base.remote)
            for row, (path, image) in zip(rows_in(rows.select(described)), images, strict=True):
                yield _record(row, columns, names[part], number, position, path, image)
                number += 1
    if place.read(position, len(_END_OF_STREAM)) != _END_OF_STREAM:
        fault = f"the file is cut off at byte {position:,}: get it again"
        yield Record("", names[part], fault=fault, position=position)


def _record(
    row: Mapping[str, Any],
    columns: TableColumns,
    name: str,
    number: int,
    position: int,
    path: str,
    image: Mapping[str, Any] | None,
) -> Record:
    """The pair of a row. path: beside its image's bytes. image: where these lie, as fields of a Record, if anywhere."""
    key = columns.key_in(row) or path or f"{name}:{number}"
    if image is None:
        # Some write a path and no bytes: the image lies beside the table then.
        fault = "" if path else _NO_IMAGE
        return Record(key, path or name, fault=fault, position=position, **columns.fields(row))
    return Record(key, name, position=position, **image, **columns.fields(row))


def _read_values(place: Place, column: str, rows: Sequence[int]) -> Iterator[Any]:
    """A column's values in these rows, which ascend; of a file that is read from the first to the last of them."""
    wanted, first = iter(rows), 0
    row = next(wanted)
    with open_parquet(place) as file:
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


def _split_image(value: Any) -> tuple[bytes | None, str]:
    """An image's bytes and its path, of which one may be absent."""
    if isinstance(value, dict):
        return value.get("bytes"), clean_text(value.get("path"))
    return value, ""


def _images_in(
    place: Place, column: pa.Array, shift: int, end: int, *, keep: bool
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The path of each image of a batch, and where its bytes lie, as fields of a Record, where it has some.

    end: where the batch ends. keep: also the bytes. Raises: PoolFormatError.
    """
    struct = pa.types.is_struct(column.type)
    data = column.field("bytes") if struct else column
    has_path = struct and column.type.get_field_index("path") >= 0
    paths = column.field("path").to_pylist() if has_path else [None] * len(column)
    there = (column.is_valid().to_numpy(False) & data.is_valid().to_numpy(False)).tolist()
    _, ends, held = data.buffers()
    if held and not 0 <= held.address + shift <= end - held.size:
        remedy = "save it without compression"
        raise PoolFormatError(place, expected="images as they are", found="compressed Arrow", remedy=remedy)
    kind = np.int64 if pa.types.is_large_binary(data.type) else np.int32
    places = np.frombuffer(ends, kind)[data.offset :].tolist() if len(data) else []
    for row, path in enumerate(paths):
        image = None
        if there[row]:
            begin, length = places[row], places[row + 1] - places[row]
            content = held[begin : begin + length].to_pybytes() if keep else None
            image = {"offset": held.address + begin + shift, "length": length, "data": content}
        yield clean_text(path), image


@contextmanager
def _open_stream(place: Place) -> Iterator[tuple[pa.Schema, Iterator[tuple[pa.RecordBatch, int, int]]]]:
    """A stream's columns and rows, these with what makes an address in them an offset in the file, and their end there.

    Raises: PoolFormatError where it is none, or damaged, or its store fails.
    """

    def batches(
        file: Any, messages: pa.ipc.MessageReader, schema: pa.Schema
    ) -> Iterator[tuple[pa.RecordBatch, int, int]]:
        for message in messages:
            if message.type != "record batch":
                remedy = "save it without dictionaries"
                raise PoolFormatError(place, expected="rows alone", found=message.type, remedy=remedy)
            end, body = file.tell(), message.body
            yield pa.ipc.read_record_batch(message, schema), end - body.size - body.address, end

    try:
        with place.open() as raw, pa.PythonFile(raw, "r") if place.remote else pa.memory_map(place.path) as file:
            messages = pa.ipc.MessageReader.open_stream(file)
            schema = pa.ipc.read_schema(messages.read_next_message())
            yield schema, batches(file, messages, schema)
    except (pa.ArrowException, OSError, StopIteration, UnicodeDecodeError) as error:
        found = str(error).split("\n")[0] or "nothing"
        raise PoolFormatError(place, expected="a whole stream of Arrow", found=found, remedy="save it again") from error
