"""Images are found by uid, in tars and by the index that `embed` leaves, whatever the uids are like."""

from __future__ import annotations

import io
import json
import os
import resource
import sqlite3
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.conventions import A_ROW
from clipsel_core.pool.images import ImageIndex, open_images
from clipsel_core.pool.layout import open_pool
from tests.conftest import write_shard
from tests.pool.servers import upload

PAIRS, FILES = 3_000, 7


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def sample(key, uid, image, ending="jpg"):
    return {f"{key}.{ending}": image, f"{key}.txt": b"a caption", f"{key}.json": json.dumps({"uid": uid}).encode()}


@pytest.fixture
def tars(tmp_path):
    write_tar(tmp_path / "0.tar", {**sample("000", "a" * 32, b"first"), **sample("001", "B1", b"second" * 99, "png")})
    write_tar(tmp_path / "1.tar", {**sample("sub.dir/000", "c" * 32, b"third", "webp"), "orphan.jpg": b"no json"})
    return [tmp_path / "0.tar", tmp_path / "1.tar"]


def test_read__finds_each_image_by_uid(tars, tmp_path):
    index = ImageIndex.open(tars, tmp_path / "images.index")
    assert len(index) == 3
    assert index.read("a" * 32) == b"first"
    assert index.read("A" * 32) == b"first"
    assert index.read("b1".zfill(32)) == b"second" * 99
    assert index.read("c" * 32) == b"third"


def test_read__uids_that_differ_in_one_half_alone(tmp_path):
    low = [f"{number:032x}" for number in (1, 2, 3, 5)]
    high = [f"{number:016x}{1:016x}" for number in (1, 2, 4)]
    members = {}
    for place, uid in enumerate([*low, *high]):
        members |= sample(f"{place:03d}", uid, uid.encode())
    write_tar(tmp_path / "0.tar", members)
    index = ImageIndex.open([tmp_path / "0.tar"], tmp_path / "images.index")
    assert [index.read(uid) for uid in [*low, *high]] == [uid.encode() for uid in [*low, *high]]
    assert {index.read(f"{number:032x}") for number in (0, 4, 6)} == {None}
    assert {index.read(f"{number:016x}{1:016x}") for number in (3, 5)} == {None}


def test_open__tells_how_far_it_is_where_tars_are_gone_through(tars, tmp_path):
    told = []
    ImageIndex.open(tars, tmp_path / "images.index", lambda *at: told.append(at))
    assert told == [(0, 2, "files"), (1, 2, "files"), (2, 2, "files")]
    ImageIndex.open(tars, tmp_path / "images.index", lambda *at: told.append(at))
    assert len(told) == 3


def test_open__stopped_on_the_way_keeps_nothing(tars, tmp_path):
    def stop(done, total, unit):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ImageIndex.open(tars, tmp_path / "cache" / "images.index", stop)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("uid", ["d" * 32, "", "../../etc/passwd", "x" * 999])
def test_read__unknown_or_malformed_uids_have_none(tars, tmp_path, uid):
    assert ImageIndex.open(tars, tmp_path / "images.index").read(uid) is None


def test_open__is_read_from_the_cache_until_a_tar_changes(tars, tmp_path):
    ImageIndex.open(tars, tmp_path / "images.index")
    built = []
    assert ImageIndex.open(tars, tmp_path / "images.index", lambda *at: built.append(at)).read("c" * 32) == b"third"
    assert not built
    write_tar(tars[1], sample("000", "c" * 32, b"another"))
    os.utime(tars[1], ns=(1, 1))
    assert ImageIndex.open(tars, tmp_path / "images.index", lambda *at: built.append(at)).read("c" * 32) == b"another"
    assert built


def test_open__a_damaged_cache_is_built_again(tars, tmp_path):
    path = tmp_path / "images.index"
    ImageIndex.open(tars, path)
    whole = path.read_bytes()
    others = tmp_path / "others"
    with sqlite3.connect(others) as database:
        database.execute("CREATE TABLE images (uid TEXT)")
    for damaged in (b"", b"x" * 15, whole[:-1], whole[:-4096], whole[:100], b"\0" * len(whole), others.read_bytes()):
        path.write_bytes(damaged)
        assert ImageIndex.open(tars, path).read("c" * 32) == b"third"
        assert path.read_bytes() == whole


