"""A Ray cluster of three nodes on this machine: the bytes of a run without it, whatever is lost in the middle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from clipsel_core import cluster as ray_cluster
from clipsel_core import uids
from clipsel_core.curation.exploring.searches import search_run
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import PoolFormatError, RunError, ScoringError
from clipsel_core.files import write_json
from clipsel_core.processes import child_environment, module_command
from clipsel_core.runs import whole_pool
from clipsel_core.runs.added import add_target
from clipsel_core.runs.local import score
from clipsel_core.runs.plan import plan_run
from clipsel_core.runs.probe import forecast
from clipsel_core.runs.store import Run, read_config
from clipsel_core.runs.whole_pool import normsim_2d_of_run
from clipsel_core.scoring import normsim_2d as scoring_normsim_2d
from clipsel_core.workers import AT_ONCE, Machines
from tests.clusters import ENDS, FILLS_UP, Trap, three_nodes
from tests.conftest import rewrite_npz, unit_rows, write_shard
from tests.pool.servers import storing, upload
from tests.runs.test_score import OPTIONS, files_of
from tests.runs.test_share import took_again
from tests.waiting import PATIENCE_S, join, until

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.cluster
SHARDS = 8

# What an actor does where the disk is full as soon as another shard is written.
FULL = f"""
import glob, time
end = time.monotonic() + 60
while not glob.glob({{done!r}}) and time.monotonic() < end:
    time.sleep(0.01)
{FILLS_UP}
"""

LOCAL = """
from clipsel_core.runs.local import score

seen = set()

def look(*_):
    import ray
    seen.update(node["NodeManagerAddress"] for node in (ray.nodes() if ray.is_initialized() else ()))

score({pool!r}, {run!r}, cluster="local", report=lambda done, *_: done and look())
print(*seen)
"""


class Pool(Trap):
    """A pool, and what becomes of an actor that reads its second shard."""

    def __init__(self, folder: Path) -> None:
        self.pool, self.shard = folder / "pool", "00000001"
        for seed in range(SHARDS):
            write_shard(self.pool, f"{seed:08d}", 40 + seed, seed=seed)
        super().__init__(self.pool / "metadata" / f"{self.shard}.npz", folder)


@pytest.fixture(scope="module")
def trap(tmp_path_factory):
    return Pool(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def nodes(trap):
    """The cluster, whose head computes nothing, and what adds a node of one core to it."""
    with three_nodes(trap.environment) as both:
        yield both


@pytest.fixture
def address(nodes, trap):
    yield nodes[0].address
    trap.clear()


class Job:
    """Scoring the pool, or comparing what was scored with one more target: how it is done, and what it writes."""

    def __init__(self, trap: Pool, root: Path, target: Path | None) -> None:
        self.folder, self.description = root / "scores", root / "run.json"
        self.do = partial(score, trap.pool, root, **OPTIONS)
        options = [(f"--{name.replace('_', '-')}", value) for name, value in OPTIONS.items()]
        self.words = ["score", trap.pool, root, *(word for option in options for word in option)]
        if target:
            self.folder = root / "added" / "more"
            self.description = self.folder / "target.json"
            self.do = partial(add_target, root, "more", target)
            self.words = ["add-target", root, "--target", f"more={target}"]

    def files(self) -> dict[str, bytes]:
        """Every file that it wrote, by name, but for the count of what was tried again and what it took."""
        self.tried_again()
        return {path.name: path.read_bytes() for path in (self.description, *sorted(self.folder.iterdir()))}

    def done(self) -> dict[Path, int]:
        """The shards' files, and when they were written."""
        return {file: file.stat().st_mtime_ns for file in self.folder.glob("[!.]*.parquet")}

    def tried_again(self) -> int:
        """How many groups its description says were tried again; from then on it says nothing of them."""
        said = json.loads(self.description.read_text())
        said.pop("outcome", None)
        times = said.pop("tried_again", 0)
        write_json(self.description, said)
        return times


