"""What pairs does a table of paths and captions name? csv, tsv, jsonl and parquet."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.columns import Columns, guess_columns, said_in
from clipsel_core.pool.sources.image_parquet import count_rows, read_parquet_schema
from clipsel_core.pool.sources.record import Record, Source, clean_text, extent_of, signature_of

_Row = tuple[int, Mapping[str, Any] | str]
_LONGEST_FIELD = 1 << 24
_ROWS_AT_ONCE = 4096


def open_table(path: Place, kind: str, *, image: str | None = None, text: str | None = None) -> Source:
    """The pairs of a table; paths in it are addresses, absolute, or relative to its folder. A pair's key is its path.

    Where the first lies not there, but in the one folder of this folder that has it, they are relative to that: many
    collections come as a list beside a folder of images.

    kind: csv, tsv, jsonl or parquet. image, text: the columns' names; guessed where None.
    Raises: PoolFormatError where there is no such column, or the table cannot be read.
    """
    columns = guess_columns(path, column_names(path, kind), image=image, text=text)
    length = path.size()
    size = count_rows(path) if kind == "parquet" else length
    _, first = next(read_rows(path, kind), (0, ""))
    inner = _inner_folder(path, first, columns)
    said = f"{kind}, image paths from column {columns.image!r}, captions from {columns.text!r}"
    said += ", the first of each" * (not isinstance(first, str) and isinstance(first.get(columns.text), list))
    said += f", images in {inner}/" if inner else ""
    signature = signature_of([path.name], [length], kind, *columns.all)

    def read(_: int) -> Iterator[Record]:
        for number, (position, row) in enumerate(read_rows(path, kind)):
            yield to_record(row, columns, number, position)

    base = path.parent / inner if inner else path.parent
    return Source(kind, base, (path.name,), (size,), read, said, signature, extent_of([length]))


def _inner_folder(path: Place, first: Mapping[str, Any] | str, columns: Columns) -> str:
    """The folder beside a table that its paths are relative to, or nothing. On this machine: elsewhere nobody seeks.

    first: the table's first row.
    """
    file, folder = to_record(first, columns, 0, 0).file, path.parent
    if not file or folder.remote or "://" in file or os.path.isabs(file) or (folder / file).is_file():
        return ""
    with os.scandir(folder.path or ".") as found:
        inner = sorted(entry.name for entry in found if entry.is_dir() and not entry.name.startswith("."))
    holding = [name for name in inner if (folder / name / file).is_file()]
    return holding[0] if len(holding) == 1 else ""


def read_rows(path: Place, kind: str) -> Iterator[_Row]:
    """A table's rows by column, or why one cannot be read, each with how far the file is read. Raises OSError."""
    if kind in ("csv", "tsv"):
        return _read_csv("\t" if kind == "tsv" else ",", path)
    return (_read_jsonl if kind == "jsonl" else _read_parquet)(path)


def column_names(path: Place, kind: str) -> list[str]:
    """A table's columns. Raises PoolFormatError where it has no row to tell them by."""
    if kind == "parquet":
        return read_parquet_schema(path).names
    _, first = next(read_rows(path, kind), (0, "no rows"))
    if isinstance(first, str):
        raise PoolFormatError(path, expected="a table with a row or more", found=first)
    return list(first)


def to_record(row: Mapping[str, Any] | str, columns: Columns, number: int, position: int) -> Record:
    """A row whose image column holds a path. row: a text says why it could not be read."""
    if isinstance(row, str):
        return Record(f"row {number}", "", fault=row, position=position)
    file = clean_text(row.get(columns.image)).strip()
    key = clean_text(row.get(columns.key)) or file
    if not file or "\0" in file:
        return Record(key or f"row {number}", "", fault="a row without an image path", position=position)
    return Record(
        key=key,
        file=file,
        position=position,
        **said_in(row, columns),
    )


def _read_csv(delimiter: str, path: Place) -> Iterator[_Row]:
    read = 0

    def lines() -> Iterator[str]:
        nonlocal read
        with path.open() as file:
            for number, line in enumerate(file):
                read += len(line)
                yield line.decode("utf-8" if number else "utf-8-sig", "replace")

    csv.field_size_limit(_LONGEST_FIELD)
    # What stands in a tsv between quotes is seldom meant as quoted.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    table = csv.DictReader(lines(), delimiter=delimiter, quoting=quoting, restkey="")
    while True:
        try:
            row: Mapping[str, Any] | str | None = next(table, None)
        except csv.Error as error:
            row = f"a row that is not {'tsv' if delimiter == chr(9) else 'csv'}: {error}"
        if row is None:
            return
        yield read, row


def _read_jsonl(path: Place) -> Iterator[_Row]:
    read = 0
    with path.open() as file:
        for line in file:
            read += len(line)
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig", "replace"))
            except (ValueError, RecursionError):
                row = None
            yield read, row if isinstance(row, dict) else "a line that is not a JSON object"


def _read_parquet(path: Place) -> Iterator[_Row]:
    try:
        with path.open() as raw, pq.ParquetFile(raw) as file:
            number = 0
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except pa.ArrowException as error:
        reason = str(error).split("\n")[0]
        raise PoolFormatError(path, expected="a whole parquet file", found=reason, remedy="write it again") from error
