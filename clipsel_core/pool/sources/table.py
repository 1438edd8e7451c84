"""What pairs does a table of paths and captions name? csv, tsv, jsonl and parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.columns import Columns, check_texts, guess_columns, rows_in, said_in
from clipsel_core.pool.sources.delimited import Delimited, Row, open_text
from clipsel_core.pool.sources.image_parquet import count_rows, parts_said, read_parquet_schema
from clipsel_core.pool.sources.record import SAVE_AS, UNDECODABLE, Record, Source, clean_text, extent_of, signature_of

_ROWS_AT_ONCE = 4096
# Rows by which a jsonl shows its columns.
_LOOKED_AT = 1000


@dataclass(frozen=True)
class _Table:
    """One of a source's tables. folder: what its paths are relative to. size: in the unit of positions."""

    path: Place
    kind: str
    columns: Columns
    folder: str
    size: int
    said: str


def open_tables(
    base: Place, names: Sequence[str], kind: str, *, image: str | None = None, text: str | None = None
) -> Source:
    """The pairs of tables; paths in one are addresses, absolute, or relative to its folder. A pair's key is its path.

    Where the first lies not there, but in the one folder of this folder that has it, they are relative to that: many
    collections come as a list beside a folder of images.

    names: relative to `base`. kind: csv, tsv, jsonl or parquet. image, text: the columns' names; where None they are
        guessed, for each table.
    Raises: PoolFormatError where there is no such column, or the table cannot be read.
    """
    tables = [_table(base, name, kind, image, text) for name in names]
    first, lengths = tables[0], [(base / name).size() for name in names]
    if len(tables) == 1:
        base, names, tables = base / first.folder, [first.path.name], [replace(first, folder="")]
    said = f"{kind}, image paths from column {first.columns.image!r}, captions from {first.columns.text!r}{first.said}"
    signature = signature_of(
        names, lengths, kind, *dict.fromkeys(name for table in tables for name in table.columns.all)
    )

    def read(part: int) -> Iterator[Record]:
        table = tables[part]
        columns = table.columns
        if kind == "jsonl":
            # Rows further down may have what the first ones have not.
            columns = replace(columns, uid=columns.uid or "uid", url=columns.url or "url")
        for row in read_rows(table.path, kind):
            yield _below(table.folder, to_record(row, columns, table.path.name))

    sizes = tuple(table.size for table in tables)
    return Source(kind, base, tuple(names), sizes, read, said + parts_said(names), signature, extent_of(lengths))


def _table(base: Place, name: str, kind: str, image: str | None, text: str | None) -> _Table:
    path = base / name
    columns = guess_columns(path, column_names(path, kind), image=image, text=text)
    with closing(read_rows(path, kind)) as rows:
        first = next((row.values for row in rows if isinstance(row.values, dict)), {})
    _check_columns(path, kind, columns, first)
    own = name.rpartition("/")[0]
    inner = _inner_folder(path, to_record(Row(0, 0, first), columns, path.name).file)
    said = ", the first of each" * isinstance(first.get(columns.text), list)
    if kind in ("csv", "tsv"):
        with open_text(path) as lines:
            said += Delimited(lines, kind).said
    said += f", images in {inner}/" if inner else ""
    size = count_rows(path) if kind == "parquet" else path.size()
    return _Table(path, kind, columns, "/".join(part for part in (own, inner) if part), size, said)


def _check_columns(path: Place, kind: str, columns: Columns, first: dict[str, Any]) -> None:
    """Makes sure that both columns hold texts. Raises: PoolFormatError."""
    for column, option in ((columns.text, "--text-column"), (columns.image, "--image-column")):
        if kind == "parquet":
            check_texts(path, column, read_parquet_schema(path).field(column).type, option)
        elif kind == "jsonl" and (value := first.get(column)):
            inner = value[0] if isinstance(value, list) else value
            check_texts(path, column, pa.struct([]) if isinstance(inner, dict) else None, option)


def _inner_folder(path: Place, file: str) -> str:
    """The folder beside a table that its paths are relative to, or nothing. On this machine: elsewhere nobody seeks.

    file: the first of its paths.
    """
    folder = path.parent
    if not file or folder.remote or "://" in file or os.path.isabs(file) or (folder / file).is_file():
        return ""
    with os.scandir(folder.path or ".") as found:
        inner = sorted(entry.name for entry in found if entry.is_dir() and not entry.name.startswith("."))
    holding = [name for name in inner if (folder / name / file).is_file()]
    return holding[0] if len(holding) == 1 else ""


def _below(folder: str, record: Record) -> Record:
    """A record of a table that lies in a folder of the source."""
    if not folder or record.fault or "://" in record.file or os.path.isabs(record.file):
        return record
    file = f"{folder}/{record.file}"
    return replace(record, file=file, key=file if record.key == record.file else record.key)


def read_rows(path: Place, kind: str) -> Generator[Row, None, None]:
    """A table's rows, in order. Raises PoolFormatError and OSError."""
    if kind in ("csv", "tsv"):
        return _read_delimited(path, kind)
    return (_read_jsonl if kind == "jsonl" else _read_parquet)(path)


def column_names(path: Place, kind: str) -> list[str]:
    """A table's columns; of a jsonl those of its first rows, which may differ.

    Raises: PoolFormatError where it has no row to tell them by.
    """
    if kind == "parquet":
        return read_parquet_schema(path).names
    found, names, seen = "no rows", list[str](), dict[str, None]()
    if kind != "jsonl":
        with open_text(path) as text:
            names = [name for name in Delimited(text, kind).names if name]
    with closing(read_rows(path, kind)) as rows:
        for row in islice(rows, None if names else _LOOKED_AT):
            if names:
                return names
            if isinstance(row.values, dict):
                seen |= dict.fromkeys(row.values)
            elif found == "no rows":
                found = row.values
    if seen:
        return list(seen)
    raise PoolFormatError(path, expected="a table with a row or more", found=found)


def to_record(row: Row, columns: Columns, table: str) -> Record:
    """A row whose image column holds a path. table: its name, where a row that is no pair is to be found."""
    if isinstance(row.values, str):
        return _fault(row, table, row.values)
    file = clean_text(row.values.get(columns.image)).strip()
    if UNDECODABLE in file:
        return _fault(row, table, f"its path cannot be decoded: {SAVE_AS}")
    if not file or "\0" in file:
        return _fault(row, table, "a row without an image path")
    key = (clean_text(row.values.get(columns.key)) if columns.key else "") or file
    return Record(key=key, file=file, position=row.position, **said_in(row.values, columns))


def _fault(row: Row, table: str, reason: str) -> Record:
    where = f"{'row' if table.endswith('.parquet') else 'line'} {row.number}"
    return Record(where, table, fault=reason, position=row.position)


def _read_delimited(path: Place, kind: str) -> Generator[Row, None, None]:
    with open_text(path) as text:
        yield from Delimited(text, kind)


def _read_jsonl(path: Place) -> Generator[Row, None, None]:
    with open_text(path) as text:
        for number, line in enumerate(text.lines, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                values = None
            yield Row(text.tell(), number, values if isinstance(values, dict) else "a line that is not a JSON object")


def _read_parquet(path: Place) -> Generator[Row, None, None]:
    try:
        with path.open() as raw, pq.ParquetFile(raw) as file:
            number = 0
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                for values in rows_in(batch):
                    yield Row(number, number, values)
                    number += 1
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).split("\n")[0]
        raise PoolFormatError(path, expected="a whole parquet file", found=reason, remedy="write it again") from error
