"""How is an array read from a .npy, or from one within a .npz, and written to one?

A header is believed only as far as the file's size allows. The zip format has a CRC-32 of each array: whoever reads an
array of a .npz as a whole has it compared, as numpy does. A large .npy of our own has behind the numbers, where numpy
does not look, the CRC-32 of each block.
"""

from __future__ import annotations

import io
import logging
import math
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np

from clipsel_core.errors import PoolFormatError, reason_of
from clipsel_core.files import expect_regular, write_atomically
from clipsel_core.places import Place
from clipsel_core.tasks import allowed_cores, check, in_order

_log = logging.getLogger(__name__)
_LONGEST_HEADER = 10_000  # numpy's own limit
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

# numpy has Python's own parser read headers, which threads that parse at once can mix up: gh-106905, mended in 3.12.
_parsing = threading.Lock()

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_MAGIC = b"PK\x03\x04"
_MOST_DEFLATED = 1032  # bytes that deflate makes of one
# What zipfile and numpy raise on bytes that are not as they were written; RuntimeError where they seem encrypted, or of
# a method that nobody knows.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, SyntaxError, OSError, EOFError, ValueError, LookupError, TypeError),
    *(RuntimeError, OverflowError, MemoryError),
)
_POLYNOMIAL = 0xEDB88320
_BLOCKS_TO_CHECK = 16
_CHECKED_AT_ONCE = 1 << 20
_CHECKED_BLOCK = 8 << 20
# What is asked of a store at a time, and how many such pieces of an array are under way at once.
_PIECE, _IN_FLIGHT = 8 << 20, 4


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
    """The array of a .npy, mapped from the file, which is never written to; read from a store.

    Raises: ValueError where it holds no plain array or is cut short; OSError where it is not a file or cannot be read.
    """
    place = Place.of(path)
    with place.open(in_places=True) if place.remote else _opened(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        header = read_header(file, size)
        if 0 in header.shape:
            return np.empty(header.shape, header.dtype)
        order: Literal["F", "C"] = "F" if header.fortran_order else "C"
        if place.remote:
            found = np.empty(header.shape, header.dtype, order)
            flat = found.reshape(-1, order="A").view(np.uint8)
            with ThreadPoolExecutor(_IN_FLIGHT) as threads:
                starts = range(0, len(flat), _PIECE)
                list(threads.map(lambda at: place.read_into(flat[at : at + _PIECE].data, header.begin + at), starts))
            return found
        return np.memmap(file, header.dtype, "r", header.begin, header.shape, order)


def _opened(path: str | os.PathLike[str]) -> IO[bytes]:
    expect_regular(path)
    return open(path, "rb")


def write_npy(path: Path, array: np.ndarray) -> None:
    """Writes an array as .npy, whole or not at all."""
    write_atomically(path, lambda aside: put_npy(aside, array))


def put_npy(path: Path, array: np.ndarray) -> None:
    """Fills a file of just this name with an array as .npy."""
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)


def save_checked(path: Path, array: np.ndarray) -> None:
    """Writes an array under just this name, with checksums that numpy does not look at behind the numbers.

    array: of any shape and any dtype without objects.
    """
    array = np.ascontiguousarray(array)
    data = array.reshape(-1).view(np.uint8)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        for start in range(0, len(data), _CHECKED_BLOCK):
            check()
            file.write(data[start : start + _CHECKED_BLOCK].data)
        file.write(_checksums(array))


