"""verify says that all is well where it is, and names whatever is off."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clipsel_core.curation.index.index import open_indexed, wait_until_kept
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.selecting.export import export
from clipsel_core.curation.selecting.selection import select
from clipsel_core.curation.selecting.verify import verify
from clipsel_core.runs.added import add_target
from clipsel_core.runs.local import score
from clipsel_core.runs.store import Run
from tests.conftest import unit_rows
from tests.curation.conftest import hand_run, make_uids

OPTIONS = {"temperature": 0.02, "batch_size": 16, "divisions": 2}
RECIPE = "steps: [{metric: s_cliploss, keep_top: 0.4}, {metric: normsim_2_more, keep_top: 0.2}]"


@pytest.fixture
def run(pool, tmp_path) -> Run:
    np.save(tmp_path / "task.npy", unit_rows(70, 16, 70))
    np.savez(tmp_path / "more.npz", rows=unit_rows(5, 16, 5))
    score(pool, tmp_path / "run", targets={"task": tmp_path / "task.npy"}, norms=("inf", "2", "3"), **OPTIONS)
    run = add_target(tmp_path / "run", "more", tmp_path / "more.npz", norms=["2"])
    recipe = parse_recipe(RECIPE, columns=run.metrics)
    export(run, select(run, recipe), recipe, Path(run.exports_dir) / "subset.npy")
    export(run, select(run, recipe), recipe, Path(run.exports_dir) / "subset.parquet")
    open_indexed(run, fewest=0)
    wait_until_kept()
    return run


def problems(run: Run, **options) -> list[str]:
    return verify(Run.open(run.root), **options).problems


def test_verify__has_nothing_to_say_of_a_sound_run(run):
    told = []
    found = verify(run, report=lambda done, total, _unit: told.append((done, total)))
    assert found.problems == []
    assert (found.files, found.exports) == (6, 2)
    assert told[-1] == (6, 6)
    assert found.notes == []


@pytest.mark.parametrize(
    "name", ["scores/00000000.parquet", "added/more/00000002.parquet", "index/*/01-codes.npy", "index/*/by-uid.npy"]
)
def test_verify__names_a_damaged_file(run, name):
    (path,) = Path(run.root).glob(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if name.startswith("index") else 300] ^= 2
    path.write_bytes(data)
    (found,) = problems(run)
    assert found.startswith(str(path.parent if name.startswith("index") else path))


@pytest.mark.parametrize("change", ["a byte", "gone", "another subset", "another recipe", "no manifest"])
def test_verify__names_an_export_that_is_not_its_recipe_s(run, change):
    path, manifest = Path(run.exports_dir) / "subset.npy", Path(run.exports_dir) / "subset.npy.manifest.json"
    said = json.loads(manifest.read_text())
    if change == "a byte":
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    elif change == "gone":
        path.unlink()
    elif change == "another subset":
        other = parse_recipe("steps: [{metric: clip_score, keep_top: 0.2}]")
        export(run, select(run, other), other, path)
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "recipe": said["recipe"]}))
    elif change == "another recipe":
        manifest.write_text(json.dumps({**said, "recipe": said["recipe"].replace("0.4", "0.5").replace("0.2", "0.3")}))
    else:
        manifest.write_text("{")
    expected = {
        "a byte": "expected subset.npy as it was exported, found other bytes",
        "gone": "expected what was exported, found No such file or directory",
        "no manifest": "expected an export's manifest",
    }.get(change, "expected what its recipe picks")
    (found,) = problems(run)
    assert found.startswith(f"{manifest}: {expected}")


def test_verify__names_a_uid_that_comes_twice(tmp_path):
    shards = [(make_uids(1, 2), {"clip_score": [1, 2]}), (make_uids(3, 2), {"clip_score": [3, 4]})]
    (found,) = problems(hand_run(tmp_path / "run", shards))
    assert found.endswith(f"expected each uid once, found 1 repeat, such as {'2':0>32}")


def test_verify__says_what_an_unfinished_run_lacks(run):
    Path(run.score_files[0]).unlink()
    (found,) = problems(run)
    assert found.endswith("2 of 3 shards are scored")


@pytest.mark.parametrize("ending", ["npy", "txt", "csv", "parquet"])
def test_verify__draws_an_export_s_samples_again(run, ending):
    recipe = parse_recipe("steps: [{sample: 300, by: {s_cliploss: 20}, round: 40, seed: 3}]", columns=run.metrics)
    manifest = export(run, select(run, recipe), recipe, Path(run.exports_dir) / f"drawn.{ending}").manifest_path
    assert problems(run) == []
    said = json.loads(manifest.read_text())
    assert said["samples"] == 300 > said["pairs"]
    manifest.write_text(json.dumps({**said, "recipe": said["recipe"].replace("seed: 3", "seed: 4")}))
    (found,) = problems(run)
    assert "expected what its recipe picks" in found
    first, second, *others = said["pairs_by_count"].items()
    moved = dict([(first[0], first[1] + 1), (second[0], second[1] - 1), *others])
    manifest.write_text(json.dumps({**said, "pairs_by_count": moved}))
    assert len(problems(run)) == 1
