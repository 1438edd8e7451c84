"""Exports: read back by other programs, the same bytes every time, whole or not at all; and what goes on with them."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from braceexpand import braceexpand

from clipsel_core import uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.recipes.uidlists import read_uid_list
from clipsel_core.curation.selecting import export as export_module
from clipsel_core.curation.selecting.export import export, open_clip_commands, reshard_commands, train_commands
from clipsel_core.curation.selecting.selection import select
from clipsel_core.errors import ExportError
from clipsel_core.runs.store import Run
from tests.curation.conftest import hand_run, make_uids

RECIPE = """\
steps:
- {metric: s_cliploss, keep_top: 0.30}
- {metric: normsim_inf_task, keep_top: 0.2}
"""
ENDINGS = ["npy", "parquet", "csv", "txt"]


@pytest.fixture(scope="module")
def recipe():
    return parse_recipe(RECIPE)


@pytest.fixture(scope="module")
def chosen(big_run, recipe):
    return select(big_run, recipe)


@pytest.mark.parametrize("ending", ENDINGS)
def test_export__is_read_back_as_the_selection(tmp_path, big_run, recipe, chosen, ending):
    manifest = export(big_run, chosen, recipe, tmp_path / f"subset.{ending}")
    assert len(chosen) == 4000
    np.testing.assert_array_equal(read_uid_list(manifest.path), chosen.uids())


def test_export__writes_the_npy_that_datacomp_takes(tmp_path, big_run, recipe, chosen):
    path = export(big_run, chosen, recipe, tmp_path / "subset.npy").path
    raw = np.load(path, allow_pickle=False)
    assert raw.dtype == np.dtype("u8,u8")
    assert raw.tolist() == sorted(set(raw.tolist()))


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_export__puts_each_metric_beside_its_uid(tmp_path, big_run, recipe, chosen, ending):
    path = export(big_run, chosen, recipe, tmp_path / f"subset.{ending}").path
    frame = pd.read_parquet(path) if ending == "parquet" else pd.read_csv(path, dtype={"uid": str})
    assert list(frame.columns) == ["uid", *big_run.metrics]
    assert frame["uid"].tolist() == sorted(frame["uid"])
    scores = pd.concat([pd.read_parquet(file) for file in map(Path, big_run.score_files)])
    scores["uid"] = uids.to_hex(uids.from_halves(scores["uid_hi"].to_numpy(), scores["uid_lo"].to_numpy())).to_pylist()
    expected = scores.set_index("uid").loc[frame["uid"], list(big_run.metrics)].to_numpy()
    np.testing.assert_array_equal(frame[list(big_run.metrics)].to_numpy(np.float32), expected)


def test_export__no_metric_takes_the_place_of_uids_or_counts(tmp_path):
    """Runs have such columns from before their names were refused."""
    metrics = {"clip_score": [0.1, 0.2], "uid": [5, 6], "count": [7, 8]}
    run = hand_run(tmp_path / "run", [(make_uids(1, 2), metrics)])
    recipe = parse_recipe("steps: [{sample: 10, by: clip_score}]")
    path = export(run, select(run, recipe), recipe, tmp_path / "subset.csv").path
    frame = pd.read_csv(path, dtype={"uid": str})
    assert frame["uid"].tolist() == uids.to_hex(make_uids(1, 2)).to_pylist()
    assert frame["count"].tolist() == [5, 5]  # a round of both, five times


@pytest.mark.parametrize("ending", ENDINGS)
def test_export__gives_the_same_bytes_from_another_folder(tmp_path, big_run, recipe, chosen, ending):
    first = export(big_run, chosen, recipe, tmp_path / "here" / f"subset.{ending}")
    copy = tmp_path / "elsewhere" / "run"
    shutil.copytree(big_run.root, copy)
    run = Run.open(copy)
    again = parse_recipe("name:   \n# by another hand\n" + RECIPE.replace("0.2", "0.200"), folder=copy)
    second = export(run, select(run, again), again, tmp_path / "there" / f"subset.{ending}")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.manifest_path.read_bytes() == second.manifest_path.read_bytes()


def test_export__describes_itself_in_the_manifest(tmp_path, big_run, recipe, chosen):
    manifest = export(big_run, chosen, recipe, tmp_path / "subset.npy")
    assert manifest.manifest_path == tmp_path / "subset.npy.manifest.json"
    said = json.loads(manifest.manifest_path.read_text())
    assert said == manifest.content
    assert said["sha256"] == manifest.sha256 == hashlib.sha256(manifest.path.read_bytes()).hexdigest()
    assert said["size_bytes"] == manifest.size_bytes == manifest.path.stat().st_size
    assert (said["pairs"], said["pool_pairs"]) == (4000, 20_003) == (manifest.pairs, chosen.total)
    assert parse_recipe(said["recipe"]) == recipe
    column = ScoreTable.open(big_run).column("s_cliploss")
    assert said["steps"][0]["threshold"] == np.sort(column[~np.isnan(column)])[-6000]
    assert said["run"]["arch"] == "l14"
    assert set(said["versions"]) == {"clipsel", "numpy", "pyarrow", "duckdb"}


def test_export__of_an_unfinished_run_says_how_much_of_it_there_was(tmp_path):
    run = hand_run(tmp_path / "run", [(make_uids(1, 2), {"clip_score": [0.1, 0.2]})], planned=3)
    everything = parse_recipe("steps: [{metric: clip_score, keep_top: 1}]")
    content = export(run, select(run, everything), everything, tmp_path / "subset.npy").content
    assert (content["shards"], content["shards_planned"], content["pool_pairs"]) == (["00000000"], 3, 2)


@pytest.mark.parametrize("ending", ENDINGS)
def test_export__refuses_to_write_a_subset_of_nothing(tmp_path, big_run, ending):
    nothing = parse_recipe("steps: [{metric: clip_score, keep_top: 0}]")
    with pytest.raises(ExportError, match="the selection: expected a pair or more, found none"):
        export(big_run, select(big_run, nothing), nothing, tmp_path / f"subset.{ending}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["subset", "subset.pkl", "subset.npz", "subset.npy.gz"])
def test_export__refuses_another_ending(tmp_path, big_run, recipe, chosen, name):
    with pytest.raises(ExportError, match=r"\.npy, \.parquet, \.csv, \.txt"):
        export(big_run, chosen, recipe, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_export__leaves_the_old_file_when_writing_fails(tmp_path, big_run, recipe, chosen, monkeypatch):
    out = tmp_path / "subset.txt"
    out.write_text("old")

    def fail(selection, ending, aside):
        aside.write_text("half")
        raise OSError(28, "No space left on device", str(aside))

    monkeypatch.setattr(export_module, "_write", fail)
    with pytest.raises(ExportError, match="No space left on device"):
        export(big_run, chosen, recipe, out)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["subset.txt"]


def test_export__leaves_both_old_files_when_the_manifest_cannot_be_written(
    tmp_path, big_run, recipe, chosen, monkeypatch
):
    """A subset beside the manifest of another is worse than none."""
    out = tmp_path / "subset.txt"
    export(big_run, chosen, recipe, out)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(path, value):
        path.write_text("half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(export_module, "put_json", fail)
    other = parse_recipe("steps: [{metric: clip_score, keep_top: 0.1}]")
    with pytest.raises(ExportError, match="No space left on device"):
        export(big_run, select(big_run, other), other, out)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("stop_at", [0.0, 0.8, 1.0])
def test_export__ends_where_the_one_who_is_told_says_so(tmp_path, big_run, recipe, chosen, stop_at):
    def stop(done: int, total: int, unit: str, note: str) -> None:
        if done / total == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(big_run, chosen, recipe, tmp_path / "subset.npy", stop)
    assert list(tmp_path.iterdir()) == []


def test_export__says_when_the_folder_is_a_file(tmp_path, big_run, recipe, chosen):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="expected to write the subset"):
        export(big_run, chosen, recipe, tmp_path / "file" / "subset.npy")


def test_export__by_many_at_once_leaves_one_whole_file(tmp_path, big_run, recipe, chosen):
    out = tmp_path / "subset.txt"
    with ThreadPoolExecutor(8) as pool:
        digests = {manifest.sha256 for manifest in pool.map(lambda _: export(big_run, chosen, recipe, out), range(24))}
    assert digests == {hashlib.sha256(out.read_bytes()).hexdigest()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["subset.txt", "subset.txt.manifest.json"]


def pool_of(root, *names, stats=True):
    (root / "shards").mkdir(parents=True)
    for name in names:
        (root / "shards" / f"{name}.tar").touch()
        if stats:
            (root / "shards" / f"{name}_stats.json").touch()
    return root


def options_after(line):
    """The options that a line gives beyond input, output and subset."""
    words = shlex.split(line)
    assert words[:3] == ["python", "resharder.py", "-i"]
    assert words[4:7] == ["-o", "$SHARDS", "-s"]
    return words[8:]


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["00000000", "00000001"], []),
        (["00000000", "00000003"], ["--num-shards", "4"]),
        (["00000002", "00000003"], ["--first-shard", "2"]),
        (["00000", "00001"], ["--shard-format", "{:05d}.tar", "--shard-stats-format", "{:05d}_stats.json"]),
    ],
)
def test_reshard_commands__say_how_the_tars_are_numbered(tmp_path, names, options):
    *before, line = reshard_commands(pool_of(tmp_path / "a pool", *names), Path("/s.npy"))
    assert before == ["mkdir -p $SHARDS"]
    assert f"-i '{tmp_path}/a pool/shards' -o $SHARDS -s /s.npy" in line
    assert options_after(line) == options


@pytest.mark.parametrize(
    ("names", "stats", "says"),
    [
        ([], True, "# no tars in the pool"),
        (["part-0"], True, "# resharder.py takes tars that are numbered, not part-0.tar"),
        (["00000000", "00000001"], False, "# 2 of 2 tars have no _stats.json"),
    ],
)
def test_reshard_commands__say_what_resharder_would_not_find(tmp_path, names, stats, says):
    assert reshard_commands(pool_of(tmp_path / "pool", *names, stats=stats), Path("/s.npy"))[0].startswith(says)


@pytest.mark.parametrize(("numbers", "workers"), [([0], 1), ([0, 1, 2, 3, 4], 4), ([1, 3], 2)])
def test_open_clip_commands__name_each_tar_as_open_clip_expands_it(numbers, workers):
    folder, tars = Path("/a {b,c} 'd'/e"), [f"{number:08d}.tar" for number in numbers]
    (line,) = open_clip_commands(folder, tars)
    words = shlex.split(line)
    assert list(braceexpand(words[words.index("--train-data") + 1])) == [f"{folder}/{tar}" for tar in tars]
    assert words[words.index("--workers") + 1] == str(workers)


def test_train_commands__quoted_and_scaled():
    said, line = train_commands(Path("/a b"), 100_000_000)
    assert line.startswith("torchrun --nproc_per_node $GPUS train.py --scale medium --data_dir '/a b' ")
    assert line.endswith(" --output_dir $OUTPUT --exp_name $NAME")
    assert "128,000,000 samples" in said
    scales = [train_commands(None, pairs)[1].split()[5] for pairs in (5, 128_001, 1_000_000_000, 2_000_000_000)]
    assert scales == ["debug", "small", "large", "xlarge"]
    assert "--data_dir $SHARDS " in train_commands(None, 5)[1]
