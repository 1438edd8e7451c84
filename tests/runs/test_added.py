"""A target added to a finished run gives what scoring with it from the start gives, and touches nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from clipsel_core import uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.selecting.export import export
from clipsel_core.curation.selecting.selection import select
from clipsel_core.errors import PoolFormatError, RunError, ScoringError, TargetError
from clipsel_core.runs import added
from clipsel_core.runs.added import add_target, check_target
from clipsel_core.runs.local import score, sole_worker
from clipsel_core.runs.store import Run
from tests.conftest import rewrite_npz, unit_rows, write_shard

OPTIONS = {"temperature": 0.02, "batch_size": 16, "divisions": 2}


@pytest.fixture
def targets(tmp_path):
    """Two targets' files."""
    for seed, name in enumerate(("task", "more")):
        np.save(tmp_path / f"{name}.npy", unit_rows(30 + seed, 16, 77 + seed))
    return {name: tmp_path / f"{name}.npy" for name in ("task", "more")}


@pytest.fixture
def run(pool, tmp_path, targets):
    return score(pool, tmp_path / "run", targets={"task": targets["task"]}, norms=("inf", "2", "3"), **OPTIONS)


def files_of(folder):
    folder = Path(folder)
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()}


def test_add_target__equals_scoring_with_it_from_the_start(pool, tmp_path, run, targets):
    both = ScoreTable.open(score(pool, tmp_path / "both", targets=targets, norms=("inf", "2", "3"), **OPTIONS))
    before = files_of(run.root)
    told = []
    done = add_target(run.root, "more", targets["more"], report=lambda *said: told.append(said[:2]))
    later = ScoreTable.open(done)
    assert sorted(later.metrics) == sorted(both.metrics)
    assert later.metrics[-3:] == ("normsim_inf_more", "normsim_2_more", "normsim_3_more")
    rows = np.random.default_rng(1).permutation(len(later))
    for metric in later.metrics:
        assert np.array_equal(later.take(metric, rows), both.take(metric, rows)), metric
        assert np.array_equal(later.column(metric), both.column(metric)), metric
        assert np.array_equal(later.take(metric, rows), both.column(metric)[rows]), metric
    after = files_of(run.root)
    assert {name: after[name] for name in before} == before
    assert [target.name for target in done.targets] == ["task", "more"]
    assert told[-1] == (126, 126)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_add_target__on_several_devices_gives_the_bytes_of_one(run, targets):
    one = files_of(add_target(run.root, "more", targets["more"]).root / "added")
    shutil.rmtree(Path(run.root) / "added")
    told = []
    add_target(run.root, "more", targets["more"], device="cpu,cpu", report=lambda *said: told.append(said))
    assert files_of(Path(run.root) / "added") == one
    assert told[-1] == (126, 126, "pairs", "3 of 3 shards")


def test_add_target__selects_and_exports_like_any_other(run, targets):
    done = add_target(run.root, "more", targets["more"])
    recipe = parse_recipe("steps: [{metric: normsim_inf_more, keep_top: 0.5}]", columns=done.metrics)
    picked = select(done, recipe)
    values = ScoreTable.open(done).column("normsim_inf_more")
    assert values[picked.rows].min() >= np.delete(values, picked.rows).max()
    manifest = export(done, picked, recipe, Path(run.root) / "exports" / "half.npy")
    assert manifest.content["added_targets"][0]["target"]["name"] == "more"


def test_add_target__of_picked_pairs_finds_themselves(run, tmp_path):
    picked = np.array([3, 50, 120])
    table = ScoreTable.open(run)
    np.save(tmp_path / "picked.npy", uids.sort(table.uids_at(picked)))
    near = ScoreTable.open(add_target(run.root, "picked", tmp_path / "picked.npy")).column("normsim_inf_picked")
    assert set(np.argsort(-near)[:3]) == set(picked)


def test_add_target__to_a_run_without_any_uses_both_norms(pool, tmp_path, targets):
    plain = score(pool, tmp_path / "plain", **OPTIONS)
    done = add_target(plain.root, "more", targets["more"])
    assert done.metrics[-2:] == ["normsim_inf_more", "normsim_2_more"]


def test_add_target__killed_goes_on_with_the_same_bytes(run, tmp_path, targets, monkeypatch):
    whole = files_of(add_target(run.root, "more", targets["more"]).root / "added")
    for file in (Path(run.root) / "added" / "more").iterdir():
        file.unlink()
    compute = added._Comparison._compute
    stop = lambda *args: compute(*args) if args[1].name != "00000001" else 1 / 0  # noqa: E731
    monkeypatch.setattr(added._Comparison, "_compute", stop)
    with pytest.raises(ZeroDivisionError):
        add_target(run.root, "more", targets["more"])
    assert Run.open(run.root).metrics == run.metrics
    there = {file.stem for file in (Path(run.root) / "added" / "more").glob("*.parquet")}
    assert {"00000000"} <= there <= {"00000000", "00000002"}
    (Path(run.root) / "added" / "more" / ".00000001.parquet.9-9.partial").touch()
    computed = []
    note = lambda *args: (computed.append(args[1].name), compute(*args))[1]  # noqa: E731
    monkeypatch.setattr(added._Comparison, "_compute", note)
    assert "normsim_2_more" in add_target(run.root, "more", targets["more"]).metrics
    assert {*computed} == {"00000001", "00000002"} - there
    assert files_of(Path(run.root) / "added") == whole
    add_target(run.root, "more", targets["more"])
    assert len(computed) == 3 - len(there)


