"""Which columns and rows has a table, and what pairs does one of paths and captions name? csv, tsv, jsonl, parquet.

Text is decoded by its byte order mark; line ends and separators are told by the first line.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.errors import PoolFormatError
from clipsel_core.places import Place
from clipsel_core.pool.conventions import (
    DECODE_ERRORS,
    IMAGE_COLUMNS,
    SAVE_AS,
    SEPARATORS,
    TEXT_COLUMNS,
    UNDECODABLE,
    as_bytes,
    clean_text,
    encoding_of,
    find_column,
    separator_of,
)
from clipsel_core.pool.sources.record import SIDES, Record, Source, fields_of, source_of_files

_TEXT_KINDS = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
)
_PLAIN_KINDS = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null),
    *(pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
)
_ROWS_AT_ONCE = 4096
# Rows by which a jsonl shows its columns.
_COLUMNS_WITHIN = 1000
# Rows by which a tsv shows whether a column is quoted in all of them.
_LOOKED_AT, _ENOUGH = 100, 2
# How many lines of a tsv may be rows by themselves, beyond as many that are none, while a closing quote is looked for.
_DOUBTS = 4
# Beyond these a quote that nothing closes is taken for a quote.
_MOST_LINES, _MOST_LETTERS = 1000, 1 << 20
_ENDS = "\r\n"
_UNCLOSED = re.compile('"[^"]*(?:""[^"]*)*\\Z')


class Row(NamedTuple):
    """A row of a table. position: how far the table is read. number: of its line, from 1; in a parquet, from 0.

    values: by column, or a text that says why it cannot be read.
    """

    position: int
    number: int
    values: dict[str, Any] | str


@dataclass(frozen=True)
class TableColumns:
    """The names of a table's columns; those that it need not have may be nothing.

    others: further ones that hold numbers, truth values or texts; None for whatever else a row has. unfit: the rest.
    """

    image: str
    text: str
    uid: str = ""
    url: str = ""
    key: str = ""
    others: tuple[str, ...] | None = ()
    unfit: tuple[str, ...] = ()

    @property
    def all(self) -> list[str]:
        """Those that are there, each once."""
        names = (self.image, self.text, self.uid, self.url, self.key, *SIDES)
        return list(dict.fromkeys(name for name in names if name))

    def fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a row says of its pair beside the image and the key, as fields of a Record."""
        fields = fields_of(row, self.uid, self.url)
        fields["caption"] = clean_text(row.get(self.text))
        names: Iterable[str] = self.others or ()
        if self.others is None:
            used = self.all
            names = (name for name in row if name not in used)
        fields["others"] = {name: row[name] for name in names if row.get(name) is not None} or None
        return fields

    def key_in(self, row: Mapping[str, Any]) -> str:
        """The key that a row gives its pair, if any."""
        return clean_text(row.get(self.key)) if self.key else ""


def open_tables(
    base: Place,
    names: Sequence[str],
    kind: str,
    *,
    image: str | None = None,
    text: str | None = None,
    captions: bool = True,
) -> Source:
    """The pairs of tables; paths in one are addresses, absolute, or relative to its folder. A pair's key is its path.

    Where the first lies not there, but in the one folder of this folder that has it, they are relative to that: many
    collections come as a list beside a folder of images.

    names: relative to `base`. kind: csv, tsv, jsonl or parquet. image, text: the columns' names; where None they are
        guessed, for each table. captions: whether there have to be any.
    Raises: PoolFormatError where there is no such column, or the table cannot be read.
    """
    tables = [_table(base, name, kind, image, text, captions) for name in names]
    first = tables[0]
    if len(tables) == 1:
        base, names, tables = base / first.folder, [first.path.name], [replace(first, folder="")]

    def read(part: int) -> Iterator[Record]:
        table = tables[part]
        columns = table.columns
        if kind == "jsonl":
            # Rows further down may have what the first ones have not.
            columns = replace(columns, uid=columns.uid or "uid", url=columns.url or "url")
        for row in read_rows(table.path, kind):
            yield _record(row, columns, table.path.name, table.folder)

    said = f"{kind}, image paths from column {first.columns.image!r}{captions_said(first.columns)}{first.said}"
    return source_of_files(
        kind,
        base,
        names,
        read,
        said + parts_said(names),
        lengths=[table.path.size() for table in tables],
        columns=[name for table in tables for name in table.columns.all],
        sizes=tuple(table.size for table in tables),
        **others_of(table.columns for table in tables),
        written_as_text=kind in ("csv", "tsv"),
    )