def write_parts(root, *parts, called="{} pictures é {}.jpg"):
    """The index of a pool whose pairs lie in files of random bytes. parts: uids. Returns: the index's files, and what

    the image of each of these uids is.
    """
    draw, paths, known = np.random.default_rng(0), [], []
    (root / "images").mkdir(exist_ok=True)
    for number, keys in enumerate(parts):
        names = [called.format(number, name) for name in range(FILES)]
        contents = [draw.bytes(9_000) for _ in names]
        for name, content in zip(names, contents, strict=True):
            (root / name).write_bytes(content)
        place, offset, length = (draw.integers(0, most, len(keys)) for most in (FILES, 8_000, 999))
        at = zip(place.tolist(), offset.tolist(), length.tolist(), strict=True)
        known += [contents[p][o : o + n] for p, o, n in at]
        files = pa.DictionaryArray.from_arrays(pa.array(place, pa.int32()), pa.array(names))
        columns = {"uid_hi": keys["f0"].copy(), "uid_lo": keys["f1"].copy()}
        table = pa.table({**columns, "file": files, "offset": offset, "length": length})
        paths.append(root / "images" / f"{number}.parquet")
        pq.write_table(table.replace_schema_metadata({"base": ".", "image_column": ""}), paths[-1])
    return paths, known


def make_keys(kind):
    draw = np.random.default_rng(1)
    high, low = {
        "random": draw.integers(0, 2**64, (2, PAIRS), dtype=np.uint64),
        "counted": (np.zeros(PAIRS, np.uint64), np.arange(PAIRS, dtype=np.uint64)),
        "counted above": (np.arange(PAIRS, dtype=np.uint64), np.zeros(PAIRS, np.uint64)),
    }[kind]
    return uids.from_halves(high, low)


@pytest.mark.parametrize("kind", ["random", "counted", "counted above"])
def test_of_parts__answers_as_a_dictionary_does(tmp_path, kind):
    keys = make_keys(kind)
    paths, known = write_parts(tmp_path, *np.split(keys, [700, 701, 2_000]))
    index = ImageIndex.of_parts(tmp_path, paths, tmp_path / "cache" / "index")
    assert len(index) == PAIRS
    assert [index.read(uid) for uid in uids.to_hex(keys).to_pylist()] == known
    strange = uids.from_halves(np.arange(5, dtype=np.uint64) + 10**6, np.full(5, 10**6, np.uint64))
    assert [index.read(uid) for uid in uids.to_hex(strange).to_pylist()] == [None] * 5
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["index"]


def test_of_parts__of_repeated_uids_the_first(tmp_path):
    keys = make_keys("random")[:3]
    paths, known = write_parts(tmp_path, keys, keys[::-1])
    index = ImageIndex.of_parts(tmp_path, paths, tmp_path / "index")
    assert [index.read(uid) for uid in uids.to_hex(keys).to_pylist()] == known[:3]


def test_of_parts__an_image_too_long_to_be_read_at_once_is_left_out(tmp_path):
    paths, _ = write_parts(tmp_path, make_keys("random")[:2])
    table = pq.read_table(paths[0])
    pq.write_table(table.set_column(4, "length", pa.array([5, 2**31])), paths[0])
    assert len(ImageIndex.of_parts(tmp_path, paths, tmp_path / "index")) == 1


def test_of_parts__one_that_fails_leaves_the_older_database(tmp_path):
    paths, _ = write_parts(tmp_path, make_keys("random"), make_keys("counted"))
    ImageIndex.of_parts(tmp_path, paths[:1], tmp_path / "cache" / "index")
    before = (tmp_path / "cache" / "index").read_bytes()
    paths[1].write_bytes(b"PAR1")
    with pytest.raises(PoolFormatError, match="an index of images"):
        ImageIndex.of_parts(tmp_path, paths, tmp_path / "cache" / "index")
    assert (tmp_path / "cache" / "index").read_bytes() == before
    assert [found.name for found in (tmp_path / "cache").iterdir()] == ["index"]


def test_open__a_pipe_is_no_tar_and_is_not_waited_for(tars, tmp_path):
    os.mkfifo(tmp_path / "2.tar")
    index = ImageIndex.open([*tars, tmp_path / "2.tar"], tmp_path / "images.index")
    assert [(damaged[0], damaged[1]) for damaged in index.damaged] == [
        (str(tmp_path / "2.tar"), "it is a pipe, a socket or a device")
    ]
    assert index.read("a" * 32) == b"first"


def test_open__no_tars_is_an_empty_index(tmp_path):
    assert ImageIndex.open([], tmp_path / "images.index").read("a" * 32) is None


@pytest.mark.parametrize("text", [b"not json", b"[1]", b'{"uid": 7}', b'{"uid": "zz"}', b"{}", b"\xff\xfe"])
def test_open__an_image_without_a_usable_uid_is_left_out(tmp_path, text):
    write_tar(tmp_path / "0.tar", {"k.jpg": b"x", "k.json": text, **sample("l", "a" * 32, b"kept")})
    assert len(ImageIndex.open([tmp_path / "0.tar"], tmp_path / "images.index")) == 1


