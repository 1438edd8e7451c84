"""What a pool's folder is taken for, in both naming families."""

from __future__ import annotations

import os
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.conventions import as_texts
from clipsel_core.pool.layout import Arch, check_uids, knows_images, open_pool, read_column, read_uids
from tests.conftest import rewrite_npz, unit_rows, write_shard


def test_open_pool__finds_shards_in_the_order_of_their_names(pool):
    opened = open_pool(pool)
    assert [(shard.name, shard.rows) for shard in opened.shards] == [
        ("00000000", 40),
        ("00000001", 25),
        ("00000002", 61),
    ]
    assert opened.rows == 126
    assert (opened.text_column, opened.url_column) == ("text", "url")
    assert opened.archs == {"l14": Arch("l14", "l14_img", "l14_txt", 16, None)}


def test_open_pool__knows_the_other_naming_family(tmp_path):
    columns = {"caption": ["x"] * 3, "ViT-B-32-score": [0.1] * 3}
    write_shard(tmp_path, "0", 3, arch="ViT-B-32", names=("{}-image", "{}-text"), columns=columns)
    assert open_pool(tmp_path).arch("ViT-B-32") == Arch(
        "ViT-B-32", "ViT-B-32-image", "ViT-B-32-text", 16, "ViT-B-32-score"
    )


def test_open_pool__several_teachers_and_an_array_that_is_none(tmp_path):
    _, npz = write_shard(tmp_path, "0", 3, columns={"clip_b32_similarity_score": [0.1] * 3})
    rewrite_npz(npz, b32_img=unit_rows(3, 8), b32_txt=unit_rows(3, 8), lone_img=unit_rows(3, 8), other=np.zeros(3))
    opened = open_pool(tmp_path)
    assert sorted(opened.archs) == ["b32", "l14"]
    assert opened.arch("b32").score_column == "clip_b32_similarity_score"
    with pytest.raises(
        PoolFormatError, match="expected embeddings of one teacher, found b32, l14; name one with --arch"
    ):
        opened.arch()
    with pytest.raises(PoolFormatError, match="expected embeddings of 'h14', found b32, l14"):
        opened.arch("h14")


def test_open_pool__a_caption_column_serves_as_text(tmp_path):
    parquet, _ = write_shard(tmp_path, "0", 3)
    table = pq.read_table(parquet)
    pq.write_table(table.rename_columns(["uid", "url", "caption"]), parquet)
    assert open_pool(tmp_path).text_column == "caption"


def test_open_pool__only_uid_is_needed(tmp_path):
    parquet, npz = write_shard(tmp_path, "0", 3)
    pq.write_table(pq.read_table(parquet, columns=["uid"]), parquet)
    npz.unlink()
    opened = open_pool(tmp_path)
    assert (opened.text_column, opened.url_column, opened.archs, opened.tars) == (None, None, {}, ())


def test_open_pool__no_uid_column(tmp_path):
    parquet, _ = write_shard(tmp_path, "0", 3)
    pq.write_table(pq.read_table(parquet, columns=["url"]), parquet)
    with pytest.raises(PoolFormatError, match=r"0\.parquet: expected a column uid, found url"):
        open_pool(tmp_path)


@pytest.mark.parametrize("make", [False, True])
def test_open_pool__a_folder_that_is_none(tmp_path, make):
    if make:
        (tmp_path / "x" / "metadata").mkdir(parents=True)
    with pytest.raises(PoolFormatError, match=r"metadata: expected \*\.parquet, found no such f(ile|older)"):
        open_pool(tmp_path / "x")


def test_open_pool__a_parquet_that_is_none(tmp_path):
    parquet, _ = write_shard(tmp_path, "0", 3)
    parquet.write_bytes(b"<html>404</html>")
    with pytest.raises(PoolFormatError, match=r"0\.parquet: expected a parquet file, found .*; download it again"):
        open_pool(tmp_path)


def test_open_pool__columns_in_any_case(tmp_path):
    parquet, _ = write_shard(tmp_path, "0", 3)
    pq.write_table(pq.read_table(parquet).rename_columns(["UID", "URL", "TEXT"]), parquet)
    pool = open_pool(tmp_path)
    assert (pool.uid_column, pool.url_column, pool.text_column) == ("UID", "URL", "TEXT")
    check_uids(pool)


