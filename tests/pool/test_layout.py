"""What a pool's folder is taken for, in both naming families."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.layout import Arch, open_pool
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
