"""How does a large array reach the disk? As a .npy, in blocks written side by side, past the system's cache.

Behind the numbers, where numpy does not look, stands the CRC-32 of each block, so that damage is noticed.

A file that goes through the cache needs as much new memory as it is long, which costs more time than sorting, and
pushes out what is read next.
"""

from __future__ import annotations

import io
import mmap
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from clipsel_core import tasks
from clipsel_core.cores import allowed_cores

_BLOCK, _WRITERS = 8 << 20, 2
_ALIGNED = 4096
_FEWEST_BYTES = 2 * _BLOCK
_DIRECT = getattr(os, "O_DIRECT", 0)


def save(path: Path, array: np.ndarray) -> None:
    """Writes an array under just this name. array: of any shape and any dtype without objects."""
    array = np.ascontiguousarray(array)
    file = _open_past_cache(path) if array.nbytes >= _FEWEST_BYTES else None
    if file is None:
        with open(path, "wb") as out:
            np.save(out, array, allow_pickle=False)
            out.write(_checksums(array))
        return
    try:
        checksums = _fill(file, array)
    finally:
        os.close(file)
    with open(path, "ab") as out:
        out.write(checksums)


def load(path: Path, *, mapped: bool = False) -> np.ndarray:
    """The array in a file, read or mapped. Raises OSError, or ValueError where it holds none."""
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # A damaged header is parsed as Python's, which raises a dozen kinds.
        raise ValueError(f"{path}: no array: {type(error).__name__}") from error


def is_as_saved(path: Path, array: np.ndarray) -> bool:
    """Whether an array that was loaded or mapped from a file is what `save` wrote there, to the bit.

    Raises: OSError where the file cannot be read.
    """
    size = 4 * -(-array.nbytes // _BLOCK)
    with open(path, "rb") as file:
        file.seek(-size, os.SEEK_END)
        return file.read() == _checksums(array)


def _open_past_cache(path: Path) -> int | None:
    """A new file that takes whole blocks of aligned memory; None where the system or this file system has no such."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _DIRECT, 0o666) if _DIRECT else None
    except OSError:  # Whatever else is wrong with the path is said when it is opened the usual way.
        return None


def _checksums(array: np.ndarray) -> bytes:
    """The CRC-32 of each block of a contiguous array, uint32 each."""
    data = array.reshape(-1).view(np.uint8)
    starts = range(0, len(data), _BLOCK)
    with ThreadPoolExecutor(allowed_cores()) as threads:
        found = list(threads.map(lambda start: zlib.crc32(data[start : start + _BLOCK].data), starts))
    return np.array(found, "<u4").tobytes()


def _fill(file: int, array: np.ndarray) -> bytes:
    """Writes a contiguous array. Returns its checksums, as `_checksums`."""
    header, data = _header(array), array.reshape(-1).view(np.uint8)
    check, checksums = tasks.carried(tasks.check), np.empty(-(-len(data) // _BLOCK), "<u4")

    def write(first: int) -> None:
        with mmap.mmap(-1, _BLOCK) as room:
            if not first:
                room[:_ALIGNED] = header
                _write(file, room, _ALIGNED, 0)
            for start in range(first, len(data), _WRITERS * _BLOCK):
                check()
                part = data[start : start + _BLOCK]
                np.frombuffer(room, np.uint8, len(part))[:] = part
                checksums[start // _BLOCK] = zlib.crc32(part.data)
                _write(file, room, -(-len(part) // _ALIGNED) * _ALIGNED, _ALIGNED + start)

    with ThreadPoolExecutor(_WRITERS) as threads:
        list(threads.map(write, range(0, _WRITERS * _BLOCK, _BLOCK)))
    os.ftruncate(file, _ALIGNED + len(data))
    return checksums.tobytes()


def _write(file: int, room: mmap.mmap, size: int, at: int) -> None:
    """Writes the room's first bytes to a place in the file; a disk that is nearly full takes only some at a time."""
    done = 0
    with memoryview(room) as whole:
        while done < size:
            with whole[done:size] as rest:
                done += os.pwrite(file, rest, at + done)


def _header(array: np.ndarray) -> bytes:
    """What a .npy begins with, filled up with blanks so that the numbers begin where a page does."""
    usual = io.BytesIO()
    np.lib.format.write_array_header_1_0(usual, np.lib.format.header_data_from_array_1_0(array))
    version, text = usual.getvalue()[:8], usual.getvalue()[10:-1]
    size = _ALIGNED - 10
    return version + size.to_bytes(2, "little") + text.ljust(size - 1) + b"\n"
