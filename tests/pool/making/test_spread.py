"""Workers that embed shards of their own: the bytes of one process, whatever is lost in the middle."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from textwrap import indent

import pytest

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError, RunError, TeacherError
from clipsel_core.places import Place
from clipsel_core.pool.layout import read_teachers
from clipsel_core.pool.making import spread
from clipsel_core.pool.making.decode import quiet_pillow
from clipsel_core.pool.making.embed import load_teacher
from clipsel_core.pool.making.extend import extend_pool
from clipsel_core.pool.making.feed import Cursor, Feed
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.making.spread import Embedding
from clipsel_core.pool.sources.look import open_source
from clipsel_core.processes import child_environment, module_command
from clipsel_core.workers import Machines
from tests.clusters import ENDS, FILLS_UP, Trap, kill_an_actor, three_nodes
from tests.pool.making.test_extend import datacomp_pool, tars
from tests.pool.making.test_make import SOURCES, bytes_of, source, table_of  # noqa: F401
from tests.pool.pictures import sample, write_tar, write_tars
from tests.pool.servers import storing, upload
from tests.waiting import until

OPTIONS = {"shard_size": 4, "batch_size": 3, "workers": 1}


def write_faulty(folder):
    """Three tars: pairs whose uids come again, in the same shard and in later ones, and pictures that are none."""
    write_tar(
        folder / "0.tar", sample(0, uid="a" * 32) | sample(1, uid="a" * 32) | sample(2) | sample(3, uid="not hex")
    )
    broken = {name: b"none" if name.endswith("jpg") else data for name, data in sample(4).items()}
    write_tar(folder / "1.tar", broken | sample(5, uid="a" * 32) | sample(6, uid="b" * 32) | sample(2))
    write_tar(folder / "2.tar", sample(2, note="\ud83d\ude00") | sample(7, uid="b" * 32) | sample(3, uid="not hex"))
    return folder


@pytest.fixture
def here(monkeypatch):
    """No cluster, but its work done in this process; `ended` ends it with the so many-th shard, before it is named."""

    class Shards:
        ended = None
        made = 0

    def workers(self, work, units, of=Machines.workers):
        return of(replace(self, cluster=None), work, units)

    begun, make = [], spread.Maker.make

    def made(self, *given, **options):
        Shards.made += 1
        if Shards.made == Shards.ended:
            raise KeyboardInterrupt
        return make(self, *given, **options)

    class Kept(spread.Embedder):
        def __init__(self, *given, **options):
            super().__init__(*given, **options)
            begun.append(self)

    monkeypatch.setattr(Machines, "workers", workers)
    monkeypatch.setattr(spread.Maker, "make", made)
    monkeypatch.setattr(spread, "Embedder", Kept)
    with quiet_pillow():
        yield Shards
    for embedder in begun:
        embedder.__exit__()


def both(folder, root, teacher_folder, arch="b32", **more):
    """A pool that is made, or goes on, on a cluster, and one that is made without it."""
    teacher, model = load_teacher(f"local-dir:{teacher_folder}"), f"local-dir:{teacher_folder}"
    options = {"arch": arch, "model": model, **OPTIONS, **more}
    for name in ("one", "many"):
        on = {"cluster": "any"} if name == "many" else {}
        made = make_pool(open_source(folder), root / name, teacher, **options, **on)
    return made, bytes_of(root / "one"), bytes_of(root / "many")


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_make_shards__names_pairs_in_the_order_of_the_source(tmp_path, teacher_folders, here, size, pack):
    folder = write_faulty(tmp_path / "in")
    made, one, many = both(folder, tmp_path, teacher_folders[0], pack=pack, shard_size=size)
    assert many == one
    assert made.repeated == 6
    assert len(set(table_of(tmp_path / "many")["uid"].to_pylist())) == made.kept == 10


@pytest.mark.parametrize("kind", SOURCES)
def test_make_shards__of_each_kind_of_source(tmp_path, teacher_folders, here, kind):
    _, one, many = both(SOURCES[kind](tmp_path / "in"), tmp_path, teacher_folders[0])
    assert many == one


def test_make_shards__a_second_teacher(tmp_path, teacher_folders, here):
    folder = write_faulty(tmp_path / "in")
    both(folder, tmp_path, teacher_folders[0])
    _, one, many = both(folder, tmp_path, teacher_folders[1], arch="l14")
    assert many == one
    assert list(read_teachers(tmp_path / "many")) == ["b32", "l14"]


@pytest.mark.parametrize("on", [{}, {"cluster": "any"}])
@pytest.mark.parametrize("pack", [False, True])
def test_make_shards__what_is_written_but_not_named_is_not_embedded_again(
    tmp_path, teacher_folders, here, monkeypatch, on, pack
):
    folder, teacher = write_faulty(tmp_path / "in"), load_teacher(f"local-dir:{teacher_folders[0]}")
    options = {"arch": "b32", "model": f"local-dir:{teacher_folders[0]}", **OPTIONS, "shard_size": 2, "pack": pack}
    make_pool(open_source(folder), tmp_path / "one", teacher, **options)
    here.made, here.ended = 0, 5
    with monkeypatch.context() as patch:
        patch.setattr(spread, "settled", lambda *_, **__: uids.from_hex([]))
        with pytest.raises(KeyboardInterrupt):
            make_pool(open_source(folder), tmp_path / "many", teacher, cluster="any", **options)
    assert not list((tmp_path / "many" / "embed").glob("0*.json"))
    drafted = len(list((tmp_path / "many" / "embed").glob("*.draft.parquet")))
    assert drafted >= 2
    here.made, here.ended = 0, None
    make_pool(open_source(folder), tmp_path / "many", teacher, **options, **on)
    assert here.made == 6 - drafted
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 20])
def test_starts__as_a_feed_finds_them(source, size):  # noqa: F811
    found, feed = [Cursor()], Feed(source, Cursor())
    while len(list(itertools.islice(feed, size))) == size and not feed.exhausted():
        found.append(feed.following())
    counts = [len(list(source.read(part))) for part in range(len(source.parts))]
    assert spread._starts(counts, size) == found


def test_make_shards__a_source_that_changed_since_it_was_counted(tmp_path, teacher_folders, here, monkeypatch):
    monkeypatch.setattr(spread, "_length", lambda *_: 3)
    with pytest.raises(PoolFormatError, match="shard 00000000: expected the records that were counted, found others"):
        both(write_tars(tmp_path / "in"), tmp_path, teacher_folders[0])
    assert not (tmp_path / "many" / "embed" / "parts.json").exists()
    assert not list((tmp_path / "many" / "embed").glob("0*.json"))
    assert not list((tmp_path / "many" / "embed").glob("*.draft.parquet"))


def test_make_shards__files_that_only_the_worker_sees(tmp_path, teacher_folders, here, monkeypatch):
    make = spread.Maker.make
    monkeypatch.setattr(spread, "_SECONDS_TO_BE_SEEN", 0.0)
    unseen = lambda *given, **options: make(*given, **options)._replace(write=lambda: None)  # noqa: E731
    monkeypatch.setattr(spread.Maker, "make", unseen)
    teacher, options = load_teacher(f"local-dir:{teacher_folders[0]}"), {"model": f"local-dir:{teacher_folders[0]}"}
    with pytest.raises(
        PoolFormatError, match="shard 00000000: expected the files that a worker wrote, found none; keep"
    ):
        make_pool(open_source(write_tars(tmp_path / "in")), tmp_path / "p", teacher, arch="b", cluster="any", **options)


def test_embedding__refuses_another_teacher_of_that_name(tmp_path, teacher_folders, here):
    folder = write_tars(tmp_path / "in")
    both(folder, tmp_path, teacher_folders[0])
    info = read_teachers(tmp_path / "one")["b32"]
    other = info.model_copy(update={"model": f"local-dir:{teacher_folders[1]}"})
    with pytest.raises(TeacherError, match="expected the weights that it has where it was started, found others"):
        Embedding(open_source(folder), Place.of_named(tmp_path / "one"), other, 3, 1, 1000).begin("cpu")


def test_make_pool__a_cluster_takes_absolute_paths_and_no_embeddings(tmp_path, teachers, monkeypatch):
    folder = write_tars(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    for where, root in (("in", tmp_path / "pool"), (folder, Path("pool"))):
        with pytest.raises(PoolFormatError, match="expected an absolute path for a cluster, found a relative one"):
            make_pool(open_source(where), root, teachers[0], arch="b32", cluster="any")
    assert not (tmp_path / "pool").exists()


# A teacher and a source, and on a cluster what becomes of the worker that reads the source.


@pytest.fixture(scope="module")
def trap(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spread")
    # Of one tar the records are counted where it was started.
    return Trap(write_tars(folder / "in", (24,)) / "00000.tar", folder)


@pytest.fixture(scope="module")
def nodes(trap):
    pytest.importorskip("ray")
    with three_nodes(trap.environment) as (cluster, _):
        yield cluster


@pytest.fixture
def address(nodes, trap):
    yield nodes.address
    trap.clear()


@pytest.fixture
def job(trap, tmp_path, teacher_folders):
    """What embeds the trap's source into a folder of this name, and the words of the command that does."""
    model = f"local-dir:{teacher_folders[0]}"
    teacher = load_teacher(model)

    def make(name, **more):
        options = {"arch": "b32", "model": model, **OPTIONS, **more}
        return make_pool(open_source(trap.file.parent), tmp_path / name, teacher, **options)

    options = [(f"--{name.replace('_', '-')}", str(value)) for name, value in OPTIONS.items()]
    words = ["embed", trap.file.parent, tmp_path / "many", "--arch", "b32", "--model", model]
    return make, [*words, *itertools.chain(*options)]


