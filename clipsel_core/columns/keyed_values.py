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
from functools import partial
from itertools import islice
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsel_core import uids
from clipsel_core.columns.keyed_files import VALUE_ENDINGS, Chunk, KeyedFile, find_files, open_file
from clipsel_core.errors import ClipselError, ColumnError, UidError, quoted, reason_of
from clipsel_core.places import Place, expect_plain
from clipsel_core.runs.columns import Column
from clipsel_core.runs.store import UID_HALVES, Run, SealedFiles, as_array, description_files
from clipsel_core.tasks import allowed_cores, in_order

ValueKind = Literal["number", "flag", "category"]
Item = TypeVar("Item")
Made = TypeVar("Made")
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
    kind: ValueKind
    stored: str
    rows: int | None
    batches: Callable[[], Iterator[Batch]]
    files: tuple[Place, ...] = ()
    described: Column | None = None


class KeyedGroup(NamedTuple):
    """Columns of the same files, or one of another run.

    batches: reads them together, as those of KeyedValues do; a batch a column, whose uids are the same.
    """

    columns: tuple[KeyedValues, ...]
    batches: Callable[[], Iterator[tuple[Batch, ...]]]

    @classmethod
    def of(cls, keyed: KeyedValues) -> KeyedGroup:
        """One column alone."""
        return cls((keyed,), lambda: ((batch,) for batch in keyed.batches()))


class _Part(NamedTuple):
    """One column of a chunk. row, values: as there. kind: the column's type in the file."""

    file: KeyedFile
    row: int
    column: str
    kind: pa.DataType | None
    values: pa.Array | np.ndarray


def open_keyed(source: str, *, kind: Literal["number", "category"] | None = None) -> KeyedValues:
    """Values by uid. source: FILE#COLUMN, see above; #COLUMN may be left out where there is no other.

    kind: what the values are to be taken for; None for what their type says: texts are categories, and a csv's are
        numbers where most of the first ones are. An empty text, or null, is no value, and among numbers nan. Another
        run says itself what its column is.
    Raises: ColumnError, or what reading a file or a run raises, where there is no such column, or it holds neither
        numbers nor texts. The same when a batch is read that holds something else: a text where numbers should be, a
        number that is too large for float32, or something that is no uid.
    """
    (group,) = open_groups([source], kind=kind)
    return group.columns[0]


def open_groups(sources: Sequence[str], *, kind: Literal["number", "category"] | None = None) -> list[KeyedGroup]:
    """Several such values, those of the same files together, in the order in which the first of each comes.

    sources, kind: as in open_keyed. Raises: as there.
    """
    groups: list[KeyedGroup] = []
    of_files: dict[tuple[str, ...], tuple[int, list[Place], list[tuple[str, str]]]] = {}
    for source in sources:
        expect_plain(source)
        named, _, column = source.rpartition("#")
        runs = ((Place.of_named(folder), name) for folder, name in ((source, ""), (named, column)) if folder)
        if run := next(((folder, name) for folder, name in runs if _is_run(folder)), None):
            groups.append(KeyedGroup.of(_open_run(source, *run, kind)))
            continue
        places, column = find_files(source)
        key = tuple(place.address for place in places)
        if key not in of_files:
            of_files[key] = len(groups), places, []
            groups.append(KeyedGroup((), lambda: iter(())))
        of_files[key][2].append((source, column))
    for turn, places, asked in of_files.values():
        groups[turn] = _open_files(places, asked, kind)
    return groups


def _open_files(places: Sequence[Place], asked: Sequence[tuple[str, str]], kind: ValueKind | None) -> KeyedGroup:
    """Columns of files. asked: the source as it was given, and the column, of each."""
    files = [open_file(place, [column for _, column in asked]) for place in places]
    known = [file.rows for file in files if file.rows is not None]
    rows = sum(known) if len(known) == len(files) else None
    found = [_kind_of(files, place) for place in range(len(asked))]
    kinds = [kind if kind and not (kind == "number" and of_column == "flag") else of_column for of_column in found]

    def read(chosen: Sequence[int]) -> Iterator[tuple[Batch, ...]]:
        chunks = ((file, chunk) for file in files for chunk in file.chunks())
        wanted = [(place, kinds[place]) for place in chosen]
        return _ahead(chunks, lambda item: _batch(item[0], item[1], wanted))

    def alone(place: int) -> Iterator[Batch]:
        return (batch for (batch,) in read([place]))

    columns = tuple(
        KeyedValues(
            *(source, files[0].columns[place], kinds[place]),
            next((str(file.kinds[place]) for file in files if file.kinds[place] is not None), "text"),
            *(rows, partial(alone, place), tuple(places)),
        )
        for place, (source, _) in enumerate(asked)
    )
    return KeyedGroup(columns, lambda: read(range(len(asked))))


def _is_run(folder: Place) -> bool:
    """Whether a source is another run. A store need not be asked of what is called as a file of values is."""
    if folder.remote and folder.name.lower().endswith(tuple(re.findall(r"\.[a-z.]+", VALUE_ENDINGS))):
        return False
    try:
        return (folder / "run.json").exists()
    except OSError as error:
        raise ColumnError(folder, expected="a file or a run", found=reason_of(error)) from error


def _open_run(source: str, root: Place, name: str, kind: str | None) -> KeyedValues:
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
        files=(description,),
        described=described,
    )


