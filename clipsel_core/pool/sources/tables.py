"""Which columns and rows has a table, and what pairs does one of paths and captions name? csv, tsv, jsonl, parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.conventions import find_column
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.record import SIDES, Record, Source, extent_of, fields_of, signature_of
from clipsel_core.pool.sources.text import SAVE_AS, UNDECODABLE, Delimited, Row, Text, clean_text, open_text

_IMAGE_NAMES = (
    *("image_path", "img_path", "path", "filepath", "file_path", "file_name", "filename", "file"),
    *("image", "img", "image_name", "image_file", "image_id", "photo", "picture", "jpg", "png", "webp"),
)
_TEXT_NAMES = ("caption", "text", "txt", "captions", "description", "title", "alt", "alt_text", "sentence", "comment")
_TEXT_KINDS = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
)
_ROWS_AT_ONCE = 4096
# Rows by which a jsonl shows its columns.
_LOOKED_AT = 1000


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns; those that it need not have may be nothing."""

    image: str
    text: str
    uid: str = ""
    url: str = ""
    key: str = ""

    @property
    def all(self) -> list[str]:
        """Those that are there, each once."""
        names = (self.image, self.text, self.uid, self.url, self.key, *SIDES)
        return list(dict.fromkeys(name for name in names if name))

    def fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a row says of its pair beside the image and the key, as fields of a Record."""
        fields = fields_of(row, self.uid, self.url)
        fields["caption"] = clean_text(row.get(self.text))
        return fields

    def key_in(self, row: Mapping[str, Any]) -> str:
        """The key that a row gives its pair, if any."""
        return clean_text(row.get(self.key)) if self.key else ""


class Glimpse(NamedTuple):
    """What a table shows at its beginning. first: its first row that can be read. said: what is unusual about it."""

    names: list[str]
    first: dict[str, Any]
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
    columns = dict.fromkeys(name for table in tables for name in table.columns.all)
    signature = signature_of(names, lengths, kind, *columns)

    def read(part: int) -> Iterator[Record]:
        table = tables[part]
        columns = table.columns
        if kind == "jsonl":
            # Rows further down may have what the first ones have not.
            columns = replace(columns, uid=columns.uid or "uid", url=columns.url or "url")
        for row in read_rows(table.path, kind):
            yield _record(row, columns, table.path.name, table.folder)

    sizes = tuple(table.size for table in tables)
    return Source(kind, base, tuple(names), sizes, read, said + parts_said(names), signature, extent_of(lengths))


def guess_columns(
    table: Place, names: Iterable[str], *, image: str | None, text: str | None, needed: bool = True
) -> Columns:
    """The columns to read. image, text: as somebody gave them, or None to go by the usual names, in any case.

    Raises: PoolFormatError where one that was given is not there, or one that is `needed` cannot be guessed.
    """
    names = list(names)
    return Columns(
        image=_given(table, names, image, "--image-column", _IMAGE_NAMES, needed),
        text=_given(table, names, text, "--text-column", _TEXT_NAMES, needed),
        uid=find_column(names, ["uid"]) or "",
        url=find_column(names, ["url", "image_url"]) or "",
        key=find_column(names, ["key", "__key__"]) or "",
    )


def refuse_columns(where: str, image: str | None, text: str | None) -> None:
    """Raises PoolFormatError where a column is named of something that has none."""
    if image or text:
        option, remedy = "--image-column" if image else "--text-column", "leave it out, or say which --format"
        found = str(image or text)
        raise PoolFormatError(option, expected=f"no column, as {where} has none", found=found, remedy=remedy)


def check_texts(table: Place, column: str, kind: pa.DataType | None, option: str = "--text-column") -> None:
    """Makes sure that a column holds texts, or lists of them. kind: its type, None where it has none of its own.

    Raises: PoolFormatError naming it.
    """
    inner = kind
    while inner is not None and hasattr(inner, "value_type"):
        inner = inner.value_type
    if inner is None or any(is_kind(inner) for is_kind in _TEXT_KINDS):
        return
    remedy = f"name another with {option}"
    raise PoolFormatError(table, expected=f"texts in column {column}", found=str(kind), remedy=remedy)


def is_image_name(name: str) -> bool:
    """Whether a column with this name usually holds images or their paths."""
    return name.strip().lower() in _IMAGE_NAMES


def rows_in(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows by column. Of a column with text that is not UTF-8, as some writers leave it, the values are bytes."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        return pa.RecordBatch.from_arrays(list(map(as_bytes, batch.columns)), batch.schema.names).to_pylist()


def as_bytes(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """A column of texts, or of lists of them, as bytes: one that is not UTF-8 would keep all from being read."""
    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        kind = kind.value_type
        column = pc.cast(column, kind)
    if types.is_list(kind) and types.is_string(kind.value_type):
        return pc.cast(column, pa.list_(pa.binary()))
    if types.is_large_list(kind) and types.is_large_string(kind.value_type):
        return pc.cast(column, pa.large_list(pa.large_binary()))
    if types.is_string(kind) or types.is_string_view(kind):
        return pc.cast(column, pa.binary())
    return pc.cast(column, pa.large_binary()) if types.is_large_string(kind) else column


@contextmanager
def open_parquet(place: Place, *, remedy: str = "get it again", **options: Any) -> Iterator[pq.ParquetFile]:
    """A parquet to read from. Raises PoolFormatError where it is damaged, or its store fails."""
    try:
        with place.open() as raw, pq.ParquetFile(raw, **options) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).split("\n")[0]
        raise PoolFormatError(place, expected="a whole parquet file", found=reason, remedy=remedy) from error


def read_parquet_schema(place: Place) -> pa.Schema:
    """The columns of a parquet, wherever it lies."""
    with place.open() as file:
        return pq.read_schema(file)


def count_rows(place: Place) -> int:
    """The rows of a parquet, wherever it lies."""
    with place.open() as file:
        return pq.read_metadata(file).num_rows


def read_rows(path: Place, kind: str) -> Generator[Row, None, None]:
    """A table's rows, in order. Raises PoolFormatError and OSError."""
    if kind == "parquet":
        with open_parquet(path, remedy="write it again") as file:
            rows = chain.from_iterable(map(rows_in, file.iter_batches(_ROWS_AT_ONCE)))
            yield from (Row(number, number, values) for number, values in enumerate(rows))
        return
    with open_text(path) as text:
        yield from Delimited(text, kind) if kind != "jsonl" else _json_rows(text)