@pytest.fixture(scope="module")
def jobs(trap, tmp_path_factory):
    """What makes each job in a folder, and the files that it has to leave there, found without a cluster."""
    folder, target = tmp_path_factory.mktemp("expected"), trap.pool.parent / "more.npy"
    np.save(target, unit_rows(100, 16, 78))
    scored = Job(trap, folder / "run", None)
    scored.do()
    shutil.copytree(folder / "run", folder / "both")
    added = Job(trap, folder / "both", target)
    added.do()

    def make(kind, root):
        if kind == "score":
            return Job(trap, root, None), scored.files()
        shutil.copytree(folder / "run", root)
        return Job(trap, root, target), added.files()

    return make


@pytest.fixture
def expected(jobs, tmp_path):
    """The files of a run without a cluster, as files_of."""
    files = jobs("score", tmp_path / "none")[1]
    return files | {"run.json": json.loads(files["run.json"])}


BOTH = pytest.mark.parametrize("kind", ["score", "add-target"])


def test_forecast__counts_on_the_workers_that_a_cluster_has_room_for(trap, tmp_path, address):
    plan = plan_run(trap.pool, tmp_path / "run", device="cpu", **OPTIONS)
    here, there = (forecast(plan, 0.0, Machines(("cpu",), cluster, 1)) for cluster in (None, address))
    assert (there.workers, there.cores, there.nodes) == (2, 1, 2)
    assert (there.work, here.workers, here.nodes) == (here.work, 1, 1)
    assert not (tmp_path / "run").exists()


def test_cluster__gives_the_bytes_of_one_process(address, trap, tmp_path, capfd):
    np.save(tmp_path / "task.npy", unit_rows(30, 16, 77))
    options = {**OPTIONS, "targets": {"task": tmp_path / "task.npy"}, "mix_shards": 3}
    score(trap.pool, tmp_path / "one", **options)
    seen = []
    score(trap.pool, tmp_path / "run", cluster=address, report=lambda *said: seen.append(said), **options)
    assert files_of(tmp_path / "run") == files_of(tmp_path / "one")
    assert seen[-1][2:] == ("pairs", f"{SHARDS} of {SHARDS} shards")
    assert not ray.is_initialized()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("rows", [30, 100])
def test_cluster__compares_with_a_target_as_one_process_does(address, trap, tmp_path, rows):
    np.save(tmp_path / "more.npy", unit_rows(rows, 16, 78))
    score(trap.pool, tmp_path / "one", **OPTIONS)
    shutil.copytree(tmp_path / "one", tmp_path / "run")
    add_target(tmp_path / "one", "more", tmp_path / "more.npy")
    seen = []
    options = {"cluster": address, "report": lambda *said: seen.append(said)}
    done = add_target(tmp_path / "run", "more", tmp_path / "more.npy", **options)
    one, run = (Job(trap, tmp_path / name, tmp_path / "more.npy").files() for name in ("one", "run"))
    assert len(one) == SHARDS + 1
    assert run == one
    assert done.metrics[-1] == "normsim_2_more"
    assert seen[-1][2:] == ("pairs", f"{SHARDS} of {SHARDS} shards")


@BOTH
def test_cluster__an_actor_that_is_killed_costs_nothing(address, trap, jobs, tmp_path, capfd, kind):
    job, expected = jobs(kind, tmp_path / "run")
    trap.first_time(ENDS)
    job.do(cluster=address)
    assert trap.seen.exists()
    assert job.tried_again() > 0
    assert job.files() == expected
    assert capfd.readouterr().out == ""


