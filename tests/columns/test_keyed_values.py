"""Values by uid as people have them: every format and form of uid, what is missing, and what is refused."""

from __future__ import annotations

import gzip
import uuid
import zipfile
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core import uids
from clipsel_core.columns import keyed_files
from clipsel_core.columns.join import ShardUids, join_group
from clipsel_core.columns.keyed_values import KeyedGroup, KeyedValues, open_keyed
from clipsel_core.errors import ClipselError, ColumnError, PoolFormatError, UidError
from clipsel_core.npy import write_npy
from clipsel_core.runs.store import Run
from tests.curation.conftest import hand_run, make_uids

ROWS = 53


def read(keyed: KeyedValues) -> tuple[np.ndarray, list]:
    """All uids, and all values as a list."""
    batches = list(keyed.batches())
    values = [value for batch in batches for value in batch.values.tolist()]
    return np.concatenate([np.empty(0, uids.UID_DTYPE), *(batch.uids for batch in batches)]), values


def pairs_of(seed: int, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Random uids and values, a tenth of these missing."""
    draw = np.random.default_rng(seed)
    values = draw.standard_normal(rows).astype(np.float32)
    values[draw.random(rows) < 0.1] = np.nan
    return uids.from_halves(*draw.integers(0, 2**64, (2, rows), dtype=np.uint64)), values


def frame_of(names: np.ndarray, values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"uid": uids.to_hex(names).to_pylist(), "score": values})


def octets_of(names: np.ndarray) -> list[bytes]:
    return [bytes.fromhex(text) for text in uids.to_hex(names).to_pylist()]


def write_keys(names: np.ndarray) -> dict[str, pa.Table]:
    """The same uids in every form that a parquet has them."""
    texts, octets = uids.to_hex(names).to_pylist(), octets_of(names)
    halves = [pa.array(np.ascontiguousarray(names[half])) for half in ("f0", "f1")]
    return {
        "hex": pa.table({"uid": texts}),
        "capitals": pa.table({"UID": [text.upper() for text in texts]}),
        "dashed": pa.table({"uid": [str(uuid.UUID(text)) for text in texts]}),
        "dictionary": pa.table({"uid": pa.array(texts).dictionary_encode()}),
        "large": pa.table({"uids": pa.array(texts, pa.large_string())}),
        "16 bytes": pa.table({"uid": pa.array(octets, pa.binary(16))}),
        "bytes": pa.table({"uid": pa.array(octets, pa.binary())}),
        "struct": pa.table({"uid": pa.StructArray.from_arrays(halves, ["f0", "f1"])}),
        "halves": pa.table(dict(zip(("uid_hi", "uid_lo"), halves, strict=True))),
    }


@pytest.mark.parametrize("form", write_keys(make_uids(1)))
def test_open_keyed__every_form_of_uid_in_a_parquet(tmp_path, form):
    names, values = pairs_of(1)
    table = write_keys(names)[form].append_column("dfn", pa.array(values))
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    keyed = open_keyed(f"{tmp_path}/a.parquet")
    found, scores = read(keyed)
    assert (found == names).all()
    np.testing.assert_array_equal(np.array(scores, np.float32), values)
    assert (keyed.column, keyed.kind, keyed.stored, keyed.rows) == ("dfn", "number", "float", ROWS)


def array_files(names: np.ndarray, values: np.ndarray) -> dict[str, dict[str, np.ndarray] | np.ndarray]:
    """The same in every form of .npy (an array) and .npz (several)."""

    def structured(dtype, **fields: np.ndarray) -> np.ndarray:
        out = np.zeros(len(names), dtype)
        for name, field in fields.items():
            out[name] = field
        return out

    high, low, texts = names["f0"], names["f1"], np.array(uids.to_hex(names).to_pylist())
    octets = np.array([list(value) for value in octets_of(names)], np.uint8)
    return {
        "struct": structured([("uid", "u8,u8"), ("score", "f4")], uid=names, score=values),
        "text": structured([("score", "f8"), ("UID", "U32")], UID=texts, score=values),
        "halves": structured(
            [("uid_hi", ">u8"), ("uid_lo", ">u8"), ("score", ">f4")], uid_hi=high, uid_lo=low, score=values
        ),
        "unnamed": structured("u8,u8,f4", f0=high, f1=low, f2=values),
        "arrays": {"uids": names, "values": values},
        "names": {"uid": texts, "dfn": values.astype(np.float64)},
        "two columns": {"uid": np.stack([high, low], 1), "dfn": values},
        "octets": {"uid": octets, "dfn": values},
        "raw": {"uid": octets.view("V16")[:, 0], "dfn": values},
        "apart": {"uid_lo": low, "dfn": values, "uid_hi": high},
        "zero bytes": {"uids": texts.astype("S32"), "dfn": values},
    }


@pytest.mark.parametrize("form", array_files(*pairs_of(0, 1)))
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_open_keyed__every_form_of_array(tmp_path, form, save, monkeypatch):
    monkeypatch.setattr(keyed_files, "_ROWS_AT_ONCE", 10)
    names, values = pairs_of(2)
    arrays = array_files(names, values)[form]
    path = tmp_path / ("a.npz" if isinstance(arrays, dict) else "a.npy")
    save(path, **arrays) if isinstance(arrays, dict) else np.save(path, arrays)
    keyed = open_keyed(str(path))
    found, scores = read(keyed)
    assert (found == names).all()
    np.testing.assert_array_equal(np.array(scores, np.float32), values)
    assert (keyed.kind, keyed.rows) == ("number", ROWS)


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "tsv.gz", "CSV"])
def test_open_keyed__a_csv_as_pandas_writes_it(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(keyed_files, "_TEXT_AT_ONCE", 150)
    names, values = pairs_of(3)
    frame = frame_of(names, values.astype(np.float64))
    frame.insert(0, "text", ['a "quoted", caption\nof two lines'] * ROWS)
    frame.to_csv(tmp_path / f"a.{ending}", index=False, sep="\t" if "tsv" in ending else ",")
    keyed = open_keyed(f"{tmp_path}/a.{ending}#Score")
    found, scores = read(keyed)
    assert (found == names).all()
    np.testing.assert_array_equal(np.array(scores, np.float32), values)
    assert (keyed.column, keyed.kind, keyed.stored, keyed.rows) == ("score", "number", "text", None)


@pytest.mark.parametrize("named", [True, False])
def test_open_keyed__a_parquet_with_the_uids_as_pandas_index(tmp_path, named):
    names, values = pairs_of(4)
    frame = frame_of(names, values).set_index("uid")
    frame.rename_axis("uid" if named else None).to_parquet(tmp_path / "a.parquet")
    keyed = open_keyed(f"{tmp_path}/a.parquet")
    assert (read(keyed)[0] == names).all()
    assert keyed.column == "score"


def test_open_keyed__a_numbered_index_is_no_column_of_values(tmp_path):
    names, values = pairs_of(5)
    frame = frame_of(names, values)
    frame[~np.isnan(frame["score"])].to_parquet(tmp_path / "a.parquet")
    assert "__index_level_0__" in pq.read_schema(tmp_path / "a.parquet").names
    assert open_keyed(f"{tmp_path}/a.parquet").column == "score"


@pytest.mark.parametrize("source", ["{}", "{}/", "{}#score", "{}/*.parquet#score", "{}/part-?.parquet"])
def test_open_keyed__several_files(tmp_path, source):
    names, values = pairs_of(6)
    folder = tmp_path / "a#b"
    folder.mkdir()
    for part in (2, 0, 1):
        frame_of(names, values)[part::3].to_parquet(folder / f"part-{part}.parquet", index=False)
    (folder / "_SUCCESS").touch()
    (folder / "notes.csv").write_text("nothing")
    keyed = open_keyed(source.format(folder))
    order = np.concatenate([np.arange(ROWS)[part::3] for part in range(3)])
    assert (read(keyed)[0] == names[order]).all()
    assert keyed.rows == ROWS


def test_open_keyed__a_file_whose_name_holds_a_sign(tmp_path):
    names, values = pairs_of(7)
    frame_of(names, values).assign(other=1).to_csv(tmp_path / "a#1.csv", index=False)
    assert open_keyed(f"{tmp_path}/a#1.csv#other").column == "other"


NUMBERS = [
    (pa.array([1, None, -3], pa.int8()), [1, None, -3], 0),
    (pa.array([2**24, 2**24 + 1, None], pa.int64()), [2**24, 2**24, None], 1),
    (pa.array([2**64 - 1, 2**40 + 1, 5], pa.uint64()), [2**64, 2**40, 5], 1),
    (pa.array([0.1, 0.5, float("nan")], pa.float64()), [np.float32(0.1), 0.5, None], 0),
    (pa.array([0.5, float("-inf"), None], pa.float16()), [0.5, float("-inf"), None], 0),
    (pa.array([Decimal("1.25"), None, Decimal("-2")], pa.decimal128(10, 2)), [1.25, None, -2], 0),
    (pa.array([None, None, None], pa.null()), [None] * 3, 0),
    (pa.array([True, False, None]), [1, 0, None], 0),
]


@pytest.mark.parametrize(("column", "expected", "rounded"), NUMBERS, ids=[str(column.type) for column, *_ in NUMBERS])
def test_open_keyed__every_type_of_number(tmp_path, column, expected, rounded):
    pq.write_table(pa.table({"uid": ["1", "2", "3"], "x": column}), tmp_path / "a.parquet")
    keyed = open_keyed(f"{tmp_path}/a.parquet")
    (batch,) = keyed.batches()
    assert batch.values.dtype == np.float32
    np.testing.assert_array_equal(batch.values, np.array(expected, float).astype(np.float32))
    assert batch.rounded == rounded
    assert keyed.kind == ("flag" if column.type == pa.bool_() else "number")


@pytest.mark.parametrize(
    ("written", "kind", "expected"),
    [
        (["1", " +2 ", "-1e3", "inf"], "number", [1, 2, -1000, np.inf]),
        (["", "NaN", "null", "Null ", "5"], "number", [np.nan] * 4 + [5]),
        (["", ""], "number", [np.nan] * 2),
        (["True", "False", "", "true"], "flag", [1, 0, np.nan, 1]),
        (["true", " FALSE", "1", "nan", "true"], "flag", [1, 0, 1, np.nan, 1]),
        (["en", "", "nan", "12"], "category", ["en", None, "nan", "12"]),
    ],
)
def test_open_keyed__what_a_csv_holds_is_seen_by_its_values(tmp_path, written, kind, expected):
    frame = pd.DataFrame({"uid": [f"{row:x}" for row in range(len(written))], "x": written})
    frame.to_csv(tmp_path / "a.csv", index=False)
    keyed = open_keyed(f"{tmp_path}/a.csv")
    assert keyed.kind == kind
    assert [value if value == value else None for value in read(keyed)[1]] == [
        value if value == value else None for value in expected
    ]


def test_open_keyed__texts_of_every_type_are_categories(tmp_path):
    texts = ["en", "", None, "en", "fr"]
    types = {
        "a": pa.string(),
        "b": pa.large_string(),
        "c": pa.string_view(),
        "d": pa.dictionary(pa.int8(), pa.string()),
    }
    table = pa.table(
        {"uid": [f"{row}" for row in range(5)], **{name: pa.array(texts, kind) for name, kind in types.items()}}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    np.savez(tmp_path / "a.npz", uids=make_uids(*range(5)), x=np.array(["en", "", "", "en", "fr"]))
    for source in (*(f"a.parquet#{name}" for name in types), "a.npz"):
        keyed = open_keyed(f"{tmp_path}/{source}")
        assert (keyed.kind, read(keyed)[1]) == ("category", ["en", None, None, "en", "fr"]), source


@pytest.mark.parametrize("column", [[3, None, 12], [3.0, None, 12.0]])
def test_open_keyed__numbers_taken_for_categories(tmp_path, column):
    pq.write_table(pa.table({"uid": ["1", "2", "3"], "cluster": column}), tmp_path / "a.parquet")
    assert read(open_keyed(f"{tmp_path}/a.parquet", kind="category"))[1] == ["3", None, "12"]


def test_open_keyed__texts_taken_for_numbers(tmp_path):
    pq.write_table(pa.table({"uid": ["1", "2", "3"], "x": ["0.5", None, "2"]}), tmp_path / "a.parquet")
    keyed = open_keyed(f"{tmp_path}/a.parquet", kind="number")
    np.testing.assert_array_equal(read(keyed)[1], [0.5, np.nan, 2])


def test_open_keyed__counts_the_whole_numbers_of_a_csv_that_float32_does_not_hold(tmp_path):
    (tmp_path / "a.csv").write_text(f"uid,x\n1,0.1\n2,{2**24 + 1}\n3,{2**24 + 2}\n")
    assert sum(batch.rounded for batch in open_keyed(f"{tmp_path}/a.csv").batches()) == 1


def test_open_keyed__a_column_of_another_run(tmp_path):
    parts = [(make_uids(1, 2), {"s_cliploss": [0.5, np.nan]}), (make_uids(3), {"s_cliploss": [2]})]
    hand_run(tmp_path / "b32", parts)
    keyed = open_keyed(f"{tmp_path}/b32#s_cliploss")
    assert (read(keyed)[0] == make_uids(1, 2, 3)).all()
    np.testing.assert_array_equal(read(keyed)[1], [0.5, np.nan, 2])
    assert (keyed.column, keyed.kind, keyed.rows) == ("s_cliploss", "number", 3)
    assert keyed.described == Run.open(tmp_path / "b32").columns["s_cliploss"]
    with pytest.raises(ColumnError, match="expected a category, found a number"):
        open_keyed(f"{tmp_path}/b32#s_cliploss", kind="category")
    with pytest.raises(ColumnError, match="one of the columns s_cliploss"):
        open_keyed(f"{tmp_path}/b32")
    hand_run(tmp_path / "half", parts, planned=3)
    with pytest.raises(ColumnError, match="a finished run"):
        open_keyed(f"{tmp_path}/half#s_cliploss")


@pytest.mark.parametrize(
    ("name", "content", "expected", "found"),
    [
        ("a.csv#y", "uid,x\n1,2\n", "a column 'y'", "'uid', 'x'"),
        ("a.csv", "uid,x,y\n1,2,3\n", "one column beside the uids", "'uid', 'x', 'y'"),
        ("a.csv", "uid\n1\n", "one column beside the uids", "'uid'"),
        ("a.csv", "id,x\n1,2\n", "a column uid, or uid_hi and uid_lo", "'id', 'x'"),
        ("a.csv#x", "uid,x,x\n1,2,3\n", "one column x", "2"),
        ("a.csv", "", "a whole .csv file", "Empty"),
        ("a.csv", "uid,x\n1,2,3\n", "a whole .csv file", "columns"),
        ("a.csv.gz", "no gzip", "a whole .gz file", "gzip"),
        ("a.txt", "1 2\n", "a name that ends with .parquet, .csv", "txt"),
        ("none.csv", None, "files that end with", "no such file"),
        ("a.npy", "no npy", "a whole .npy file", "no .npy header"),
        ("a.npz", "no npz", "a whole .npz file", "not a zip file"),
    ],
)
def test_open_keyed__says_what_is_wrong_with_a_file(tmp_path, name, content, expected, found):
    if content is not None:
        (tmp_path / name.partition("#")[0]).write_text(content)
    with pytest.raises(ColumnError, match=name.partition("#")[0].replace(".", r"\.")) as caught:
        list(open_keyed(f"{tmp_path}/{name}").batches())
    assert expected in caught.value.expected
    assert found in caught.value.found


def test_open_keyed__refuses_a_folder_without_values(tmp_path):
    with pytest.raises(ColumnError, match="no file of these in the folder"):
        open_keyed(str(tmp_path))


@pytest.mark.parametrize("text", ["uid,naïve\n0a,e\n", "uid,x\n0a,é\n"])
def test_open_keyed__says_how_a_csv_in_another_encoding_is_saved(tmp_path, text):
    (tmp_path / "a.csv").write_bytes(text.encode("cp1252"))
    with pytest.raises(
        ColumnError, match=r"a\.csv: expected text in UTF-8, found bytes that are none; save it as UTF-8"
    ):
        list(open_keyed(f"{tmp_path}/a.csv").batches())


def test_open_keyed__refuses_a_damaged_parquet(tmp_path):
    (tmp_path / "a.parquet").write_text("no parquet")
    with pytest.raises(PoolFormatError, match=r"a\.parquet: expected a whole parquet file"):
        open_keyed(f"{tmp_path}/a.parquet")


@pytest.mark.parametrize("at_once", [64, 1 << 19])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_open_keyed__refuses_an_npz_that_was_changed(tmp_path, save, at_once, monkeypatch):
    """Its CRC is compared though the values are read a part at a time."""
    monkeypatch.setattr(keyed_files, "_ROWS_AT_ONCE", at_once)
    names, values = pairs_of(8, 5000)
    save(tmp_path / "a.npz", uids=names, x=values)
    data = (tmp_path / "a.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        crc = archive.getinfo("x.npy").CRC
    (tmp_path / "a.npz").write_bytes(data.replace(crc.to_bytes(4, "little"), (crc ^ 1).to_bytes(4, "little")))
    with pytest.raises(ColumnError, match=r"a\.npz: expected a whole \.npz file, found Bad CRC-32"):
        list(open_keyed(f"{tmp_path}/a.npz").batches())


def test_open_keyed__refuses_an_npy_that_was_cut(tmp_path):
    np.save(tmp_path / "a.npy", array_files(*pairs_of(8))["struct"])
    keyed = open_keyed(f"{tmp_path}/a.npy")
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(ColumnError, match=r"a\.npy: expected a whole \.npy file"):
        list(keyed.batches())


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.zeros((3, 2)), "x of shape (3, 2)"),
        (np.zeros(4), "x of shape (4,)"),
        (np.zeros(3, np.complex64), "complex64"),
        (np.array([b"", {}, 1], object), "objects"),
    ],
)
def test_open_keyed__refuses_arrays_that_are_no_values(tmp_path, values, found):
    np.savez(tmp_path / "a.npz", uids=make_uids(1, 2, 3), x=values)
    with pytest.raises(ColumnError, match=r"a\.npz") as caught:
        open_keyed(f"{tmp_path}/a.npz")
    assert found in caught.value.found


def test_open_keyed__refuses_an_array_without_uids(tmp_path):
    write_npy(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ColumnError, match="a structured array with fields uid and another"):
        open_keyed(f"{tmp_path}/a.npy")


def test_open_keyed__a_text_among_numbers_is_named_with_its_line(tmp_path):
    lines = ["uid,caption,x", *(f'{row:x},"a, ""quoted""\ncaption",{row}' for row in range(2000))]
    lines[1502] = "5dd,short,n/a"
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ColumnError) as caught:
        list(open_keyed(f"{tmp_path}/a.csv#x").batches())
    # The header, and two lines for each of 1,501 rows before it.
    assert caught.value.where == f"{tmp_path}/a.csv, line {1 + 2 * 1501 + 1}"
    assert (caught.value.expected, caught.value.found) == ("a number in x", "'n/a'")


def test_open_keyed__a_first_text_among_numbers_makes_no_category(tmp_path):
    (tmp_path / "a.csv").write_text("uid,x\n1,n/a\n2,1\n3,2\n4,3\n")
    with pytest.raises(ColumnError, match=r"a\.csv, line 2: expected a number in x, found 'n/a'"):
        list(open_keyed(f"{tmp_path}/a.csv").batches())


def test_open_keyed__a_line_without_a_uid(tmp_path):
    (tmp_path / "a.csv").write_text("uid,x\n1,0.5\n\n,2\n")
    with pytest.raises(UidError, match=r"a\.csv, line 4: expected a uid of 1 to 32 hex digits, found ''"):
        list(open_keyed(f"{tmp_path}/a.csv").batches())


def test_open_keyed__a_word_among_flags(tmp_path):
    for word in ("maybe", "7"):
        (tmp_path / "a.csv").write_text(f"uid,x\n1,true\n2,false\n3,1\n4,true\n5,true\n6,{word}\n")
        with pytest.raises(ColumnError, match=rf"line 7: expected true or false in x, found '{word}'"):
            list(open_keyed(f"{tmp_path}/a.csv").batches())


def test_open_keyed__what_has_no_name_is_no_column(tmp_path):
    """As pandas writes its index into a csv."""
    (tmp_path / "a.csv").write_text(",uid,x\n0,7,2.5\n1,8,3.5\n")
    names, values = read(open_keyed(f"{tmp_path}/a.csv"))
    assert (names.tolist(), values) == ([(0, 7), (0, 8)], [2.5, 3.5])
    (tmp_path / "b.csv").write_text(",uid\n0,7\n")
    with pytest.raises(ColumnError, match="one column beside the uids"):
        open_keyed(f"{tmp_path}/b.csv")


@pytest.mark.parametrize("form", ["parquet", "npz"])
def test_open_keyed__names_the_row_of_what_is_wrong(tmp_path, form, monkeypatch):
    monkeypatch.setattr(keyed_files, "_ROWS_AT_ONCE", 10)

    def write(texts: list[str], values: np.ndarray) -> str:
        path = tmp_path / f"a.{form}"
        if form == "npz":
            np.savez(path, uids=np.array(texts), x=values)
        else:
            pq.write_table(pa.table({"uid": texts, "x": values}), path)
        return str(path)

    texts, values = [f"{row:x}" for row in range(30)], np.arange(30.0)
    values[25] = 1e39
    with pytest.raises(ColumnError, match=r"row 25: expected a number that float32 holds, .*found 1e\+39"):
        list(open_keyed(write(texts, values)).batches())
    texts[17] = "no uid"
    with pytest.raises(UidError, match=rf"a\.{form}, row 17: .*'no uid'"):
        list(open_keyed(write(texts, values)).batches())


@pytest.mark.parametrize("kind", [pa.int64(), pa.list_(pa.float32()), pa.timestamp("s")])
def test_open_keyed__refuses_other_types(tmp_path, kind):
    column = pa.array([None], kind)
    table = {"uid": ["1"], "x": column} if kind != pa.int64() else {"uid_hi": column, "uid_lo": column, "x": [1]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(ClipselError, match=r"expected (numbers or texts in x|halves of uint64)"):
        list(open_keyed(f"{tmp_path}/a.parquet").batches())


def test_open_keyed__refuses_files_of_different_kinds(tmp_path):
    pd.DataFrame({"uid": ["1"], "x": [1.0]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"uid": ["2"], "x": ["en"]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ColumnError, match=r"b\.parquet: expected numbers, as in a\.parquet, found .*string in x"):
        open_keyed(str(tmp_path))


def test_open_keyed__a_column_may_be_empty_in_some_files(tmp_path):
    pd.DataFrame({"uid": ["1"], "x": [None]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"UID": ["2"], "X": ["en"]}).to_parquet(tmp_path / "b.parquet")
    assert read(open_keyed(str(tmp_path)))[1] == [None, "en"]


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv.gz", "npz"])
def test_join__every_format_as_pandas_merges(tmp_path, ending):
    names, values = pairs_of(9, 5000)
    draw = np.random.default_rng(9)
    order = draw.permutation(5000)[:4000]
    frame, path = frame_of(names, values).iloc[order], tmp_path / f"a.{ending}"
    frame = pd.concat([frame, frame[:100]])
    if ending == "parquet":
        frame.to_parquet(path)
    elif ending == "npz":
        np.savez(path, uids=uids.from_hex(frame["uid"].tolist()), score=frame["score"])
    else:
        frame.to_csv(path, index=False, sep="," if ending == "csv" else "\t")
    run = np.concatenate([names[:4500], make_uids(*range(500))])
    (found,) = join_group(ShardUids([5000], lambda _: run.copy()), KeyedGroup.of(open_keyed(str(path))))
    rows = pd.DataFrame({"uid": uids.to_hex(run).to_pylist()})
    expected = rows.merge(frame.drop_duplicates(), on="uid", how="left", indicator=True)
    np.testing.assert_array_equal(found.values, expected["score"].to_numpy(np.float32))
    assert found.matched == (expected["_merge"] == "both").sum()
    assert found.unknown == (~frame["uid"].isin(rows["uid"])).sum()
    assert found.repeated == frame["uid"].isin(rows["uid"]).sum() - found.matched


def test_open_keyed__a_zipped_csv_is_read_as_it_comes(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfuid;x\n1;0.5\n2;0.25\n"))
    assert read(open_keyed(f"{tmp_path}/a.csv.gz"))[1] == [0.5, 0.25]
