"""What may a table, or a pool from somebody else, have read?"""

from __future__ import annotations

import os
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core import reach
from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.conventions import WHOLE_FILE
from clipsel_core.pool.images import open_images
from clipsel_core.pool.layout import open_pool
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.sources.look import open_source
from clipsel_core.processes import child_environment, module_command
from tests.pool.pictures import image
from tests.pool.servers import serving


def make(source, root, teacher):
    return make_pool(open_source(source), root, teacher, arch="l14", model="l14", workers=1)


@pytest.mark.parametrize(
    ("place", "named", "below"),
    [
        ("data/a.jpg", ["data"], True),
        ("data", ["data"], True),
        ("database/a.jpg", ["data"], False),
        ("data/../secret", ["data"], False),
        ("data/out/secret", ["data"], False),
        ("data/a.jpg", [], False),
        ("data/a\0.jpg", ["data"], False),
        ("s3://bucket/x/a.tar", ["s3://bucket/x"], True),
        ("s3://bucket/xy", ["s3://bucket/x"], False),
        ("s3://bucket/x/../y", ["s3://bucket/x"], False),
        ("s3://bucket/x/%2e%2e/y", ["s3://bucket/x"], False),
        ("https://host:81/x/a", ["https://host/x"], False),
        ("https://user@host/x/a", ["https://host/x"], False),
        ("zip://a::https://host/x/b.zip", ["https://host/x"], False),
        ("zip://in/a::https://host/x/b.zip", ["zip://in::https://host/x/b.zip"], True),
        ("zip://in/a::https://host/x/c.zip", ["zip://in::https://host/x/b.zip"], False),
        ("simplecache::https://host/x/a", ["simplecache::https://host/x"], True),
        ("simplecache::https://host/x/a", ["https://host/x"], False),
        ("https://host/x/a.jpg?size=2", ["https://host/x"], True),
        ("https://host/x\\@other/a", ["https://host/x"], False),
        ("http://host/x", ["https://host/x"], False),
        ("https://[", ["https://host/x"], False),
    ],
)
def test_below(tmp_path, monkeypatch, place, named, below):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "out").symlink_to("/")
    assert reach.make_filter(named)(place) == below


@pytest.mark.parametrize("limited", [True, False])
def test_table__names_only_what_lies_below_the_places_of_a_limited_process(tmp_path, teacher_folders, limited):
    inside, outside = tmp_path / "data", tmp_path / "private"
    for number, file in enumerate((inside / "a.png", *(outside / f"{name}.png" for name in "bcde"))):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(image(number, "PNG"))
    (inside / "link.png").symlink_to(outside / "d.png")
    with serving(outside) as served:
        away = ["../private/b.png", str(outside / "c.png"), "link.png", f"{served.address}/e.png"]
        rows = "".join(f"{name},a caption of {number}\n" for number, name in enumerate(["a.png", *away]))
        (inside / "table.csv").write_text(f"path,caption\n{rows}")
        # In a process of its own, as a job is: those that it starts to decode images are limited with it.
        words = [
            "embed",
            inside / "table.csv",
            tmp_path / "pool",
            "--arch",
            "l14",
            "--model",
            f"local-dir:{teacher_folders[0]}",
        ]
        environment = child_environment() | (reach.limiting_environment([inside]) if limited else {})
        done = subprocess.run(module_command("clipsel_core", *words), env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert bool(served.asked) != limited
    kept = {shard.rows for shard in open_pool(tmp_path / "pool").shards}
    assert kept == ({1} if limited else {5})
    rejected = {row["key"]: row["reason"] for row in pq.read_table(tmp_path / "pool" / "rejected.parquet").to_pylist()}
    assert set(rejected) == (set(away) if limited else set())
    assert all("--read" in reason for reason in rejected.values()), rejected


def test_source__outside_of_the_places_of_a_limited_process_is_refused(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "t.csv").write_text("path,caption\na.png,a\n")
    (tmp_path / "data" / "t.csv").symlink_to(tmp_path / "other" / "t.csv")
    monkeypatch.setenv(*next(iter(reach.limiting_environment([tmp_path / "data"]).items())))
    for named in (tmp_path / "other" / "t.csv", tmp_path / "data" / "t.csv", "https://127.0.0.1:1/x.tar"):
        with pytest.raises(PoolFormatError):
            open_source(named)


@pytest.fixture
def by_a_stranger(tmp_path, monkeypatch, teachers):
    """A pool that has its images in a folder outside of it, as if another user had made it."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.png").write_bytes(image(number, "PNG"))
        (source / f"{number}.txt").write_text(f"a caption of {number}")
    make(source, tmp_path / "pool", teachers[0])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "nobody"))
    return source, tmp_path / "pool"


def uids_of(pool):
    return [uid for shard in open_pool(pool).shards for uid in pq.read_table(shard.parquet)["uid"].to_pylist()]


def test_images__of_a_pool_of_somebody_else_lie_below_it_or_are_named(tmp_path, by_a_stranger):
    source, pool = by_a_stranger
    opened = open_pool(pool)
    with pytest.raises(
        PoolFormatError, match=f"images: expected images below .*, found {source}; allow it with --read"
    ):
        open_images(opened, tmp_path / "cache")
    index = open_images(opened, tmp_path / "cache", named=[str(source)])
    assert sorted(index.read(uid) for uid in uids_of(pool)) == sorted(image(number, "PNG") for number in range(3))


def test_images__of_a_pool_that_this_user_embedded_are_read(tmp_path, monkeypatch, by_a_stranger, teachers):
    source, pool = by_a_stranger
    reach.remember_sources([os.path.relpath(source)])
    index = open_images(open_pool(pool), tmp_path / "cache")
    assert None not in [index.read(uid) for uid in uids_of(pool)]


@pytest.mark.parametrize("kind", ["base", "file"])
def test_images__no_file_of_this_machine_and_no_address_on_the_word_of_an_index(tmp_path, by_a_stranger, kind):
    source, pool = by_a_stranger
    (tmp_path / "secret").write_bytes(b"secret")
    part = next((pool / "images").glob("*.parquet"))
    with serving(tmp_path) as served:
        for place in (str(tmp_path), served.address):
            table = pq.read_table(part)
            file = "secret" if kind == "base" else f"{place}/secret"
            table = table.set_column(2, "file", pa.array([file] * len(table)).dictionary_encode())
            table = table.set_column(4, "length", pa.array([WHOLE_FILE] * len(table)))
            base = place if kind == "base" else str(source)
            table = table.replace_schema_metadata({"base": base, "image_column": ""})
            pq.write_table(table, part)
            if kind == "base":
                with pytest.raises(PoolFormatError, match="--read"):
                    open_images(open_pool(pool), tmp_path / "cache")
            else:
                index = open_images(open_pool(pool), tmp_path / "cache", named=[str(source)])
                assert {index.read(uid) for uid in uids_of(pool)} == {None}
        assert not served.asked