@pytest.mark.cluster
@pytest.mark.parametrize("pack", [False, True])
def test_cluster__an_embedding_actor_that_is_killed_costs_nothing(address, trap, job, tmp_path, pack):
    make, _ = job
    make("one", pack=pack)
    trap.first_time(ENDS)
    seen = []
    made = make("many", pack=pack, cluster=address, report=lambda *said: seen.append(said))
    assert trap.seen.exists()
    assert made.tried_again > 0
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")
    assert seen[-1] == (24, 24, "pairs", "6 of 6 shards")


@pytest.mark.cluster
def test_cluster__a_shard_that_always_ends_its_actor_is_named(address, trap, job, tmp_path):
    make, _ = job
    trap.always(ENDS)
    with pytest.raises(RunError, match=r"^shard 0000000[0-5]: expected embeddings, found that a third worker failed"):
        make("many", cluster=address)
    trap.clear()
    for name in ("one", "many"):
        make(name)
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")


@pytest.mark.cluster
def test_cluster__an_embedding_command_that_is_killed_goes_on(address, trap, job, tmp_path):
    make, words = job
    trap.always(f"import glob, time\nif glob.glob({str(tmp_path / 'many/embed/0*.json')!r}): time.sleep(3600)")
    command = module_command("clipsel_core", *words, "--cluster", address)
    begun = subprocess.Popen(command, env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: list(tmp_path.glob("many/embed/0*.json")), "a shard is done")
    finally:
        begun.kill()
        begun.wait()
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("many/metadata/00000000.*")}
    assert not (tmp_path / "many" / "embed" / "00000005.json").exists()
    trap.clear()
    make("one")
    make("many", cluster=address)
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")
    assert {path: path.stat().st_mtime_ns for path in done} == done


