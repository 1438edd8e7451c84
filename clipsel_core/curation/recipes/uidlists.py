"""How is a list of uids read that was made elsewhere, whatever file it came in?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.errors import UidError, reason_of
from clipsel_core.files import expect_regular
from clipsel_core.pool.conventions import encoding_of, find_column, separator_of

_HEAD_BYTES = 1 << 16


def read_uid_list(path: Path) -> np.ndarray:
    """The distinct uids of a list, ascending: (M,) UID_DTYPE. Repeats are counted in a logged warning.

    By ending: .npy as `uids.read_subset` takes it; .txt with a uid a line; .csv with a column uid, its fields separated
    by commas, semicolons, tabs or bars; .parquet with a column uid, or with uid_hi and uid_lo of uint64. The columns'
    names may be in any case. Text is UTF-8, or what its byte order mark says.
    Raises: UidError where the file is not there, has another ending, or holds something that is no uid.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UidError(path, expected=f"a name ending in {ENDINGS}", found=path.suffix or "no ending")
    try:
        expect_regular(path)
        return reader(path)
    except FileNotFoundError as error:
        raise UidError(path, expected="a list of uids", found="no such file") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UidError(path, expected=f"a {path.suffix} file of uids", found=reason_of(error)) from error


def _read_text(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    encoding = encoding_of(head)
    first = next(filter(None, head.decode(encoding, "ignore").splitlines()), "")
    if path.suffix.lower() == ".txt":
        if not first:
            return np.empty(0, uids.UID_DTYPE)
        name, options, parse = "uid", pacsv.ReadOptions(column_names=["uid"], encoding=encoding), None
    else:
        options, parse = pacsv.ReadOptions(encoding=encoding), pacsv.ParseOptions(delimiter=separator_of(first))
        name = _uid_column(path, pacsv.open_csv(path, options, parse).schema.names)
    convert = pacsv.ConvertOptions(include_columns=[name], column_types={name: pa.string()})
    return _distinct(path, pacsv.read_csv(path, options, parse, convert).column(0))


def _read_parquet(path: Path) -> np.ndarray:
    names = pq.read_schema(path).names
    high, low = (find_column(names, [half]) for half in ("uid_hi", "uid_lo"))
    if high is None or low is None or find_column(names, ["uid"]):
        return _distinct(path, pq.ParquetFile(path).read([_uid_column(path, names)]).column(0))
    halves = pq.ParquetFile(path).read([high, low])
    for name in (high, low):
        if halves[name].type != pa.uint64() or halves[name].null_count:
            found = f"{halves[name].type}" + (", some of them null" if halves[name].null_count else "")
            raise UidError(path, expected=f"a column {name} of uint64", found=found)
    return uids.distinct(uids.from_halves(halves[high].to_numpy(), halves[low].to_numpy()), path)


def _uid_column(path: Path, names: list[str]) -> str:
    if (name := find_column(names, ["uid"])) is None:
        found = ", ".join(names[:20]) or "no column"
        raise UidError(path, expected="a column uid, or uid_hi and uid_lo", found=found)
    return name


def _distinct(path: Path, column: pa.ChunkedArray) -> np.ndarray:
    try:
        return uids.distinct(uids.from_hex(column), path)
    except UidError as error:
        raise UidError(f"{path}: {error.where}", expected=error.expected, found=error.found) from error


_READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".npy": uids.read_subset,
    ".txt": _read_text,
    ".csv": _read_text,
    ".parquet": _read_parquet,
}
ENDINGS = ", ".join(_READERS)
