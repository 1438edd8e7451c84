"""Are packed pools what img2dataset writes and DataComp's resharder reads?"""

from __future__ import annotations

import hashlib
import json
import tarfile

import pyarrow.parquet as pq
import pytest
import webdataset

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.images import ImageIndex
from clipsel_core.pool.layout import open_pool
from clipsel_core.pool.making import make
from clipsel_core.pool.making.packing import image_ending
from tests.pool.making.test_make import SOURCES, build, bytes_of, table_of
from tests.pool.pictures import caption, image


@pytest.mark.parametrize("kind", SOURCES)
def test_pack__each_source_read_back_by_webdataset(tmp_path, teachers, kind):
    source = SOURCES[kind](tmp_path / "in")
    build(source, tmp_path / "pool", teachers[0], shard_size=4, batch_size=3, pack=True)
    tars = sorted((tmp_path / "pool" / "shards").glob("*.tar"))
    assert [tar.name for tar in tars] == ["00000000.tar", "00000001.tar", "00000002.tar"]
    samples = [
        sample for tar in tars for sample in webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False)
    ]
    kinds = ("JPEG", "PNG", "WEBP") if kind == "tars" else ("PNG",)
    ending = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
    table = table_of(tmp_path / "pool")
    for number, sample in enumerate(samples):
        written = kinds[number % len(kinds)]
        facts = json.loads(sample["json"])
        assert sample[ending[written]] == image(number, written)
        assert sample["txt"].decode() == facts["caption"] == caption(number)
        assert (facts["uid"], facts["source_key"]) == (table["uid"][number].as_py(), table["key"][number].as_py())
        assert facts["sha256"] == hashlib.sha256(image(number, written)).hexdigest()
    assert len(samples) == 9
    stats = [json.loads(tar.with_name(f"{tar.stem}_stats.json").read_text())["successes"] for tar in tars]
    assert stats == [4, 4, 1]


def test_pack__the_pool_needs_its_source_no_more(tmp_path, teachers):
    source = SOURCES["folder"](tmp_path / "in")
    build(source, tmp_path / "pool", teachers[0], shard_size=4, pack=True)
    source.rename(tmp_path / "gone")
    pool = open_pool(tmp_path / "pool")
    index = ImageIndex.of_parts(pool.root, list(pool.indexes), tmp_path / "images.index")
    assert [index.read(uid) for uid in table_of(pool.root)["uid"].to_pylist()] == [image(n, "PNG") for n in range(9)]
    tarred = ImageIndex.open(list(pool.tars), tmp_path / "cache.parquet")
    assert tarred.read(table_of(pool.root)["uid"][5].as_py()) == image(5, "PNG")


def test_pack__a_shard_that_keeps_nothing_leaves_no_gap(tmp_path, teachers):
    source = SOURCES["folder"](tmp_path / "in")
    for number in range(4, 8):
        (source / f"{number}.png").write_bytes(b"no")
    made = build(source, tmp_path / "pool", teachers[0], shard_size=4, pack=True)
    assert made.kept == 5
    assert [tar.name[7:8] for tar in open_pool(tmp_path / "pool").tars] == ["0", "1", "2"]
    with tarfile.open(tmp_path / "pool" / "shards" / "00000001.tar") as archive:
        assert archive.getnames() == []


def test_pack__stopped_and_started_again_ends_with_the_same_bytes(tmp_path, teachers, monkeypatch):
    source = SOURCES["tars"](tmp_path / "in")
    build(source, tmp_path / "whole", teachers[0], shard_size=4, pack=True)
    write_stats = make.write_stats
    for _ in range(2):
        monkeypatch.setattr(make, "write_stats", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build(source, tmp_path / "pool", teachers[0], shard_size=4, pack=True)
        monkeypatch.setattr(make, "write_stats", write_stats)
    build(source, tmp_path / "pool", teachers[0], shard_size=4, pack=True)
    assert bytes_of(tmp_path / "pool") == bytes_of(tmp_path / "whole")
    before = (tmp_path / "pool" / "shards" / "00000000.tar").read_bytes()
    build(source, tmp_path / "pool", teachers[1], "b32", shard_size=4, pack=True)
    assert (tmp_path / "pool" / "shards" / "00000000.tar").read_bytes() == before
    with pytest.raises(PoolFormatError, match="expected --pack, as begun, found no --pack"):
        build(source, tmp_path / "pool", teachers[0], shard_size=4, pack=False)


def test_pack__repeated_uids_are_told_apart_in_the_json(tmp_path, teachers):
    source = SOURCES["tars"](tmp_path / "in")
    (source / "00001.tar").write_bytes((source / "00000.tar").read_bytes())
    assert build(source, tmp_path / "pool", teachers[0], pack=True).repeated == 5
    with tarfile.open(tmp_path / "pool" / "shards" / "00000000.tar") as archive:
        found = [json.loads(archive.extractfile(name).read())["uid"] for name in archive.getnames() if "json" in name]
    assert found == pq.read_table(tmp_path / "pool" / "metadata" / "00000000.parquet")["uid"].to_pylist()
    assert len(set(found)) == 10


def test_image_ending__by_the_first_bytes():
    assert [image_ending(image(0, kind)) for kind in ("JPEG", "PNG", "WEBP")] == ["jpg", "png", "webp"]
    assert image_ending(b"anything") == "jpg"