def guess_columns(
    table: Place,
    names: Iterable[str],
    *,
    image: str | None,
    text: str | None,
    needed: bool = True,
    captions: bool = True,
    schema: pa.Schema | None = None,
) -> TableColumns:
    """The columns to read. image, text: as somebody gave them, or None to go by the usual names, in any case.

    captions: False where none are wanted. schema: of a table whose columns have types.
    Raises: PoolFormatError where one that was given is not there, or one that is `needed` cannot be guessed.
    """
    names = list(names)
    columns = TableColumns(
        image=_given(table, names, image, "--image-column", IMAGE_COLUMNS, needed),
        text=_given(table, names, text, "--text-column", TEXT_COLUMNS, needed) if captions else "",
        uid=find_column(names, ["uid"]) or "",
        url=find_column(names, ["url", "image_url"]) or "",
        key=find_column(names, ["key", "__key__"]) or "",
    )
    rest = [name for name in dict.fromkeys(names) if name and name not in columns.all]
    fit = [name for name in rest if names.count(name) == 1 and (schema is None or _is_plain(schema.field(name).type))]
    return replace(columns, others=tuple(fit), unfit=tuple(name for name in rest if name not in fit))


def others_of(columns: Iterable[TableColumns]) -> dict[str, Any]:
    """What a source of these tables knows of its further columns, as fields of a Source."""
    listed = list(columns)
    found = [part.others for part in listed]
    names = None if None in found else tuple(dict.fromkeys(name for part in found for name in part or ()))
    return {"others": names, "unfit": tuple(dict.fromkeys(name for part in listed for name in part.unfit))}


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


def rows_in(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows by column. Of a column with text that is not UTF-8, as some writers leave it, the values are bytes."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        return pa.RecordBatch.from_arrays(list(map(as_bytes, batch.columns)), batch.schema.names).to_pylist()


@contextmanager
def open_parquet(place: Place, *, remedy: str = "get it again", **options: Any) -> Iterator[pq.ParquetFile]:
    """A parquet to read from. Raises PoolFormatError where it is damaged, or its store fails."""
    try:
        with place.open() as raw, pq.ParquetFile(raw, **options) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).split("\n")[0]
        raise PoolFormatError(place, expected="a whole parquet file", found=reason, remedy=remedy) from error


def read_parquet_metadata(place: Place) -> tuple[pa.Schema, int]:
    """The columns of a parquet and its number of rows, wherever it lies."""
    with place.open() as raw, pq.ParquetFile(raw) as file:
        return file.schema_arrow, file.metadata.num_rows


def read_rows(path: Place, kind: str) -> Generator[Row, None, None]:
    """A table's rows, in order. Raises PoolFormatError and OSError."""
    if kind == "parquet":
        with open_parquet(path, remedy="write it again") as file:
            rows = chain.from_iterable(map(rows_in, file.iter_batches(_ROWS_AT_ONCE)))
            yield from (Row(number, number, values) for number, values in enumerate(rows))
        return
    with open_text(path) as (lines, ends, tell):
        yield from Delimited(lines, ends, tell, kind) if kind != "jsonl" else _json_rows(lines, tell)


@contextmanager
def open_text(place: Place) -> Iterator[tuple[Iterator[str], str, Callable[[], int]]]:
    """A file's lines, the letters that each of them ends with one or both of, and what tells how many bytes are read.

    Decoded by its byte order mark as in clean_text. Its first line end, LF or CR, is that of all.
    Raises: PoolFormatError where it is UTF-16 without the mark, or no text; OSError.
    """
    with place.open() as raw:
        head = raw.peek(1)  # type: ignore[attr-defined]
        encoding = encoding_of(head)
        if encoding == "utf-8" and head[:256].count(0) * 4 > len(head[:256]):
            raise PoolFormatError(place, expected="text", found="bytes of zero", remedy=SAVE_AS)
        shown = head.decode(encoding, "ignore")
        first = re.search("\r\n?|\n", shown)
        ends = "\n" if first is None or first[0] != "\r" else _ENDS if "\n" in shown else "\r"
        yield io.TextIOWrapper(raw, encoding, DECODE_ERRORS, ends if len(ends) == 1 else ""), ends, raw.tell


