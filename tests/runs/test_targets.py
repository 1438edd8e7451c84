"""Targets of every kind give the same embeddings."""

from __future__ import annotations

import hashlib
import os
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from clipsel_core import uids
from clipsel_core.errors import TargetError
from clipsel_core.pool.layout import open_pool
from clipsel_core.runs.store import TargetInfo
from clipsel_core.runs.targets import load_target
from clipsel_core.tasks import silent
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


def write_big_endian_npy(folder):
    np.save(folder / "t.npy", ROWS.astype(">f4"))
    return folder / "t.npy"


def write_pth_of_image_features(folder):
    content = {"image_features": torch.from_numpy(ROWS), "labels": torch.zeros(7), "paths": ["a.jpg"] * 7}
    torch.save(content, folder / "t.pth")
    return folder / "t.pth"


def write_pt_of_a_parameter(folder):
    torch.save(torch.nn.Parameter(torch.from_numpy(ROWS)), folder / "t.pt")
    return folder / "t.pt"


def write_pt_of_a_view(folder):
    torch.save(torch.from_numpy(np.ascontiguousarray(ROWS.T)).T, folder / "t.pt")
    return folder / "t.pt"


def write_parquet_of_large_lists(folder):
    column = pa.array([row.tolist() for row in ROWS.astype("f4")], pa.large_list(pa.float32()))
    pq.write_table(pa.table({"embedding": column}), folder / "t.parquet", row_group_size=3)
    return folder / "t.parquet"


def write_a_name_with_a_hash(folder):
    np.save(folder / "a#b.npy", ROWS)
    return folder / "a#b.npy"


def write_a_hash_in_file_and_part(folder):
    np.savez(folder / "a#b.npz", **{"x#y": ROWS, "z": ROWS[:2]})
    return f"{folder / 'a#b.npz'}#x#y"


ONE_ARRAY = [
    *(write_npy, write_npz, write_pt, write_parquet, write_big_endian_npy, write_pt_of_a_parameter),
    *(write_pt_of_a_view, write_parquet_of_large_lists, write_a_name_with_a_hash),
]
SEVERAL_ARRAYS = [
    *(write_npz_with_several, write_pt_of_a_dict, write_parquet_with_several, write_pth_of_image_features),
    write_a_hash_in_file_and_part,
]


def load(path, pool, root, name="task"):
    opened = open_pool(pool)
    return load_target(name, path, opened, opened.arch(), root, embedding=silent)


@pytest.mark.parametrize("write", ONE_ARRAY + SEVERAL_ARRAYS)
def test_load_target__every_kind_gives_the_same_rows(pool, tmp_path, write):
    path = write(tmp_path)
    info, rows = load(path, pool, tmp_path / "run")
    np.testing.assert_array_equal(rows.float().numpy(), ROWS.astype("f4"))
    (file,) = (file for file in tmp_path.iterdir() if file.is_file())
    assert info.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (info.name, info.rows, info.width, info.kind) == ("task", 7, 16, file.suffix[1:].replace("pth", "pt"))
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


@pytest.mark.parametrize("form", ["strings", "bytes", "big-endian", "parquet"])
def test_load_target__uids_of_the_pool_in_every_form(pool, tmp_path, form, caplog):
    tables = [pq.read_table(path)["uid"].to_pylist() for path in sorted((pool / "metadata").glob("*.parquet"))]
    chosen = [str(uuid.UUID(tables[2][50])), tables[0][3].upper(), tables[2][0], tables[0][3]]
    path = tmp_path / f"chosen.{'parquet' if form == 'parquet' else 'npy'}"
    if form == "parquet":
        pq.write_table(pa.table({"UID": pa.array(chosen).dictionary_encode(), "note": ["x"] * 4}), path)
    else:
        forms = {"strings": chosen, "bytes": np.array(chosen, "S36")}
        np.save(path, forms[form] if form in forms else uids.from_hex(chosen).astype(">u8,>u8"))
    info, rows = load(path, pool, tmp_path / "run")
    images = [np.load(file)["l14_img"] for file in sorted((pool / "metadata").glob("*.npz"))]
    np.testing.assert_array_equal(rows.numpy(), np.stack([images[0][3], images[2][0], images[2][50]]))
    assert (info.kind, info.rows) == ("uids", 3)
    assert "1 of 4 uids repeat others" in caplog.text


@pytest.mark.parametrize(
    "write",
    [write_npy, write_npz, write_pth_of_image_features, write_parquet_of_large_lists],
)
def test_load_target__rows_of_another_length_are_scaled_with_a_count(pool, tmp_path, write, monkeypatch, caplog):
    monkeypatch.setitem(globals(), "ROWS", ROWS * np.float16(8))
    info, rows = load(write(tmp_path), pool, tmp_path / "run")
    np.testing.assert_allclose(rows.float().numpy(), ROWS.astype("f4") / 8, atol=1e-3)
    assert info.scaled == 7
    assert "target task: 7 embeddings of width 16, 7 not of unit length" in caplog.text


