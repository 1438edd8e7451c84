"""What pairs lie in .npy files of embeddings? clip-retrieval's output, or any two .npy of as many rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np

from clipsel_core.errors import PoolFormatError, counted, reason_of
from clipsel_core.npy import read_header
from clipsel_core.places import Place
from clipsel_core.pool.conventions import clean_text
from clipsel_core.pool.sources.record import Record, Source, source_of_files
from clipsel_core.pool.sources.tables import (
    TableColumns,
    check_texts,
    guess_columns,
    look_into,
    open_text,
    others_of,
    read_parquet_metadata,
    read_rows,
    refuse_columns,
)

_IMAGE_WORDS, _TEXT_WORDS = ("img", "image"), ("txt", "text", "caption")
_TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".txt")
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class _Part:
    """Two arrays of as many rows, and the table that describes them, if any; names relative to the source."""

    image: str
    text: str
    table: str
    rows: int
    columns: TableColumns


def open_arrays(place: Place, kind: str, *, image: str | None = None, text: str | None = None) -> Source:
    """The pairs of a folder of embeddings, in the order of the files' names.

    kind: "clip-retrieval" for img_emb/, text_emb/ and metadata/; "npy" for .npy files named after image and text (img,
    image; txt, text, caption) and perhaps as many tables, or .txt of a caption a line, beside them. A table tells
    caption, uid, url, key and the path of the image, where it has them.
    Raises: PoolFormatError where files are missing or disagree in their rows.
    """
    if kind == "clip-retrieval":
        folders = (("img_emb", ".npy"), ("text_emb", ".npy"), ("metadata", ".parquet"))
        images, texts, tables = (
            [f"{folder}/{name}" for name in _in_turn((place / folder).files(ending, deep=False))]
            if (place / folder).is_dir()
            else []
            for folder, ending in folders
        )
    else:
        images, texts, tables = _npy_files(place)
    if not images or len(images) != len(texts) or (tables and len(tables) != len(images)):
        found = f"{len(images)} of images, {len(texts)} of captions, {counted(len(tables), 'tables')}"
        expected = "as many .npy of captions as of images, and as many tables or none"
        raise PoolFormatError(place, expected=expected, found=found)
    given = zip(images, texts, tables or [""] * len(images), strict=True)
    parts = [_part(place, *names, (image, text)) for names in given]
    columns = parts[0].columns
    if other := next((part for part in parts if bool(part.columns.text) != bool(columns.text)), None):
        with_texts, without = (parts[0], other) if columns.text else (other, parts[0])
        expected, remedy = f"captions, as in {with_texts.table}", "name their column as there"
        raise PoolFormatError(place / without.table, expected=expected, found="none", remedy=remedy)
    described = f", captions from {columns.text!r}" if columns.text else ", no captions"
    said = f"embeddings of {counted(sum(part.rows for part in parts), 'pairs')} in {len(parts):,} .npy each{described}"
    return source_of_files(
        kind,
        place,
        [name for part in parts for name in (part.image, part.text, part.table) if name],
        lambda number: _read_part(place, parts[number]),
        said,
        columns=[name for part in parts for name in part.columns.all],
        parts=tuple(part.image for part in parts),
        sizes=tuple(part.rows for part in parts),
        **others_of(part.columns for part in parts),
        written_as_text=parts[0].table.endswith((".csv", ".tsv")),
    )


def _npy_files(place: Place) -> tuple[list[str], list[str], list[str]]:
    if not place.is_dir():
        raise PoolFormatError(place, expected="a folder with .npy files", found="a file", remedy="give its folder")
    arrays = _in_turn(place.files(".npy", deep=False))
    images = [name for name in arrays if any(word in name.lower() for word in _IMAGE_WORDS)]
    texts = [name for name in arrays if name not in images and any(word in name.lower() for word in _TEXT_WORDS)]
    if left := [name for name in arrays if name not in (*images, *texts)]:
        expected = f"each .npy named after {', '.join(_IMAGE_WORDS)} or {', '.join(_TEXT_WORDS)}"
        raise PoolFormatError(place, expected=expected, found=left[0], remedy="rename it")
    return images, texts, _in_turn(place.files(*_TABLES, deep=False))


def _in_turn(files: Iterable[tuple[str, int]]) -> list[str]:
    """The names of files in the order of the numbers in them: img_emb_2.npy before img_emb_10.npy."""

    def turn(name: str) -> tuple[list[int], str]:
        digits = "".join(letter if letter.isascii() and letter.isdigit() else " " for letter in name)
        return [int(number) for number in digits.split()], name

    return sorted((name for name, _ in files), key=turn)


def _part(place: Place, image: str, text: str, table: str, columns: tuple[str | None, str | None]) -> _Part:
    """A part whose rows agree. A csv's are counted as they are read. columns: those that somebody named."""
    rows = {}
    for name in (image, text):
        with (place / name).open() as file:
            rows[name] = _read_header(place / name, file)[0][0]
    found = TableColumns(image="", text="text" if table else "")
    if not table or table.endswith(".txt"):
        refuse_columns("a .txt of captions" if table else "a folder of .npy alone", *columns)
    else:
        path, schema = place / table, None
        if path.ending == "parquet":
            schema, rows[table] = read_parquet_metadata(path)
        names = look_into(path, path.ending)[0] if schema is None else schema.names
        found = guess_columns(path, names, image=columns[0], text=columns[1], needed=False, schema=schema)
        found = replace(found, others=None) if path.ending == "jsonl" else found
        if found.text and schema:
            check_texts(path, found.text, schema.field(found.text).type)
    if len(set(rows.values())) > 1:
        differ = ", ".join(f"{count:,} in {name}" for name, count in rows.items())
        raise PoolFormatError(place, expected=f"as many rows as in {image}", found=differ)
    return _Part(image, text, table, rows[image], found)


