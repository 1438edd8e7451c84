"""How is an array read from a .npy and written to one? A header is believed only as far as the file's size allows."""

from __future__ import annotations

import io
import math
import os
import threading
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from clipsel_core.errors import reason_of
from clipsel_core.files import expect_regular, write_atomically

_LONGEST_HEADER = 10_000  # numpy's own limit
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

# numpy has Python's own parser read headers, which threads that parse at once can mix up: gh-106905, mended in 3.12.
_parsing = threading.Lock()


class Header(NamedTuple):
    """What a .npy's header says. begin: where the values lie, counted from the magic string."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    begin: int


def read_header(file: IO[bytes], size: int) -> Header:
    """The header of a .npy, which `file` stands at; afterwards it stands at the values.

    size: bytes from the magic string on. Nothing is allocated on the header's word.
    Raises: ValueError where it is damaged, says more values than `size` has room for, or speaks of Python objects.
    """
    head = file.read(12)
    if len(head) < 12 or head[:6] != np.lib.format.MAGIC_PREFIX:
        raise ValueError("no .npy header")
    version = (head[6], head[7])
    if version not in _READERS:
        raise ValueError(f"npy version {version[0]}.{version[1]}")
    length_bytes = 2 if version == (1, 0) else 4
    length = int.from_bytes(head[8 : 8 + length_bytes], "little")
    begin = 8 + length_bytes + length
    if length > _LONGEST_HEADER or begin < 12:
        raise ValueError(f"a header of {length:,} bytes")
    rest = io.BytesIO(head[8:] + file.read(begin - 12))
    try:
        with _parsing:
            shape, fortran_order, dtype = _READERS[version](rest)
    except Exception as error:  # numpy evaluates the header as Python; damaged bytes fail in a dozen ways
        raise ValueError(f"a damaged header ({reason_of(error)})"[:200]) from error
    if dtype.hasobject:
        raise ValueError("objects, which are never loaded")
    if not all(type(count) is int and count >= 0 for count in shape) or not dtype.itemsize:
        raise ValueError(f"shape {shape}, dtype {dtype}")
    if (claimed := begin + math.prod(shape) * dtype.itemsize) > size:
        raise ValueError(f"{size:,} bytes, where its header promises {claimed:,}")
    return Header(shape, dtype, fortran_order, begin)


def map_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of a .npy, mapped from the file, which is never written to.

    Raises: ValueError where it holds no plain array or is cut short; OSError where it is not a file or cannot be read.
    """
    expect_regular(path)
    with open(path, "rb") as file:
        header = read_header(file, os.fstat(file.fileno()).st_size)
        if 0 in header.shape:
            return np.empty(header.shape, header.dtype)
        order = "F" if header.fortran_order else "C"
        return np.memmap(file, header.dtype, "r", header.begin, header.shape, order)  # type: ignore[call-overload]


def write_npy(path: Path, array: np.ndarray) -> None:
    """Writes an array as .npy, whole or not at all."""

    def write(aside: Path) -> None:
        with open(aside, "wb") as file:
            np.save(file, array, allow_pickle=False)

    write_atomically(path, write)
