"""Several workers, and shards that share their batches: the same scores, whoever computes them and however they end."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipsel_core.errors import PoolFormatError, RunError, ScoringError
from clipsel_core.pool.layout import open_pool
from clipsel_core.processes import child_environment
from clipsel_core.runs.local import score
from clipsel_core.runs.plan import resolve_devices
from clipsel_core.runs.store import read_config, score_file, write_config
from clipsel_core.scoring.s_cliploss import division
from clipsel_core.status import read_status
from tests import reference, traps
from tests.conftest import rewrite_npz, unit_rows, write_shard
from tests.runs.test_score import OPTIONS, files_of
from tests.waiting import join

TWO = {**OPTIONS, "device": "cpu,cpu"}


@pytest.fixture
def target(tmp_path):
    np.save(tmp_path / "task.npy", unit_rows(30, 16, 77))
    return tmp_path / "task.npy"


def test_workers__give_the_bytes_of_one(pool, tmp_path, target):
    options = {"targets": {"task": target}, "mix_shards": 2}
    score(pool, tmp_path / "one", **OPTIONS, **options)
    seen = []
    score(pool, tmp_path / "two", report=lambda *said: seen.append(said), **TWO, **options)
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
    assert seen[-1] == (126, 126, "pairs", "3 of 3 shards")


def test_workers__what_one_cannot_score_stops_all_in_its_own_words(pool, tmp_path):
    npz = pool / "metadata" / "00000001.npz"
    with np.load(npz) as archive:
        broken = archive["l14_img"].copy()
    broken[7] = np.nan
    rewrite_npz(npz, l14_img=broken)
    with pytest.raises(PoolFormatError, match="shard 00000001, row 7: expected a unit row in l14_img, found NaN"):
        score(pool, tmp_path / "run", **TWO)
    assert read_status(tmp_path / "run" / "status.json").state == "failed"


def large_pool(root):
    for seed in range(5):
        write_shard(root, f"{seed:08d}", 3000, width=64, seed=seed)
    return root


def took_again(root):
    """How many groups a run's description says were tried again; from then on it says nothing of them."""
    config = read_config(root)
    write_config(root, config.model_copy(update={"tried_again": 0}))
    return config.tried_again


def children():
    """The workers of this process that are alive."""
    # active_children would read how they ended, which only one thread can.
    return [process.pid for process in list(multiprocessing.process._children)]


def test_workers__one_that_dies_gives_its_work_back(tmp_path):
    pool = large_pool(tmp_path / "pool")
    options = {"temperature": 0.05, "batch_size": 1500, "divisions": 8, "seed": 1}
    killed = []

    def kill_one(done, *_):
        if not killed and done > 0:
            killed.append(children()[0])
            os.kill(killed[0], signal.SIGKILL)

    score(pool, tmp_path / "run", device="cpu,cpu", report=kill_one, **options)
    assert killed
    score(pool, tmp_path / "one", **options)
    assert took_again(tmp_path / "run") > 0
    assert files_of(tmp_path / "run") == files_of(tmp_path / "one")
    status = read_status(tmp_path / "run" / "status.json")
    assert (status.done, status.note) == (15_000, "5 of 5 shards")


def test_workers__that_die_again_and_again_are_given_up(tmp_path):
    pool, stop = large_pool(tmp_path / "pool"), threading.Event()

    def kill_all():
        while not stop.is_set():
            for pid in children():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(RunError, match="found that a second worker ended there, on cpu, by SIGKILL; see"):
            score(pool, tmp_path / "run", device="cpu,cpu", batch_size=1500, divisions=8)
    finally:
        stop.set()
        join([killer])
    assert read_status(tmp_path / "run" / "status.json").state == "failed"
    assert score(pool, tmp_path / "run", device="cpu", batch_size=1500, divisions=8).finished


@pytest.fixture
def new_server():
    """Has workers start from a server with this process's environment of now."""
    forkserver._forkserver._stop()
    yield
    forkserver._forkserver._stop()


@pytest.mark.usefixtures("new_server")
def test_workers__that_fail_as_nothing_should_are_given_up_in_one_line(pool, tmp_path, monkeypatch, capfd):
    npz = pool / "metadata" / "00000001.npz"
    for name, value in traps.setting(npz, tmp_path / "hook", "1 / 0").items():
        monkeypatch.setenv(name, value)
    lost = "that a second worker ended there, on cpu, with ZeroDivisionError: division by zero"
    with pytest.raises(
        RunError,
        match=f"^00000001: expected scores, found {lost}; see with --debug where, then start it again to go on$",
    ):
        score(pool, tmp_path / "run", **TWO)
    assert capfd.readouterr().err == ""


