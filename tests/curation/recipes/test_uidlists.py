"""Lists of uids from elsewhere: every format, in any order, and what is refused."""

from __future__ import annotations

import os
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core.curation.recipes.uidlists import read_counted_list, read_uid_list
from clipsel_core.errors import UidError
from tests.curation.conftest import make_uids

HEXES = ["30", "0" * 30 + "1F", "2", "30", "0" * 31 + "2"]


def write(path, ending: str):
    if ending == "txt":
        path.write_bytes("\r\n".join([*HEXES, "", ""]).encode())
    elif ending == "csv":
        pd.DataFrame({"text": 'a "quoted", caption\nof two lines', "uid": HEXES}).to_csv(path, index=False)
    elif ending == "parquet":
        pd.DataFrame({"uid": HEXES, "score": 1.0}).to_parquet(path)
    return path


@pytest.mark.parametrize("ending", ["txt", "csv", "parquet"])
def test_read_uid_list__sorts_and_drops_repeats(tmp_path, ending):
    found = read_uid_list(write(tmp_path / f"list.{ending}", ending))
    assert found.tolist() == make_uids(2, 0x1F, 0x30).tolist()


def test_read_uid_list__takes_halves(tmp_path):
    pd.DataFrame({"uid_hi": [1, 0], "uid_lo": [5, 2**64 - 1]}).astype("uint64").to_parquet(tmp_path / "list.parquet")
    assert read_uid_list(tmp_path / "list.parquet").tolist() == [(0, 2**64 - 1), (1, 5)]


@pytest.mark.parametrize("ending", ["TXT", "Npy"])
def test_read_uid_list__takes_endings_in_capitals(tmp_path, ending):
    path = tmp_path / f"list.{ending}"
    if ending == "TXT":
        path.write_text("")
    else:
        with open(path, "wb") as file:
            np.save(file, make_uids(1))
    assert len(read_uid_list(path)) == (ending == "Npy")


@pytest.mark.parametrize(
    ("name", "content", "expected", "found"),
    [
        ("list.json", b"[]", "a name ending in .npy, .txt, .csv, .parquet", ".json"),
        ("list", b"", "a name ending in", "no ending"),
        ("list.txt", b"12\n\xff\n", "a .txt file of uids", "UTF8"),
        ("list.csv", b"", "a .csv file of uids", "Empty"),
        ("list.csv", b"uid\n12,13\n", "a .csv file of uids", "columns"),
        ("list.csv", b"uid\nNA\n", "a uid of 1 to 32 hex digits", "NA"),
    ],
)
def test_read_uid_list__says_what_is_wrong(tmp_path, name, content, expected, found):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UidError, match=name) as caught:
        read_uid_list(tmp_path / name)
    assert expected in caught.value.expected
    assert found in caught.value.found


@pytest.mark.parametrize("column", [pd.Series([1, 2], name="uid"), pd.Series(["1", "2"], name="id")])
def test_read_uid_list__refuses_a_parquet_without_uids(tmp_path, column):
    column.to_frame().to_parquet(tmp_path / "list.parquet")
    with pytest.raises(UidError, match="uid"):
        read_uid_list(tmp_path / "list.parquet")


def test_read_uid_list__an_npy_in_any_order(tmp_path, caplog):
    np.save(tmp_path / "list.npy", make_uids(2, 1, 2))
    assert read_uid_list(tmp_path / "list.npy").tolist() == make_uids(1, 2).tolist()
    assert "1 of 3 uids repeat others and count once" in caplog.text


