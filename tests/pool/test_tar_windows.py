"""Are pictures found in tars of a store by few range reads, wherever they lie, and never by another pair's uid?"""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipsel_core import uids
from clipsel_core.pool import tar_windows
from clipsel_core.pool.layout import open_pool
from clipsel_core.pool.tar_windows import OutOfOrder, TarWindows
from tests.conftest import write_shard
from tests.pool.servers import upload

POOL = "s3://bucket/a/pool"


def make_pool(
    root, shards, size, *, lost=0.2, names=None, order=lambda rows, rng: rows, seed=0, fmt=tarfile.USTAR_FORMAT
):
    """A pool, and the bytes of its images by uid. shards: rows of each. size: what the images' sizes are around.

    lost: the share of pairs without an image. names: of the tars. order: of the rows of a shard, to how they lie.
    """
    rng, known, place = np.random.default_rng(seed), {}, root / "shards"
    place.mkdir(parents=True)
    for number, rows in enumerate(shards):
        parquet, _ = write_shard(root, f"{number:08d}", rows, seed=number)
        hexes = pq.read_table(parquet)["uid"].to_pylist()
        there = [row for row in range(rows) if rng.random() >= lost]
        with tarfile.open(place / f"{names[number] if names else f'{number:08d}'}.tar", "w", format=fmt) as archive:
            for row in order(there, rng):
                known[hexes[row]] = rng.bytes(int(size * rng.lognormal(0, 0.5)))
                for ending, data in (
                    ("jpg", known[hexes[row]]),
                    ("json", json.dumps({"uid": hexes[row], "key": str(row)}).encode()),
                    ("txt", b"a caption"),
                ):
                    info = tarfile.TarInfo(f"{number:05d}{row:07d}.{ending}")
                    info.size, info.mtime = len(data), 1.5
                    archive.addfile(info, io.BytesIO(data))
    return known


def rows_of(pool):
    """The pool's rows of uids, by a plain dictionary."""
    known = {}
    for shard in pool.shards:
        for uid in pq.read_table(str(shard.parquet) if not shard.parquet.remote else shard.parquet.open())[
            "uid"
        ].to_pylist():
            known[uid] = len(known)
    return lambda names: np.array([known.get(uid, -1) for uid in uids.to_hex(names).to_pylist()], np.int64)


def uids_in(shard):
    return pq.read_table(shard.parquet.open())["uid"].to_pylist()


def sought(windows, uid, gone=()):
    """The image of a uid; its tar is gone through where its order does not tell, but for those that were already."""
    try:
        spot = windows.find(uid)
    except OutOfOrder as error:
        if error.tar in gone:
            raise
        windows.go_through(error.tar)
        if isinstance(gone, list):
            gone.append(error.tar)
        spot = windows.find(uid)
    return windows.read(spot)[0] if spot else None


def asked_of_tars(store):
    return sum(times for path, times in store.asked.items() if ".tar" in path)


def sent_of_tars(store):
    return sum(size for path, size in store.sent.items() if path.endswith(".tar"))


