"""Are files read the same way from a store of fsspec's as from the disk, and is what fails an OSError?"""

from __future__ import annotations

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool import places
from clipsel_core.pool.images import ImageIndex
from clipsel_core.pool.layout import open_pool
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.look import open_source
from tests.pool.making.test_make import SOURCES
from tests.pool.test_arrays import clip_retrieval


@pytest.fixture
def store():
    """A store in memory, empty before and after."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield memory
    memory.store.clear()


def upload(store, folder):
    for path in folder.rglob("*"):
        if path.is_file():
            store.pipe(f"/bucket/{path.relative_to(folder).as_posix()}", path.read_bytes())


def columns(root):
    return pq.read_table(open_pool(root).shards[0].parquet)


@pytest.mark.parametrize("kind", [*SOURCES, "clip-retrieval"])
def test_make_pool__a_remote_source_gives_the_pool_of_a_local_one(tmp_path, teachers, store, kind):
    local = {**SOURCES, "clip-retrieval": lambda folder: clip_retrieval(folder) and folder}[kind](tmp_path / "in")
    upload(store, tmp_path / "in")
    remote = "memory://bucket" + str(local).removeprefix(str(tmp_path / "in"))
    teacher = None if kind == "clip-retrieval" else teachers[0]
    for source, root in ((local, "here"), (remote, "there")):
        make_pool(open_source(source), tmp_path / root, teacher, arch="l14", workers=2)
    here, there = (open_pool(tmp_path / root) for root in ("here", "there"))
    assert columns(here.root) == columns(there.root)
    for member in ("l14_img", "l14_txt"):
        assert np.array_equal(*(np.load(pool.shards[0].npz)[member] for pool in (here, there)))
    indexes = [
        ImageIndex.of_parts(pool.root, list(pool.indexes), tmp_path / f"{pool.root.name}.index")
        for pool in (here, there)
    ]
    names = columns(here.root)["uid"].to_pylist()
    images = [[index.read(name) for name in names] for index in indexes]
    assert images[0] == images[1]
    assert all(images[0])
    store.store.clear()
    assert [indexes[1].read(name) for name in names] == [None] * len(names)


def test_make_pool__a_remote_tar_that_fails_halfway_stops_the_run(tmp_path, teachers, store, monkeypatch):
    SOURCES["tars"](tmp_path / "in")
    upload(store, tmp_path / "in")
    source = open_source("memory://bucket")
    monkeypatch.setattr(places._Steady, "readinto", lambda *_: (_ for _ in ()).throw(OSError("connection lost")))
    with pytest.raises(PoolFormatError, match=r"00000\.tar: expected a tar that can be read, found connection lost"):
        make_pool(source, tmp_path / "pool", teachers[0], arch="l14", workers=1)


def test_place__files_sizes_and_ranges(tmp_path, store):
    content = {"a.TAR": b"0123456789", "b/c.tar": b"xyz", ".d.tar": b"", ".e/f.tar": b"", "b/g.txt": b"no"}
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
        store.pipe(f"/bucket/{name}", data)
    for place in (Place.of(tmp_path), Place.of("memory://bucket/")):
        assert place.files(".tar") == [("a.TAR", 10), ("b/c.tar", 3)]
        assert place.files(".tar", deep=False) == [("a.TAR", 10)]
        assert ((place / "b").is_dir(), (place / "b").is_file(), (place / "b/c.tar").is_file()) == (True, False, True)
        file = place / "a.TAR"
        assert (file.read(), file.read(7), file.read(2, 3), file.size(), file.ending) == (
            *(b"0123456789", b"789", b"234", 10, "tar"),
        )
        with file.open() as stream:
            stream.seek(4)
            assert (stream.read(2), stream.read(), file.parent.files(".tar")[1][0]) == (b"45", b"6789", "b/c.tar")
        for read in (place / "nowhere").open, (place / "nowhere").read:
            with pytest.raises(FileNotFoundError):
                read()


def test_place__addresses_that_stand_for_themselves(tmp_path):
    assert str(Place.of(tmp_path) / "memory://x/y") == "memory://x/y"
    assert str(Place.of(tmp_path) / "/abs/y.jpg") == "/abs/y.jpg"
    assert str(Place.of("memory://x") / "/abs/y.jpg") == "memory://x/abs/y.jpg"
    assert Place.of(f"file://{tmp_path}") == Place.of(tmp_path)


def test_place__whatever_a_store_raises_is_an_os_error(store, monkeypatch):
    store.pipe("/bucket/x", b"data")
    monkeypatch.setattr(store, "cat_file", lambda *_: (_ for _ in ()).throw(RuntimeError("no credentials\nat all")))
    with pytest.raises(OSError, match="no credentials"):
        Place.of("memory://bucket/x").read()