def test_workers__of_a_script_without_a_guard(pool, tmp_path):
    script = tmp_path / "script.py"
    words = f"{str(pool)!r}, {str(tmp_path / 'run')!r}, device='cpu,cpu', batch_size=16, divisions=2"
    script.write_text(f"from clipsel_core.runs.local import score\nprint(score({words}).finished)\n")
    done = subprocess.run([sys.executable, script], env=child_environment(), capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_workers__interrupted_leave_nobody_behind(tmp_path):
    def interrupt(done, total, *_):
        if 0 < done < total:
            raise KeyboardInterrupt

    pool = large_pool(tmp_path / "pool")
    with pytest.raises(KeyboardInterrupt):
        score(pool, tmp_path / "run", device="cpu,cpu", report=interrupt, batch_size=1500, divisions=8)
    assert not children()


@pytest.mark.parametrize(("text", "devices"), [("cpu", ("cpu",)), ("cpu, cpu", ("cpu", "cpu"))])
def test_resolve_devices__one_for_each_worker(text, devices):
    assert resolve_devices(text) == devices


@pytest.mark.parametrize("text", ["", "cpu,", "gpu", "cpu,nonsense:3"])
def test_resolve_devices__what_is_no_device(text):
    with pytest.raises(ScoringError, match="--device"):
        resolve_devices(text)


@pytest.mark.parametrize("together", [2, 3, 9])
def test_mix__divides_the_shards_of_a_group_together(pool, tmp_path, together):
    run = score(pool, tmp_path / "run", mix_shards=together, **OPTIONS)
    shards = open_pool(pool).shards
    for start in range(0, 3, together):
        group = shards[start : start + together]
        sides = [np.concatenate([np.load(s.npz.path)[f"l14_{side}"] for s in group]) for side in ("img", "txt")]
        args = {"batch_size": 16, "seed": 5, "name": "\n".join(s.name for s in group)}
        divisions = [list(division(len(sides[0]), index=k, **args)) for k in range(3)]
        r_image, r_text, error = reference.normalizer(*sides, 0.02, divisions)
        found = [pq.read_table(score_file(run.root, s.name)) for s in group]
        for name, expected in (("r_image", r_image), ("r_text", r_text), ("normalizer_se", error)):
            values = np.concatenate([table[name].to_numpy() for table in found])
            np.testing.assert_allclose(values, expected, rtol=2e-6, atol=2e-6, err_msg=name)


def test_mix__is_on_record_only_where_it_matters(pool, tmp_path):
    score(pool, tmp_path / "alone", mix_shards=1, **OPTIONS)
    assert "mix_shards" not in json.loads((tmp_path / "alone" / "run.json").read_text())
    score(pool, tmp_path / "mixed", mix_shards=2, **OPTIONS)
    assert json.loads((tmp_path / "mixed" / "run.json").read_text())["mix_shards"] == 2
    with pytest.raises(RunError, match=r"expected mix_shards 2, as begun, found 1"):
        score(pool, tmp_path / "mixed", **OPTIONS)


def test_mix__a_group_that_lacks_one_shard_gets_the_same_bytes(pool, tmp_path):
    run = score(pool, tmp_path / "run", mix_shards=2, **OPTIONS)
    before, stamp = files_of(run.root), Path(run.score_files[1]).stat().st_mtime_ns
    Path(run.score_files[0]).unlink()
    score(pool, tmp_path / "run", mix_shards=2, **OPTIONS)
    assert files_of(run.root) == before
    assert Path(run.score_files[1]).stat().st_mtime_ns == stamp


def test_mix__bad_rows_take_no_part(tmp_path):
    for seed, rows in enumerate((20, 30)):
        write_shard(tmp_path / "pool", f"{seed:08d}", rows, seed=seed)
    npz = tmp_path / "pool" / "metadata" / "00000000.npz"
    with np.load(npz) as archive:
        broken = archive["l14_txt"].copy()
    broken[[0, 19]] = 0
    rewrite_npz(npz, l14_txt=broken)
    run = score(tmp_path / "pool", tmp_path / "run", mix_shards=2, on_bad_rows="skip", **OPTIONS)
    missing = [
        np.flatnonzero(np.isnan(pq.read_table(file)["r_text"].to_numpy())).tolist()
        for file in map(Path, run.score_files)
    ]
    assert missing == [[0, 19], []]
    assert run.config.skipped_rows == 2