def look_into(path: Place, kind: str) -> Glimpse:
    """A table's columns and its first row; a jsonl's columns are those of its first rows, which may differ.

    Raises: PoolFormatError where it has no row to tell them by, unless it is a parquet.
    """
    if kind == "parquet":
        names = read_parquet_schema(path).names
        with closing(read_rows(path, kind)) as rows:
            return Glimpse(names, next((row.values for row in rows if isinstance(row.values, dict)), {}), "")
    with open_text(path) as text:
        table = Delimited(text, kind) if kind != "jsonl" else None
        names, said = ([name for name in table.names if name], table.said) if table else ([], "")
        rest = iter(table) if table else _json_rows(text)
        seen = list(islice(rest, 1 if names else _LOOKED_AT))
        names = names or list(
            dict.fromkeys(name for row in seen if isinstance(row.values, dict) for name in row.values)
        )
        if not names or not seen:
            found = next((row.values for row in seen if isinstance(row.values, str)), "no rows")
            raise PoolFormatError(path, expected="a table with a row or more", found=found)
        return Glimpse(names, next((row.values for row in chain(seen, rest) if isinstance(row.values, dict)), {}), said)


def parts_said(names: Sequence[str]) -> str:
    """Which folders files lie in, for people; nothing where all lie in the one that was given."""
    folders = dict.fromkeys(name.rpartition("/")[0] for name in names)
    return f", in {', '.join(f'{folder}/' if folder else '.' for folder in folders)}" * (list(folders) != [""])


@dataclass(frozen=True)
class _Table:
    """One of a source's tables. folder: what its paths are relative to. size: in the unit of positions."""

    path: Place
    columns: Columns
    folder: str
    size: int
    said: str


def _table(base: Place, name: str, kind: str, image: str | None, text: str | None) -> _Table:
    path = base / name
    names, first, said = look_into(path, kind)
    columns = guess_columns(path, names, image=image, text=text)
    for column, option in ((columns.text, "--text-column"), (columns.image, "--image-column")):
        if kind == "parquet":
            check_texts(path, column, read_parquet_schema(path).field(column).type, option)
        elif kind == "jsonl" and (value := first.get(column)):
            inner = value[0] if isinstance(value, list) else value
            check_texts(path, column, pa.struct([]) if isinstance(inner, dict) else None, option)
    inner = _inner_folder(path, clean_text(first.get(columns.image)).strip())
    said = ", the first of each" * isinstance(first.get(columns.text), list) + said
    said += f", images in {inner}/" if inner else ""
    size = count_rows(path) if kind == "parquet" else path.size()
    folders = (name.rpartition("/")[0], inner)
    return _Table(path, columns, "/".join(part for part in folders if part), size, said)


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


def _given(table: Place, names: list[str], given: str | None, option: str, usual: tuple[str, ...], needed: bool) -> str:
    column = given if given in names else "" if given else find_column(names, usual) or ""
    if column and names.count(column) > 1:
        found, remedy = f"{names.count(column)}", "rename the others"
        raise PoolFormatError(table, expected=f"one column {column}", found=found, remedy=remedy)
    if not column and (given or needed):
        expected = f"a column {given}" if given else f"a column named like {', '.join(usual[:6])}"
        found = ", ".join(name[:40] for name in names[:20]) or "none"
        remedy = f"name it with {option}; the names stand in the table's first line"
        raise PoolFormatError(table, expected=expected, found=found, remedy=remedy)
    return column


def _record(row: Row, columns: Columns, table: str, folder: str) -> Record:
    """A row whose image column holds a path. table: its name, where a row that is no pair is to be found.

    folder: what paths are relative to, within the source.
    """
    fault, file = "", ""
    if isinstance(row.values, str):
        fault = row.values
    else:
        file = clean_text(row.values.get(columns.image)).strip()
        if UNDECODABLE in file:
            fault = f"its path cannot be decoded: {SAVE_AS}"
        elif not file or "\0" in file:
            fault = "a row without an image path"
    if fault or isinstance(row.values, str):
        where = f"{'row' if table.endswith('.parquet') else 'line'} {row.number}"
        return Record(where, table, fault=fault, position=row.position)
    key = columns.key_in(row.values)
    if folder and "://" not in file and not os.path.isabs(file):
        key, file = "" if key == file else key, f"{folder}/{file}"
    return Record(key=key or file, file=file, position=row.position, **columns.fields(row.values))


def _json_rows(text: Text) -> Iterator[Row]:
    for number, line in enumerate(text.lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        yield Row(text.tell(), number, values if isinstance(values, dict) else "a line that is not a JSON object")
