"""What values by uid does FILE#COLUMN hold, as numbers or as texts?

    values.parquet#dfn          a column of a parquet; of a folder of them, or of all that a pattern with * matches
    scores.csv#dfn              of a csv or tsv, zipped or not
    scores.npy                  a structured array: a field uid, or uid_hi and uid_lo, and a field of values
    scores.npz#dfn              arrays: uids, or uid_hi and uid_lo, and one of values
    OTHER_RUN#s_cliploss        a column of another run: a score, or one that was added

A uid is 32 hex digits, fewer of them, or a UUID with dashes; 16 bytes; or two numbers of 64 bits, the high half first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsel_core import uids
from clipsel_core.columns.keyed_files import Chunk, KeyedFile, find_files, open_file
from clipsel_core.errors import ClipselError, ColumnError, UidError, quoted, reason_of
from clipsel_core.pool.places import Place
from clipsel_core.runs.columns import Column
from clipsel_core.runs.store import UID_HALVES, Run, SealedFiles, as_array, description_files
from clipsel_core.tasks import allowed_cores, in_order

Kind = Literal["number", "flag", "category"]
Item = TypeVar("Item")
# A csv says nothing of types: these many of its values do.
_LOOKED_AT = 1000
_NO_NUMBER = ("", "nan", "null")
_WORDS = ("true", "false")


class Batch(NamedTuple):
    """Some rows. uids: (B,) UID_DTYPE.

    values: (B,) float32, NaN where there is none, flags as 0 and 1; of a category a pyarrow DictionaryArray of strings,
        null where there is none.
    rounded: how many of the numbers are whole ones that float32 does not hold; fractions are always rounded.
    """

    uids: np.ndarray
    values: np.ndarray | pa.DictionaryArray
    rounded: int


@dataclass(frozen=True)
class KeyedValues:
    """Values by uid, from outside of the run. source: FILE#COLUMN as it was given.

    stored: the type of the values in the file, for people. rows: how many, None where nobody knows before they are
    read. batches: reads them, in the order of the files and their rows; from several threads at once, as quick as they
    are asked for. files: what they are read from; of another run, what describes the column there. described: that
    run's column, whose categories are stored as numbers; None of a file.
    """

    source: str
    column: str
    kind: Kind
    stored: str
    rows: int | None
    batches: Callable[[], Iterator[Batch]]
    files: tuple[Place, ...] = ()
    described: Column | None = None


def open_keyed(source: str, *, kind: Literal["number", "category"] | None = None) -> KeyedValues:
    """Values by uid. source: FILE#COLUMN, see above; #COLUMN may be left out where there is no other.

    kind: what the values are to be taken for; None for what their type says: texts are categories, and a csv's are
        numbers where most of the first ones are. An empty text, or null, is no value, and among numbers nan. Another
        run says itself what its column is.
    Raises: ColumnError, or what reading a file or a run raises, where there is no such column, or it holds neither
        numbers nor texts. The same when a batch is read that holds something else: a text where numbers should be, a
        number that is too large for float32, or something that is no uid.
    """
    named, _, column = source.rpartition("#")
    for folder, name in ((source, ""), (named, column)):
        if folder and (Path(folder) / "run.json").is_file():
            return _open_run(source, Path(folder), name, kind)
    places, column = find_files(source)
    files = [open_file(place, column) for place in places]
    found, stored = _kind_of(files), next((str(file.kind) for file in files if file.kind is not None), "text")
    taken_for = kind if kind and not (kind == "number" and found == "flag") else found
    known = [file.rows for file in files if file.rows is not None]
    rows = sum(known) if len(known) == len(files) else None
    return KeyedValues(
        source, files[0].column, taken_for, stored, rows, lambda: _batches(files, taken_for), tuple(places)
    )


def _open_run(source: str, root: Path, name: str, kind: str | None) -> KeyedValues:
    run = Run.open(root)
    if name not in run.columns:
        found, expected = quoted(name), f"one of the columns {', '.join(run.columns)}"
        raise ColumnError(source, expected=expected, found=found, remedy="name one behind the run: RUN#COLUMN")
    if not run.finished:
        raise ColumnError(root, expected="a finished run", found="shards left to score", remedy="finish it first")
    described, added = run.columns[name], run.added_with(name)
    if kind not in (None, described.kind):
        raise ColumnError(source, expected=f"a {kind}", found=f"a {described.kind}, as its run says")
    files = SealedFiles(root, run.config, added)

    def read(shard: str) -> Batch:
        columns = files.read(shard, [*UID_HALVES, name])
        high, low, values = (as_array(columns[key].combine_chunks()) for key in (*UID_HALVES, name))
        return Batch(uids.from_halves(high, low), values, 0)

    shards = [shard.name for shard in run.config.shards]
    folder = root / "added" / added.folder if added else root
    description = next(file for file in description_files(root) if file.parent == folder)
    return KeyedValues(
        *(source, name, "number", "float", run.pairs, lambda: _ahead(shards, read)),
        files=(Place.of(str(description)),),
        described=described,
    )


def _batches(files: Sequence[KeyedFile], kind: Kind) -> Iterator[Batch]:
    chunks = ((file, chunk) for file in files for chunk in file.chunks())
    return _ahead(chunks, lambda item: _batch(item[0], item[1], kind))


def _ahead(items: Iterable[Item], read: Callable[[Item], Batch]) -> Iterator[Batch]:
    """What is read of each item, in order, some ahead of whoever asks."""
    with ThreadPoolExecutor(allowed_cores()) as threads:
        for _, batch in in_order(items, lambda item: threads.submit(read, item), allowed_cores() + 1):
            yield batch


def _batch(file: KeyedFile, chunk: Chunk, kind: Kind) -> Batch:
    keys = _uids(file, chunk)
    if kind == "category":
        return Batch(keys, _texts(file, chunk), 0)
    numbers = _numbers(file, chunk, kind)
    with np.errstate(over="ignore"):
        values = numbers.astype(np.float32)
    changed = (values != numbers) & ~np.isnan(numbers)
    if (too_large := np.isinf(values) & changed).any():
        row = int(np.argmax(too_large))
        raise _wrong(file, chunk, row, "a number that float32 holds, up to 3.4e38", f"{numbers[row]:g}")
    if file.kind is None:
        changed &= numbers == np.trunc(numbers)
    is_whole = file.kind is None or pa.types.is_integer(file.kind)
    return Batch(keys, values, int(changed.sum()) if is_whole else 0)


def _uids(file: KeyedFile, chunk: Chunk) -> np.ndarray:
    try:
        return uids.from_columns(chunk.keys)
    except UidError as error:
        # It counts rows from the beginning of the chunk.
        said = re.sub(r"^row (\d+)", lambda row: file.where(int(row[1]) + chunk.row), error.where)
        raise UidError(f"{file.place}, {said}", expected=error.expected, found=error.found) from error


def _kind_of(files: Sequence[KeyedFile]) -> Kind:
    """What all files' values are; a column of nulls may be anything."""
    kinds: dict[Kind, KeyedFile] = {}
    for file in files:
        if file.kind is not None and not pa.types.is_null(file.kind):
            kinds.setdefault(_kind_by(file.place, file.column, file.kind), file)
        elif file.kind is None and not kinds:
            kinds[_kind_in(file)] = file
    if "category" in kinds and len(kinds) > 1:
        first, other, *_ = kinds.items()
        expected = f"{'texts' if first[0] == 'category' else 'numbers'}, as in {first[1].place.name}"
        found = f"{other[1].kind} in {other[1].column}"
        raise ColumnError(other[1].place, expected=expected, found=found, remedy="write both the same way")
    return next(iter(kinds)) if len(kinds) == 1 else "number"


