"""How is a list of uids read that was made elsewhere, whatever file it came in, and how often does it name each?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.errors import UidError, reason_of
from clipsel_core.files import expect_regular
from clipsel_core.places import PATIENT, Place
from clipsel_core.pool.conventions import COUNT_NAME, encoding_of, find_column, find_uids, separator_of

_HEAD_BYTES = 1 << 16
_MOST = 1 << 32


def read_uid_list(path: str | os.PathLike[str]) -> np.ndarray:
    """The distinct uids of a list, ascending: (M,) UID_DTYPE. Repeats are counted in a logged warning.

    path: also an address in a store.
    By ending: .npy as `uids.read_subset` takes it; .txt with a uid a line; .csv with a column of uids, its fields
    separated by commas, semicolons, tabs or bars; .parquet with a column of uids, or of their halves of uint64. The
    columns' names, uid or uids, uid_hi and uid_lo, may be in any case. Text is UTF-8, or what its byte order mark says.
    Raises: UidError where the file is not there, has another ending, or holds something that is no uid.
    """
    return uids.distinct(_read(path, counted=False).uids, path)


def read_counted_list(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct uids of a list, ascending, (M,) UID_DTYPE, and how often it names each, (M,) int64.

    path: as in read_uid_list. A uid counts as often as it stands there; in a .csv or .parquet with a column count as
    that column says, all its rows together. One that counts 0 times is left out.
    Raises: as read_uid_list; also where a count is no whole number from 0 to 4,294,967,295.
    """
    read = _read(path, counted=True)
    order = uids.argsort(read.uids)
    ordered = read.uids[order]
    firsts = np.flatnonzero(~uids.repeats(ordered))
    counts = np.ones(len(order), np.int64) if read.counts is None else read.counts[order]
    summed = np.add.reduceat(counts, firsts) if len(firsts) else counts
    return ordered[firsts][summed > 0], summed[summed > 0]


class _List(NamedTuple):
    """The uids of a file as they stand there. counts: of each row, where a column says it."""

    uids: np.ndarray
    counts: np.ndarray | None = None


def _read(path: str | os.PathLike[str], *, counted: bool) -> _List:
    place = Place.of(path).patient(PATIENT)
    suffix = Path(place.name).suffix
    reader = _READERS.get(suffix.lower())
    if reader is None:
        raise UidError(place, expected=f"a name ending in {LIST_ENDINGS}", found=suffix or "no ending")
    try:
        with place.here() as file, _called(place, file):
            expect_regular(file)
            return reader(file, counted)
    except FileNotFoundError as error:
        raise UidError(place, expected="a list of uids", found="no such file") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UidError(place, expected=f"a {suffix} file of uids", found=reason_of(error)) from error


@contextmanager
def _called(place: Place, file: Path) -> Iterator[None]:
    """Has errors of a file call it by where it came from."""
    try:
        yield
    except UidError as error:
        if not place.remote:
            raise
        where = error.where.replace(str(file), place.address)
        raise UidError(where, expected=error.expected, found=error.found, remedy=error.remedy) from error


def _read_npy(path: Path, _: bool) -> _List:
    return _List(uids.read_npy_uids(path))


def _read_text(path: Path, counted: bool) -> _List:
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    encoding = encoding_of(head)
    first = next(filter(None, head.decode(encoding, "ignore").splitlines()), "")
    if path.suffix.lower() == ".txt":
        if not first:
            return _List(np.empty(0, uids.UID_DTYPE))
        keys, options, parse = ["uid"], pacsv.ReadOptions(column_names=["uid"], encoding=encoding), None
    else:
        options, parse = pacsv.ReadOptions(encoding=encoding), pacsv.ParseOptions(delimiter=separator_of(first))
        keys = _columns(path, pacsv.open_csv(path, options, parse).schema.names, counted)
    convert = pacsv.ConvertOptions(include_columns=keys, column_types=dict.fromkeys(keys, pa.string()))
    return _listed(path, pacsv.read_csv(path, options, parse, convert))


def _read_parquet(path: Path, counted: bool) -> _List:
    return _listed(path, pq.ParquetFile(path).read(_columns(path, pq.read_schema(path).names, counted)))


def _columns(path: Path, names: Sequence[str], counted: bool) -> list[str]:
    """The columns to read; that of counts is the last, where it is asked for and there."""
    if not (keys := find_uids(names)):
        found = ", ".join(names[:20]) or "no column"
        raise UidError(path, expected="a column uid, or uid_hi and uid_lo", found=found)
    count = find_column(names, [COUNT_NAME]) if counted else None
    return [*keys, *([count] if count else [])]


def _listed(path: Path, table: pa.Table) -> _List:
    has_counts = table.column_names[-1].strip().lower() == COUNT_NAME
    try:
        found = uids.from_columns(table.columns[: table.num_columns - has_counts])
    except UidError as error:
        raise UidError(f"{path}: {error.where}", expected=error.expected, found=error.found) from error
    return _List(found, _counts(path, table.column(-1)) if has_counts else None)


def _counts(path: Path, column: pa.ChunkedArray) -> np.ndarray:
    expected = f"whole numbers from 0 to {_MOST - 1:,} in the column {COUNT_NAME}"
    try:
        numbers = pc.fill_null(pc.cast(column, pa.float64(), safe=False), -1.0).combine_chunks()
    except pa.ArrowException as error:
        raise UidError(path, expected=expected, found=reason_of(error)) from error
    counts = np.from_dlpack(numbers)
    wrong = ~((counts >= 0) & (counts < _MOST) & (counts == np.floor(counts)))
    if wrong.any():
        raise UidError(path, expected=expected, found=str(column[int(np.argmax(wrong))]))
    return counts.astype(np.int64)


_READERS: dict[str, Callable[[Path, bool], _List]] = {
    ".npy": _read_npy,
    ".txt": _read_text,
    ".csv": _read_text,
    ".parquet": _read_parquet,
}
LIST_ENDINGS = ", ".join(_READERS)