def look_into(path: Place, kind: str) -> tuple[list[str], dict[str, Any], str]:
    """A table's columns, its first row that can be read, and what is unusual about it.

    A jsonl's columns are those of its first rows, which may differ.
    Raises: PoolFormatError where it has no row to tell them by, unless it is a parquet.
    """
    if kind == "parquet":
        names = read_parquet_metadata(path)[0].names
        with closing(read_rows(path, kind)) as rows:
            return names, next((row.values for row in rows if isinstance(row.values, dict)), {}), ""
    with open_text(path) as (lines, ends, tell):
        table = Delimited(lines, ends, tell, kind) if kind != "jsonl" else None
        names, said = ([name for name in table.names if name], table.said) if table else ([], "")
        rest = iter(table) if table else _json_rows(lines, tell)
        seen = list(islice(rest, 1 if names else _COLUMNS_WITHIN))
        names = names or list(
            dict.fromkeys(name for row in seen if isinstance(row.values, dict) for name in row.values)
        )
        if not names or not seen:
            found = next((row.values for row in seen if isinstance(row.values, str)), "no rows")
            raise PoolFormatError(path, expected="a table with a row or more", found=found)
        return names, next((row.values for row in chain(seen, rest) if isinstance(row.values, dict)), {}), said


def captions_said(columns: TableColumns) -> str:
    """Where captions come from, for people; nothing where there are none."""
    return f", captions from {columns.text!r}" if columns.text else ""


def parts_said(names: Sequence[str]) -> str:
    """Which folders files lie in, for people; nothing where all lie in the one that was given."""
    folders = dict.fromkeys(name.rpartition("/")[0] for name in names)
    return f", in {', '.join(f'{folder}/' if folder else '.' for folder in folders)}" * (list(folders) != [""])


@dataclass(frozen=True)
class _Table:
    """One of a source's tables. folder: what its paths are relative to. size: in the unit of positions."""

    path: Place
    columns: TableColumns
    folder: str
    size: int
    said: str


def _table(base: Place, name: str, kind: str, image: str | None, text: str | None, captions: bool) -> _Table:
    path = base / name
    names, first, said = look_into(path, kind)
    schema = read_parquet_metadata(path)[0] if kind == "parquet" else None
    columns = guess_columns(path, names, image=image, text=text, captions=captions, schema=schema)
    columns = replace(columns, others=None) if kind == "jsonl" else columns
    for column, option in ((columns.text, "--text-column"), (columns.image, "--image-column")):
        if kind == "parquet" and column:
            check_texts(path, column, read_parquet_metadata(path)[0].field(column).type, option)
        elif kind == "jsonl" and (value := first.get(column)):
            one = value[0] if isinstance(value, list) else value
            check_texts(path, column, pa.struct([]) if isinstance(one, dict) else None, option)
    # Of the folders beside a table the one that its first path is relative to. On this machine: elsewhere nobody seeks.
    inner, beside, file = "", path.parent, clean_text(first.get(columns.image)).strip()
    found_as_said = not file or beside.remote or "://" in file or os.path.isabs(file) or (beside / file).is_file()
    if not found_as_said:
        with os.scandir(beside.path or ".") as entries:
            holding = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        holding = [folder for folder in holding if (beside / folder / file).is_file()]
        inner = holding[0] if len(holding) == 1 else ""
    said = ", the first of each" * isinstance(first.get(columns.text), list) + said
    said += f", images in {inner}/" if inner else ""
    size = read_parquet_metadata(path)[1] if kind == "parquet" else path.size()
    folders = (name.rpartition("/")[0], inner)
    return _Table(path, columns, "/".join(part for part in folders if part), size, said)