def _kind_by(place: Place, column: str, stored: pa.DataType) -> Kind:
    kind = stored.value_type if pa.types.is_dictionary(stored) else stored
    if pa.types.is_boolean(kind):
        return "flag"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "category"
    raise ColumnError(place, expected=f"numbers or texts in {column}", found=str(stored))


def _kind_in(file: KeyedFile) -> Kind:
    """What most of the first values of a csv are."""
    values = (text.strip().lower() for chunk in file.chunks() for text in chunk.values.tolist())
    seen = list(islice((text for text in values if text not in _NO_NUMBER), _LOOKED_AT))
    if 2 * sum(text in _WORDS for text in seen) > len(seen):
        return "flag"
    numbers = sum(_number(text) is not None for text in seen)
    return "number" if 2 * numbers > len(seen) or not seen else "category"


def _numbers(file: KeyedFile, chunk: Chunk, kind: Kind) -> np.ndarray:
    """A chunk's values as floating numbers, (B,), NaN where there is none."""
    column = chunk.values
    if isinstance(column, np.ndarray) and column.dtype.kind not in "US":
        return column if column.dtype.kind == "f" else column.astype(np.float64)
    if isinstance(column, np.ndarray):
        column = pa.array(column.tolist(), pa.string())
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type) or pa.types.is_boolean(column.type):
        column = pc.cast(pc.cast(column, pa.uint8()), pa.float32())
    elif pa.types.is_integer(column.type) or pa.types.is_decimal(column.type):
        column = pc.cast(column, pa.float64(), safe=False)
    elif not pa.types.is_floating(column.type):
        return _parsed(file, chunk, column, kind)
    return as_array(pc.fill_null(column, math.nan) if column.null_count else column)


