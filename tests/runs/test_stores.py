"""Is a pool in a store scored as the same pool on disk is, whatever the store does meanwhile?"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from clipsel_core import npy
from clipsel_core.columns.adding import import_column
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import PoolFormatError, TargetError
from clipsel_core.places import Place
from clipsel_core.pool.images import open_images
from clipsel_core.pool.inspect import inspect_pool
from clipsel_core.pool.layout import open_pool
from clipsel_core.runs.added import add_target
from clipsel_core.runs.local import score
from clipsel_core.runs.recompute import recompute
from clipsel_core.runs.store import Run
from clipsel_core.runs.targets import load_target
from tests.conftest import rewrite_npz, unit_rows, write_shard
from tests.pool.pictures import image, write_tar
from tests.pool.servers import SECRET, publishing, serving, upload

OPTIONS = {"temperature": 0.02, "batch_size": 16, "divisions": 3, "device": "cpu"}
POOL = "s3://bucket/a/pool"


@pytest.fixture
def wide(monkeypatch, tmp_path):
    """A pool whose arrays take several pieces each."""
    monkeypatch.setattr(npy, "_PIECE", 4096)
    for seed, rows in enumerate((700, 300)):
        write_shard(tmp_path / "wide", f"{seed:08d}", rows, width=64, seed=seed)
    return tmp_path / "wide"


def scores_of(run):
    names = [name for name, _ in run.root.files(".parquet") if name.startswith(("scores/", "added/"))]
    return {name: (run.root / name).read() for name in names}


@pytest.mark.parametrize("compressed", [False, True])
def test_score__a_pool_in_a_store_has_the_scores_of_one_on_disk(store, waits, wide, tmp_path, compressed):
    rewrite_npz(wide / "metadata" / "00000000.npz", compressed=compressed)
    upload(wide, POOL)
    np.save(tmp_path / "task.npy", unit_rows(30, 64, 77))
    runs = [
        score(pool, tmp_path / name, targets={"task": tmp_path / "task.npy"}, **OPTIONS)
        for pool, name in ((wide, "here"), (POOL, "there"))
    ]
    for run in runs:
        add_target(run.root, "more", tmp_path / "task.npy")
    here, there = (scores_of(run) for run in runs)
    assert here == there
    assert (runs[1].config.pool, str(runs[1].pool_root)) == (POOL, POOL)
    assert recompute(runs[1], 20) == ([], [])
    assert SECRET not in (Path(runs[1].root) / "run.json").read_text()
    assert not inspect_pool(open_pool(POOL)).problems
    assert not waits


def test_score__reads_only_the_members_that_it_scores(store, wide, tmp_path):
    rewrite_npz(wide / "metadata" / "00000000.npz", b32_img=unit_rows(700, 512), b32_txt=unit_rows(700, 512))
    rewrite_npz(wide / "metadata" / "00000001.npz", b32_img=unit_rows(300, 512), b32_txt=unit_rows(300, 512))
    upload(wide, POOL)
    score(POOL, tmp_path / "there", arch="l14", **OPTIONS)
    sent = sum(size for path, size in store.sent.items() if path.endswith(".npz"))
    needed = 2 * 1000 * 64 * 2
    assert needed <= sent < needed + 1_000_000 < sum(f.stat().st_size for f in (wide / "metadata").glob("*.npz"))


def test_open_pool__a_store_is_asked_once_a_shard(store, tmp_path):
    """But for the first one, whose columns are read before. Its listing says how long each is."""
    for number in range(40):
        write_shard(tmp_path / "many", f"{number:08d}", 3 + number, width=8, seed=number)
    upload(tmp_path / "many", POOL)
    # One that remembers no listing itself.
    place = replace(Place.of(POOL), fs=fsspec.filesystem("s3", use_listings_cache=False))
    store.asked.clear()
    pool = open_pool(place)
    assert [shard.rows for shard in pool.shards] == list(range(3, 43))
    asked = {path.rpartition("/")[2]: times for path, times in store.asked.items() if path.endswith(".parquet")}
    assert asked == {f"{number:08d}.parquet": 1 + (not number) for number in range(40)}
    # A shard that is written over has another size, or another tag; neither is taken for what it was.
    write_shard(tmp_path / "many", "00000007", 500, width=8, seed=1)
    upload(tmp_path / "many", POOL)
    assert [shard.rows for shard in open_pool(place).shards][6:9] == [9, 500, 11]


@pytest.mark.parametrize("fault", ["half", 503, "slow"])
def test_score__a_store_that_fails_in_passing_is_asked_again(store, waits, wide, tmp_path, fault):
    upload(wide, POOL)
    here = score(wide, tmp_path / "here", **OPTIONS)
    failed: Counter[str] = Counter()

    def fails(path, times):
        # Of each file three answers: fewer than anybody has patience for, whoever of several asks gets them.
        if not path.startswith("/bucket/a") or times not in (2, 4, 6):
            return None
        failed[path] += 1
        return fault

    store.fault = fails
    there = score(POOL, tmp_path / "there", **OPTIONS)
    assert scores_of(here) == scores_of(there)
    assert failed.total() > 6


@pytest.mark.parametrize("where", [".npz", ".parquet", "list-type"])
def test_score__a_store_that_stays_away_is_said_in_one_line(store, waits, wide, tmp_path, where):
    upload(wide, POOL)
    store.fault = lambda path, times: 503 if where in path else None
    says = r"s3://bucket/a/pool/metadata.*expected .*found Service Unavailable"
    with pytest.raises(PoolFormatError, match=says) as error:
        score(POOL, tmp_path / "there", **OPTIONS)
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value)
    assert waits[:3] == [0.5, 2.0, 8.0]
    store.fault = lambda path, times: None
    assert score(POOL, tmp_path / "there", **OPTIONS).finished


def test_score__goes_on_with_a_pool_in_a_store_where_it_was_stopped(store, wide, tmp_path):
    upload(wide, POOL)
    whole = scores_of(score(POOL, tmp_path / "whole", **OPTIONS))
    run = score(POOL, tmp_path / "run", **OPTIONS)
    Path(run.score_files[0]).unlink()
    assert scores_of(score(POOL, run.root, **OPTIONS)) == whole


@pytest.mark.parametrize("address", ["s3://key:word@bucket/pool", "https://host/pool?X-Amz-Signature=0123"])
def test_open_pool__an_address_with_a_secret_in_it_is_refused(address):
    with pytest.raises(PoolFormatError, match="expected an address without a password or a signature") as error:
        open_pool(address)
    assert "key:word" not in str(error.value)
    assert "0123" not in str(error.value)


def test_score__a_pool_on_a_web_server_that_gives_ranges(waits, wide, tmp_path):
    here = score(wide, tmp_path / "here", **OPTIONS)
    with serving(wide) as served:
        there = score(served.address, tmp_path / "there", **OPTIONS)
    assert scores_of(here) == scores_of(there)


def test_score__a_pool_on_a_hub_of_datasets(monkeypatch, waits, wide, tmp_path):
    """No more than the sides' bytes and some headers, not what a file that is opened there reads ahead."""
    write_tar(wide / "shards" / "00000000.tar", [("000000000.jpg", bytes(9 << 20))])
    pool = "hf://datasets/org/data/pool"
    with publishing(tmp_path, monkeypatch) as served:
        (tmp_path / "pool").symlink_to(wide)
        here, there = (score(one, tmp_path / str(n), **OPTIONS) for n, one in enumerate((wide, pool)))
        assert scores_of(here) == scores_of(there)
        assert Place.of(f"{pool}/shards/00000000.tar").read(1000, 100) == bytes(100)
    (shard,) = (size for path, size in served.sent.items() if path.endswith("00000000.npz"))
    assert shard < 2 * 700 * 64 * 4 + (1 << 17)
    assert [size for path, size in served.sent.items() if path.endswith(".tar")] == [100]
    assert not waits