@pytest.mark.cluster
def test_cluster__a_disk_that_fills_up_while_it_embeds_is_named_with_the_shard(address, trap, job, tmp_path):
    make, _ = job
    # As soon as the first of 12 shards is written, final or not.
    begun = f"import glob\nif glob.glob({str(tmp_path / 'many/embed/00000000.[jd]*')!r}):\n"
    trap.always(begun + indent(FILLS_UP, "    "))
    said = r"/000000(0[1-9]|1[01])\.[a-z.]+: expected to write the pool, found No space left on device; make room or"
    with pytest.raises(PoolFormatError, match=said):
        make("many", cluster=address, shard_size=2)
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("many/metadata/00000000.*")}
    assert done
    assert not list((tmp_path / "many").rglob(".*.partial"))
    trap.clear()
    make("one", shard_size=2)
    make("many", cluster=address, shard_size=2)
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")
    assert {path: path.stat().st_mtime_ns for path in done} == done


@pytest.mark.cluster
@pytest.mark.parametrize("tarred", [True, False])
def test_cluster__extends_a_pool_as_one_process_does(nodes, address, tmp_path, teacher_folders, tarred):
    """An actor is killed as soon as a shard is done, or some of it."""
    model = f"local-dir:{teacher_folders[0]}"
    seen = []

    def watch(*said):
        seen.append(said)
        if said[0] and not killed:
            killed.extend(kill_an_actor(nodes))

    for name, on in (("one", {}), ("many", {"cluster": address, "report": watch})):
        killed = []
        root = datacomp_pool(tmp_path / name, shards=tarred)
        folder = root / "shards" if tarred else tars(tmp_path / "in")
        options = {"arch": "b32", "model": model, "workers": 1, "batch_size": 2, **on}
        extended = extend_pool(open_source(folder), root, load_teacher(model), **options)
        shutil.rmtree(root / "shards", ignore_errors=True)
        (root / "embed" / "found.parquet").unlink()  # it names the source
    assert killed
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")
    assert (extended.pairs, extended.set_aside, seen[-1]) == (9, 0, (9, 9, "pairs", "2 of 2 shards"))


@pytest.mark.cluster
def test_local_cluster__embeds_from_a_store(tmp_path, teacher_folders, monkeypatch):
    model = f"local-dir:{teacher_folders[0]}"
    folder, options = write_faulty(tmp_path / "in"), {"arch": "b32", "model": model, **OPTIONS}
    with storing(monkeypatch):
        upload(folder, "s3://bucket/in")
        for name, on in (("one", {}), ("many", {"cluster": "local", "cpus_per_worker": 1})):
            make_pool(open_source("s3://bucket/in"), tmp_path / name, load_teacher(model), **options, **on)
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")
