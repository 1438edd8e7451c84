"""A .npy's header is believed only as far as its file bears it out; arrays of a .npz against numpy's own reader.

What is written with checksums is the .npy that numpy reads, whatever the length, and damage to any of it is noticed.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from clipsel_core import npy
from clipsel_core.errors import PoolFormatError
from clipsel_core.npy import fill_rows, map_npy, read_array, read_members
from clipsel_core.uids import UID_DTYPE
from tests.conftest import unit_rows

BLOCK = 8192


def with_header(path, header: str, values: bytes = b"\0" * 64):
    text = header.encode("latin1")
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + values)
    return path


@pytest.mark.parametrize(
    "array",
    [
        *(np.arange(12.0).reshape(3, 4), np.asfortranarray(np.arange(12.0).reshape(3, 4)), np.arange(3, dtype=">u8")),
        *(np.zeros((0, 5), "f2"), np.zeros(2, "u8,u8"), np.array(7)),
    ],
    ids=str,
)
def test_map_npy__agrees_with_numpy(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    found = map_npy(tmp_path / "a.npy")
    assert (found.dtype, found.flags.writeable and found.size > 0) == (array.dtype, False)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 16)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -16)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 16)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1.0, 2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (98765432109876, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 9)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + repr((0,) * 70) + "}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': ['<f4'], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': 3, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 1",
        "(" * 3000,
        "\xff\x00",
    ],
)
def test_map_npy__a_header_that_cannot_be_true_is_refused(tmp_path, header):
    with pytest.raises(ValueError, match=r"shape|header|objects|bytes|dimension"):
        map_npy(with_header(tmp_path / "a.npy", header))


def test_map_npy__flipped_bits_are_read_or_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(16.0))
    whole = (tmp_path / "a.npy").read_bytes()
    refused = 0
    for place in range(100):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            (tmp_path / "a.npy").write_bytes(damaged)
            try:
                map_npy(tmp_path / "a.npy")
            except ValueError:
                refused += 1
    assert refused > 300


def test_map_npy__what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(OSError, match="a pipe, a socket or a device"):
        map_npy(tmp_path / "pipe.npy")
    with pytest.raises(OSError, match="a pipe, a socket or a device"):
        map_npy("/dev/zero")
    with pytest.raises(OSError, match="a folder"):
        map_npy(tmp_path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("rows", [0, 1, 37])
def test_read_array__agrees_with_numpy(tmp_path, save, rows):
    arrays = {"a": unit_rows(rows, 5), "b": np.asfortranarray(unit_rows(rows, 3).astype("f4")), "c": np.arange(rows)}
    save(tmp_path / "x.npz", **arrays)
    members = read_members(tmp_path / "x.npz")
    assert list(members) == list(arrays)
    for name, array in arrays.items():
        read = read_array(tmp_path / "x.npz", members[name])
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


def test_read_array__maps_what_is_stored_and_reads_what_is_compressed(tmp_path):
    np.savez(tmp_path / "stored.npz", a=unit_rows(9, 4))
    np.savez_compressed(tmp_path / "small.npz", a=unit_rows(9, 4))
    kinds = [type(read_array(p, read_members(p)["a"])) for p in (tmp_path / "stored.npz", tmp_path / "small.npz")]
    assert kinds == [np.memmap, np.ndarray]


def test_read_members__finds_values_behind_an_extra_field(tmp_path):
    """Some writers align members with an extra field in the local header that the central directory lacks."""
    np.save(tmp_path / "a.npy", unit_rows(6, 4))
    info = zipfile.ZipInfo("a.npy")
    info.extra = b"\x99\x99\x08\x00paddingX"
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr(info, (tmp_path / "a.npy").read_bytes())
    read = read_array(tmp_path / "x.npz", read_members(tmp_path / "x.npz")["a"])
    np.testing.assert_array_equal(read, unit_rows(6, 4))


def test_read_members__a_file_cut_short_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", a=unit_rows(100, 8))
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[:1000])
    with pytest.raises(PoolFormatError, match=r"x\.npz: expected a whole \.npz, found .*; download it again"):
        read_members(tmp_path / "x.npz")


def test_read_members__objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{}], object))
    with pytest.raises(PoolFormatError, match="never loaded"):
        read_members(tmp_path / "x.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("rows", [0, 1, 10, 37])
def test_fill_rows__fills_what_it_is_given_block_by_block(tmp_path, save, rows):
    arrays = {
        "a": unit_rows(rows, 5),
        "b": np.asfortranarray(unit_rows(rows, 3, 1)),
        "c": unit_rows(rows, 4).astype("f8"),
    }
    save(tmp_path / "x.npz", **arrays)
    members = read_members(tmp_path / "x.npz")
    for name, array in arrays.items():
        out = np.full(array.shape, 9, array.dtype if name != "c" else np.float32)
        told = []
        for place in fill_rows(tmp_path / "x.npz", members[name], out, block=10):
            np.testing.assert_array_equal(out[place], array[place].astype(out.dtype))
            told += range(rows)[place]
        assert told == list(range(rows))


def test_fill_rows__a_file_cut_short_meanwhile_is_named(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=unit_rows(100, 8))
    member, out = read_members(path)["a"], np.empty((100, 8), np.float16)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        PoolFormatError, match=r"x\.npz: expected a whole \.npz, found it ends in the middle of an array"
    ):
        list(fill_rows(path, member, out, block=10))


def test_read_array__writing_to_it_leaves_the_file_alone(tmp_path):
    np.savez(tmp_path / "x.npz", a=unit_rows(9, 4))
    before = (tmp_path / "x.npz").read_bytes()
    read_array(tmp_path / "x.npz", read_members(tmp_path / "x.npz")["a"])[:] = 0
    assert (tmp_path / "x.npz").read_bytes() == before


def patched(path, places, value):
    """Changes a two-byte field at an offset of each local header, and of each entry of the central directory."""
    data = bytearray(path.read_bytes())
    for mark, offset in zip((b"PK\x03\x04", b"PK\x01\x02"), places, strict=True):
        at = data.find(mark)
        while at >= 0:
            data[at + offset : at + offset + 2] = value.to_bytes(2, "little")
            at = data.find(mark, at + 1)
    path.write_bytes(data)


@pytest.mark.parametrize("method", [9, 93, 98, 99, 12, 14])
def test_read_members__a_method_that_it_is_not_compressed_with(tmp_path, method):
    np.savez_compressed(tmp_path / "x.npz", a=unit_rows(9, 4))
    patched(tmp_path / "x.npz", (8, 10), method)
    with pytest.raises(PoolFormatError, match=r"x\.npz: expected a whole \.npz, found .*; download it again"):
        read_array(tmp_path / "x.npz", read_members(tmp_path / "x.npz")["a"])


def test_read_members__an_encrypted_one(tmp_path):
    np.savez(tmp_path / "x.npz", a=unit_rows(9, 4))
    patched(tmp_path / "x.npz", (6, 8), 1)
    with pytest.raises(PoolFormatError, match=r"x\.npz: expected a whole \.npz, found .*encrypted"):
        read_members(tmp_path / "x.npz")


def test_read_array__compressed_bytes_that_are_damaged(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=unit_rows(500, 8))
    member = read_members(tmp_path / "x.npz")["a"]
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[400:500] = zlib.compress(b"other")[:1] * 100
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(PoolFormatError, match=r"x\.npz: expected a whole \.npz"):
        read_array(tmp_path / "x.npz", member)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("shape", ["(98765432109876, 4)", "(3, 5)", "(-3, 4)", "(True, 4)"])
def test_read_members__a_header_that_cannot_be_true(tmp_path, shape, compression):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode()
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(48)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", compression) as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(PoolFormatError, match=r"x\.npz: expected a whole \.npz, found a: "):
        read_members(tmp_path / "x.npz")


def test_read_members__a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(PoolFormatError, match=r"x\.npz: expected a whole \.npz, found a pipe"):
        read_members(tmp_path / "x.npz")


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(npy, "_CHECKED_BLOCK", BLOCK)


def array_of(dtype: np.dtype | type, length: int) -> np.ndarray:
    raw = np.random.default_rng(length).integers(0, 256, length * np.dtype(dtype).itemsize, np.uint8)
    return raw.view(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.uint32, np.int64, UID_DTYPE])
@pytest.mark.parametrize("size", [16, 4080, 4096, BLOCK, BLOCK + 16, 4 * BLOCK, 5 * BLOCK - 16])
def test_save_checked__is_read_by_numpy_to_the_byte(tmp_path, small_blocks, dtype, size):
    array, path = array_of(dtype, size // np.dtype(dtype).itemsize), tmp_path / "a.npy"
    path.write_bytes(b"older and longer" * 10_000)
    npy.save_checked(path, array)
    for found in (np.load(path, allow_pickle=False), np.load(path, mmap_mode="r")):
        assert found.dtype == array.dtype
        assert found.tobytes() == array.tobytes()
        assert npy.is_as_saved(path, found)
    whole, checksums = path.read_bytes(), 4 * -(-size // BLOCK)
    first = len(whole) - size - checksums
    for byte in (first, first + size // 2, first + size - 1, len(whole) - 1):
        path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 4]) + whole[byte + 1 :])
        assert not npy.is_as_saved(path, np.load(path))


@pytest.mark.parametrize("order", ["C", "F"])
def test_save_checked__keeps_the_rows_of_a_table(tmp_path, small_blocks, order):
    table = np.asarray(array_of(np.int64, 9000).reshape(3, 3000), order=order)
    npy.save_checked(tmp_path / "a.npy", table)
    assert np.array_equal(np.load(tmp_path / "a.npy"), table)


def test_save_checked__says_that_the_disk_is_full_and_lets_the_file_go(tmp_path):
    def held():
        return [file for file in Path("/proc/self/fd").iterdir() if os.path.realpath(file) == "/dev/full"]

    before = held()  # by errors of other tests
    with pytest.raises(OSError, match="No space left"):
        npy.save_checked(Path("/dev/full"), array_of(np.float32, 10_001))
    assert held() == before
