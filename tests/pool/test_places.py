"""Are places found, listed and read, here and in stores, and is a store that fails asked again?"""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from fsspec import available_protocols
from fsspec.implementations.http import HTTPFileSystem

from clipsel_core import files, places
from clipsel_core import places as stores
from clipsel_core.errors import PoolFormatError
from clipsel_core.places import Place
from clipsel_core.pool.images import ImageIndex, open_images
from clipsel_core.pool.layout import open_pool
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.sources.look import open_source
from tests.pool.making.test_make import (
    SOURCES,
    arrays_of,
    build,
    csv_of_pictures,
    folder_of_pictures,
    table_of,
    write_tars,
)
from tests.pool.pictures import image
from tests.pool.servers import serving
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
        assert np.array_equal(*(np.load(pool.shards[0].npz.path)[member] for pool in (here, there)))
    indexes = [
        ImageIndex.of_parts(pool.root, list(pool.indexes), tmp_path / f"{Path(pool.root).name}.index")
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


def test_place__files_are_not_left_out_where_a_folder_cannot_be_listed(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "inner" / "b.jpg").write_bytes(b"b")
    listing, away = HTTPFileSystem._ls_real, list[str]()

    async def refused(self, url, *args, **options):
        if any(name in url for name in away):
            raise ConnectionRefusedError("nobody is there")
        return await listing(self, url, *args, **options)

    monkeypatch.setattr(HTTPFileSystem, "_ls_real", refused)
    with serving(tmp_path) as served:
        assert [name for name, _ in Place.of(served.address).files()] == ["a.jpg", "inner/b.jpg"]
        away.append("inner")
        with pytest.raises(OSError, match="nobody is there"):
            Place.of(served.address).files()


def test_place__addresses_that_stand_for_themselves(tmp_path):
    assert str(Place.of(tmp_path) / "memory://x/y") == "memory://x/y"
    assert str(Place.of(tmp_path) / "/abs/y.jpg") == "/abs/y.jpg"
    assert str(Place.of("memory://x") / "/abs/y.jpg") == "memory://x/abs/y.jpg"
    assert Place.of(f"file://{tmp_path}") == Place.of(tmp_path)


def test_place__whatever_a_store_raises_is_an_os_error(store, monkeypatch):
    store.pipe("/bucket/x", b"data")
    monkeypatch.setattr(store, "cat_file", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no credentials\nso")))
    with pytest.raises(OSError, match="no credentials"):
        Place.of("memory://bucket/x").read()


OPENED_WITHOUT_A_NETWORK = {"data", "file", "http", "https", "local", "memory", "webhdfs", "hf", "s3", "s3a"}


def packed(folder, out):
    """A zip or a tar of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if out.suffix == ".zip":
        with zipfile.ZipFile(out, "w") as archive:
            for path in files:
                archive.write(path, path.relative_to(folder.parent))
    else:
        with tarfile.open(out, "w") as archive:
            for path in files:
                archive.add(path, path.relative_to(folder.parent))
    return out


@pytest.mark.parametrize(
    "protocol", sorted({*available_protocols()} - OPENED_WITHOUT_A_NETWORK - stores.REFUSED.keys())
)
def test_open_store__every_protocol_opens_or_says_in_one_line_why_not(protocol, monkeypatch):
    def closed(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr("socket.getaddrinfo", closed)
    with pytest.raises(PoolFormatError) as error:
        stores.open_store(f"{protocol}://127.0.0.1:1/x")
    assert protocol in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", sorted(OPENED_WITHOUT_A_NETWORK - {"file", "local"}))
def test_open_store__opens_without_asking_the_network(protocol):
    assert Place.of(f"{protocol}://host/a/b.jpg").address == f"{protocol}://host/a/b.jpg"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("reference://x", "found reference://, which is not opened; its files name further addresses"),
        ("dask://x", "found dask://, which is not opened"),
        ("simplecache::reference://x", "found reference://, which is not opened"),
        ("zip://a.jpg::reference://x", "found reference://, which is not opened"),
        ("memory://a::memory://b", "before each ::, found memory://"),
        ("nonsense://x", "expected a path or one of .* memory, .* s3, .*, found nonsense"),
        ("simplecache::nonsense://x", "found nonsense"),
        ("simplecache://x", "expected what it lies in: .*, found nothing after it"),
        ("zip://x", "expected what it lies in: zip://PATH::ADDRESS"),
        ("gs://bucket/x", "the package for gs://, found Please install gcsfs"),
        ("zip://a::gs://bucket/x.zip", "the package for zip:// and gs://, found Please install gcsfs"),
    ],
)
def test_place__only_stores_are_opened(address, says, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(PoolFormatError, match=says):
        Place.of(address)


def test_place__a_path_with_colons_is_a_path(tmp_path):
    (tmp_path / "a::b.jpg").write_bytes(b"x")
    assert Place.of(tmp_path / "a::b.jpg").read() == b"x"


@pytest.mark.parametrize(
    "chain", ["zip://in::{}", "tar://in::{}", "simplecache::zip://in::{}", "simplecache::zip://in::file://{}"]
)
def test_make_pool__a_folder_in_an_archive(tmp_path, teachers, chain):
    folder_of_pictures(tmp_path / "in")
    build(tmp_path / "in", tmp_path / "here", teachers[0])
    archive = packed(tmp_path / "in", tmp_path / ("x.tar" if chain.startswith("tar") else "x.zip"))
    build(chain.format(archive), tmp_path / "there", teachers[0])
    assert table_of(tmp_path / "there") == table_of(tmp_path / "here")
    assert (arrays_of(tmp_path / "there", "l14_img") == arrays_of(tmp_path / "here", "l14_img")).all()
    pool = open_pool(tmp_path / "there")
    index = open_images(pool, tmp_path / "cache")
    assert [index.read(uid) for uid in table_of(pool.root)["uid"].to_pylist()] == [image(n, "PNG") for n in range(9)]


@pytest.mark.parametrize("chain", ["{}", "simplecache::{}", "filecache::{}"])
@pytest.mark.parametrize("kind", ["tars", "csv", "zip"])
def test_make_pool__from_a_web_server(tmp_path, teachers, chain, kind):
    if kind == "tars":
        local, name = write_tars(tmp_path / "in"), "in"
    else:
        local, name = csv_of_pictures(tmp_path / "in"), "in/captions.csv"
    build(local, tmp_path / "here", teachers[0])
    with serving(tmp_path) as served:
        address = chain.format(f"{served.address}/{name}")
        if kind == "zip":
            packed(tmp_path / "in", tmp_path / "x.zip")
            address = "zip://in/captions.csv::" + chain.format(f"{served.address}/x.zip")
        build(address, tmp_path / "there", teachers[0])
        pool = open_pool(tmp_path / "there")
        index = open_images(pool, tmp_path / "cache")
        names = table_of(pool.root)["uid"].to_pylist()
        kinds = ("JPEG", "PNG", "WEBP") if kind == "tars" else ("PNG",) * 3
        assert [index.read(uid) for uid in names] == [image(n, kinds[n % 3]) for n in range(9)]
    assert table_of(pool.root) == table_of(tmp_path / "here")


def test_place__a_server_without_ranges_sends_files_and_the_part_is_cut_out(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"0123456789")
    with serving(tmp_path, ranges=False) as served:
        assert Place.of(f"{served.address}/x.tar").read(3, 4) == b"3456"


def test_open_source__relative_paths_of_archives_are_noted_from_the_root_on(tmp_path, teachers, monkeypatch):
    packed(folder_of_pictures(tmp_path / "in"), tmp_path / "x.zip")
    monkeypatch.chdir(tmp_path)
    assert open_source("zip://in::x.zip").base.address == f"zip://in::file://{tmp_path}/x.zip"


@pytest.mark.parametrize("base", ["", ".", "..", "/", "a", "a/", "/a/b", "a/."])
@pytest.mark.parametrize("name", ["x", "", ".", "..", ".x", "x.", "x/y", "./x", "../x", "/x", "x/"])
def test_place__below_a_folder_of_this_machine_is_called_as_by_pathlib(base, name):
    assert (Place.of(base) / name).path == str(Path(base) / name)


def test_place__what_killed_processes_left_for_a_store_goes_with_the_next(tmp_path, store, monkeypatch):
    monkeypatch.setattr(places.tempfile, "tempdir", str(tmp_path))
    left, held, others = (tmp_path / name for name in (".clipsel-abcdefgh", ".clipsel-12345678", ".clipsel-photos-1"))
    for folder in (left, others):
        folder.mkdir()
        (folder / "0-00000000.tar").write_bytes(b"half a tar")
    with files.locked(held, is_folder=True):
        Place.of_named("memory://bucket/x").write(lambda aside: aside.write_bytes(aside.parent.name.encode()))
        assert sorted(tmp_path.iterdir()) == [held, others]
    assert store.cat("/bucket/x").startswith(b".clipsel-")


def test_place__change_writes_a_stored_file_anew_and_one_of_a_disk_where_it_lies(tmp_path, store):
    def edit(path):
        with open(path, "r+b") as file:
            file.write(b"AB")

    for place in (Place.of_named(tmp_path / "x"), Place.of_named("memory://bucket/x")):
        place.write_bytes(b"abcd")
        number = (tmp_path / "x").stat().st_ino
        place.change(edit)
        assert place.read() == b"ABcd"
        assert (tmp_path / "x").stat().st_ino == number


def test_relative_to__a_folder_of_a_store_refers_to_itself_and_to_others_by_address(store):
    pool = Place.of_named("memory://bucket/pool")
    assert pool.relative_to(Place.of_named("memory://bucket/pool/")) == "."
    assert Place.of_named("memory://bucket/in").relative_to(pool) == "memory://bucket/in"