def _read_part(base: Place, part: _Part) -> Iterator[Record]:
    columns, rows = part.columns, _table_rows(base, part)
    with (base / part.image).open() as images, (base / part.text).open() as texts:
        pairs = zip(_read_array(base / part.image, images), _read_array(base / part.text, texts), strict=True)
        for number, (image, text) in enumerate(pairs):
            row = next(rows, f"{part.table} ends at its row {number:,}")
            if isinstance(row, str):
                yield Record(f"{part.image}:{number}", part.image, fault=row, position=number)
                continue
            path = clean_text(row.get(columns.image)).strip() if columns.image else ""
            # clip-retrieval writes a tar's keys in the place of paths.
            able = path and "\0" not in path and not path.startswith("data:")
            there = able and ("://" in path or base.remote or (base / path).is_file())
            yield Record(
                key=columns.key_in(row) or path or f"{part.image}:{number}",
                file=path if there else "",
                embeddings=np.stack([image, text]),
                position=number,
                **columns.fields(row),
            )
    if next(rows, None) is not None and part.table:
        expected = f"{counted(part.rows, 'rows')}, as in {part.image}"
        raise PoolFormatError(base / part.table, expected=expected, found="more")


def _table_rows(base: Place, part: _Part) -> Iterator[Mapping[str, Any] | str]:
    if not part.table:
        yield from ({} for _ in range(part.rows))
    elif part.table.endswith(".txt"):
        with open_text(base / part.table) as (lines, _, _):
            yield from ({"text": line.rstrip("\r\n")} for line in lines)
    else:
        yield from (row.values for row in read_rows(base / part.table, (base / part.table).ending))


def _read_header(place: Place, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a .npy; the file stands at its values then. Raises PoolFormatError on what is no (N, D)."""
    try:
        header = read_header(file, place.size())
    except ValueError as error:
        raise PoolFormatError(place, expected="a .npy of embeddings", found=reason_of(error)) from error
    shape, dtype = header.shape, header.dtype
    if len(shape) != 2 or 0 in shape[1:] or dtype.kind != "f" or dtype.itemsize > 8 or header.fortran_order:
        order = ", by columns" if header.fortran_order else ""
        raise PoolFormatError(place, expected="(N, D) floats, by rows", found=f"shape {shape}, {dtype}{order}")
    return shape, dtype


def _read_array(place: Place, file: BinaryIO) -> Iterator[np.ndarray]:
    """The rows of a .npy, read in blocks: (D,) each, as stored."""
    (count, width), dtype = _read_header(place, file)
    for start in range(0, count, _ROWS_AT_ONCE):
        rows = min(_ROWS_AT_ONCE, count - start)
        data = file.read(rows * width * dtype.itemsize)
        if len(data) < rows * width * dtype.itemsize:
            expected, found = counted(count, "rows"), "a file that is cut off"
            raise PoolFormatError(place, expected=expected, found=found, remedy="get it again")
        yield from np.frombuffer(data, dtype).reshape(rows, width)
