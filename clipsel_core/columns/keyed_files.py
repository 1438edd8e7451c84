"""Which files hold values by uid, and how are their rows read, in chunks? parquet, csv, npy and npz."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from clipsel_core.errors import ColumnError, reason_of
from clipsel_core.npy import Header, read_header
from clipsel_core.places import Place
from clipsel_core.pool.conventions import SAVE_AS, UID_HALF_NAMES, encoding_of, find_column, find_uids, separator_of
from clipsel_core.pool.sources.tables import open_parquet

_TEXTS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
VALUE_ENDINGS = ".parquet, .csv, .tsv, .csv.gz, .tsv.gz, .npy or .npz"
_ROWS_AT_ONCE = 1 << 18
_TEXT_AT_ONCE, _PARQUET_BUFFER, _HEAD = 4 << 20, 4 << 20, 1 << 16
_DAMAGE = (
    *(pa.ArrowException, OSError, EOFError, ValueError, LookupError, RuntimeError, OverflowError),
    *(zipfile.BadZipFile, zlib.error),
)


class Chunk(NamedTuple):
    """Some rows of a file. row: which is the first of them.

    keys: what their uids are made of, one column or two halves. values: of each column, as the file stores them.
    """

    row: int
    keys: tuple[pa.Array | np.ndarray, ...]
    values: tuple[pa.Array | np.ndarray, ...]


@dataclass(frozen=True)
class KeyedFile:
    """A file of values by uid. columns: what hold the values. kinds: their types, None in a csv, which has none.

    rows: how many, None where nobody knows before they are read. chunks: reads them, in order.
    where: how an error names a row that is counted from 0.
    """

    place: Place
    columns: tuple[str, ...]
    kinds: tuple[pa.DataType | None, ...]
    rows: int | None
    chunks: Callable[[], Iterator[Chunk]]
    where: Callable[[int], str]


def find_files(named: str) -> tuple[list[Place], str]:
    """The files, in the order of their names, and the column, "" for none, that FILE#COLUMN means.

    FILE: a file, a folder, of which the parquet files are taken, or else those of another kind, or a pattern with * or
        ?. Its own name may hold # as well.
    Raises: ColumnError where no file is there.
    """
    ends = [len(named), *(place for place, sign in enumerate(named) if sign == "#")]
    for end in ends:
        if found := _files_at(named[:end]):
            return found, named[end + 1 :]
    file = named[: ends[min(1, len(ends) - 1)]]
    found_none = "no file of these in the folder" if Place.of(file).is_dir() else "no such file"
    raise ColumnError(file, expected=f"files that end with {VALUE_ENDINGS}", found=found_none)


def open_file(place: Place, columns: Sequence[str]) -> KeyedFile:
    """Finds out what a file holds. columns: those to read, in any case; "" for the only one beside the uids.

    Raises: ColumnError naming the columns there are where it does not say which one, and where the file is damaged or
        of another kind. PoolFormatError on a damaged parquet.
    """
    name = place.name.lower()
    opener = _open_text if name.endswith(_TEXTS) else _OPENERS.get(place.ending)
    if opener is None:
        raise ColumnError(place, expected=f"a name that ends with {VALUE_ENDINGS}", found=place.ending or "no ending")
    with _telling(place):
        return opener(place, columns)


def _files_at(address: str) -> list[Place]:
    place = Place.of(address)
    if place.is_file():
        return [place]
    if place.is_dir():
        kinds = ((".parquet",), _TEXTS, (".npy",), (".npz",))
        listed = (place.files(*endings) for endings in kinds)
        return [place / name for name, _ in next(filter(None, listed), [])]
    if not place.remote and glob.has_magic(address):
        return [Place.of(path) for path in sorted(glob.glob(address)) if Path(path).is_file()]
    return []


@contextmanager
def _telling(place: Place) -> Iterator[None]:
    """Turns whatever a reader trips over into a ColumnError that names the file."""
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, UnicodeError) or "invalid UTF8" in str(error):
            raise ColumnError(place, expected="text in UTF-8", found="bytes that are none", remedy=SAVE_AS) from error
        raise ColumnError(place, expected=f"a whole .{place.ending} file", found=reason_of(error)) from error


def _choose(
    place: Place, names: Sequence[str], columns: Sequence[str], index: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that hold the uids, one or two halves, and those that hold the values.

    index: columns that pandas took for its index: of the uids, where no other column is called so.
    """
    listed = ", ".join(repr(name[:40]) for name in names[:20]) or "none"
    halves = tuple(filter(None, (find_column(names, [half]) for half in UID_HALF_NAMES)))
    keys = find_uids(names) or (tuple(index) if len(index) == 1 else ())
    if not keys:
        raise ColumnError(place, expected="a column uid, or uid_hi and uid_lo", found=listed, remedy="name it uid")
    # What pandas writes of its index into a csv has no name, and is no column.
    others = [name for name in names if name.strip() and name not in (*keys, *halves, *index)]
    found = []
    for column in columns:
        if column:
            chosen = column if column in names else find_column(names, [column.strip().lower()])
        else:
            chosen = others[0] if len(others) == 1 else None
        if chosen is None:
            expected = f"a column {column!r}" if column else "one column beside the uids"
            remedy = "name one behind the file: FILE#COLUMN" if others else "add a column of values"
            raise ColumnError(place, expected=expected, found=listed, remedy=remedy)
        found.append(chosen)
    if repeated := next((name for name in (*keys, *found) if names.count(name) > 1), None):
        raise ColumnError(place, expected=f"one column {repeated}", found=f"{names.count(repeated)}")
    return keys, tuple(found)


