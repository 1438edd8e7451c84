"""Is the bundled run finished and whole, and does a build do everything, in order, the same way again?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipsel_core.curation.exploring.projection import read_projection
from clipsel_core.curation.recipes.recipe_files import load_recipe
from clipsel_core.curation.selecting.selection import select
from clipsel_core.demo import build
from clipsel_core.demo.evaluate import auc, fault_shares, markdown
from clipsel_core.demo.pairs import POOL_SHARES
from clipsel_core.demo.teacher import load_demo_teacher
from clipsel_core.runs.store import Run

DEMO = Path(__file__).parent.parent.parent / "data" / "demo"


@pytest.fixture(scope="module")
def run():
    return Run.open(DEMO / "run")


def test_bundled_run__is_finished_with_both_normsims(run):
    assert run.finished
    assert run.pairs == build.PAIRS
    assert {"clip_score", "s_cliploss", "normsim_inf_task", "normsim_2_task"} <= set(run.metrics)
    assert read_projection(run) is not None


def test_bundled_run__belongs_to_the_bundled_files(run):
    assert run.pool_root == (DEMO / "pool").resolve()
    assert run.config.targets[0].path == "../target/task.npy"
    assert run.config.temperature == pytest.approx(load_demo_teacher(DEMO / "teacher").temperature, abs=1e-4)


@pytest.mark.parametrize(("name", "share"), [("clip_score_30", 0.3), ("s_cliploss_30", 0.3), ("two_steps", 0.2)])
def test_bundled_recipes__keep_what_they_say(run, name, share):
    recipe = load_recipe(run.recipes_dir / f"{name}.yaml", metrics=run.metrics)
    assert len(select(run, recipe)) == round(share * build.PAIRS)


def test_fault_shares__of_the_pool_are_those_it_was_made_with(run):
    shares = fault_shares(run)
    assert shares["the whole pool"] == pytest.approx(POOL_SHARES, abs=1e-3)
    assert all(sum(row.values()) == pytest.approx(1) for row in shares.values())
    assert len(markdown(shares).splitlines()) == 2 + 1 + 3


def test_auc__counted_by_hand():
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert auc(np.array([0.0]), np.array([0.0])) == 0.5
    assert auc(np.array([0.0, 2.0]), np.array([1.0])) == 0.5


def test_build_demo__everything_from_nothing_twice_the_same(tmp_path, monkeypatch):
    small = {"PAIRS": 200, "TARGET_IMAGES": 10, "TRAINING_PICTURES": 64}
    for name, value in small.items():
        monkeypatch.setattr(build, name, value)
    monkeypatch.setattr(build, "train_teacher", _train_shortly)
    lines: list[str] = []
    for name in ("first", "again"):
        build.build_demo(tmp_path / name, progress=lines.append)
    first, again = (_contents(tmp_path / name) for name in ("first", "again"))
    assert first == again
    assert json.loads((tmp_path / "first" / "run" / "status.json").read_text())["state"] == "done"
    assert pq.read_table(tmp_path / "first" / "run" / "projection.parquet").num_rows == 200
    assert [line.split(maxsplit=2)[2] for line in lines].count("done") == 2


def _train_shortly(directory, pairs, *, progress):
    from clipsel_core.demo.teacher import train_teacher

    train_teacher(directory, pairs, steps=3, batch_size=16, progress=progress)


def _contents(root: Path) -> dict[str, bytes]:
    """Every file but the one that holds clock times."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "status.json")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
