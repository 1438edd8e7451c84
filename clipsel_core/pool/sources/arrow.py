"""What pairs lie in a data set that Hugging Face's `datasets` saved to disk? Arrow streams with the images inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.columns import Columns, check_texts, guess_columns, rows_in, said_in
from clipsel_core.pool.sources.image_parquet import NO_IMAGE, image_column, parts_said
from clipsel_core.pool.sources.record import Record, Source, clean_text, extent_of, facts_in, signature_of

_SPLITS, _STATE = "dataset_dict.json", "state.json"
_SEEN = 8
_END = b"\xff\xff\xff\xff\0\0\0\0"


class _Image(NamedTuple):
    """Where an image lies in its file; length None where there are no bytes. data: the bytes, if asked for."""

    offset: int
    length: int | None
    data: bytes | None
    path: str


class _Batch(NamedTuple):
    """Rows of a stream. shift: what makes an address in them an offset in the file. position: where they end."""

    rows: pa.RecordBatch
    shift: int
    position: int


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


def open_arrow(base: Place, names: Sequence[str], *, image: str | None, text: str | None) -> Source:
    """The pairs of these files, in order; a pair's key is `key`, the path beside the bytes, or file and row.

    Images lie in the file byte for byte, and are found there like those of a tar. image, text: the columns; guessed for
    each file where None.
    Raises: PoolFormatError naming a file that has no such columns, or cannot be read.
    """
    parts, sizes = [_columns(base / name, image, text) for name in names], [(base / name).size() for name in names]
    said = f"arrow, images from column {parts[0].image!r}, captions from {parts[0].text!r}{parts_said(names)}"
    signature = signature_of(names, sizes, "arrow", *dict.fromkeys(name for part in parts for name in part.all))
    read = partial(_read_part, base, names, parts)
    return Source("arrow", base, tuple(names), tuple(sizes), read, said, signature, extent_of(sizes))


def _columns(place: Place, image: str | None, text: str | None) -> Columns:
    with _reading(place) as (schema, batches):
        first = next(batches, None)

    def values(column: str) -> list[Any]:
        return first.rows.column(column)[:_SEEN].to_pylist() if first else []

    inside = image_column(schema, image, values)
    columns = guess_columns(place, schema.names, image=inside or image, text=text)
    check_texts(place, columns.text, schema.field(columns.text).type)
    if not inside:
        expected, found = f"images in column {columns.image}", str(schema.field(columns.image).type)
        raise PoolFormatError(place, expected=expected, found=found, remedy="name another with --image-column")
    return columns


def _read_part(base: Place, names: Sequence[str], parts: Sequence[Columns], part: int) -> Iterator[Record]:
    place, columns, number, position = base / names[part], parts[part], 0, 0
    with _reading(place) as (schema, batches):
        described = [column for column in columns.all if column in schema.names and column != columns.image]
        for rows, shift, position in batches:
            images = _images(place, rows.column(columns.image), shift, position, keep=base.remote)
            for row, image in zip(rows_in(rows.select(described)), images, strict=True):
                yield _record(row, image, columns, names[part], number, position)
                number += 1
    if place.read(position, len(_END)) != _END:
        yield Record(
            "", names[part], fault=f"the file is cut off at byte {position:,}: get it again", position=position
        )


def _record(row: Mapping[str, Any], image: _Image, columns: Columns, name: str, number: int, position: int) -> Record:
    key = (clean_text(row.get(columns.key)) if columns.key else "") or image.path or f"{name}:{number}"
    said = said_in(row, columns)
    if image.length is None:
        # Some write a path and no bytes.
        return Record(key, image.path or name, fault="" if image.path else NO_IMAGE, position=position, **said)
    return Record(key, name, offset=image.offset, length=image.length, data=image.data, position=position, **said)


def _images(place: Place, column: pa.Array, shift: int, end: int, *, keep: bool) -> Iterator[_Image]:
    """Where the images of a batch lie, which ends at `end`. keep: with their bytes. Raises: PoolFormatError."""
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
        if there[row]:
            begin, length = places[row], places[row + 1] - places[row]
            content = held[begin : begin + length].to_pybytes() if keep else None
            yield _Image(held.address + begin + shift, length, content, clean_text(path))
        else:
            yield _Image(0, None, None, clean_text(path))


@contextmanager
def _reading(place: Place) -> Iterator[tuple[pa.Schema, Iterator[_Batch]]]:
    """A stream's columns and rows. Raises: PoolFormatError where it is none, or damaged, or its store fails."""
    try:
        with place.open() as raw, pa.PythonFile(raw, "r") if place.remote else pa.memory_map(place.path) as file:
            messages = pa.ipc.MessageReader.open_stream(file)
            schema = pa.ipc.read_schema(messages.read_next_message())
            yield schema, _batches(place, file, messages, schema)
    except (pa.ArrowException, OSError, StopIteration, UnicodeDecodeError) as error:
        found = str(error).split("\n")[0] or "nothing"
        raise PoolFormatError(place, expected="a whole stream of Arrow", found=found, remedy="save it again") from error


def _batches(place: Place, file: Any, messages: pa.ipc.MessageReader, schema: pa.Schema) -> Iterator[_Batch]:
    for message in messages:
        if message.type != "record batch":
            remedy = "save it without dictionaries"
            raise PoolFormatError(place, expected="rows alone", found=message.type, remedy=remedy)
        end, body = file.tell(), message.body
        yield _Batch(pa.ipc.read_record_batch(message, schema), end - body.size - body.address, end)