def test_cluster__a_node_that_goes_gives_its_groups_to_others(address, nodes, trap, tmp_path, expected):
    cluster, add = nodes
    lost = {str(node.all_processes["raylet"][0].process.pid): node for node in cluster.worker_nodes}
    trap.first_time(f"open({str(trap.seen)!r}, 'w').write(os.environ['RAY_RAYLET_PID']); time.sleep(3600)")

    def remove():
        until(lambda: trap.seen.exists() and trap.seen.read_text() in lost, "an actor waits on one of the nodes")
        cluster.remove_node(lost[trap.seen.read_text()], allow_graceful=False)

    removing = Thread(target=remove)
    removing.start()
    try:
        # There is no room for another actor: the other one does all.
        score(trap.pool, tmp_path / "run", cluster=address, **OPTIONS)
    finally:
        join([removing])
        add(1)
    assert took_again(tmp_path / "run") > 0
    assert files_of(tmp_path / "run") == expected


def test_cluster__a_node_that_comes_later_takes_part(address, nodes, trap, tmp_path, expected):
    cluster, add = nodes
    before, begun, come = set(cluster.worker_nodes), Event(), Event()

    def wait(done, *_):
        if done:
            begun.set()
            come.wait(PATIENCE_S)

    scoring = Thread(target=lambda: score(trap.pool, tmp_path / "run", cluster=address, report=wait, **OPTIONS))
    scoring.start()
    try:
        until(begun.is_set, "it scores")
        add(1)
        until(lambda: not ray.available_resources().get("CPU"), "a worker has the core that came")
    finally:
        come.set()
        join([scoring])
        for node in set(cluster.worker_nodes) - before:
            cluster.remove_node(node)
    assert files_of(tmp_path / "run") == expected