ODD_TENSORS = {
    "sparse": lambda: torch.from_numpy(ROWS).float().to_sparse(),
    "csr": lambda: torch.from_numpy(ROWS).float().to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.from_numpy(ROWS).float(), 0.01, 0, torch.qint8),
    "meta": lambda: torch.empty(7, 16, device="meta"),
    "complex": lambda: torch.ones(7, 16, dtype=torch.complex64),
    "integers": lambda: torch.ones(7, 16, dtype=torch.int8),
    "truths": lambda: torch.ones(7, 16, dtype=torch.bool),
    "wide": lambda: torch.ones(1, 1).expand(1 << 40, 16),
    "a list": lambda: [torch.from_numpy(ROWS)],
    "a list of text": lambda: ["a", "b"],
    "a dict of text": lambda: {"image_features": ["a"]},
    "a dict in a dict": lambda: {"model": {"image_features": torch.from_numpy(ROWS)}},
    "nothing": lambda: None,
}


@pytest.mark.parametrize("kind", ODD_TENSORS)
@pytest.mark.filterwarnings("ignore")
def test_load_target__odd_tensors_are_refused_in_one_line(pool, tmp_path, kind):
    torch.save(ODD_TENSORS[kind](), tmp_path / "t.pt")
    with pytest.raises(TargetError, match=r"t\.pt: expected") as caught:
        load(tmp_path / "t.pt", pool, tmp_path / "run")
    assert "weights_only" not in str(caught.value)
    assert "torch." not in caught.value.found


def test_load_target__eight_bits_are_read(pool, tmp_path):
    rows = torch.zeros(3, 16)
    rows[range(3), range(3)] = 1
    torch.save(rows.to(torch.float8_e4m3fn), tmp_path / "t.pt")
    np.testing.assert_array_equal(load(tmp_path / "t.pt", pool, tmp_path / "run")[1].numpy(), rows.numpy())


@pytest.mark.parametrize(
    "array",
    [
        *(np.array(["a dog"] * 3), np.zeros(3, "V16"), np.zeros(3, "M8[s]"), np.ones((3, 16), np.longdouble)),
        *(np.ones((3, 16), "c8"), np.ones((3, 16), bool), np.zeros(3, "i8,i8"), np.array([["a"] * 16] * 3)),
    ],
    ids=lambda array: str(array.dtype),
)
@pytest.mark.parametrize("save", [np.save, np.savez])
def test_load_target__odd_arrays_are_refused_in_one_line(pool, tmp_path, array, save):
    path = tmp_path / ("t.npz" if save is np.savez else "t.npy")
    save(path, array)
    with pytest.raises(TargetError, match=r"t\.np[yz].*: expected"):
        load(path, pool, tmp_path / "run")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["a"] * 16] * 3),
        pa.array([[1] * 16] * 3),
        pa.array([[0.5] * 16, [0.5] * 15]),
        pa.array([[0.5] * 16, None]),
        pa.array([[0.5] * 15 + [None]] * 2),
        pa.array([0.5, 0.5]),
        pa.array(["a", "b"]),
    ],
    ids=lambda column: str(column.type),
)
def test_load_target__odd_columns_are_refused_in_one_line(pool, tmp_path, column):
    pq.write_table(pa.table({"e": column}), tmp_path / "t.parquet")
    with pytest.raises(TargetError, match=r"t\.parquet.*: expected"):
        load(tmp_path / "t.parquet", pool, tmp_path / "run")


@pytest.mark.parametrize("ending", ["npy", "npz", "pt", "pth", "parquet"])
def test_load_target__a_pipe_is_not_waited_for(pool, tmp_path, ending):
    os.mkfifo(tmp_path / f"t.{ending}")
    with pytest.raises(TargetError, match="expected the target 'task', found a pipe"):
        load(tmp_path / f"t.{ending}", pool, tmp_path / "run")


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
    with pytest.raises(TargetError, match=r"expected \.npy, \.npz, \.pt, \.pth or \.parquet, found \.csv"):
        load(tmp_path / "t.csv", pool, tmp_path / "run")


@pytest.mark.parametrize(
    ("kind", "rows", "said"),
    [
        ("uids", 1, "1 pair of the pool of width 64"),
        ("uids", 2000, "2,000 pairs of the pool of width 64"),
        ("pool", 1, "1 image of a pool of width 64"),
        ("npy", 1, "1 embedding of width 64"),
    ],
)
def test_target_info__says_one_of_a_thing_as_one(kind, rows, said):
    assert TargetInfo(name="t", path="t.npy", kind=kind, sha256="0" * 64, rows=rows, width=64).said == said
