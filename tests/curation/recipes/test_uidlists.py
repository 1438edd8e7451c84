"""Lists of uids from elsewhere: every format, in any order, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clipsel_core.curation.recipes.uidlists import read_uid_list
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


def test_read_uid_list__refuses_an_unsorted_npy(tmp_path):
    np.save(tmp_path / "list.npy", make_uids(2, 1))
    with pytest.raises(UidError, match="sorted"):
        read_uid_list(tmp_path / "list.npy")
