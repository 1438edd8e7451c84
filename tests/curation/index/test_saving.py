"""Large arrays past the cache: the same .npy that numpy reads, whatever the length, the disk and the file system."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from clipsel_core.curation.index import saving
from clipsel_core.uids import UID_DTYPE

BLOCK = 8192


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(saving, "_BLOCK", BLOCK)
    monkeypatch.setattr(saving, "_FEWEST_BYTES", 1)


def array_of(dtype: np.dtype | type, length: int) -> np.ndarray:
    raw = np.random.default_rng(length).integers(0, 256, length * np.dtype(dtype).itemsize, np.uint8)
    return raw.view(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.uint32, np.int64, UID_DTYPE])
@pytest.mark.parametrize("size", [16, 4080, 4096, BLOCK, BLOCK + 16, 4 * BLOCK, 5 * BLOCK - 16])
def test_save__is_read_by_numpy_to_the_byte(tmp_path, small_blocks, dtype, size):
    array, path = array_of(dtype, size // np.dtype(dtype).itemsize), tmp_path / "a.npy"
    path.write_bytes(b"older and longer" * 10_000)
    saving.save(path, array)
    for found in (np.load(path, allow_pickle=False), np.load(path, mmap_mode="r")):
        assert found.dtype == array.dtype
        assert found.tobytes() == array.tobytes()
        assert saving.is_as_saved(path, found)
    assert path.stat().st_size == 4096 + size + 4 * -(-size // BLOCK)
    whole = path.read_bytes()
    for byte in (4096, 4096 + size // 2, 4095 + size, len(whole) - 1):
        path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 4]) + whole[byte + 1 :])
        assert not saving.is_as_saved(path, np.load(path))


@pytest.mark.parametrize("order", ["C", "F"])
def test_save__keeps_the_rows_of_a_table(tmp_path, small_blocks, order):
    table = np.asarray(array_of(np.int64, 9000).reshape(3, 3000), order=order)
    saving.save(tmp_path / "a.npy", table)
    assert np.array_equal(np.load(tmp_path / "a.npy"), table)


@pytest.mark.parametrize("direct", [0, 1 << 30])
def test_save__does_with_the_cache_where_nothing_else_is_possible(tmp_path, small_blocks, monkeypatch, direct):
    monkeypatch.setattr(saving, "_DIRECT", direct)
    usual = os.open

    def refuse(path, flags, *rest, **more):
        if direct and flags & direct:
            raise OSError(errno.EINVAL, "no such way of writing here")
        return usual(path, flags, *rest, **more)

    monkeypatch.setattr(saving.os, "open", refuse)
    array = array_of(np.uint32, 5000)
    saving.save(tmp_path / "a.npy", array)
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)


def test_save__goes_on_where_a_write_takes_only_a_part(tmp_path, small_blocks, monkeypatch):
    usual, asked = os.pwrite, []

    def some(file, data, at):
        asked.append(len(data))
        return usual(file, data[:4096], at)

    monkeypatch.setattr(saving.os, "pwrite", some)
    array = array_of(np.float32, 10_001)
    saving.save(tmp_path / "a.npy", array)
    assert np.load(tmp_path / "a.npy").tobytes() == array.tobytes()
    assert max(asked) == BLOCK


def test_save__says_that_the_disk_is_full_and_lets_the_file_go(tmp_path, small_blocks, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving.os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        saving.save(tmp_path / "a.npy", array_of(np.float32, 10_001))
    assert not [file for file in Path("/proc/self/fd").iterdir() if os.path.realpath(file) == str(tmp_path / "a.npy")]