def _open_parquet(place: Place, columns: Sequence[str]) -> KeyedFile:
    with open_parquet(place) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        index = [name for name in (schema.pandas_metadata or {}).get("index_columns", ()) if isinstance(name, str)]
        keys, chosen = _choose(place, schema.names, columns, index)
    kinds = tuple(schema.field(name).type for name in chosen)

    def chunks() -> Iterator[Chunk]:
        row, read = 0, list(dict.fromkeys((*keys, *chosen)))
        # Few of many texts differ.
        are_texts = [pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in kinds]
        texts = list(compress(chosen, are_texts)) or None
        # Without the buffer a whole row group is read at once, of which a file may have only one.
        with open_parquet(place, read_dictionary=texts, buffer_size=_PARQUET_BUFFER, pre_buffer=False) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=read):
                yield Chunk(row, tuple(map(batch.column, keys)), tuple(map(batch.column, chosen)))
                row += len(batch)

    return KeyedFile(place, chosen, kinds, rows, chunks, _row)


def _open_text(place: Place, columns: Sequence[str]) -> KeyedFile:
    with _text(place) as stream:
        head = stream.read(_HEAD)
    encoding = encoding_of(head)
    first = next(filter(None, head.decode(encoding, "ignore").splitlines()), "")
    tabs = "\t" if place.name.lower().removesuffix(".gz").endswith(".tsv") else ","
    parse = pacsv.ParseOptions(delimiter=separator_of(first, tabs), newlines_in_values=True)
    read = pacsv.ReadOptions(encoding=encoding, block_size=_TEXT_AT_ONCE)
    with _text(place) as stream, pacsv.open_csv(stream, read, parse) as reader:
        keys, chosen = _choose(place, reader.schema.names, columns)

    def chunks() -> Iterator[Chunk]:
        types = dict.fromkeys((*keys, *chosen), pa.string())
        convert = pacsv.ConvertOptions(include_columns=list(types), column_types=types)
        row = 0
        with _telling(place), _text(place) as stream, pacsv.open_csv(stream, read, parse, convert) as reader:
            for batch in reader:
                yield Chunk(row, tuple(map(batch.column, keys)), tuple(map(batch.column, chosen)))
                row += len(batch)

    def line(row: int) -> str:
        with _text(place) as stream:
            lines = io.TextIOWrapper(stream, encoding, "replace", newline="")
            rows = csv.reader(lines, delimiter=parse.delimiter)
            # The first is the header. A row ends with the line that was read last, and may begin some before it.
            fields = next(islice(filter(None, rows), row + 1, None), [])
            return f"line {rows.line_num - sum(field.count(chr(10)) for field in fields)}"

    return KeyedFile(place, chosen, (None,) * len(chosen), None, chunks, line)