def test_add_target__rows_set_aside_stay_so(tmp_path, targets):
    _, npz = write_shard(tmp_path / "pool", "00000000", 30)
    with np.load(npz) as archive:
        image = archive["l14_img"]
    image[4] = 0
    rewrite_npz(npz, l14_img=image)
    run = score(tmp_path / "pool", tmp_path / "run", on_bad_rows="skip", **OPTIONS)
    values = ScoreTable.open(add_target(run.root, "more", targets["more"])).column("normsim_inf_more")
    assert np.flatnonzero(np.isnan(values)).tolist() == [4]


@pytest.mark.parametrize("exemplars", [5, 70])
def test_add_target__rows_of_any_length_are_scaled_as_they_were(tmp_path, exemplars):
    _, npz = write_shard(tmp_path / "pool", "00000000", 300)
    with np.load(npz) as archive:
        image = archive["l14_img"] * np.float16(11)
    rewrite_npz(npz, l14_img=image)
    np.save(tmp_path / "few.npy", unit_rows(exemplars, 16, 5))
    options = {**OPTIONS, "on_bad_rows": "scale"}
    whole = score(tmp_path / "pool", tmp_path / "whole", targets={"few": tmp_path / "few.npy"}, **options)
    later = add_target(score(tmp_path / "pool", tmp_path / "run", **options).root, "few", tmp_path / "few.npy")
    for metric in ("normsim_inf_few", "normsim_2_few"):
        np.testing.assert_array_equal(ScoreTable.open(later).column(metric), ScoreTable.open(whole).column(metric))


@pytest.mark.parametrize("exemplars", [5, 70])
def test_add_target__scales_rows_as_scoring_does(tmp_path, exemplars):
    """Few exemplars are compared as the images are read, more of them afterwards; rows a little off are scaled."""
    for shard in range(2):
        _, npz = write_shard(tmp_path / "pool", f"{shard:08d}", 600, seed=shard)
        with np.load(npz) as archive:
            image = archive["l14_img"].astype(np.float32)
        image[[3, 599]] *= 1.006
        rewrite_npz(npz, compressed=bool(shard), l14_img=image.astype(np.float16))
    np.save(tmp_path / "few.npy", unit_rows(exemplars, 16, 5))
    options = {**OPTIONS, "batch_size": 300}
    whole = score(tmp_path / "pool", tmp_path / "whole", targets={"few": tmp_path / "few.npy"}, **options)
    later = add_target(score(tmp_path / "pool", tmp_path / "run", **options).root, "few", tmp_path / "few.npy")
    for metric in ("normsim_inf_few", "normsim_2_few"):
        assert np.array_equal(ScoreTable.open(later).column(metric), ScoreTable.open(whole).column(metric))


@pytest.mark.parametrize("exemplars", [5, 70])
def test_add_target__names_the_first_bad_row(pool, run, tmp_path, exemplars, monkeypatch):
    monkeypatch.setattr(added, "check_same_pool", lambda *_: None)
    npz = pool / "metadata" / "00000001.npz"
    with np.load(npz) as archive:
        image = archive["l14_img"]
    image[[9, 4]] = [[np.nan], [0]]
    rewrite_npz(npz, l14_img=image)
    np.save(tmp_path / "few.npy", unit_rows(exemplars, 16, 5))
    with pytest.raises(PoolFormatError, match="shard 00000001, row 4: expected a unit row in l14_img"):
        add_target(run.root, "few", tmp_path / "few.npy")
    there = {file.stem for file in (Path(run.root) / "added" / "few").glob("*.parquet")}
    assert {"00000000"} <= there <= {"00000000", "00000002"}


def test_check_target__says_what_add_target_says_and_writes_nothing(run, pool, tmp_path, targets):
    np.save(tmp_path / "wide.npy", unit_rows(5, 17, 1))
    before = files_of(run.root)
    wrong = (("task", targets["more"]), ("../more", targets["more"]), ("more", tmp_path / "absent.npy"))
    for name, file in (*wrong, ("more", tmp_path / "wide.npy")):
        with pytest.raises((TargetError, ScoringError)) as looked:
            check_target(run.root, name, file)
        assert files_of(run.root) == before
        with pytest.raises((TargetError, ScoringError)) as begun:
            add_target(run.root, name, file)
        assert str(looked.value) == str(begun.value)
    assert check_target(run.root, "more", targets["more"]).said == "31 embeddings of width 16"
    assert Run.open(run.root).metrics == run.metrics
    assert not (Path(run.root) / "added").exists()
    write_shard(pool, "00000001", 24, seed=1)
    with pytest.raises((RunError, PoolFormatError), match="as scored"):
        check_target(run.root, "more", targets["more"])


def test_add_target__refuses_what_does_not_fit(run, pool, tmp_path, targets):
    with pytest.raises(TargetError, match="another name"):
        add_target(run.root, "task", targets["more"])
    with pytest.raises(TargetError, match="letters, digits"):
        add_target(run.root, "../more", targets["more"])
    with pytest.raises(TargetError, match="no such file"):
        add_target(run.root, "more", tmp_path / "absent.npy")
    add_target(run.root, "more", targets["more"])
    with pytest.raises(RunError, match="choose another name"):
        add_target(run.root, "more", targets["task"])
    with sole_worker(run.root), pytest.raises(RunError, match="going on"):
        add_target(run.root, "third", targets["task"])
    write_shard(pool, "00000001", 24, seed=1)
    with pytest.raises((RunError, PoolFormatError), match="as scored"):
        add_target(run.root, "third", targets["task"])
    Path(run.score_files[0]).unlink()
    with pytest.raises(RunError, match="a finished run"):
        add_target(run.root, "third", targets["task"])


def test_open__a_damaged_description_is_named(run, targets):
    add_target(run.root, "more", targets["more"])
    (Path(run.root) / "added" / "more" / "target.json").write_text('{"format": 2}')
    with pytest.raises(RunError, match=r"more/target\.json"):
        Run.open(run.root)
