"""How is a large array kept in a file, so that damage is noticed? As a .npy, with checksums behind the numbers.

Behind the numbers, where numpy does not look, stands the CRC-32 of each block.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from clipsel_core import tasks
from clipsel_core.files import write_atomically
from clipsel_core.tasks import allowed_cores

_log = logging.getLogger(__name__)
_BLOCK = 8 << 20


def save(path: Path, array: np.ndarray) -> None:
    """Writes an array under just this name. array: of any shape and any dtype without objects."""
    array = np.ascontiguousarray(array)
    data = array.reshape(-1).view(np.uint8)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        for start in range(0, len(data), _BLOCK):
            tasks.check()
            file.write(data[start : start + _BLOCK].data)
        file.write(_checksums(array))


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


def load_or_make(file: Path | None, shape: tuple[int, ...], dtype: type, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in a file, else what `make` makes, which is then kept there if that is possible.

    file: None where nothing is kept; anything may delete it. shape, dtype: of the array; what has others, or is
    damaged, is made anew.
    """
    if file is None:
        return make()
    try:
        array = load(file)
        if array.shape == shape and array.dtype == dtype and is_as_saved(file, array):
            return array
    except (OSError, ValueError):
        _log.debug("made anew: no %s", file)
    made = make()
    if file.parent.is_dir():
        try:
            write_atomically(file, lambda aside: save(aside, made))
        except OSError as error:
            _log.warning("%s cannot be kept: %s", file, error)
    return made


def _checksums(array: np.ndarray) -> bytes:
    """The CRC-32 of each block of a contiguous array, uint32 each."""
    data = array.reshape(-1).view(np.uint8)
    starts = range(0, len(data), _BLOCK)
    with ThreadPoolExecutor(allowed_cores()) as threads:
        found = list(threads.map(lambda start: zlib.crc32(data[start : start + _BLOCK].data), starts))
    return np.array(found, "<u4").tobytes()