def is_as_saved(path: Path, array: np.ndarray) -> bool:
    """Whether an array that was read or mapped from a file is what `save_checked` wrote there, to the bit.

    Raises: OSError where the file cannot be read.
    """
    size = 4 * -(-array.nbytes // _CHECKED_BLOCK)
    with open(path, "rb") as file:
        file.seek(-size, os.SEEK_END)
        return file.read() == _checksums(array)


def load_or_make(file: Path | None, shape: tuple[int, ...], dtype: type, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in a file, else what `make` makes, which is then kept there if that is possible.

    file: None where nothing is kept; anything may delete it. shape, dtype: of the array; what has others, or is
    damaged, is made anew.
    """
    if file is None:
        return make()
    try:
        array = np.array(map_npy(file))
        if array.shape == shape and array.dtype == dtype and is_as_saved(file, array):
            return array
    except (OSError, ValueError):
        _log.debug("made anew: no %s", file)
    made = make()
    if file.parent.is_dir():
        try:
            write_atomically(file, lambda aside: save_checked(aside, made))
        except OSError as error:
            _log.warning("%s cannot be kept: %s", file, error)
    return made


def _checksums(array: np.ndarray) -> bytes:
    """The CRC-32 of each block of a contiguous array, uint32 each."""
    data = array.reshape(-1).view(np.uint8)
    starts = range(0, len(data), _CHECKED_BLOCK)
    with ThreadPoolExecutor(allowed_cores()) as threads:
        found = list(threads.map(lambda start: zlib.crc32(data[start : start + _CHECKED_BLOCK].data), starts))
    return np.array(found, "<u4").tobytes()


@dataclass(frozen=True)
class Member:
    """One array of an npz. offset: where its values begin in the file, or None where they are compressed.

    crc: the CRC-32 of header and values, as the file says it. crc_of_header: of what comes before the values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    offset: int | None
    crc: int
    crc_of_header: int


def read_members(npz: str | os.PathLike[str]) -> dict[str, Member]:
    """The arrays of an npz by name; reads headers only. Raises PoolFormatError where it is not a whole npz."""
    place = Place.of(npz)
    try:
        with place.open(in_places=True) as raw, zipfile.ZipFile(raw) as archive:
            infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            members = (_member(archive, raw, info) for info in infos)
            return {member.name: member for member in members}
    except FileNotFoundError as error:
        raise PoolFormatError(place, expected="the embeddings", found="no such file", remedy="download it") from error
    except _DAMAGE as error:
        raise _unreadable(place, error) from error


def read_array(npz: str | os.PathLike[str], member: Member) -> np.ndarray:
    """An array of an npz: mapped from a file on this machine where it is stored, else read into memory.

    Who writes to it changes a copy of the page that is written to, never the file.
    Raises: PoolFormatError where the file is cut short or damaged.
    """
    place = Place.of(npz)
    try:
        if member.offset is None:
            with place.open() as raw, zipfile.ZipFile(raw) as archive, archive.open(f"{member.name}.npy") as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
        order: Literal["F", "C"] = "F" if member.fortran_order else "C"
        if 0 in member.shape:
            return np.empty(member.shape, member.dtype, order)
        if not place.remote:
            return np.memmap(place.path, member.dtype, mode="c", offset=member.offset, shape=member.shape, order=order)
    except _DAMAGE as error:
        raise _unreadable(place, error) from error
    found = np.empty(member.shape, member.dtype, order)
    rows = found.T if member.fortran_order else found
    whole = replace(member, shape=rows.shape, fortran_order=False)
    for _ in fill_rows(place, whole, rows, block=max(1, _PIECE * len(rows) // rows.nbytes)):
        pass
    return found


def fill_rows(npz: str | os.PathLike[str], member: Member, out: np.ndarray, *, block: int) -> Iterator[slice]:
    """Reads an array of rows into `out`, `block` rows at a time, and yields each block's place once it is there.

    out: C-contiguous, of the member's shape; of its dtype, or of one that its values are rounded to.
    Raises: PoolFormatError where the file is cut short or damaged.
    """
    with RowReader(npz, member, out.dtype) as reader:
        checked = 0
        for place in reader.fill(out, block):
            yield place
            if place.stop - checked >= _BLOCKS_TO_CHECK * block or place.stop == len(out):
                reader.check(slice(checked, place.stop), out[checked : place.stop])
                checked = place.stop


def will_need(npz: Place, member: Member) -> None:
    """Tells the system, where it can be told, that an array is going to be read, so that the disk need not wait.

    Raises: PoolFormatError where the file cannot be opened.
    """
    if member.offset is None or npz.remote or not hasattr(os, "posix_fadvise"):
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
    others come by way of `read_array`. Where `check` was told all rows, their CRC is compared when the reader is left.
    Raises: PoolFormatError where the file is cut short or damaged.
    """

    def __init__(self, npz: str | os.PathLike[str], member: Member, dtype: np.dtype) -> None:
        self._npz, self._member = Place.of(npz), member
        self._read: dict[int, tuple[int, int]] = {}  # the row that a place begins with: the one it ends at, its CRC
        copied = member.offset is None or member.fortran_order or member.dtype != dtype or 0 in member.shape
        self._array = read_array(self._npz, member) if copied else None
        self._row_bytes = member.dtype.itemsize * int(np.prod(member.shape[1:]))
        self._file: int | None = None
        if self._npz.remote:
            return
        try:
            self._file = os.open(self._npz, os.O_RDONLY)
        except OSError as error:
            raise _unreadable(self._npz, error) from error
        if copied and member.offset is not None:
            self._read_for_crc(member.offset, self._row_bytes * member.shape[0])

    def __enter__(self) -> RowReader:
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)
        if kind is None:
            self._check_crc()

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

    def fill(self, out: np.ndarray, block: int) -> Iterator[slice]:
        """Reads all rows into an array, and yields each block's place once it is there; see fill_rows.

        From a store in larger pieces, some of them at a time, so that it need not be waited for at each.
        """
        blocks = [slice(start, min(start + block, len(out))) for start in range(0, len(out), block)]
        if not self._npz.remote or self._array is not None:
            for place in blocks:
                self.read(place, out[place])
                yield place
            return
        at_once = max(1, _PIECE // max(1, block * self._row_bytes))
        pieces = [blocks[start : start + at_once] for start in range(0, len(blocks), at_once)]

        def read(piece: list[slice]) -> None:
            place = slice(piece[0].start, piece[-1].stop)
            self.read(place, out[place])

        with ThreadPoolExecutor(_IN_FLIGHT) as threads:
            for piece, _ in in_order(pieces, lambda piece: threads.submit(read, piece), _IN_FLIGHT):
                yield from piece

    def check(self, place: slice, values: np.ndarray) -> None:
        """Notes the CRC of the rows that were read from a place, C-contiguous; many at a time cost threads less."""
        if self._array is None:
            self._read[place.start] = place.stop, zlib.crc32(values.reshape(-1).view(np.uint8).data)

    def _read_for_crc(self, offset: int, size: int) -> None:
        """Reads values that are going to be taken from a map, a block at a time, for their CRC alone."""
        block, crc = np.empty(min(size, _CHECKED_AT_ONCE), np.uint8), 0
        try:
            for start in range(0, size, _CHECKED_AT_ONCE):
                part = block[: size - start]
                self._read_whole(part, offset + start)
                crc = zlib.crc32(part.data, crc)
        except (OSError, EOFError) as error:
            self.__exit__(type(error))
            raise _unreadable(self._npz, error) from error
        self._read[0] = self._member.shape[0], crc

    def _check_crc(self) -> None:
        """Compares the CRC of the rows where all were read. Raises PoolFormatError where it is another."""
        crc, row = self._member.crc_of_header, 0
        while row in self._read:
            stop, part = self._read[row]
            # The CRC of two pieces of data one after the other.
            crc, row = _product(_power((stop - row) * self._row_bytes), crc) ^ part, stop
            if stop == self._member.shape[0] and crc != self._member.crc:
                raise _unreadable(self._npz, ValueError(f"{self._member.name} with another CRC than was written"))
            if stop == self._member.shape[0]:
                return

    def _read_whole(self, out: np.ndarray, offset: int) -> None:
        if self._file is None:
            self._npz.read_into(out.data, offset)
            return
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
        size = min(size, raw.seek(0, os.SEEK_END))
    elif info.compress_type == zipfile.ZIP_DEFLATED:
        size = min(size, _MOST_DEFLATED * info.compress_size + _MOST_DEFLATED)
    with archive.open(info) as stream:
        try:
            header = read_header(stream, size)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        stream.seek(0)
        crc_of_header = zlib.crc32(stream.read(header.begin))
    offset = None
    if stored:
        # The local header's name and extra field may differ from the central directory's.
        raw.seek(info.header_offset)
        magic, *_, name_length, extra_length = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
        if magic != _MAGIC:
            raise ValueError(f"{info.filename} has no local header")
        offset = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length + header.begin
    return Member(name, header.shape, header.dtype, header.fortran_order, offset, info.CRC, crc_of_header)


@lru_cache
def _power(length: int) -> int:
    """x to the power of 8 * length, modulo the CRC's polynomial; the highest bit stands for 1."""
    found, square = 1 << 31, 1 << 23
    while length:
        if length & 1:
            found = _product(found, square)
        square, length = _product(square, square), length >> 1
    return found


def _product(first: int, second: int) -> int:
    """Of two polynomials over the numbers 0 and 1, modulo the CRC's."""
    found = 0
    for bit in range(31, -1, -1):
        if first >> bit & 1:
            found ^= second
        second = second >> 1 ^ (_POLYNOMIAL if second & 1 else 0)
    return found


def _unreadable(npz: Place, error: Exception) -> PoolFormatError:
    remedy = "start again when its store answers, or upload it again" if npz.remote else "download it again"
    return PoolFormatError(npz, expected="a whole .npz", found=reason_of(error), remedy=remedy)
