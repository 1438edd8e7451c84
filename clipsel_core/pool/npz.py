"""How the arrays inside an npz are found, and mapped or read straight from the file where they are stored."""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from clipsel_core.errors import PoolFormatError, reason_of
from clipsel_core.files import expect_regular
from clipsel_core.npy import read_header

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_MAGIC = b"PK\x03\x04"
_MOST_DEFLATED = 1032  # bytes that deflate makes of one


@dataclass(frozen=True)
class Member:
    """One array of an npz. offset: where its values begin in the file, or None where they are compressed."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    offset: int | None


def read_members(npz: Path) -> dict[str, Member]:
    """The arrays of an npz by name; reads headers only. Raises PoolFormatError where it is not a whole npz."""
    try:
        expect_regular(npz)
        with zipfile.ZipFile(npz) as archive, open(npz, "rb") as raw:
            infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            members = (_member(archive, raw, info) for info in infos)
            return {member.name: member for member in members}
    except FileNotFoundError as error:
        raise PoolFormatError(npz, expected="the embeddings", found="no such file", remedy="download it") from error
    except Exception as error:  # zipfile fails in a dozen ways: encrypted, an unknown method, zlib, struct, a name
        raise _unreadable(npz, error) from error


def read_array(npz: Path, member: Member) -> np.ndarray:
    """An array of an npz: mapped from the file where it is stored, read into memory where it is compressed.

    Who writes to it changes a copy of the page that is written to, never the file.
    Raises: PoolFormatError where the file is cut short or damaged.
    """
    try:
        if member.offset is None:
            with zipfile.ZipFile(npz) as archive, archive.open(f"{member.name}.npy") as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
        order: Literal["F", "C"] = "F" if member.fortran_order else "C"
        if 0 in member.shape:
            return np.empty(member.shape, member.dtype, order)
        return np.memmap(npz, member.dtype, mode="c", offset=member.offset, shape=member.shape, order=order)
    except Exception as error:  # as above
        raise _unreadable(npz, error) from error


def read_rows(npz: Path, member: Member, out: np.ndarray, *, block: int) -> Iterator[slice]:
    """Reads an array of rows into `out`, `block` rows at a time, and yields each block's place once it is there.

    out: C-contiguous, of the member's shape; of its dtype, or of one that its values are rounded to.
    Raises: PoolFormatError where the file is cut short or damaged.
    """
    with RowReader(npz, member, out.dtype) as reader:
        for start in range(0, len(out), block):
            place = slice(start, min(start + block, len(out)))
            reader.read(place, out[place])
            yield place


def will_need(npz: Path, member: Member) -> None:
    """Tells the system, where it can be told, that an array is going to be read, so that the disk need not wait.

    Raises: PoolFormatError where the file cannot be opened.
    """
    if member.offset is None or not hasattr(os, "posix_fadvise"):
        return
    try:
        with open(npz, "rb") as file:
            size = member.dtype.itemsize * math.prod(member.shape)
            os.posix_fadvise(file.fileno(), member.offset, size, os.POSIX_FADV_WILLNEED)
    except OSError as error:
        raise _unreadable(npz, error) from error


class RowReader:
    """Reads rows of an array of an npz, from any thread; a context manager, since it holds the file open.

    dtype: of what is read into. Stored values of the same dtype go from the file into place and nowhere else; all
    others come by way of `read_array`.
    Raises: PoolFormatError where the file is cut short or damaged.
    """

    def __init__(self, npz: Path, member: Member, dtype: np.dtype) -> None:
        self._npz, self._member = npz, member
        copied = member.offset is None or member.fortran_order or member.dtype != dtype or 0 in member.shape
        self._array = read_array(npz, member) if copied else None
        self._row_bytes = member.dtype.itemsize * int(np.prod(member.shape[1:]))
        try:
            self._file = os.open(npz, os.O_RDONLY)
        except OSError as error:
            raise _unreadable(npz, error) from error

    def __enter__(self) -> RowReader:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def read(self, place: slice, out: np.ndarray) -> None:
        """Reads the rows of a place, start and stop given, into a C-contiguous array of their shape."""
        if self._array is not None:
            with np.errstate(over="ignore"):
                out[...] = self._array[place]
            return
        assert self._member.offset is not None
        try:
            self._read_whole(out.reshape(-1).view(np.uint8), self._member.offset + place.start * self._row_bytes)
        except (OSError, EOFError) as error:
            raise _unreadable(self._npz, error) from error

    def _read_whole(self, out: np.ndarray, offset: int) -> None:
        done = 0
        while done < len(out):
            count = os.preadv(self._file, [out[done:].data], offset + done)
            if not count:
                raise EOFError("it ends in the middle of an array")
            done += count


def _member(archive: zipfile.ZipFile, raw, info: zipfile.ZipInfo) -> Member:
    name = info.filename.removesuffix(".npy")
    stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
    size = info.file_size
    if stored:
        size = min(size, os.fstat(raw.fileno()).st_size)
    elif info.compress_type == zipfile.ZIP_DEFLATED:
        size = min(size, _MOST_DEFLATED * info.compress_size + _MOST_DEFLATED)
    with archive.open(info) as stream:
        try:
            header = read_header(stream, size)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    offset = _data_offset(raw, info) + header.begin if stored else None
    return Member(name, header.shape, header.dtype, header.fortran_order, offset)


def _data_offset(raw, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin; the local header's name and extra field may differ from the central directory's."""
    raw.seek(info.header_offset)
    magic, *_, name_length, extra_length = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
    if magic != _MAGIC:
        raise ValueError(f"{info.filename} has no local header")
    return info.header_offset + _LOCAL_HEADER.size + name_length + extra_length


def _unreadable(npz: Path, error: Exception) -> PoolFormatError:
    return PoolFormatError(npz, expected="a whole .npz", found=reason_of(error), remedy="download it again")
