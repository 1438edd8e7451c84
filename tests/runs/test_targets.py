"""Targets of every kind give the same embeddings."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from clipsel_core import uids
from clipsel_core.errors import TargetError
from clipsel_core.pool.layout import open_pool
from clipsel_core.runs.targets import load_target
from tests.conftest import unit_rows

ROWS = unit_rows(7, 16, 99)


def write_npy(folder):
    np.save(folder / "t.npy", ROWS)
    return folder / "t.npy"


def write_npz(folder):
    np.savez(folder / "t.npz", whatever=ROWS)
    return folder / "t.npz"


def write_npz_with_several(folder):
    np.savez_compressed(folder / "t.npz", l14_img=ROWS, l14_txt=ROWS[:2])
    return folder / "t.npz"


def write_pt(folder):
    torch.save(torch.from_numpy(ROWS), folder / "t.pt")
    return folder / "t.pt"


def write_pt_of_a_dict(folder):
    torch.save({"features": torch.from_numpy(ROWS), "labels": torch.zeros(7)}, folder / "t.pt")
    return f"{folder / 't.pt'}#features"


def write_parquet(folder):
    pq.write_table(pa.table({"id": range(7), "e": [row.tolist() for row in ROWS.astype("f4")]}), folder / "t.parquet")
    return folder / "t.parquet"


def write_parquet_with_several(folder):
    flat = pa.array(ROWS.astype("f4").ravel())
    fixed = pa.FixedSizeListArray.from_arrays(flat, 16)
    pq.write_table(pa.table({"a": fixed, "b": fixed}), folder / "t.parquet")
    return f"{folder / 't.parquet'}#b"


ONE_ARRAY = [write_npy, write_npz, write_pt, write_parquet]
SEVERAL_ARRAYS = [write_npz_with_several, write_pt_of_a_dict, write_parquet_with_several]


def load(path, pool, root, name="task"):
    opened = open_pool(pool)
    return load_target(name, path, opened, opened.arch(), root)


@pytest.mark.parametrize("write", ONE_ARRAY + SEVERAL_ARRAYS)
def test_load_target__every_kind_gives_the_same_rows(pool, tmp_path, write):
    path = write(tmp_path)
    info, rows = load(path, pool, tmp_path / "run")
    np.testing.assert_array_equal(rows.float().numpy(), ROWS.astype("f4"))
    file = tmp_path / str(path).partition("#")[0].rpartition("/")[2]
    assert info.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (info.name, info.rows, info.width, info.kind) == ("task", 7, 16, file.suffix[1:])
    assert info.path == f"../{str(path).rpartition('/')[2]}"


def test_load_target__uids_of_the_pool_stand_for_their_images(pool, tmp_path):
    tables = [pq.read_table(path)["uid"].to_pylist() for path in sorted((pool / "metadata").glob("*.parquet"))]
    chosen = [tables[0][3], tables[2][50], tables[2][0]]
    uids.write_subset(tmp_path / "chosen.npy", uids.unique(uids.from_hex(chosen)))
    info, rows = load(tmp_path / "chosen.npy", pool, tmp_path / "run")
    images = [np.load(path)["l14_img"] for path in sorted((pool / "metadata").glob("*.npz"))]
    np.testing.assert_array_equal(rows.numpy(), np.stack([images[0][3], images[2][0], images[2][50]]))
    assert (info.kind, info.rows) == ("uids", 3)


def test_load_target__uids_that_the_pool_lacks(pool, tmp_path):
    uids.write_subset(tmp_path / "chosen.npy", uids.from_hex(["1", "2"]))
    with pytest.raises(TargetError, match=r"expected 2 uids of the pool .*, found 2 that it lacks"):
        load(tmp_path / "chosen.npy", pool, tmp_path / "run")


def test_load_target__another_width(pool, tmp_path):
    np.save(tmp_path / "t.npy", unit_rows(3, 8))
    with pytest.raises(TargetError, match=r"expected width 16.*found 8"):
        load(tmp_path / "t.npy", pool, tmp_path / "run")


@pytest.mark.parametrize("value", [0, np.nan])
def test_load_target__a_bad_row_is_named(pool, tmp_path, value):
    rows = ROWS.copy()
    rows[5] = value
    np.save(tmp_path / "t.npy", rows)
    with pytest.raises(TargetError, match="row 5"):
        load(tmp_path / "t.npy", pool, tmp_path / "run")


@pytest.mark.parametrize("array", [np.zeros((0, 16), "f4"), np.ones(16, "f4"), np.ones((3, 16), "i8")])
def test_load_target__what_is_no_set_of_embeddings(pool, tmp_path, array):
    np.save(tmp_path / "t.npy", array)
    with pytest.raises(TargetError, match=r"t\.npy"):
        load(tmp_path / "t.npy", pool, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "content"), [("t.npy", b"junk"), ("t.npz", b"junk"), ("t.pt", b"junk"), ("t.parquet", b"j")]
)
def test_load_target__junk_is_named(pool, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TargetError, match=name):
        load(tmp_path / name, pool, tmp_path / "run")


def test_load_target__a_pickle_is_never_run(pool, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    torch.save(Trap(), tmp_path / "t.pt")
    with pytest.raises(TargetError, match=r"t\.pt: expected a \.pt of plain tensors"):
        load(tmp_path / "t.pt", pool, tmp_path / "run")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(("spec", "found"), [("t.npz#no", "a, b"), ("t.npz", "a, b")])
def test_load_target__an_array_must_be_named_where_there_are_several(pool, tmp_path, spec, found):
    np.savez(tmp_path / "t.npz", a=ROWS, b=ROWS)
    with pytest.raises(TargetError, match=f"found {found}; name one behind the path: FILE#NAME"):
        load(f"{tmp_path}/{spec}", pool, tmp_path / "run")


def test_load_target__no_such_file_and_no_such_kind(pool, tmp_path):
    with pytest.raises(TargetError, match="expected the target 'task', found no such file"):
        load(tmp_path / "t.npy", pool, tmp_path / "run")
    (tmp_path / "t.csv").write_text("1,2")
    with pytest.raises(TargetError, match=r"expected \.npy, \.npz, \.pt or \.parquet, found \.csv"):
        load(tmp_path / "t.csv", pool, tmp_path / "run")
