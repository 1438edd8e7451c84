"""What a run takes: counted against its batches and targets one by one, and kept in run.json when it has run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from clipsel_core.errors import PoolFormatError
from clipsel_core.runs import probe
from clipsel_core.runs.cost import FEW_ROWS, Expected, Speed, Workload, count_work, expect
from clipsel_core.runs.local import score
from clipsel_core.runs.plan import plan_run
from clipsel_core.runs.probe import forecast
from clipsel_core.runs.store import Run, RunConfig, TargetInfo, digest_of, score_file
from clipsel_core.scoring.normsim import are_few
from clipsel_core.scoring.s_cliploss import division
from clipsel_core.workers import Machines
from tests.conftest import rewrite_npz, unit_rows, write_shard
from tests.runs.test_score import OPTIONS

HERE = Machines(("cpu",))
DIVIDED = {"batch_size": 16, "divisions": 3}


def target_of(name, rows, kind="npy"):
    return TargetInfo(name=name, path=name, kind=kind, sha256="0" * 64, rows=rows, width=8)


def test_count_work__of_the_normalizer_is_that_of_every_batch():
    groups = [40, 16, 61, 0]
    batches = [
        len(batch)
        for n in groups
        for index in range(3 if n > 16 else min(n, 1))
        for batch in division(n, batch_size=16, seed=0, name="", index=index)
    ]
    work = count_work(RunConfig(pool="p", arch="l14", width=8, **DIVIDED), groups)
    assert work.operations["normalizer"] == sum(2 * 8 * size * size for size in batches)
    assert (work.pairs, work.groups, work.largest, work.bytes_read) == (117, 4, 61, 117 * 2 * 8 * 2)


def test_count_work__goes_by_what_each_target_is_multiplied_with():
    targets = (target_of("few", FEW_ROWS), target_of("many", 100), target_of("moment", 8, "moment"))
    config = RunConfig(pool="p", arch="l14", width=8, norms=("inf", "2", "3"), targets=targets, **DIVIDED)
    found = count_work(config, [10, 20]).operations
    by_rows, by_moment = 2 * 8 * 30, 2 * 8 * 8 * 30
    assert found["normsim"] == by_rows * (3 * FEW_ROWS + 2 * 100)
    assert found["normsim_2"] == 2 * by_moment
    assert found["moment"] == 2 * 8 * 8 * 100
    on_gpu = count_work(config.model_copy(update={"device": "cuda"}), [10, 20]).operations
    assert on_gpu["normsim"] == by_rows * (2 * FEW_ROWS + 2 * 100)
    assert on_gpu["normsim_2"] == 3 * by_moment


def test_count_work__takes_as_few_what_normsim_takes():
    assert are_few(torch.zeros(FEW_ROWS, 8), "cpu")
    assert not are_few(torch.zeros(FEW_ROWS + 1, 8), "cpu")


def test_expect__waits_for_the_slower_of_both():
    work = Workload(100, 4, 25, 1000, {"normalizer": 600, "normsim": 300, "normsim_2": 0, "moment": 50})
    speed = Speed(100.0, {"normalizer": 100.0, "normsim": 50.0, "moment": 10.0}, other_s=0.02, begin_s=1.0)
    assert expect(work, speed) == Expected(10.0, 6 + 6 + 2 + 5, 20.0)
    assert expect(work, speed, workers=4) == Expected(10.0, 14 / 4 + 5, 11.0)
    assert expect(work, speed, workers=4).bound_by == "reading"
    assert expect(work, speed, workers=40, readers=4) == Expected(2.5, 14 / 4 + 5, 9.5)  # no more than groups


@pytest.mark.parametrize("norms", [("inf",), ("2", "3"), ("inf", "2")])
def test_forecast__tries_what_is_left_and_writes_nothing(tmp_path, norms):
    pool = tmp_path / "pool"
    for seed, rows in enumerate((40, 25, 61)):
        write_shard(pool, f"{seed:08d}", rows, seed=seed)
    np.save(tmp_path / "many.npy", unit_rows(100, 16, 77))
    np.save(tmp_path / "few.npy", unit_rows(9, 16, 78))
    for names in (("many", "few"), ("few",), ()):
        options = {**OPTIONS, "targets": {name: tmp_path / f"{name}.npy" for name in names}, "device": "cpu"}
        found = forecast(plan_run(pool, tmp_path / "run", norms=norms, **options), 0.0, HERE)
        assert found.work == count_work(plan_run(pool, tmp_path / "run", norms=norms, **options).config)
        assert found.tried_shards == ("00000000", "00000001", "00000002")
        assert found.tried_bytes == found.work.bytes_read == 126 * 2 * 16 * 2
        assert 0 < found.expected.seconds < np.inf
        assert found.cpu_seconds > 0
        assert json.loads(json.dumps(found.as_dict()))["counted"]["H100"]["bound_by"] in ("reading", "arithmetic")
    assert not (tmp_path / "run").exists()
    score(pool, tmp_path / "run", **OPTIONS)
    assert forecast(plan_run(pool, tmp_path / "run", **OPTIONS), 0.0, HERE) is None
    score_file(tmp_path / "run", "00000001").remove()
    left = forecast(plan_run(pool, tmp_path / "run", **OPTIONS), 0.0, HERE)
    assert (left.work.pairs, left.tried_shards) == (25, ("00000001",))


def test_forecast__passes_over_shards_without_a_usable_pair(pool, tmp_path):
    options = {**OPTIONS, "on_bad_rows": "skip"}
    nothing = np.zeros((61, 16), np.float16)
    rewrite_npz(pool / "metadata" / "00000002.npz", l14_img=nothing)
    assert forecast(plan_run(pool, tmp_path / "run", **options), 0.0, HERE).work.pairs == 126
    for shard, rows in (("00000000", 40), ("00000001", 25)):
        rewrite_npz(pool / "metadata" / f"{shard}.npz", l14_img=nothing[:rows])
    with pytest.raises(PoolFormatError, match="expected a pair that can be scored, found none in 3 shards"):
        forecast(plan_run(pool, tmp_path / "run", **options), 0.0, HERE)


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_score__keeps_plan_and_outcome_which_decide_nothing(pool, tmp_path, device):
    config = score(pool, tmp_path / "run", device=device, **OPTIONS).config
    work = count_work(config)
    assert (config.plan.bytes_read, config.plan.operations) == (work.bytes_read, work.all_operations)
    assert config.plan.seconds is None  # not worth a trial
    took = config.outcome
    assert (took.pairs, took.bytes_read, took.workers) == (126, work.bytes_read, device.count("cpu"))
    assert took.seconds > 0
    assert took.cpu_seconds > 0
    assert digest_of(config) == digest_of(config.model_copy(update={"plan": None, "outcome": None}))
    assert score(pool, tmp_path / "run", **OPTIONS).config.outcome == took  # nothing was left
    score_file(tmp_path / "run", "00000001").remove()
    assert score(pool, tmp_path / "run", **OPTIONS).config.outcome == took  # it had been finished


def test_score__foresees_what_takes_long(pool, tmp_path, monkeypatch):
    np.save(tmp_path / "many.npy", unit_rows(100, 16, 77))
    monkeypatch.setattr(probe, "_WORTH_FORESEEING", 0)
    options = {**OPTIONS, "targets": {"many": tmp_path / "many.npy"}, "device": "cpu"}
    plan = score(pool, tmp_path / "run", **options).config.plan
    assert 0 <= plan.seconds < np.inf
    assert 0 <= plan.cpu_seconds < np.inf


def test_score__adds_up_its_starts(pool, tmp_path):
    def stop(done, total, unit, note):
        if not note.startswith("0 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(pool, tmp_path / "run", report=stop, **OPTIONS)
    stopped = Run.open(tmp_path / "run")
    before, left = stopped.config, 126 - stopped.pairs
    assert before.outcome.pairs > 0
    after = score(pool, tmp_path / "run", **OPTIONS).config
    # A shard that was written while the first start ended may be in neither.
    assert after.outcome.pairs == before.outcome.pairs + left
    assert after.outcome.seconds > before.outcome.seconds
    assert after.plan == before.plan
