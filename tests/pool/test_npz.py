"""Arrays mapped from an npz against numpy's own reader."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.npz import read_array, read_members, read_rows
from tests.conftest import unit_rows


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
def test_read_rows__fills_what_it_is_given_block_by_block(tmp_path, save, rows):
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
        for place in read_rows(tmp_path / "x.npz", members[name], out, block=10):
            np.testing.assert_array_equal(out[place], array[place].astype(out.dtype))
            told += range(rows)[place]
        assert told == list(range(rows))


def test_read_rows__a_file_cut_short_meanwhile_is_named(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=unit_rows(100, 8))
    member, out = read_members(path)["a"], np.empty((100, 8), np.float16)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        PoolFormatError, match=r"x\.npz: expected a whole \.npz, found it ends in the middle of an array"
    ):
        list(read_rows(path, member, out, block=10))


def test_read_array__writing_to_it_leaves_the_file_alone(tmp_path):
    np.savez(tmp_path / "x.npz", a=unit_rows(9, 4))
    before = (tmp_path / "x.npz").read_bytes()
    read_array(tmp_path / "x.npz", read_members(tmp_path / "x.npz")["a"])[:] = 0
    assert (tmp_path / "x.npz").read_bytes() == before