def test_load_target__from_a_store_is_as_from_disk(store, waits, wide, tmp_path):
    rows = unit_rows(40, 64, 5)
    folder = tmp_path / "t"
    folder.mkdir()
    np.save(folder / "a.npy", rows)
    np.save(folder / "part0.npy", rows[:10])
    np.save(folder / "part1.npy", rows[10:])
    np.savez(folder / "b.npz", l14_img=rows, other=rows[::-1])
    torch.save(torch.from_numpy(rows), folder / "c.pt")
    pq.write_table(pa.table({"emb": list(rows.astype(np.float32))}), folder / "d.parquet")
    pq.write_table(
        pa.table({"uid": pq.read_table(wide / "metadata" / "00000000.parquet")["uid"][:7]}), folder / "e.parquet"
    )
    upload(folder, "s3://bucket/t")
    upload(wide, POOL)
    pool = open_pool(wide)
    for name in ("a.npy", "part*.npy", "part{0,1}.npy", "b.npz#other", "c.pt", "d.parquet", "e.parquet"):
        store.fault = lambda path, times: "half" if times % 3 == 0 else None
        (here, rows_here), (there, rows_there) = (
            load_target("t", f"{base}/{name}", pool, pool.arch(), tmp_path) for base in (folder, "s3://bucket/t")
        )
        assert torch.equal(rows_here, rows_there)
        assert here.model_copy(update={"path": ""}) == there.model_copy(update={"path": ""})
        assert there.path == f"s3://bucket/t/{name}"
    (here, rows_here), (there, rows_there) = (
        load_target("t", base, pool, pool.arch(), tmp_path) for base in (wide, POOL)
    )
    assert torch.equal(rows_here, rows_there)
    assert here.files == there.files