class Delimited:
    """The rows of a csv or tsv. names: of its columns in order, "" where one has none. mark: what separates fields.

    kind: csv or tsv; the mark is found in the first line, whatever the kind, and said where it is not the usual one.

    A field is quoted where it begins with a quote and a quote closes it before the next mark or line end. In a tsv
    this may as well be text with quotes in it. There a field counts as quoted only where a writer had to quote it (it
    holds a tab, a line end or a doubled quote), or where a column or the first line is quoted throughout; and lines
    of which most are a row each by itself are not joined to one.
    A row with more or fewer fields than the first line cannot be read: nothing tells which field is too many, and a
    row that is cut within its caption looks like one that is short of a field.
    """

    def __init__(self, lines: Iterator[str], ends: str, tell: Callable[[], int], kind: str) -> None:
        self._tell, self._ends, self._width, self._number = tell, ends, 0, 0
        head = list(islice(lines, _LOOKED_AT))
        self._ahead, self._lines = deque[str](), chain(head, lines)
        usual = "\t" if kind == "tsv" else ","
        self.mark = separator_of(next((line for line in head if line.strip(_ENDS)), ""), usual)
        self._quoted = re.compile(f'"([^"]*(?:""[^"]*)*)"(?={re.escape(self.mark)}|\\Z)')
        self._strict = self.mark != "\t" or _quoted_throughout(head)
        self._given = list[str]()
        self._plain = csv.reader(iter(self._given.pop, None), delimiter=self.mark, strict=True)
        self._rows = self._split()
        self.names = [name if name.strip() else "" for name in next(self._rows, (0, [""]))[1]]
        self._width = len(self.names)
        self.said = f", fields separated by {SEPARATORS[self.mark]}" if self.mark != usual else ""
        self.said += ", a column without a name left out" if "" in self.names and self._width > 1 else ""

    def __iter__(self) -> Iterator[Row]:
        names, width = self.names, self._width
        for number, fields in self._rows:
            if len(fields) != width:
                if len(fields) < width or any(fields[width:]):
                    which = "more" if len(fields) > width else "fewer"
                    said = f"{which} fields than the first line has: {len(fields)} in line {number:,}, {width} there"
                    remedy = f"quote fields that hold {SEPARATORS[self.mark]} or line ends"
                    yield Row(self._tell(), number, f"{said}; {remedy}")
                    continue
                del fields[width:]
            yield Row(self._tell(), number, dict(zip(names, fields, strict=True)))

    def _split(self) -> Iterator[tuple[int, list[str]]]:
        """The fields of each row, with the number of its first line; lines without anything are passed over."""
        while (line := self._ahead.popleft() if self._ahead else next(self._lines, None)) is not None:
            self._number += 1
            bare = line.rstrip(_ENDS)
            if '"' not in bare:
                if bare:
                    yield self._number, bare.split(self.mark)
                continue
            number = self._number
            yield number, self._joined(line) or self._fields(bare, meant=False) or []

    def _joined(self, line: str) -> list[str] | None:
        """The fields of a row that a line begins and perhaps further ones go on with; none where quotes say nothing."""
        bare = line.rstrip(_ENDS)
        if self._strict:
            # Most lines are a row, which the csv module splits in a fraction of the time; it asks for more where not.
            self._given.append(bare)
            try:
                return next(self._plain)
            except (csv.Error, IndexError):
                self._given.clear()
        if fields := self._fields(bare):
            return fields
        text, whole = line, self._is_whole(line)
        for count, more in enumerate(self._following(), 1):
            text += more
            whole += self._is_whole(more)
            if len(text) > _MOST_LETTERS or (2 * whole > count + _DOUBTS and not self._strict):
                break
            fields = self._fields(text.rstrip(_ENDS)) if '"' in more else None
            if fields is None:
                continue
            if 2 * whole > count + 1 and not self._strict:
                break
            for _ in range(count if fields else 0):
                self._ahead.popleft()
                self._number += 1
            return fields
        return None

    def _is_whole(self, line: str) -> int:
        return int(line.count(self.mark) == self._width - 1)

    def _following(self) -> Iterator[str]:
        """The next lines, which stay to be read."""
        for place in range(_MOST_LINES):
            if place == len(self._ahead):
                self._ahead.extend(islice(self._lines, 1))
            if place == len(self._ahead):
                return
            yield self._ahead[place]

    def _fields(self, text: str, *, meant: bool = True) -> list[str] | None:
        """The fields of one row; None where a quote in it is not closed, none where it is not one row.

        meant: whether quotes that nothing closes are still expected to be closed.
        """
        fields, at = list[str](), 0
        while True:
            found = self._quoted.match(text, at)
            if found and (self._strict or not found[1] or any(mark in found[1] for mark in ('""', self.mark, *_ENDS))):
                fields.append(found[1].replace('""', '"'))
                end = found.end()
            elif meant and not found and _UNCLOSED.match(text, at):
                return None
            else:
                end = text.find(self.mark, at)
                end = len(text) if end < 0 else end
                fields.append(text[at:end])
                if any(letter in fields[-1] for letter in self._ends):
                    return []
            if end == len(text):
                return fields
            at = end + 1


def _quoted_throughout(lines: list[str]) -> bool:
    """Whether a tsv's names are all quoted, or all values of one of its columns."""
    rows = [line.rstrip(_ENDS).split("\t") for line in lines if line.strip(_ENDS)]
    if not rows:
        return False
    quoted = [[len(field) > 1 and field[0] == field[-1] == '"' for field in row] for row in rows]
    values = [row for row in quoted[1:] if len(row) == len(quoted[0])]
    return all(quoted[0]) or (len(values) >= _ENOUGH and any(map(all, zip(*values, strict=True))))


def _is_plain(kind: pa.DataType) -> bool:
    """Whether a column's values are numbers, truth values or texts."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(is_kind(kind) for is_kind in _PLAIN_KINDS)


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


def _record(row: Row, columns: TableColumns, table: str, folder: str) -> Record:
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


def _json_rows(lines: Iterable[str], tell: Callable[[], int]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        yield Row(tell(), number, values if isinstance(values, dict) else "a line that is not a JSON object")