def _open_npy(place: Place, columns: Sequence[str]) -> KeyedFile:
    with place.open() as file:
        header = read_header(file, place.size())
    names = header.dtype.names or ()
    if len(header.shape) != 1 or not names:
        found = f"shape {header.shape}, dtype {header.dtype}"[:80]
        remedy = "np.savez(FILE, uids=..., score=...) keeps two arrays together"
        raise ColumnError(place, expected="a structured array with fields uid and another", found=found, remedy=remedy)
    # What numpy calls the fields of "u8,u8,f4".
    named = dict(zip(names, (*UID_HALF_NAMES, *names[2:]), strict=True)) if names[:2] == ("f0", "f1") else {}
    fields = {named.get(name, name): name for name in names}
    keys, chosen = _choose(place, list(fields), columns)

    def chunks() -> Iterator[Chunk]:
        with _telling(place), place.open() as file:
            for row, array in _arrays(file, read_header(file, place.size())):
                of_keys, values = (tuple(array[fields[name]] for name in names) for names in (keys, chosen))
                yield Chunk(row, of_keys, values)

    kinds = tuple(_arrow_type(place, name, header.dtype[fields[name]]) for name in chosen)
    return KeyedFile(place, chosen, kinds, header.shape[0], chunks, _row)


def _open_npz(place: Place, columns: Sequence[str]) -> KeyedFile:
    with place.open() as file, zipfile.ZipFile(file) as archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        keys, chosen = _choose(place, list(infos), columns)
        headers = {}
        for name in (*keys, *chosen):
            with archive.open(infos[name]) as stream:
                headers[name] = read_header(stream, infos[name].file_size)
    is_flat = all(len(headers[name].shape) == 1 for name in chosen)
    if len({header.shape[:1] for header in headers.values()}) > 1 or not is_flat:
        found = ", ".join(f"{name} of shape {header.shape}" for name, header in headers.items())
        raise ColumnError(place, expected="a value a uid", found=found)

    def chunks() -> Iterator[Chunk]:
        with _telling(place), ExitStack() as opened:
            file = opened.enter_context(place.open())
            archive = opened.enter_context(zipfile.ZipFile(file))
            streams = [opened.enter_context(archive.open(infos[name])) for name in (*keys, *chosen)]
            sizes = [infos[name].file_size for name in (*keys, *chosen)]
            parts = [_arrays(stream, read_header(stream, size)) for stream, size in zip(streams, sizes, strict=True)]
            for found in zip(*parts, strict=True):
                arrays = tuple(array for _, array in found)
                yield Chunk(found[0][0], arrays[: len(keys)], arrays[len(keys) :])

    kinds = tuple(_arrow_type(place, name, headers[name].dtype) for name in chosen)
    return KeyedFile(place, chosen, kinds, headers[chosen[0]].shape[0], chunks, _row)


def _arrays(stream: IO[bytes], header: Header) -> Iterator[tuple[int, np.ndarray]]:
    """The rows of a .npy, some at a time, with the number of the first of them. stream: stands at the values."""
    rows, width = header.shape[0], math.prod(header.shape[1:])
    if header.fortran_order and len(header.shape) > 1:
        raise ValueError("columns one after another")
    for start in range(0, rows, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, rows - start)
        data = stream.read(count * width * header.dtype.itemsize)
        if len(data) < count * width * header.dtype.itemsize:
            raise EOFError("an end in the middle of an array")
        yield start, np.frombuffer(data, header.dtype).reshape(count, *header.shape[1:])
    stream.read(1)  # Only at its end is a zip's CRC compared.


def _arrow_type(place: Place, column: str, dtype: np.dtype) -> pa.DataType:
    if dtype.kind in "US":
        return pa.string()
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ColumnError(place, expected=f"numbers or texts in {column}", found=f"dtype {dtype}"[:80])
    return pa.from_numpy_dtype(dtype.newbyteorder("="))


def _row(row: int) -> str:
    return f"row {row}"


@contextmanager
def _text(place: Place) -> Iterator[Any]:
    """A file of text, unzipped."""
    with place.open() as raw:
        if place.ending == "gz":
            with gzip.open(raw) as stream:
                yield stream
        else:
            yield raw


_OPENERS: dict[str, Callable[[Place, Sequence[str]], KeyedFile]] = {
    "parquet": _open_parquet,
    "npy": _open_npy,
    "npz": _open_npz,
}