def test_open__a_damaged_tar_is_named_and_the_others_are_read(tars, tmp_path, caplog):
    """Said again where the lookup is kept."""
    cut = write_tar(tmp_path / "2.tar", {**sample("0", "d" * 32, b"d" * 5000), **sample("1", "e" * 32, b"e" * 5000)})
    cut.write_bytes(cut.read_bytes()[:9000])
    for name in ("3.tar", "._0.tar"):
        (tmp_path / name).write_bytes(b"")
    damaged = [cut, tmp_path / "3.tar", tmp_path / "._0.tar"]
    for _ in range(2):
        caplog.clear()
        index = ImageIndex.open([*damaged, *tars], tmp_path / "images.index")
        assert [(tar, found) for tar, _, found in index.damaged] == [(str(tar), int(tar == cut)) for tar in damaged]
        assert [index.read(uid * 32) for uid in "ade"] == [b"first", b"d" * 5000, None]
        assert [record.getMessage().partition(":")[0] for record in caplog.records] == [str(tar) for tar in damaged]
        assert "2.tar: not all images can be read, 1 can: the tar cannot be read on at byte 9,000" in caplog.text


def test_open__what_is_no_tar_is_named(tmp_path):
    (tmp_path / "0.tar").write_bytes(b"<html>" * 200)
    with pytest.raises(PoolFormatError, match=r"0\.tar: expected a whole tar, found .*; download it again"):
        ImageIndex.open([tmp_path / "0.tar"], tmp_path / "images.index")


def test_of_parts__a_disk_that_takes_no_more_is_an_os_error_of_the_database(tmp_path):
    paths, _ = write_parts(tmp_path, make_keys("random"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(OSError, match="Input/output error") as raised:
            ImageIndex.of_parts(tmp_path, paths, tmp_path / "cache" / "index")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.filename == str(tmp_path / "cache" / "index")
    assert list((tmp_path / "cache").iterdir()) == []


def asked_of(store, ending):
    """How often files of this ending were asked for, and the bytes that were sent of them."""
    asked = sum(times for path, times in store.asked.items() if path.endswith(ending))
    return asked, sum(size for path, size in store.sent.items() if path.endswith(ending))


def test_open_images__a_pool_in_a_store_with_an_index_takes_a_request_an_image(store, tmp_path):
    root, address = tmp_path / "pool", "s3://bucket/a/pool"
    write_shard(root, "00000000", 5)
    keys = make_keys("random")[:200]
    _, known = write_parts(root, keys, called="{}-{}.jpg")
    upload(root, address)
    images = open_images(open_pool(address), tmp_path / "cache")
    store.asked.clear()
    store.sent.clear()
    names = uids.to_hex(keys).to_pylist()
    assert [images.read(uid) for uid in names[:24]] == known[:24]
    assert asked_of(store, ".jpg") == (24 - known[:24].count(b""), sum(map(len, known[:24])))
    again = open_images(open_pool(address), tmp_path / "cache")
    assert again.read(names[100]) == known[100]
    store.fault = lambda path, times: 503 if path.endswith(".jpg") else None
    with pytest.raises(OSError, match="Service Unavailable"):
        images.read(names[100])
    store.fault = lambda path, times: None
    assert images.read(names[100]) == known[100]


def test_open_images__rows_of_a_parquet_in_a_store_are_read_without_the_rest(store, tmp_path):
    root, address, draw = tmp_path / "a" / "pool", "s3://bucket/a", np.random.default_rng(3)
    write_shard(root, "00000000", 5)
    keys, pictures = make_keys("random")[:400], [draw.bytes(20_000) for _ in range(400)]
    (tmp_path / "a" / "photos").mkdir()
    pq.write_table(pa.table({"jpg": pictures}), tmp_path / "a" / "photos" / "0.parquet", row_group_size=40)
    (root / "images").mkdir()
    place = pa.DictionaryArray.from_arrays(pa.array(np.zeros(400, np.int32)), pa.array(["0.parquet"]))
    columns = {"uid_hi": keys["f0"].copy(), "uid_lo": keys["f1"].copy(), "file": place}
    table = pa.table({**columns, "offset": np.arange(400), "length": np.full(400, A_ROW)})
    described = {"base": "../photos", "image_column": "jpg"}
    pq.write_table(table.replace_schema_metadata(described), root / "images" / "0.parquet")
    upload(tmp_path / "a", address)
    pool = open_pool(f"{address}/pool")
    with pytest.raises(PoolFormatError, match="allow it with --read s3://bucket/a/photos"):
        open_images(pool, tmp_path / "cache")
    images = open_images(pool, tmp_path / "cache", named=[address])
    store.asked.clear()
    store.sent.clear()
    for row in (3, 399, 200):
        assert images.read(uids.to_hex(keys[row : row + 1])[0].as_py()) == pictures[row]
    asked, sent = asked_of(store, "photos/0.parquet")
    assert asked <= 3 * 8
    assert sent < 3 * (40 * 20_000 + 150_000)
