"""Large arrays in files: the .npy that numpy reads, whatever the length, and damage to any of it noticed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from clipsel_core.curation.index import array_files
from clipsel_core.uids import UID_DTYPE

BLOCK = 8192


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(array_files, "_BLOCK", BLOCK)


def array_of(dtype: np.dtype | type, length: int) -> np.ndarray:
    raw = np.random.default_rng(length).integers(0, 256, length * np.dtype(dtype).itemsize, np.uint8)
    return raw.view(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.uint32, np.int64, UID_DTYPE])
@pytest.mark.parametrize("size", [16, 4080, 4096, BLOCK, BLOCK + 16, 4 * BLOCK, 5 * BLOCK - 16])
def test_save__is_read_by_numpy_to_the_byte(tmp_path, small_blocks, dtype, size):
    array, path = array_of(dtype, size // np.dtype(dtype).itemsize), tmp_path / "a.npy"
    path.write_bytes(b"older and longer" * 10_000)
    array_files.save(path, array)
    for found in (np.load(path, allow_pickle=False), np.load(path, mmap_mode="r")):
        assert found.dtype == array.dtype
        assert found.tobytes() == array.tobytes()
        assert array_files.is_as_saved(path, found)
    whole, checksums = path.read_bytes(), 4 * -(-size // BLOCK)
    first = len(whole) - size - checksums
    for byte in (first, first + size // 2, first + size - 1, len(whole) - 1):
        path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 4]) + whole[byte + 1 :])
        assert not array_files.is_as_saved(path, np.load(path))


@pytest.mark.parametrize("order", ["C", "F"])
def test_save__keeps_the_rows_of_a_table(tmp_path, small_blocks, order):
    table = np.asarray(array_of(np.int64, 9000).reshape(3, 3000), order=order)
    array_files.save(tmp_path / "a.npy", table)
    assert np.array_equal(np.load(tmp_path / "a.npy"), table)


def test_save__says_that_the_disk_is_full_and_lets_the_file_go(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        array_files.save(Path("/dev/full"), array_of(np.float32, 10_001))
    assert not [file for file in Path("/proc/self/fd").iterdir() if os.path.realpath(file) == "/dev/full"]