@pytest.mark.parametrize("size", [500, 9_000, 120_000])
@pytest.mark.parametrize("fmt", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("names", [None, ["a", "b", "c"]])
def test_find__every_picture_is_the_tars(tmp_path, size, fmt, names):
    known = make_pool(tmp_path / "pool", (60, 1, 40), size, names=names, fmt=fmt)
    upload(tmp_path / "pool", f"memory://windows/{size}{fmt}{bool(names)}")
    pool = open_pool(f"memory://windows/{size}{fmt}{bool(names)}")
    rows, windows = rows_of(pool), None
    windows = TarWindows(pool, tmp_path / "kept", rows)
    everyone = [uid for shard in pool.shards for uid in uids_in(shard)]
    for uid in np.random.default_rng(5).permutation(everyone).tolist():
        spot = windows.find(uid)
        assert (windows.read(spot)[0] if spot else None) == known.get(uid)
        assert spot is None or json.loads(windows.read(spot)[1])["uid"] == uid
    assert windows.find("0" * 32) is None


def fetched_out_of_order(rows, rng):
    """As a hundred threads leave them: most lie near their place, a few came a good deal later."""
    late = np.where(rng.random(len(rows)) < 0.02, rng.uniform(0, 60, len(rows)), rng.uniform(0, 5, len(rows)))
    return [rows[place] for place in np.argsort(np.arange(len(rows)) + late, kind="stable")]


def test_find__takes_few_requests_and_few_bytes(store, tmp_path):
    known = make_pool(tmp_path / "pool", (600, 600), 20_000)
    upload(tmp_path / "pool", POOL)
    pool = open_pool(POOL)
    rows = rows_of(pool)
    windows = TarWindows(pool, tmp_path / "kept", rows)
    page = np.random.default_rng(1).permutation(sorted(known))[:24].tolist()
    store.asked.clear()
    for uid in page:
        assert windows.read(windows.find(uid))[0] == known[uid]
    asked, sent = asked_of_tars(store), sent_of_tars(store)
    assert asked <= 4 * 24
    assert sent <= 24 * 3 * tar_windows._MOST
    # What was met is kept, and what lies in a window that was read takes no request.
    again = TarWindows(pool, tmp_path / "kept", rows)
    store.asked.clear()
    store.sent.clear()
    for uid in page:
        assert windows.read(windows.find(uid))[0] == again.read(again.find(uid))[0] == known[uid]
    assert asked_of_tars(store) <= 2 * 24
    assert sent_of_tars(store) <= 3 * sum(len(known[uid]) + 1000 for uid in page)


def test_find__a_pair_without_an_image_has_none_and_takes_no_request_twice(store, tmp_path):
    known = make_pool(tmp_path / "pool", (300,), 5_000, lost=0.3)
    upload(tmp_path / "pool", POOL)
    pool = open_pool(POOL)
    windows = TarWindows(pool, tmp_path / "kept", rows_of(pool))
    lost = [uid for uid in uids_in(pool.shards[0]) if uid not in known]
    assert [windows.find(uid) for uid in lost] == [None] * len(lost)
    store.asked.clear()
    assert [windows.find(uid) for uid in lost] == [None] * len(lost)
    assert asked_of_tars(store) == 0


def test_find__pictures_that_came_later_than_their_rows(store, tmp_path):
    known = make_pool(tmp_path / "pool", (900,), 5_000, order=fetched_out_of_order)
    upload(tmp_path / "pool", POOL)
    pool = open_pool(POOL)
    windows = TarWindows(pool, tmp_path / "kept", rows_of(pool))
    for uid in np.random.default_rng(2).permutation(uids_in(pool.shards[0]))[:100].tolist():
        assert sought(windows, uid) == known.get(uid)


def test_find__tars_that_follow_no_order_are_gone_through(store, tmp_path):
    known = make_pool(tmp_path / "pool", (200, 100), 5_000, order=lambda rows, rng: rng.permutation(rows).tolist())
    upload(tmp_path / "pool", POOL)
    pool, gone, told = open_pool(POOL), [], []
    windows = TarWindows(pool, tmp_path / "kept", rows_of(pool))
    for shard in pool.shards:
        assert [sought(windows, uid, gone) for uid in uids_in(shard)] == [known.get(uid) for uid in uids_in(shard)]
    assert gone == [0, 1]
    store.asked.clear()
    windows.go_through(0)
    assert asked_of_tars(store) == 0
    TarWindows(pool, tmp_path / "new", rows_of(pool)).go_through(0, lambda *at: told.append(at))
    assert told[-1] == (windows.tars[0].size, windows.tars[0].size, "bytes")


@pytest.mark.parametrize("fault", [503, "half"])
def test_find__a_store_that_fails_in_passing_is_no_missing_image(store, tmp_path, fault):
    known = make_pool(tmp_path / "pool", (100,), 5_000, lost=0)
    upload(tmp_path / "pool", POOL)
    pool = open_pool(POOL)
    windows = TarWindows(pool, tmp_path / "kept", rows_of(pool))
    uid = sorted(known)[0]
    store.fault = lambda path, times: fault if path.endswith(".tar") else None
    with pytest.raises(OSError, match=r"Service Unavailable|is not completed"):
        windows.find(uid)
    store.fault = lambda path, times: None
    assert windows.read(windows.find(uid))[0] == known[uid]


def test_find__in_a_tar_that_was_changed(tmp_path):
    before = make_pool(tmp_path / "before", (80,), 3_000)
    after = make_pool(tmp_path / "after", (80,), 2_000)
    address = "memory://windows/changed"
    for folder, known in ((tmp_path / "before", before), (tmp_path / "after", after)):
        upload(folder, address)
        pool = open_pool(address)
        windows = TarWindows(pool, tmp_path / "kept", rows_of(pool))
        for uid, data in known.items():
            assert windows.read(windows.find(uid))[0] == data


def test_find__a_damaged_tar_costs_what_lies_in_it(tmp_path):
    known = make_pool(tmp_path / "pool", (120,), 3_000, lost=0)
    tar = tmp_path / "pool" / "shards" / "00000000.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 9_000] = bytes(range(1, 251)) * 36
    tar.write_bytes(data)
    upload(tmp_path / "pool", "memory://windows/damaged")
    pool = open_pool("memory://windows/damaged")
    windows = TarWindows(pool, tmp_path / "kept", rows_of(pool))
    found = {uid: sought(windows, uid) for uid in known}
    lost, other = list(found.values()).count(None), sum(data not in (None, known[uid]) for uid, data in found.items())
    assert 1 <= lost <= 6
    assert other <= 3