def test_open_pool__each_shard_calls_its_columns_as_it_likes(tmp_path):
    for name, columns in (
        ("0", ["uid", "url", "text"]),
        ("1", ["UID", "URL", "TEXT"]),
        ("2", ["Uid", "url", "Caption"]),
    ):
        parquet, _ = write_shard(tmp_path, name, 3, seed=int(name))
        pq.write_table(pq.read_table(parquet).rename_columns(columns), parquet)
    pool = open_pool(tmp_path)
    assert [shard.text_column for shard in pool.shards] == ["text", "TEXT", "Caption"]
    texts = [as_texts(read_column(shard, shard.text_column)) for shard in pool.shards]
    assert texts == [[f"caption {row} of {name}" for row in range(3)] for name in "012"]
    assert [len(read_uids(shard)) for shard in pool.shards] == [3, 3, 3]


def test_open_pool__a_first_shard_without_captions_does_not_speak_for_all(tmp_path):
    parquet, _ = write_shard(tmp_path, "0", 3)
    pq.write_table(pq.read_table(parquet, columns=["uid"]), parquet)
    write_shard(tmp_path, "1", 3, seed=1)
    pool = open_pool(tmp_path)
    assert (pool.text_column, [shard.text_column for shard in pool.shards]) == ("text", [None, "text"])
    assert pool.columns["text"] == "string"


def test_open_pool__a_struct_is_no_caption(tmp_path):
    write_shard(tmp_path, "0", 2, columns={"text": [{"en": "x"}, {"en": "y"}]})
    assert open_pool(tmp_path).text_column is None


def test_open_pool__hidden_files_are_passed_over(tmp_path):
    write_shard(tmp_path, "00000000", 3)
    for folder, name in (("metadata", "._00000000.parquet"), ("shards", "._0.tar"), ("images", "._0.parquet")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(b"\0\5\x16\7")
    pool = open_pool(tmp_path)
    assert ([shard.name for shard in pool.shards], pool.tars, pool.indexes) == (["00000000"], (), ())
    assert not knows_images(tmp_path)


def test_open_pool__a_pipe_is_not_waited_for(tmp_path):
    write_shard(tmp_path, "0", 3)
    os.mkfifo(tmp_path / "metadata" / "1.parquet")
    with pytest.raises(PoolFormatError, match=r"1\.parquet: expected a parquet file, found a pipe"):
        open_pool(tmp_path)


def test_open_pool__a_column_name_that_is_no_utf8(tmp_path):
    parquet, _ = write_shard(tmp_path, "0", 3, columns={"textx": ["a"] * 3})
    pq.write_table(pq.read_table(parquet), parquet, store_schema=False)
    parquet.write_bytes(parquet.read_bytes().replace(b"textx", b"text\xff"))
    with pytest.raises(PoolFormatError, match=r"0\.parquet: expected a parquet file, found .*utf-8"):
        open_pool(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.binary(16),
        pa.uuid(),
    ],
    ids=str,
)
def test_read_uids__of_columns_of_every_type(tmp_path, kind):
    wanted = [uuid.UUID(int=n << 99 | n) for n in (4, 2, 9)]
    if kind == pa.binary(16):
        column = pa.array([value.bytes for value in wanted], kind)
    elif kind == pa.uuid():
        column = pa.array(wanted, kind)
    else:
        column = pa.array([str(value).upper() for value in wanted])
        column = column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)
    write_shard(tmp_path, "0", 3, columns={"uid": column})
    pool = open_pool(tmp_path)
    assert uids.to_hex(read_uids(pool.shards[0])).to_pylist() == [value.hex for value in wanted]


@pytest.mark.parametrize(
    "column", [pa.array([1, 2]), pa.array([0.5, 1.5]), pa.array([["1"], ["2"]])], ids=lambda c: str(c.type)
)
def test_read_uids__of_another_type_are_refused(tmp_path, column):
    write_shard(tmp_path, "0", 2, columns={"uid": column})
    pool = open_pool(tmp_path)
    with pytest.raises(PoolFormatError, match=r"0\.parquet, uids: expected text, or UUIDs of 16 bytes, found"):
        check_uids(pool)


LISTS = [["a dog", "a cat"], ["", "a car"], [], None]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["a", None, ""]), ["a", "", ""]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array(["a", None], pa.large_string()), ["a", ""]),
        (pa.array(["a", None], pa.string_view()), ["a", ""]),
        (pa.nulls(2), ["", ""]),
        (pa.array(LISTS), ["a dog", "a car", "", ""]),
        (pa.array(LISTS, pa.large_list(pa.string())), ["a dog", "a car", "", ""]),
        (pa.array([7, None]), ["7", ""]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([b"caf\xe9", b"ok"]).cast(pa.binary()), ["caf\ufffd", "ok"]),
        (pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", b"ok"]).buffers()), ["caf\ufffd", "ok"]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_as_texts__of_every_type(column, expected):
    assert as_texts(pa.chunked_array([column])) == expected
