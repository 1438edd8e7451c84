"""What rows does a target's file hold? All kinds but torch's own .pt, so that pages can look without torch."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.errors import PoolFormatError, TargetError, reason_of
from clipsel_core.pool.npz import read_array, read_members

ENDINGS = ".npy, .npz, .pt or .parquet"


def read_target_rows(file: Path, part: str, usual: str) -> np.ndarray:
    """The array in a .npy, .npz or .parquet, as stored and unchecked; a .npy and an unzipped .npz are mapped.

    part: the member or column to take, "" for the only one, else the `usual`.
    Raises: TargetError where the file has another ending, cannot be read, or lacks the part.
    """
    read = _READERS.get(file.suffix.lower())
    if read is None:
        remedy = "save the tensor with numpy as .npy" if file.suffix.lower() == ".pt" else ""
        raise TargetError(file, expected=".npy, .npz or .parquet", found=file.suffix or "no ending", remedy=remedy)
    with telling(file):
        return read(file, part, usual)


@contextmanager
def telling(file: Path) -> Iterator[None]:
    """Turns whatever a reader trips over into a TargetError that names the file."""
    try:
        yield
    except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, pa.ArrowInvalid) as error:
        raise TargetError(file, expected="embeddings of images", found=reason_of(error)) from error


def one_of(file: Path, wanted: str, known: list[str]) -> str:
    """The part that was asked for. Raises TargetError naming those there are."""
    if wanted in known:
        return wanted
    found = ", ".join(known) or "none"
    raise TargetError(file, expected=f"an array {wanted!r}", found=found, remedy="name one behind the path: FILE#NAME")


def _read_npy(file: Path, part: str, usual: str) -> np.ndarray:
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _read_npz(file: Path, part: str, usual: str) -> np.ndarray:
    try:
        members = read_members(file)
    except PoolFormatError as error:
        raise TargetError(file, expected=error.expected, found=error.found) from error
    wanted = part or (next(iter(members)) if len(members) == 1 else usual)
    return read_array(file, members[one_of(file, wanted, list(members))])


def _read_parquet(file: Path, part: str, usual: str) -> np.ndarray:
    schema = pq.read_schema(file)
    lists = [f.name for f in schema if pa.types.is_list(f.type) or pa.types.is_fixed_size_list(f.type)]
    wanted = part or (lists[0] if len(lists) == 1 else usual)
    column = pq.read_table(file, columns=[one_of(file, wanted, lists)]).column(0).combine_chunks()
    lengths = set(column.value_lengths().to_pylist()) if pa.types.is_list(column.type) else {column.type.list_size}
    if column.null_count or len(lengths) != 1:
        raise TargetError(file, expected="lists of one length", found=f"lengths {sorted(map(str, lengths))[:5]}")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


_READERS: dict[str, Callable[[Path, str, str], np.ndarray]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
}