@pytest.mark.parametrize("compressed", [False, True])
def test_cluster__finds_normsim_2d_as_one_process_does(address, trap, pool, tmp_path, monkeypatch, compressed):
    """The moments of shards and the values of rows are computed there, and an actor is killed meanwhile."""
    monkeypatch.setattr(scoring_normsim_2d, "FEW", 20)
    monkeypatch.setattr(whole_pool, "FEW", 20)
    called, rows = [], whole_pool._Rows
    monkeypatch.setattr(whole_pool, "_Rows", lambda *given: called.append(given) or rows(*given))
    if compressed:
        rewrite_npz(pool / "metadata" / "00000001.npz", compressed=True)
    run = score(pool if compressed else trap.pool, tmp_path / "run", **OPTIONS)
    start, options = np.arange(0, run.config.pairs, 2), {"keep": 20, "rounds": 4}
    expected = normsim_2d_of_run(run, start, **options)
    assert not called
    trap.first_time(ENDS)
    found = normsim_2d_of_run(run, start, cluster=address, **options)
    assert trap.seen.exists() != compressed
    # Rows of compressed files are read once.
    assert bool(called) != compressed
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("side", "of_pair"), [("image", True), ("text", False)])
def test_cluster__searches_as_one_process_does(address, trap, jobs, tmp_path, side, of_pair):
    jobs("add-target", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    vector = unit_rows(1, 16, 4)[0]
    query = uids.to_hex(ScoreTable.open(run).uids_at(np.array([70]))).to_pylist()[0] if of_pair else vector
    alone = search_run(run, query, side=side, limit=60)
    trap.first_time(ENDS)
    seen = []
    found = search_run(run, query, side=side, limit=60, cluster=address, report=lambda *said: seen.append(said))
    assert trap.seen.exists()
    assert found.nearest.rows.tolist() == alone.nearest.rows.tolist()
    np.testing.assert_allclose(found.nearest.similarity, alone.nearest.similarity, rtol=1e-6, atol=1e-7)
    assert (found.pairs, seen[-1][:2]) == (run.config.pairs, (run.config.pairs, run.config.pairs))


@BOTH
def test_cluster__a_stalled_actor_is_replaced(address, trap, jobs, tmp_path, monkeypatch, kind):
    job, expected = jobs(kind, tmp_path / "run")
    monkeypatch.setattr(ray_cluster, "_LEAST_STALLED_S", 1.0)
    monkeypatch.setattr(ray_cluster, "_STALLED_MEDIANS", 1.0)
    trap.first_time("os.kill(os.getpid(), 19)")
    doing = Thread(target=job.do, kwargs={"cluster": address}, daemon=True)
    doing.start()
    join([doing])
    assert job.tried_again() > 0
    assert job.files() == expected


@BOTH
def test_cluster__a_group_that_always_ends_its_actor_is_named(address, trap, jobs, tmp_path, kind):
    job, expected = jobs(kind, tmp_path / "run")
    trap.always(ENDS)
    with pytest.raises(
        RunError, match=rf"^{trap.shard}: expected scores, found that a third worker failed there: .+; see"
    ):
        job.do(cluster=address)
    # Once with others beside it, then alone.
    times = job.tried_again()
    assert 2 <= times <= AT_ONCE + 1
    write_json(job.description, {**json.loads(job.description.read_text()), "tried_again": times})
    trap.clear()
    job.do()
    assert job.tried_again() == times
    assert job.files() == expected


def test_cluster__what_cannot_be_scored_is_said_in_its_own_words(address, pool, tmp_path):
    npz = pool / "metadata" / "00000001.npz"
    with np.load(npz) as archive:
        broken = archive["l14_img"].copy()
    broken[7] = np.nan
    rewrite_npz(npz, l14_img=broken)
    with pytest.raises(PoolFormatError, match="shard 00000001, row 7: expected a unit row in l14_img, found NaN"):
        score(pool, tmp_path / "run", cluster=address, **OPTIONS)
    assert read_config(tmp_path / "run").tried_again == 0


def test_cluster__a_run_that_cannot_be_written_stops(address, trap, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "scores").touch()
    with pytest.raises(RunError, match=r"scores: expected to write the run, found File exists; make room"):
        score(trap.pool, tmp_path / "run", cluster=address, **OPTIONS)


@BOTH
def test_cluster__a_full_disk_is_named_with_the_shard_and_keeps_what_is_done(address, trap, jobs, tmp_path, kind):
    job, expected = jobs(kind, tmp_path / "run")
    trap.always(FULL.format(done=str(job.folder / "[!.]*.parquet")))
    with pytest.raises(
        RunError, match=r"/0000000\d\.parquet: expected to write .+, found No space left on device; make room"
    ):
        job.do(cluster=address)
    done = job.done()
    assert done
    assert {file.name: file.read_bytes() for file in done}.items() <= expected.items()
    assert not list(job.folder.glob(".*.partial"))
    trap.clear()
    job.do(cluster=address)
    assert job.files() == expected
    assert {file: job.done()[file] for file in done} == done


def out_of_memory(shard, times, monkeypatch):
    """Has Ray end so many actors that are given this shard, as where a node runs out of memory."""
    left, do = [None] * times, ray_cluster.ClusterWorkers._have_done

    def have_done(self, ready, unit, report):
        if shard in str(unit) and left:
            left.pop()
            said = "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, "
            raise ray.exceptions.OutOfMemoryError(said + "ID: 5dcb) was 23.1GB used / 23.54GB limit (0.98)\nRefer to")
        return do(self, ready, unit, report)

    monkeypatch.setattr(ray_cluster.ClusterWorkers, "_have_done", have_done)
    return left


def test_cluster__an_actor_for_which_memory_runs_out_costs_nothing(
    address, trap, tmp_path, expected, monkeypatch, caplog
):
    left = out_of_memory(trap.shard, 2, monkeypatch)
    score(trap.pool, tmp_path / "run", cluster=address, **OPTIONS)
    assert not left
    said = "memory ran out on the node 10.0.0.7, 23.1GB of 23.54GB in use, where Ray ended it"
    told = [record.getMessage() for record in caplog.records]
    assert told.count(f"{trap.shard}: tried again by another worker: {said}") == 2
    assert took_again(tmp_path / "run") >= 2
    assert files_of(tmp_path / "run") == expected


def test_cluster__a_shard_for_which_memory_always_runs_out_is_named(address, trap, tmp_path, monkeypatch):
    out_of_memory(trap.shard, 9, monkeypatch)
    with pytest.raises(
        RunError,
        match=rf"^{trap.shard}: expected scores, found that a third worker failed there: memory ran out on the",
    ):
        score(trap.pool, tmp_path / "run", cluster=address, **OPTIONS)


def test_cluster__without_memory_for_any_worker(trap, tmp_path):
    """Ray's own monitor ends them: more is in use than the little that it is told to allow."""
    with (
        three_nodes({"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "50"}) as (cluster, _),
        pytest.raises(
            RunError, match=r"^--cluster: expected workers that start, found memory ran out on the node .+ in use"
        ),
    ):
        score(trap.pool, tmp_path / "run", cluster=cluster.address, **OPTIONS)


@BOTH
def test_cluster__a_command_that_is_killed_goes_on(address, trap, jobs, tmp_path, kind):
    job, expected = jobs(kind, tmp_path / "run")
    trap.first_time("time.sleep(3600)")
    command = module_command("clipsel_core", *job.words, "--cluster", address)
    begun = subprocess.Popen(command, env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: trap.seen.exists() and job.done(), "a shard is done")
    finally:
        begun.kill()
        begun.wait()
    done = job.done()
    assert trap.shard not in {file.stem for file in done}
    job.do(cluster=address)
    assert job.files() == expected
    assert {file: job.done()[file] for file in done} == done


def test_cluster__where_there_is_none(trap, tmp_path):
    with pytest.raises(RunError, match=r"^--cluster 127.0.0.1:1: expected a Ray cluster, found .+; start Ray on"):
        score(trap.pool, tmp_path / "run", cluster="127.0.0.1:1", **OPTIONS)


def test_cluster__without_room_for_a_worker(address, trap, tmp_path):
    with pytest.raises(RunError, match=r"^--cluster: expected a node with 64 cores, found none in 3 nodes$"):
        score(trap.pool, tmp_path / "run", cluster=address, cpus_per_worker=64, **OPTIONS)


def test_cluster__takes_no_devices_by_name(trap, tmp_path):
    with pytest.raises(ScoringError, match="--device: expected auto, cpu or cuda for a cluster, found cpu,cpu"):
        score(trap.pool, tmp_path / "run", cluster="auto", device="cpu,cpu", **OPTIONS)


def test_cluster__without_ray_says_how_to_get_it(trap, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"^--cluster: expected Ray, found .+; pip install 'clipsel\[cluster\]'$"):
        score(trap.pool, tmp_path / "run", cluster="auto", **OPTIONS)


def test_local_cluster__listens_to_this_machine_alone(trap, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(LOCAL.format(pool=str(trap.pool), run=str(tmp_path / "run")))
    done = subprocess.run([sys.executable, script], env=child_environment(), capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("127.0.0.1\n", 0), done.stderr
    assert done.stderr == ""


def test_local_cluster__of_a_pool_and_a_run_in_a_store(trap, tmp_path, monkeypatch):
    """What opens an address goes to the actors with the pool, and finds its way from their environment."""
    np.save(tmp_path / "more.npy", unit_rows(100, 16, 78))
    options = {"cluster": "local", "cpus_per_worker": 1}
    with storing(monkeypatch):
        upload(trap.pool, "s3://bucket/pool")
        found = []
        for root, pool, more in (
            (tmp_path / "here", trap.pool, {}),
            ("s3://bucket/there", "s3://bucket/pool", options),
        ):
            run = score(pool, root, **OPTIONS, **more)
            run = add_target(run.root, "more", tmp_path / "more.npy", **more)
            column = normsim_2d_of_run(run, np.arange(100), keep=20, rounds=4, **more)
            files = {name: (run.root / name).read() for name, _ in run.root.files(".parquet")}
            found.append((files, column.tobytes()))
    assert len(found[0][0]) == 2 * SHARDS
    assert found[0] == found[1]