def _parsed(file: KeyedFile, chunk: Chunk, texts: pa.Array, kind: Kind) -> np.ndarray:
    """Numbers, or flags, that are written as texts."""
    with suppress(pa.ArrowInvalid):
        present = pc.if_else(pc.equal(pc.binary_length(texts), 0), None, texts)
        if kind == "flag":
            present = pc.cast(pc.cast(present, pa.bool_()), pa.uint8())
        return as_array(pc.fill_null(pc.cast(present, pa.float64()), math.nan))
    numbers = np.full(len(texts), math.nan)
    for row, text in enumerate(texts.to_pylist()):
        said = (text or "").strip().lower()
        if said in _NO_NUMBER:
            continue
        number = float(said == "true") if kind == "flag" and said in _WORDS else _number(said)
        if number is None:
            expected = f"{'true or false' if kind == 'flag' else 'a number'} in {file.column}"
            raise _wrong(file, chunk, row, expected, quoted(text), "leave it empty where there is no value")
        numbers[row] = number
    return numbers


def _number(text: str) -> float | None:
    with suppress(ValueError):
        return None if "_" in text else float(text)
    return None


def _texts(file: KeyedFile, chunk: Chunk) -> pa.DictionaryArray:
    """A chunk's values as texts, null where there is none."""
    column = pa.array(chunk.values.tolist()) if isinstance(chunk.values, np.ndarray) else chunk.values
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    if not pa.types.is_dictionary(column.type):
        column = pc.dictionary_encode(column)
    try:
        # numpy's bytes are text, too.
        texts = pc.cast(column.dictionary, pa.string())
    except pa.ArrowInvalid as error:
        raise ColumnError(file.place, expected=f"texts in {file.column}", found=reason_of(error)) from error
    texts = pc.if_else(pc.equal(pc.binary_length(texts), 0), None, texts)
    return pa.DictionaryArray.from_arrays(column.indices, texts)


def _wrong(file: KeyedFile, chunk: Chunk, row: int, expected: str, found: str, remedy: str = "") -> ClipselError:
    where = f"{file.place}, {file.where(chunk.row + row)}"
    return ColumnError(where, expected=expected, found=found, remedy=remedy)