def test_recompute__finds_a_target_in_a_store_again(store, wide, tmp_path):
    np.save(tmp_path / "task.npy", unit_rows(30, 64, 77))
    upload(tmp_path, "s3://bucket/b")
    run = score(wide, tmp_path / "run", targets={"task": "s3://bucket/b/task.npy"}, **OPTIONS)
    assert recompute(run, 10) == ([], [])
    add_target(run.root, "more", "s3://bucket/b/task.npy")
    assert score(wide, run.root, targets={"task": "s3://bucket/b/task.npy"}, **OPTIONS).finished
    with pytest.raises(TargetError, match="expected the target 'none', found no such file"):
        add_target(run.root, "none", "s3://bucket/b/none.npy")


def test_import_column__by_an_address(store, waits, wide, tmp_path):
    names = pq.read_table(wide / "metadata" / "00000000.parquet")["uid"]
    (tmp_path / "v").mkdir()
    pq.write_table(pa.table({"uid": names, "v": np.arange(700) / 7}), tmp_path / "v" / "v.parquet")
    upload(tmp_path / "v", "s3://bucket/v")
    store.fault = lambda path, times: "half" if path.endswith("v.parquet") and times % 3 == 0 else None
    roots = [score(wide, tmp_path / name, **OPTIONS).root for name in ("here", "there")]
    for root, base in zip(roots, (tmp_path / "v", "s3://bucket/v"), strict=True):
        import_column(root, "v", f"{base}/v.parquet#v")
    here, there = (scores_of(Run.open(root)) for root in roots)
    assert here == there
    with pytest.raises(PoolFormatError, match="an address without a password or a signature"):
        import_column(roots[1], "w", "s3://key:word@bucket/v.parquet#v")


def test_open_images__finds_them_in_the_tars_of_a_pool_in_a_store(store, wide, tmp_path):
    names = pq.read_table(wide / "metadata" / "00000001.parquet")["uid"].to_pylist()[:9]
    (wide / "shards").mkdir()
    files = [(f"{row}.{end}", data) for row, name in enumerate(names) for end, data in files_of(row, name).items()]
    write_tar(wide / "shards" / "00000001.tar", dict(files))
    upload(wide, POOL)
    here, there = (open_images(open_pool(pool), tmp_path / name) for pool, name in ((wide, "here"), (POOL, "there")))
    assert [there.read(name) for name in names] == [here.read(name) for name in names] == [image(n) for n in range(9)]
    assert not inspect_pool(open_pool(POOL)).problems


def files_of(row, name):
    return {"jpg": image(row), "json": json.dumps({"uid": name}).encode()}


def test_run__its_pool_in_a_store_is_read_below_named_places_alone(wide, tmp_path):
    upload(wide, "memory://named/pool")
    root = score("memory://named/pool", tmp_path / "run", **OPTIONS).root
    for named, there in (
        (None, True),
        (["memory://named"], True),
        (["memory://other", str(tmp_path)], False),
        ([], False),
    ):
        run = Run.open(root, named)
        assert run.has_pool == there
        assert (ScoreTable.open(run).metadata.pool is not None) == there


def test_has_pool__a_store_without_credentials_is_not_at_hand_and_one_that_fails_is_said(
    store, waits, wide, tmp_path, monkeypatch, caplog
):
    upload(wide, POOL)
    run = score(POOL, tmp_path / "run", **OPTIONS)
    fsspec.filesystem("s3").invalidate_cache()
    store.fault = lambda path, times: 503
    with pytest.raises(PoolFormatError, match="expected a store that answers, found Service Unavailable"):
        assert run.has_pool
    store.fault = lambda path, times: 403
    assert not run.has_pool
    assert f"{POOL}: the pool cannot be read: " in caplog.text
    assert ScoreTable.open(run).metadata.pool is None
