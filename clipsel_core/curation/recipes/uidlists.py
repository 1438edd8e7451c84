"""How a list of uids made elsewhere is read, whatever file it came in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.errors import UidError


def read_uid_list(path: Path) -> np.ndarray:
    """The distinct uids of a list, ascending: (M,) UID_DTYPE.

    By ending: .npy of dtype u8,u8, sorted and distinct, as DataComp's subsets are; .txt with a uid a line; .csv with a
    column uid; .parquet with a column uid, or with uid_hi and uid_lo.
    Raises: UidError where the file is not there, has another ending, or holds something that is no uid.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UidError(path, expected=f"a name ending in {ENDINGS}", found=path.suffix or "no ending")
    if not path.is_file():
        raise UidError(path, expected="a list of uids", found="no such file")
    try:
        return reader(path)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise UidError(path, expected=f"a {path.suffix} file of uids", found=str(error).split("\n")[0]) from error


def _read_text(path: Path) -> np.ndarray:
    if not path.stat().st_size:
        return np.empty(0, uids.UID_DTYPE)
    return _read_delimited(path, pacsv.ReadOptions(column_names=["uid"]))


def _read_csv(path: Path) -> np.ndarray:
    return _read_delimited(path, pacsv.ReadOptions())


def _read_delimited(path: Path, options: pacsv.ReadOptions) -> np.ndarray:
    convert = pacsv.ConvertOptions(include_columns=["uid"], column_types={"uid": pa.string()})
    return _from_text(path, pacsv.read_csv(path, read_options=options, convert_options=convert).column("uid"))


def _read_parquet(path: Path) -> np.ndarray:
    names = pq.read_schema(path).names
    if "uid" in names:
        column = pq.read_table(path, columns=["uid"]).column(0)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            return _from_text(path, column.cast(pa.string()))
        raise UidError(path, expected="uid as text", found=str(column.type))
    if {"uid_hi", "uid_lo"} <= set(names):
        halves = pq.read_table(path, columns=["uid_hi", "uid_lo"])
        return uids.unique(uids.from_halves(halves.column(0).to_numpy(), halves.column(1).to_numpy()))
    raise UidError(path, expected="a column uid, or uid_hi and uid_lo", found=", ".join(names) or "no column")


def _from_text(path: Path, column: pa.ChunkedArray) -> np.ndarray:
    try:
        return uids.unique(uids.from_hex(column))
    except UidError as error:
        raise UidError(f"{path}: {error.where}", expected=error.expected, found=error.found) from error


_READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".npy": uids.read_subset,
    ".txt": _read_text,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
ENDINGS = ", ".join(_READERS)
