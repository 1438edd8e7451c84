"""Are packed pools what img2dataset writes and DataComp's resharder reads?"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.images import ImageIndex
from clipsel_core.pool.layout import open_pool
from clipsel_core.pool.making import maker
from clipsel_core.pool.making.decode import Unusable
from clipsel_core.pool.making.packing import check_whole, for_loaders, image_ending, new_tar
from tests.pool.making.test_make import SOURCES, build, bytes_of, table_of
from tests.pool.pictures import caption, drawn, image, write_tar


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
    write_stats = maker.write_stats
    for _ in range(2):
        monkeypatch.setattr(maker, "write_stats", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build(source, tmp_path / "pool", teachers[0], shard_size=4, pack=True)
        monkeypatch.setattr(maker, "write_stats", write_stats)
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
    assert [image_ending(data) for data in (image(0, "GIF"), image(0, "BMP"), b"anything", b"")] == [""] * 4


def test_new_tar__the_bytes_are_those_of_tarfile(tmp_path):
    pairs = [
        (f"{number:08d}", b"\xff\xd8" + b"x" * size, "é", {"a": 1}) for number, size in enumerate((0, 509, 510, 99))
    ]
    with new_tar(tmp_path / "ours.tar") as packer:
        offsets = [packer.add(*pair) for pair in pairs]
    with tarfile.open(tmp_path / "theirs.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for key, data, text, facts in pairs:
            for ending, content in {"jpg": data, "txt": text.encode(), "json": json.dumps(facts).encode()}.items():
                entry = tarfile.TarInfo(f"{key}.{ending}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    ours = (tmp_path / "ours.tar").read_bytes()
    assert ours == (tmp_path / "theirs.tar").read_bytes()
    assert [ours[offset : offset + len(pair[1])] for offset, pair in zip(offsets, pairs, strict=True)] == [
        data for _, data, _, _ in pairs
    ]


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "AVIF"])
def test_for_loaders__others_become_the_same_picture_as_png(kind):
    data = for_loaders(image(3, kind))
    with Image.open(io.BytesIO(data), formats=["PNG"]) as written, Image.open(io.BytesIO(image(3, kind))) as was:
        assert np.array_equal(np.asarray(written), np.asarray(was.convert("RGB")))


def test_for_loaders__what_loaders_read_stays_as_it_is():
    for kind in ("JPEG", "PNG", "WEBP"):
        assert for_loaders(image(1, kind)) is not None
        assert for_loaders(image(1, kind)) == image(1, kind)


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"GIF89a", b"II*\0"]
)
def test_for_loaders__refuses_what_is_no_picture(data):
    with pytest.raises(Unusable):
        for_loaders(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_check_whole__a_picture_that_was_cut_off(kind):
    check_whole(image(2, kind))
    check_whole(image(2, kind) + b"\0" * 5000)
    with pytest.raises(Unusable):
        check_whole(image(2, kind)[:-200])


def test_pack__keeps_what_the_json_says_and_writes_what_loaders_read(tmp_path, teachers):
    said = {"exif": "{}", "face_bboxes": [[0.5]], "width": 24}
    pair = {
        "a.jpg": image(0, "TIFF"),
        "a.txt": b"a caption",
        "a.json": json.dumps({"uid": f"{7:032x}", **said}).encode(),
    }
    write_tar(tmp_path / "in" / "0.tar", pair)
    build(tmp_path / "in", tmp_path / "pool", teachers[0], pack=True)
    (tar,) = open_pool(tmp_path / "pool").tars
    (sample,) = webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False)
    facts = json.loads(sample["json"])
    assert {name: facts[name] for name in said} == said
    assert facts["uid"] == f"{7:032x}"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(sample["png"]))), np.asarray(drawn(0)))
    index = ImageIndex.of_parts(tmp_path / "pool", list(open_pool(tmp_path / "pool").indexes), tmp_path / "index")
    assert index.read(facts["uid"]) == sample["png"]