UUIDS = [uuid.UUID(int=n << 90 | n) for n in (5, 3, 9)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([str(value) for value in UUIDS]).dictionary_encode(),
        pa.array([str(value).upper() for value in UUIDS], pa.string_view()),
        pa.array([value.hex for value in UUIDS], pa.large_string()),
        pa.array([value.bytes for value in UUIDS], pa.binary(16)),
        pa.array([value.bytes for value in UUIDS], pa.binary()),
        pa.array([divmod(value.int, 1 << 64) for value in UUIDS], pa.struct({"f0": pa.uint64(), "f1": pa.uint64()})),
        pa.array(UUIDS, pa.uuid()),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.parametrize("name", ["uid", "UID", "uids"])
def test_read_uid_list__takes_a_uid_column_of_any_type(tmp_path, column, name):
    pq.write_table(pa.table({name: column}), tmp_path / "list.parquet")
    wanted = make_uids(*sorted(value.int for value in UUIDS))
    assert read_uid_list(tmp_path / "list.parquet").tolist() == wanted.tolist()


@pytest.mark.parametrize("ending", ["txt", "csv"])
def test_read_uid_list__takes_uuids_as_text(tmp_path, ending):
    lines = [str(value) for value in UUIDS]
    (tmp_path / f"list.{ending}").write_text("\n".join(["Uid"] * (ending == "csv") + lines))
    wanted = make_uids(*sorted(value.int for value in UUIDS))
    assert read_uid_list(tmp_path / f"list.{ending}").tolist() == wanted.tolist()


@pytest.mark.parametrize(
    "half", [pa.array(["1", "2"]), pa.array([1.0, 2.0]), pa.array([1, 2]), pa.array([1, None], pa.uint64())], ids=str
)
def test_read_uid_list__refuses_halves_of_another_type(tmp_path, half):
    pq.write_table(pa.table({"uid_hi": pa.array([1, 2], pa.uint64()), "uid_lo": half}), tmp_path / "list.parquet")
    with pytest.raises(UidError, match=r"list\.parquet: uids: expected halves of uint64, found"):
        read_uid_list(tmp_path / "list.parquet")


@pytest.mark.parametrize("ending", ["npy", "txt", "csv", "parquet"])
def test_read_uid_list__does_not_wait_for_a_pipe(tmp_path, ending):
    os.mkfifo(tmp_path / f"list.{ending}")
    with pytest.raises(UidError, match=f"list.{ending}: expected a .{ending} file of uids, found a pipe"):
        read_uid_list(tmp_path / f"list.{ending}")


def test_read_uid_list__a_header_that_claims_a_pebibyte(tmp_path):
    np.save(tmp_path / "list.npy", make_uids(1))
    data = (tmp_path / "list.npy").read_bytes()
    (tmp_path / "list.npy").write_bytes(data.replace(b"(1,), }" + b" " * 14, b"(98765432109876,), }  "[:21]))
    with pytest.raises(UidError, match=r"list\.npy: expected a \.npy of dtype u8,u8, found .* bytes, where its header"):
        read_uid_list(tmp_path / "list.npy")


def test_read_uid_list__a_column_name_that_is_no_utf8(tmp_path):
    table = pa.table({"uidx": ["1"]})
    pq.write_table(table, tmp_path / "list.parquet", store_schema=False)
    data = (tmp_path / "list.parquet").read_bytes()
    (tmp_path / "list.parquet").write_bytes(data.replace(b"uidx", b"uid\xff"))
    with pytest.raises(UidError, match=r"list\.parquet: expected"):
        read_uid_list(tmp_path / "list.parquet")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("mark", [None, ",", ";", "\t", "|"])
def test_read_uid_list__its_first_bytes_and_line_tell_its_form(tmp_path, encoding, mark):
    lines = HEXES if mark is None else [f"n{mark}Uid", *(f"{n}{mark}{uid}" for n, uid in enumerate(HEXES))]
    path = tmp_path / ("list.txt" if mark is None else "list.csv")
    path.write_text("\n".join(lines), encoding=encoding)
    assert read_uid_list(path).tolist() == make_uids(2, 0x1F, 0x30).tolist()


def test_read_uid_list__utf16_that_breaks_off(tmp_path):
    (tmp_path / "list.csv").write_bytes("uid\nab\n".encode("utf-16") + b"\0")
    with pytest.raises(UidError, match=r"list\.csv: expected a \.csv file of uids, found "):
        read_uid_list(tmp_path / "list.csv")


@pytest.mark.parametrize("ending", ["txt", "csv", "parquet", "npy"])
def test_read_counts__counts_repeats_in_any_order(tmp_path, ending):
    path = write(tmp_path / f"list.{ending}", ending)
    if ending == "npy":
        np.save(path, make_uids(0x30, 0x1F, 2, 0x30, 2))
    found, counts = read_counted_list(path)
    assert (found.tolist(), counts.tolist()) == (make_uids(2, 0x1F, 0x30).tolist(), [2, 1, 2])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("kind", ["int64", "uint16", "float32"])
def test_read_counts__a_column_says_how_often(tmp_path, ending, kind):
    table = pd.DataFrame({"COUNT": np.array([3, 1, 0, 2, 5], kind), "Uid": ["30", "1f", "7", "30", "2"]})
    path = tmp_path / f"list.{ending}"
    table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
    found, counts = read_counted_list(path)
    assert (found.tolist(), counts.tolist()) == (make_uids(2, 0x1F, 0x30).tolist(), [5, 1, 5])
    assert read_uid_list(path).tolist() == make_uids(2, 7, 0x1F, 0x30).tolist()


def test_read_counts__of_an_empty_list(tmp_path):
    (tmp_path / "list.txt").write_text("")
    assert [len(part) for part in read_counted_list(tmp_path / "list.txt")] == [0, 0]


@pytest.mark.parametrize("counts", [[1.5, 1], [-1, 1], [2**32, 1], ["many", "1"], [None, 1], [float("inf"), 1]])
def test_read_counts__refuses_what_is_no_count(tmp_path, counts):
    pq.write_table(pa.table({"uid": ["1", "2"], "count": counts}), tmp_path / "list.parquet")
    expected = r"list\.parquet: expected whole numbers from 0 to 4,294,967,295 in the column count, found"
    with pytest.raises(UidError, match=expected):
        read_counted_list(tmp_path / "list.parquet")
    assert len(read_uid_list(tmp_path / "list.parquet")) == 2