def _ahead(items: Iterable[Item], read: Callable[[Item], Made]) -> Iterator[Made]:
    """What is read of each item, in order, some ahead of whoever asks."""
    with ThreadPoolExecutor(allowed_cores()) as threads:
        for _, batch in in_order(items, lambda item: threads.submit(read, item), allowed_cores() + 1):
            yield batch


def _batch(file: KeyedFile, chunk: Chunk, asked: Sequence[tuple[int, ValueKind]]) -> tuple[Batch, ...]:
    """The rows of a chunk. asked: which of its columns, and what each is taken for."""
    keys = _uids(file, chunk)
    parts = [
        (_Part(file, chunk.row, file.columns[place], file.kinds[place], chunk.values[place]), kind)
        for place, kind in asked
    ]
    return tuple(Batch(keys, *_values(part, kind)) for part, kind in parts)


def _values(part: _Part, kind: ValueKind) -> tuple[np.ndarray | pa.DictionaryArray, int]:
    """The values of a batch, and how many were rounded."""
    if kind == "category":
        return _texts(part), 0
    numbers = _numbers(part, kind)
    with np.errstate(over="ignore"):
        values = numbers.astype(np.float32)
    changed = (values != numbers) & ~np.isnan(numbers)
    if (too_large := np.isinf(values) & changed).any():
        row = int(np.argmax(too_large))
        raise _wrong(part, row, "a number that float32 holds, up to 3.4e38", f"{numbers[row]:g}")
    if part.kind is None:
        changed &= numbers == np.trunc(numbers)
    is_whole = part.kind is None or pa.types.is_integer(part.kind)
    return values, int(changed.sum()) if is_whole else 0


def _uids(file: KeyedFile, chunk: Chunk) -> np.ndarray:
    try:
        return uids.from_columns(chunk.keys)
    except UidError as error:
        # It counts rows from the beginning of the chunk.
        said = re.sub(r"^row (\d+)", lambda row: file.where(int(row[1]) + chunk.row), error.where)
        raise UidError(f"{file.place}, {said}", expected=error.expected, found=error.found) from error


def _kind_of(files: Sequence[KeyedFile], place: int) -> ValueKind:
    """What all files' values of a column are; a column of nulls may be anything. place: of the column."""
    kinds: dict[ValueKind, KeyedFile] = {}
    for file in files:
        stored = file.kinds[place]
        if stored is not None and not pa.types.is_null(stored):
            kinds.setdefault(_kind_by(file.place, file.columns[place], stored), file)
        elif stored is None and not kinds:
            kinds[_kind_in(file, place)] = file
    if "category" in kinds and len(kinds) > 1:
        first, other, *_ = kinds.items()
        expected = f"{'texts' if first[0] == 'category' else 'numbers'}, as in {first[1].place.name}"
        found = f"{other[1].kinds[place]} in {other[1].columns[place]}"
        raise ColumnError(other[1].place, expected=expected, found=found, remedy="write both the same way")
    return next(iter(kinds)) if len(kinds) == 1 else "number"


def _kind_by(place: Place, column: str, stored: pa.DataType) -> ValueKind:
    kind = stored.value_type if pa.types.is_dictionary(stored) else stored
    if pa.types.is_boolean(kind):
        return "flag"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "category"
    raise ColumnError(place, expected=f"numbers or texts in {column}", found=str(stored))


def _kind_in(file: KeyedFile, place: int) -> ValueKind:
    """What most of the first values of a csv's column are."""
    values = (text.strip().lower() for chunk in file.chunks() for text in chunk.values[place].tolist())
    seen = list(islice((text for text in values if text not in _NO_NUMBER), _LOOKED_AT))
    if 2 * sum(text in _WORDS for text in seen) > len(seen):
        return "flag"
    numbers = sum(_number(text) is not None for text in seen)
    return "number" if 2 * numbers > len(seen) or not seen else "category"


def _numbers(part: _Part, kind: ValueKind) -> np.ndarray:
    """A column's values as floating numbers, (B,), NaN where there is none."""
    column = part.values
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
        return _parsed(part, column, kind)
    return as_array(pc.fill_null(column, math.nan) if column.null_count else column)


def _parsed(part: _Part, texts: pa.Array, kind: ValueKind) -> np.ndarray:
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
        if number is None or (kind == "flag" and number not in (0, 1)):
            expected = f"{'true or false' if kind == 'flag' else 'a number'} in {part.column}"
            raise _wrong(part, row, expected, quoted(text), "leave it empty where there is no value")
        numbers[row] = number
    return numbers


def _number(text: str) -> float | None:
    with suppress(ValueError):
        return None if "_" in text else float(text)
    return None


def _texts(part: _Part) -> pa.DictionaryArray:
    """A column's values as texts, null where there is none."""
    column = pa.array(part.values.tolist()) if isinstance(part.values, np.ndarray) else part.values
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    if not pa.types.is_dictionary(column.type):
        column = pc.dictionary_encode(column)
    try:
        # numpy's bytes are text, too.
        texts = pc.cast(column.dictionary, pa.string())
    except pa.ArrowInvalid as error:
        raise ColumnError(part.file.place, expected=f"texts in {part.column}", found=reason_of(error)) from error
    texts = pc.if_else(pc.equal(pc.binary_length(texts), 0), None, texts)
    return pa.DictionaryArray.from_arrays(column.indices, texts)


def _wrong(part: _Part, row: int, expected: str, found: str, remedy: str = "") -> ClipselError:
    where = f"{part.file.place}, {part.file.where(part.row + row)}"
    return ColumnError(where, expected=expected, found=found, remedy=remedy)
