"""Do the columns of a source come into the pool's table, each of one type, and nothing of the pool's in their place?"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.selecting.selection import select
from clipsel_core.errors import PoolFormatError
from clipsel_core.files import write_json
from clipsel_core.pool.layout import open_pool
from clipsel_core.pool.making import carried
from clipsel_core.runs.local import score
from tests.pool.making.test_make import build, bytes_of, csv_of_pictures, folder_of_pictures, table_of
from tests.pool.pictures import caption, image, sample, write_tar

OWN = {"uid", "url", "text", "original_width", "original_height", "sha256", "key", "source_uid", "json"}
WRITTEN = {
    "width": ["640", "1", "7", "0", "-3", "12", "", "99", "5"],
    "aesthetic": ["0.5", "1e-2", "nan", "", "3", ".25", "7.", "-0.125", "2"],
    "nsfw": ["true", "False", "", "TRUE", "false", "null", "true", "true", "true"],
    "zip": ["00501", "10001", "00501", "", "10001", "94103", "94103", "1", "2"],
    "late": ["1", "2", "3", "4", "5", "6", "7", "N/A", "9"],
    "code": ["12345678901234567890", *"12345678"],
    "empty": [""] * 9,
}


def csv_with(folder, **columns):
    folder_of_pictures(folder)
    table = {"path": [f"{n}.png" for n in range(9)], "caption": [caption(n) for n in range(9)], **columns}
    pd.DataFrame(table).to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def carried_of(root):
    table = table_of(root)
    assert len({shard.parquet.name: pq.read_schema(shard.parquet) for shard in open_pool(root).shards}) > 1
    first, *others = (pq.read_schema(shard.parquet) for shard in open_pool(root).shards)
    assert all(other.equals(first) for other in others)
    return {name: table[name] for name in table.column_names if name not in OWN and not name.startswith("clip_")}


def test_make_pool__a_csv_says_by_all_its_rows_what_a_column_is(tmp_path, teachers):
    made = build(csv_with(tmp_path / "in", **WRITTEN), tmp_path / "pool", teachers[0], shard_size=4)
    found = carried_of(tmp_path / "pool")
    assert made.columns == tuple(found) == ("width", "aesthetic", "nsfw", "zip", "late", "code")
    assert [str(column.type) for column in found.values()] == ["int64", "double", "bool", "string", "string", "string"]
    numbers = pd.read_csv(tmp_path / "in" / "t.csv")["aesthetic"].to_numpy()
    np.testing.assert_array_equal(np.array(found["aesthetic"].to_pylist(), np.float64), numbers)
    assert found["width"].to_pylist() == [640, 1, 7, 0, -3, 12, None, 99, 5]
    assert found["nsfw"].to_pylist() == [True, False, None, True, False, None, True, True, True]
    for name in ("zip", "late", "code"):
        assert found[name].to_pylist() == [value or None for value in WRITTEN[name]]


def test_make_pool__parquets_keep_numbers_flags_and_texts(tmp_path, teachers):
    (tmp_path / "in").mkdir()

    def part(numbers, **columns):
        images = [{"bytes": image(number, "PNG"), "path": None} for number in numbers]
        return pa.table({"image": images, "caption": [caption(number) for number in numbers], **columns})

    first = {
        "size": pa.array([1, None, 3], pa.int32()),
        "half": pa.array([0.5, float("nan"), -2], pa.float32()),
        "safe": [True, None, False],
        "lang": pa.array(["en", "de", None]).dictionary_encode(),
        "boxes": [[1.0], [], None],
        "thumb": [b"\xff\xd8\xff", b"", None],
        "clip_l14_similarity_score": [9.0, 9.0, 9.0],
        "URL": ["https://a/1", "https://a/2", "https://a/3"],
    }
    pq.write_table(part(range(3), **first), tmp_path / "in" / "a.parquet")
    pq.write_table(part(range(3, 7), size=[0.5, 1.5, 2.0, None], more=["x"] * 4), tmp_path / "in" / "b.parquet")
    made = build(tmp_path / "in", tmp_path / "pool", teachers[0], shard_size=3)
    found = carried_of(tmp_path / "pool")
    assert {name: str(column.type) for name, column in found.items()} == {
        "size": "double",
        "half": "double",
        "safe": "bool",
        "lang": "string",
        "more": "string",
    }
    assert found["size"].to_pylist() == [1, None, 3, 0.5, 1.5, 2, None]
    assert found["half"].to_pylist() == [0.5, None, -2, *[None] * 4]
    assert found["lang"].to_pylist() == ["en", "de", None, *[None] * 4]
    assert made.left_out == {
        "neither numbers, truth values nor texts": {"boxes": 0, "thumb": 0},
        "named like the pool's own": {"clip_l14_similarity_score": 3},
    }
    table = table_of(tmp_path / "pool")
    assert table["url"].to_pylist()[:3] == first["URL"]
    assert max(table["clip_l14_similarity_score"].to_pylist()) < 2


def test_make_pool__fields_of_json_become_columns(tmp_path, teachers):
    said = [
        {"punsafe": 0.5, "lang": "en", "ok": True, "tags": ["a"], "mixed": 1, "sha256": "0" * 64, "Case": 1},
        {"punsafe": 1, "lang": None, "tags": {"a": 1}, "mixed": "one", "case": 2, "": 3, "long": 2**70},
        {"punsafe": float("nan"), "lang": "\ud800\x00é", "mixed": True, "new": 5, "caption": "another", "{": 1},
    ]
    members = {}
    for number, facts in enumerate(said):
        members |= sample(number, **facts)
    write_tar(tmp_path / "in" / "0.tar", members)
    made = build(tmp_path / "in", tmp_path / "pool", teachers[0], shard_size=2)
    found = carried_of(tmp_path / "pool")
    assert {name: column.to_pylist() for name, column in found.items()} == {
        "punsafe": [0.5, 1, None],
        "lang": ["en", None, "?\x00é"],
        "ok": [True, None, None],
        "mixed": ["1", "one", "true"],
        "Case": [1, 2, None],
        "long": [None, str(2**70), None],
        "new": [None, None, 5],
    }
    assert made.left_out["neither numbers, truth values nor texts"] == {"tags": 2}
    assert made.left_out["named like the pool's own"].keys() >= {"sha256"}
    assert made.left_out["without a name that a column can have"] == {"": 1, "{": 1}
    # The json itself is kept as it was.
    assert json.loads(table_of(tmp_path / "pool")["json"][1].as_py())["tags"] == {"a": 1}


def test_make_pool__a_json_of_endless_names_makes_no_endless_table(tmp_path, teachers, monkeypatch):
    monkeypatch.setattr(carried, "_MOST", 3)
    members = {}
    for number in range(4):
        members |= sample(number, **{f"f{number}{letter}": 1 for letter in "abcde"})
    write_tar(tmp_path / "in" / "0.tar", members)
    made = build(tmp_path / "in", tmp_path / "pool", teachers[0], shard_size=2)
    assert list(carried_of(tmp_path / "pool")) == list(made.columns) == ["f0a", "f0b", "f0c"]
    assert len(made.left_out["one too many"]) == 3


def test_make_pool__embeddings_with_a_table(tmp_path, teachers):
    folder = tmp_path / "in"
    draw = np.random.default_rng(0)
    for side in ("img", "text"):
        (folder / f"{side}_emb").mkdir(parents=True)
        np.save(folder / f"{side}_emb" / f"{side}_emb_0.npy", draw.standard_normal((5, 8)).astype(np.float16))
    (folder / "metadata").mkdir()
    table = {"caption": list("abcde"), "similarity": [0.1, 0.2, None, 0.4, 0.5], "exif": [{"a": 1}] * 5}
    pq.write_table(pa.table(table), folder / "metadata" / "metadata_0.parquet")
    made = build(folder, tmp_path / "pool", None, shard_size=3)
    assert carried_of(tmp_path / "pool")["similarity"].to_pylist() == table["similarity"]
    assert made.left_out == {"neither numbers, truth values nor texts": {"exif": 0}}


def test_make_pool__only_the_columns_that_were_asked_for(tmp_path, teachers):
    source = csv_with(tmp_path / "in", **WRITTEN)
    build(source, tmp_path / "none", teachers[0], shard_size=4, columns="none")
    assert not carried_of(tmp_path / "none")
    build(source, tmp_path / "two", teachers[0], shard_size=4, columns="zip, width")
    assert set(carried_of(tmp_path / "two")) == {"zip", "width"}
    build(source, tmp_path / "two", teachers[1], arch="b32")
    with pytest.raises(PoolFormatError, match="expected --columns zip, width, as begun, found --columns all"):
        build(source, tmp_path / "two", teachers[0], columns="all")
    for columns, found in (("nope", "'nope'"), ("zip,text", "'text', which the pool has itself")):
        with pytest.raises(PoolFormatError, match=rf"--columns: expected all, none, or some of .*, found {found}"):
            build(source, tmp_path / "three", teachers[0], columns=columns)
    assert not (tmp_path / "three").exists()


def test_make_pool__pools_of_earlier_versions_go_on_without_columns(tmp_path, teachers):
    source, root = csv_with(tmp_path / "in", **WRITTEN), tmp_path / "pool"
    build(source, root, teachers[0], shard_size=4, columns="none")
    settings = json.loads((root / "embed" / "settings.json").read_text())
    write_json(root / "embed" / "settings.json", {name: v for name, v in settings.items() if name != "columns"})
    build(source, root, teachers[1], arch="b32")
    assert not carried_of(root)


@pytest.mark.parametrize("stops_at", range(3))
def test_make_pool__stopped_while_columns_are_settled_ends_with_the_same_bytes(
    tmp_path, teachers, monkeypatch, stops_at
):
    source, calls = csv_with(tmp_path / "in", **WRITTEN), []
    build(source, tmp_path / "whole", teachers[0], shard_size=4)
    write = carried.write_parquet

    def stop(*arguments):
        calls.append(arguments)
        if len(calls) > stops_at:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(carried, "write_parquet", stop)
    with pytest.raises(KeyboardInterrupt):
        build(source, tmp_path / "pool", teachers[0], shard_size=4)
    monkeypatch.setattr(carried, "write_parquet", write)
    build(source, tmp_path / "pool", teachers[0], shard_size=4)
    assert bytes_of(tmp_path / "pool") == bytes_of(tmp_path / "whole")


def test_make_pool__a_table_without_further_columns_is_as_before(tmp_path, teachers):
    made = build(csv_of_pictures(tmp_path / "in"), tmp_path / "pool", teachers[0], shard_size=4)
    assert (made.columns, made.left_out, carried_of(tmp_path / "pool")) == ((), {}, {})


def test_score_table__carried_columns_are_there_at_once(tmp_path, teachers):
    names = {"place": list("123456789"), "Filename": list("abcabcabc"), "position": WRITTEN["aesthetic"]}
    names |= {"file_row_number": list("987654321"), "shard": list("rstuvwxyz")}
    build(csv_with(tmp_path / "in", **WRITTEN, **names), tmp_path / "pool", teachers[0], shard_size=4)
    run = score(tmp_path / "pool", tmp_path / "run", batch_size=4, device="cpu")
    table = ScoreTable.open(run)
    kinds = {name: table.columns[name].kind for name in ("width", "aesthetic", "nsfw", "zip", "place", "Filename")}
    assert list(kinds.values()) == ["number", "number", "flag", "text", "number", "text"]
    steps = "steps: [{column: width, at_least: 5}, {column: nsfw, in: ['true']}, {column: zip, in: ['94103', '1']}]"
    recipe = parse_recipe(steps, columns=table.columns)
    assert select(run, recipe, table).rows.tolist() == [7]
    said = table.metadata.of(np.array([8, 0]), ("place", "Filename", "position", "file_row_number", "shard", "caption"))
    assert {name: values.tolist() for name, values in said.items()} == {
        "place": [9, 1],
        "Filename": ["c", "a"],
        "position": [2.0, 0.5],
        "file_row_number": [1, 9],
        "shard": ["z", "r"],
        "caption": [caption(8), caption(0)],
    }


def test_make_pool__what_somebody_added_to_a_shard_stays(tmp_path, teachers):
    source, root = csv_with(tmp_path / "in", **WRITTEN), tmp_path / "pool"
    build(source, root, teachers[0], shard_size=4)
    shard = root / "metadata" / "00000001.parquet"
    table = pq.read_table(shard)
    added = {"mine": pa.array([[1]] * 4), "short": pa.array([1, 2, 3, 4], pa.int16())}
    for name, values in added.items():
        table = table.append_column(name, values)
    pq.write_table(table, shard)
    build(source, root, teachers[1], arch="b32")
    found = pq.read_table(shard)
    assert found.drop_columns(["clip_b32_similarity_score"]).select(table.column_names).equals(table)
    others = pq.read_schema(root / "metadata" / "00000000.parquet").names
    assert not {"mine", "short"} & set(others)
    assert "width" in others
