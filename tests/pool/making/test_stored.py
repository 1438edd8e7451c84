"""Is a pool that is made in a store the same, byte for byte, as on a disk, whatever the store does meanwhile?"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from clipsel_core import places
from clipsel_core.errors import ClipselError, PoolFormatError
from clipsel_core.places import Place
from clipsel_core.pool.images import ImageIndex
from clipsel_core.pool.inspect import inspect_pool
from clipsel_core.pool.layout import open_pool, read_teachers
from clipsel_core.pool.making import extend as extending
from clipsel_core.pool.making import shard_files
from clipsel_core.pool.making.embed import load_teacher
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.making.settings import is_extendable
from clipsel_core.pool.making.shard_files import ShardFiles
from clipsel_core.pool.sources.look import open_source
from clipsel_core.processes import child_environment
from clipsel_core.runs.local import score
from tests.clusters import ENDS
from tests.pool.making.test_extend import datacomp_pool, extend, tars
from tests.pool.making.test_make import build, bytes_of, folder_of_pictures, stopping
from tests.pool.making.test_spread import here, write_faulty  # noqa: F401
from tests.pool.pictures import caption, image, write_tars
from tests.pool.servers import SECRET, upload

POOL = "s3://bucket/a/pool"
OPTIONS = {"shard_size": 3, "batch_size": 3, "workers": 1}


@pytest.fixture
def source(store, tmp_path):
    """Three tars in a store, with pairs that are rejected, and uids that come again."""
    upload(write_faulty(tmp_path / "in"), "s3://bucket/in")
    return "s3://bucket/in"


def stored(address=POOL):
    place = Place.of_named(address)
    return {name: (place / name).read() for name, _ in place.files()}


@pytest.mark.parametrize("pack", [False, True])
def test_make_pool__in_a_store_has_the_bytes_of_one_on_disk(source, waits, tmp_path, teachers, pack):
    for root in (tmp_path / "pool", POOL):
        made = build(source, root, teachers[0], pack=pack, **OPTIONS)
        assert (made.shards, made.kept, made.repeated) == (4, 10, 6)
    assert stored() == bytes_of(tmp_path / "pool")
    assert ("shards/00000000.tar" in stored()) == pack
    assert inspect_pool(open_pool(POOL)).problems == ()
    for root in (tmp_path / "pool", POOL):
        assert build(source, root, teachers[0], **OPTIONS).embedded == 0
        assert build(source, root, teachers[1], "b32", **OPTIONS).embedded == 10
    assert stored() == bytes_of(tmp_path / "pool")
    assert list(read_teachers(POOL)) == ["b32", "l14"]
    assert SECRET.encode() not in b"".join(stored().values())
    assert not waits


def test_make_pool__packed_in_a_store_is_a_pool_wherever_it_is_copied(source, tmp_path, teachers):
    build(source, POOL, teachers[0], pack=True, **OPTIONS)
    for name, data in stored().items():
        (Place.of_named("s3://bucket/b/other") / name).write_bytes(data)
    pool = open_pool("s3://bucket/b/other")
    index = ImageIndex.of_parts(pool.root, list(pool.indexes), tmp_path / "images.index")
    named = [uid for shard in pool.shards for uid in pq.read_table(shard.parquet.open())["uid"].to_pylist()]
    assert [index.read(uid)[:2] for uid in named] == [b"\xff\xd8"] * 10
    source = open_source("s3://bucket/b/other/shards")
    assert is_extendable(source, "s3://bucket/b/other")
    assert not is_extendable(source, "s3://bucket/b/nothing")


def test_make_pool__of_pictures_of_this_machine_refers_to_them_and_says_so(store, tmp_path, teachers, caplog):
    folder_of_pictures(tmp_path / "in")
    build(tmp_path / "in", POOL, teachers[0], **OPTIONS)
    assert f"{tmp_path / 'in'}: its images stay on this machine, and others who read {POOL} see none" in caplog.text
    pool = open_pool(POOL)
    index = ImageIndex.of_parts(POOL, list(pool.indexes), tmp_path / "images.index")
    tables = [pq.read_table(shard.parquet.open()) for shard in pool.shards]
    pairs = [pair for table in tables for pair in zip(table["uid"].to_pylist(), table["text"].to_pylist(), strict=True)]
    assert {text: index.read(uid) for uid, text in pairs} == {caption(n): image(n, "PNG") for n in range(9)}
    caplog.clear()
    build(tmp_path / "in", "s3://bucket/packed", teachers[0], pack=True, **OPTIONS)
    assert "stay on this machine" not in caplog.text


def test_make_pool__stopped_anywhere_in_a_store_ends_with_the_same_bytes(source, tmp_path, teachers, monkeypatch):
    build(source, tmp_path / "pool", teachers[0], pack=True, **OPTIONS)
    writes, stopped = [], 0
    for name in ("write", "write_json", "remove"):
        monkeypatch.setattr(Place, name, stopping(getattr(Place, name), writes))
    for _ in range(100):
        writes[:] = [stopped % 11 + 1]
        try:
            build(source, POOL, teachers[0], pack=True, **OPTIONS)
            break
        except KeyboardInterrupt:
            stopped += 1
    assert stopped >= 5
    assert stored() == bytes_of(tmp_path / "pool")


def test_make_pool__killed_in_a_store_goes_on_with_the_same_bytes(source, tmp_path, teachers, teacher_folders):
    model = f"local-dir:{teacher_folders[0]}"
    options = {"arch": "l14", "model": model, "pack": True, **OPTIONS}
    make_pool(open_source(source), tmp_path / "pool", load_teacher(model), **options)
    script = f"""
