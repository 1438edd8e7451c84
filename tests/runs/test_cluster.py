"""A Ray cluster of three nodes on this machine: the bytes of a run without it, whatever is lost in the middle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from clipsel_core.errors import PoolFormatError, RunError, ScoringError
from clipsel_core.processes import child_environment, module_command
from clipsel_core.runs import cluster as runs_cluster
from clipsel_core.runs.groups import AT_ONCE
from clipsel_core.runs.local import score
from clipsel_core.runs.store import Run, read_config, score_file
from tests import traps
from tests.conftest import rewrite_npz, unit_rows, write_shard
from tests.runs.test_score import OPTIONS, files_of
from tests.runs.test_share import took_again
from tests.waiting import PATIENCE_S, join, until

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.cluster
SHARDS = 8
ENDS = "os.kill(os.getpid(), 9)"
# What an actor does where it opens the second shard; `once` is there until the first of them has come.
ONCE = """
import os, time
try:
    os.rename({once!r}, {seen!r})
except OSError:
    pass
else:
    {end}
"""

LOCAL = """
from clipsel_core.runs.groups import AT_ONCE
from clipsel_core.runs.local import score

seen = set()

def look(*_):
    import ray
    seen.update(node["NodeManagerAddress"] for node in (ray.nodes() if ray.is_initialized() else ()))

score({pool!r}, {run!r}, cluster="local", report=lambda done, *_: done and look())
print(*seen)
"""


class Trap:
    """A pool, and what becomes of an actor that reads its second shard."""

    def __init__(self, folder: Path) -> None:
        self.pool, self.once, self.seen, self._script = (folder / n for n in ("pool", "once", "seen", "script.py"))
        self.shard = "00000001"
        for seed in range(SHARDS):
            write_shard(self.pool, f"{seed:08d}", 40 + seed, seed=seed)
        self.clear()
        self.npz = self.pool / "metadata" / f"{self.shard}.npz"
        end = f"exec(compile(builtins.open({str(self._script)!r}).read(), 'script', 'exec'), {{'os': os}})"
        self.environment = traps.setting(self.npz, folder / "hook", end)

    def clear(self) -> None:
        self._script.write_text("")
        for file in (self.once, self.seen):
            file.unlink(missing_ok=True)

    def always(self, end: str) -> None:
        self._script.write_text(end)

    def first_time(self, end: str) -> None:
        self.once.touch()
        self._script.write_text(ONCE.format(once=str(self.once), seen=str(self.seen), end=end))


@pytest.fixture(scope="module")
def trap(tmp_path_factory):
    return Trap(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def nodes(trap):
    """The cluster, whose head computes nothing, and what adds a node of one core to it."""
    from ray.cluster_utils import Cluster

    options = {"object_store_memory": 80 << 20, "include_dashboard": False}
    environment = {**trap.environment, "RAY_USAGE_STATS_ENABLED": "0"}
    cluster = Cluster()

    def add(cores):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            cluster.add_node(num_cpus=cores, **options)

    try:
        for cores in (0, 1, 1):
            add(cores)
        yield cluster, add
    finally:
        cluster.shutdown()


@pytest.fixture
def address(nodes, trap):
    yield nodes[0].address
    trap.clear()


@pytest.fixture(scope="module")
def expected(trap, tmp_path_factory):
    """The files of a run without a cluster."""
    root = tmp_path_factory.mktemp("expected") / "run"
    score(trap.pool, root, **OPTIONS)
    return files_of(root)


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


def test_cluster__an_actor_that_is_killed_costs_nothing(address, trap, tmp_path, expected, capfd):
    trap.first_time(ENDS)
    score(trap.pool, tmp_path / "run", cluster=address, **OPTIONS)
    assert trap.seen.exists()
    assert took_again(tmp_path / "run") > 0
    assert files_of(tmp_path / "run") == expected
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


def test_cluster__a_stalled_actor_is_replaced(address, trap, tmp_path, expected, monkeypatch):
    monkeypatch.setattr(runs_cluster, "_LEAST_STALLED_S", 1.0)
    monkeypatch.setattr(runs_cluster, "_STALLED_MEDIANS", 1.0)
    trap.first_time("os.kill(os.getpid(), 19)")
    options = {"cluster": address, **OPTIONS}
    scoring = Thread(target=score, args=(trap.pool, tmp_path / "run"), kwargs=options, daemon=True)
    scoring.start()
    join([scoring])
    assert took_again(tmp_path / "run") > 0
    assert files_of(tmp_path / "run") == expected


def test_cluster__a_group_that_always_ends_its_actor_is_named(address, trap, tmp_path, expected):
    trap.always(ENDS)
    with pytest.raises(
        RunError, match=rf"^{trap.shard}: expected scores, found that a third worker failed there: .+; see"
    ):
        score(trap.pool, tmp_path / "run", cluster=address, **OPTIONS)
    # Once with others beside it, then alone.
    assert 2 <= read_config(tmp_path / "run").tried_again <= AT_ONCE + 1
    trap.clear()
    assert score(trap.pool, tmp_path / "run", **OPTIONS).finished
    assert took_again(tmp_path / "run") >= 2
    assert files_of(tmp_path / "run") == expected


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


def test_cluster__a_command_that_is_killed_goes_on(address, trap, tmp_path, expected):
    trap.first_time("time.sleep(3600)")
    root, words = tmp_path / "run", {"--batch-size": 16, "--divisions": 3, "--seed": 5, "--temperature": 0.02}
    options = [str(part) for item in words.items() for part in item]
    command = module_command("clipsel_core", "score", trap.pool, root, "--cluster", address, *options)
    begun = subprocess.Popen(command, env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(
            lambda: trap.seen.exists() and (root / "run.json").exists() and Run.open(root).score_files,
            "a shard is done",
        )
    finally:
        begun.kill()
        begun.wait()
    done = {file: file.stat().st_mtime_ns for file in Run.open(root).score_files}
    assert not score_file(root, trap.shard).exists()
    score(trap.pool, root, cluster=address, **OPTIONS)
    assert files_of(root) == expected
    assert {file: file.stat().st_mtime_ns for file in done} == done


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