import os
from clipsel_core.pool.making import shard_files
from clipsel_core.pool.making.embed import load_teacher
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.sources.look import open_source
save = shard_files._save
def kill(npz, arrays):
    if npz.stem == "00000002":
        {ENDS}
    save(npz, arrays)
shard_files._save = kill
make_pool(open_source({source!r}), {POOL!r}, load_teacher({model!r}), **{options!r})
"""
    ended = subprocess.run([sys.executable, "-c", script], env=child_environment())
    assert ended.returncode < 0
    assert "embed/00000001.json" in stored()
    assert "embed/00000002.json" not in stored()
    first = ShardFiles(Place.of_named(POOL), "00000000").npz.stamp()
    make_pool(open_source(source), POOL, load_teacher(model), **options)
    assert ShardFiles(Place.of_named(POOL), "00000000").npz.stamp() == first
    assert stored() == bytes_of(tmp_path / "pool")


@pytest.mark.parametrize("fault", [503, "half"])
def test_make_pool__a_store_that_fails_in_passing_is_asked_again(store, source, waits, tmp_path, teachers, fault):
    build(source, tmp_path / "pool", teachers[0], **OPTIONS)
    store.fault = lambda path, times: fault if path.startswith("/bucket/a") and times % 3 == 1 else None
    build(source, POOL, teachers[0], **OPTIONS)
    store.fault = lambda path, times: None
    assert stored() == bytes_of(tmp_path / "pool")


def test_make_pool__a_store_that_stays_away_is_said_and_nothing_half_written_counts(
    store, source, waits, tmp_path, teachers
):
    build(source, tmp_path / "pool", teachers[0], pack=True, **OPTIONS)
    store.fault = lambda path, times: 503 if "00000001.npz" in path else None
    said = r"^s3://bucket/a/pool: expected to write the pool, found Service Unavailable; see whether the store is there"
    with pytest.raises(PoolFormatError, match=said) as error:
        build(source, POOL, teachers[0], pack=True, **OPTIONS)
    assert "\n" not in str(error.value)
    assert waits[-3:] == [0.5, 2.0, 8.0]
    store.fault = lambda path, times: None
    assert [name for name in stored() if name.startswith("embed/0") and name.endswith(".json")] == [
        "embed/00000000.json"
    ]
    build(source, POOL, teachers[0], **OPTIONS)
    assert stored() == bytes_of(tmp_path / "pool")


def test_make_pool__a_full_folder_of_temporary_files_is_named(source, tmp_path, teachers, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(places.tempfile, "tempdir", str(scratch))

    def full(*_):
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    with monkeypatch.context() as patch:
        patch.setattr(shard_files.np, "savez", lambda *_, **__: full())
        said = "scratch: expected to write the pool, found No space left on device; make room, or set TMPDIR to another"
        with pytest.raises(PoolFormatError, match=said):
            build(source, POOL, teachers[0], **OPTIONS)
    assert not list(scratch.iterdir())
    assert "embed/00000000.json" not in stored()


def test_make_pool__that_another_process_holds_is_refused(source, tmp_path, teachers, monkeypatch):
    monkeypatch.setattr("clipsel_core.leases._RENEWED_S", 0.05)
    monkeypatch.setattr("clipsel_core.leases._BETWEEN_LOOKS_S", 0.05)
    refused = []

    def meanwhile(*_):
        if not refused:
            with pytest.raises(PoolFormatError, match="found another process at work: process") as error:
                build(source, POOL, teachers[0], **OPTIONS)
            refused.append(error)

    build(source, POOL, teachers[0], report=meanwhile, **OPTIONS)
    assert refused
    build(source, tmp_path / "pool", teachers[0], **OPTIONS)
    assert stored() == bytes_of(tmp_path / "pool")


def test_make_pool__that_was_lost_to_another_is_written_no_more(source, tmp_path, teachers):
    def meanwhile(*_):
        (Place.of_named(POOL) / ".lease" / "000002").write_bytes(b'{"pid": 7, "host": "elsewhere"}')

    with pytest.raises(PoolFormatError, match="expected to hold the folder, found process 7 of elsewhere took it over"):
        build(source, POOL, teachers[0], report=meanwhile, **OPTIONS)
    assert sorted(stored()) == ["embed/settings.json", "teachers.json"]


@pytest.mark.parametrize("address", ["https://127.0.0.1/pool", "simplecache::s3://bucket/pool"])
def test_make_pool__into_what_is_only_read_is_refused(source, teachers, address):
    with pytest.raises(ClipselError, match=r"expected a folder or a store that is written to, found .*only read"):
        build(source, address, teachers[0], **OPTIONS)


@pytest.mark.parametrize("pack", [False, True])
def test_make_shards__into_a_store_has_the_bytes_of_one_process(source, tmp_path, teacher_folders, here, pack):  # noqa: F811
    model = f"local-dir:{teacher_folders[0]}"
    options = {"arch": "b32", "model": model, "pack": pack, **OPTIONS, "shard_size": 2}
    make_pool(open_source(source), tmp_path / "pool", load_teacher(model), **options)
    here.made, here.ended = 0, 4
    with pytest.raises(KeyboardInterrupt):
        make_pool(open_source(source), POOL, load_teacher(model), cluster="any", **options)
    here.ended = None
    made = make_pool(open_source(source), POOL, load_teacher(model), cluster="any", **options)
    assert made.repeated == 6
    assert stored() == bytes_of(tmp_path / "pool")


def test_extend_pool__in_a_store_as_on_a_disk(store, tmp_path, teachers, monkeypatch):
    root = datacomp_pool(tmp_path / "pool", shards=False)
    tars(tmp_path / "in", range(7))
    upload(root, POOL)
    upload(tmp_path / "in", "s3://bucket/in")
    write, ended = extending._Work.extend, []

    def stop(self, unit, tell):
        if unit.number == 1 and not ended:
            ended.append(unit)
            raise KeyboardInterrupt
        return write(self, unit, tell)

    monkeypatch.setattr(extending._Work, "extend", stop)
    with pytest.raises(KeyboardInterrupt):
        extend("s3://bucket/in", POOL, teachers[0], "b16")
    found = [extend("s3://bucket/in", where, teachers[0], "b16") for where in (root, POOL)]
    assert [(one.pairs, one.set_aside) for one in found] == [(9, 2), (9, 2)]
    assert found[1].embedded < found[0].embedded
    assert "set_aside_b16.parquet" in stored()
    assert stored() == bytes_of(root)
    said = f"^{POOL}: expected no l14 in the pool yet, found embeddings l14; choose another --arch"
    with pytest.raises(PoolFormatError, match=said):
        extend("s3://bucket/in", POOL, teachers[0], "l14")


@pytest.mark.cluster
def test_local_cluster__embeds_from_a_store_into_a_store(source, tmp_path, teacher_folders):
    model = f"local-dir:{teacher_folders[0]}"
    options = {"arch": "b32", "model": model, **OPTIONS}
    for root, on in ((tmp_path / "pool", {}), (POOL, {"cluster": "local", "cpus_per_worker": 1})):
        make_pool(open_source(source), root, load_teacher(model), **options, **on)
    assert stored() == bytes_of(tmp_path / "pool")


def test_cli__embeds_into_a_store_and_scores_from_there(store, tmp_path, teacher_folders):
    def clipsel(*words, ends=0):
        command = [sys.executable, "-m", "clipsel_core", *map(str, words)]
        environment = child_environment() | {"COLUMNS": "200", "XDG_STATE_HOME": str(tmp_path / "state")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == ends, done.stderr
        assert SECRET not in done.stdout + done.stderr
        return done.stdout + done.stderr

    write_tars(tmp_path / "in")
    words = ("embed", tmp_path / "in", POOL, "--model", f"local-dir:{teacher_folders[0]}", "--arch", "l14")
    clipsel(*words, "--check")
    assert not stored()
    said = clipsel(*words, "--workers", 1)
    assert f"{POOL}: 9 of 9 pairs in 1 shard" in said
    assert "stay on this machine" in said
    assert "9 of 9 pairs in 1 shard" in clipsel(*words)
    assert json.loads(stored()["teachers.json"])["l14"]["model"].startswith("local-dir:")
    assert "expected an address without a password" in clipsel(
        "embed", words[1], "s3://k:s@bucket/p", *words[3:], ends=1
    )
    run = score(POOL, "s3://bucket/run", device="cpu", batch_size=4)
    assert run.pairs == 9
    assert not Path("s3:").exists()
