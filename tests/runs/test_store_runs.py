"""Is a run that is written into a store the same, byte for byte, as on a disk, whatever the store does meanwhile?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core import leases, places
from clipsel_core.columns.adding import add_normsim_2d, add_together, import_column, plan_imports, remove_column
from clipsel_core.curation.exploring.map_layout import project
from clipsel_core.curation.exploring.projection import read_projection
from clipsel_core.curation.exploring.searches import SearchQuery, list_searches, read_nearest, search_run, write_search
from clipsel_core.curation.index.index import open_indexed, wait_until_kept
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import load_recipe, parse_recipe, save_recipe
from clipsel_core.curation.recipes.uidlists import read_uid_list
from clipsel_core.curation.selecting.export import export
from clipsel_core.curation.selecting.selection import select
from clipsel_core.curation.selecting.shards import export_shards
from clipsel_core.curation.selecting.verify import verify
from clipsel_core.errors import ClipselError, ColumnError, ExportError, RecipeError, RunError
from clipsel_core.places import Place
from clipsel_core.processes import child_environment
from clipsel_core.runs.added import add_target
from clipsel_core.runs.local import score
from clipsel_core.runs.recompute import recompute
from clipsel_core.runs.store import Run, score_file
from tests.conftest import unit_rows, write_shard
from tests.pool.pictures import image, write_tar
from tests.pool.servers import SECRET, upload

OPTIONS = {"temperature": 0.02, "batch_size": 16, "divisions": 3, "device": "cpu"}
RUN = "s3://bucket/a/run"
RECIPE = "steps: [{column: clip_score, keep_top: 0.5}]"


@pytest.fixture
def pool(tmp_path):
    for seed, rows in enumerate((40, 25, 30)):
        write_shard(tmp_path / "pool", f"{seed:08d}", rows, width=16, seed=seed)
    np.save(tmp_path / "task.npy", unit_rows(9, 16, 77))
    return tmp_path / "pool"


def files_of(run):
    """Everything that is read of a run, but for how long it took and where the pool lies."""
    root, found = Place.of_named(run.root), {}
    for name, _ in root.files():
        if name.split("/")[0] not in ("index", "cache", "status.json", "run.json"):
            found[name] = (root / name).read()
    for name in [name for name in found if name.endswith("target.json")]:
        target = json.loads(found[name])
        target["target"].pop("path")
        found[name] = target
    said = json.loads((root / "run.json").read())
    return found | {"run.json": {key: said[key] for key in said if key not in ("outcome", "pool", "targets")}}


def both(pool, tmp_path, **options):
    targets = {"task": tmp_path / "task.npy"}
    return [score(pool, root, targets=targets, **{**OPTIONS, **options}) for root in (tmp_path / "run", RUN)]


def values_of(run, tmp_path):
    names = ScoreTable.open(run).uids()
    file = tmp_path / "values.parquet"
    halves = {"uid_hi": names["f0"].copy(), "uid_lo": names["f1"].copy()}
    pq.write_table(pa.table({**halves, "v": np.arange(len(names)) / 7, "w": np.arange(len(names)) % 3}), file)
    return file


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_run__in_a_store_has_the_bytes_of_one_on_disk(store, waits, pool, tmp_path, device):
    here, there = both(pool, tmp_path, device=device)
    for run in (here, there):
        add_target(run.root, "more", tmp_path / "task.npy")
        import_column(run.root, "v", f"{values_of(here, tmp_path)}#v")
    assert files_of(here) == files_of(there)
    there = Run.open(RUN)
    assert verify(there).problems == []
    assert recompute(there, 10) == ([], [])
    assert SECRET not in str(files_of(there))
    assert json.loads((there.root / "status.json").read())["state"] == "done"
    remove_column(RUN, "v")
    assert [added.folder for added in Run.open(RUN).added] == ["more"]
    assert not [name for name, _ in there.root.files() if name.startswith("added/v/")]
    with pytest.raises(ColumnError, match="expected one of the columns that were added"):
        remove_column(RUN, "v")
    assert not waits


def test_run__in_a_store_is_explored_and_selected_from_as_on_disk(store, pool, tmp_path):
    found = []
    for run in both(pool, tmp_path):
        (run.root / "start.yaml").write_bytes(RECIPE.encode())
        add_normsim_2d(run.root, "falling", run.root / "start.yaml", Decimal("0.2"), rounds=5)
        run = Run.open(run.root)
        project(run, sample=60)
        places_on_map = read_projection(run)
        result = search_run(run, unit_rows(1, 16, 5)[0])
        write_search(run.root / "searches" / "a.parquet", result, SearchQuery("a", "text", "image", "pool", 95))
        (search,) = list_searches(run)
        again = read_nearest(search, ScoreTable.open(run))
        assert again.rows.tolist() == result.nearest.rows.tolist()
        recipe = save_recipe(parse_recipe(RECIPE), run.recipes_dir / "half.yaml")
        export(run, select(run, recipe), recipe, run.exports_dir / "half.npy")
        export(run, select(run, recipe), recipe, run.exports_dir / "half.parquet")
        listed = parse_recipe("steps: [{intersect: ../exports/half.npy}]", folder=run.recipes_dir)
        picked = select(run, save_recipe(listed, run.recipes_dir / "listed.yaml"))
        assert len(picked) == len(read_uid_list(run.exports_dir / "half.npy")) == 47
        assert verify(run).exports == 2
        assert verify(run).problems == []
        found.append((files_of(run), places_on_map.x.tobytes(), load_recipe(run.recipes_dir / "listed.yaml")))
    (here, x, recipe), (there, other, again) = found
    differ = {name for name in here if here[name] != there[name]}
    assert all(name.endswith(".manifest.json") for name in differ)  # it says where the pool lies
    assert (x, recipe.steps) == (other, again.steps)


def test_open_indexed__of_a_run_in_a_store_lies_in_the_cache(store, pool, tmp_path):
    _, run = both(pool, tmp_path)
    table = open_indexed(run, fewest=1)
    wait_until_kept()
    assert table.index_folder.is_relative_to(tmp_path / "cache")
    plain = ScoreTable.open(Run.open(RUN))
    for metric in run.metrics:
        np.testing.assert_array_equal(table.column(metric), plain.column(metric))
    asked = store.asked.copy()
    assert open_indexed(Run.open(RUN), fewest=1).column("clip_score") is not None
    assert not [path for path in store.asked - asked if path.endswith(".parquet")]


@pytest.mark.parametrize("fault", [503, "half", "slow"])
def test_run__a_store_that_fails_in_passing_is_asked_again(store, waits, pool, tmp_path, fault):
    here = score(pool, tmp_path / "run", **OPTIONS)
    store.fault = lambda path, times: fault if path.startswith("/bucket/a") and times % 3 == 1 else None
    there = score(pool, RUN, **OPTIONS)
    add_together(RUN, plan_imports({"v": f"{values_of(here, tmp_path)}#v", "w": f"{tmp_path}/values.parquet#w"}))
    store.fault = lambda path, times: None
    assert verify(Run.open(RUN)).problems == []
    import_column(here.root, "v", f"{tmp_path}/values.parquet#v")
    import_column(here.root, "w", f"{tmp_path}/values.parquet#w")
    assert files_of(Run.open(here.root)) == files_of(there)


def test_run__a_store_that_stays_away_is_said_and_what_was_done_stays(store, waits, pool, tmp_path):
    whole = files_of(score(pool, tmp_path / "run", **OPTIONS))
    store.fault = lambda path, times: 503 if "00000001.parquet" in path else None
    with pytest.raises(RunError, match="expected to write the run, found Service Unavailable; see whether") as error:
        score(pool, RUN, **OPTIONS)
    assert "\n" not in str(error.value)
    assert waits[-3:] == [0.5, 2.0, 8.0]
    store.fault = lambda path, times: None
    left = {name for name, _ in Place.of_named(RUN).files() if name.startswith("scores/")}
    assert "scores/00000001.parquet" not in left
    store.asked.clear()
    run = score(pool, RUN, **OPTIONS)
    assert files_of(run) == whole


def test_run__killed_goes_on_with_the_same_bytes(store, pool, tmp_path):
    whole = files_of(score(pool, tmp_path / "run", **OPTIONS))
    script = f"""
import os, signal, sys
from clipsel_core.places import Place
from clipsel_core.runs.local import score
from clipsel_core.runs.store import SealedFiles
write = SealedFiles.write
def kill(self, shard, *args, **more):
    if shard == "00000001":
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, shard, *args, **more)
SealedFiles.write = kill
score({str(pool)!r}, {RUN!r}, **{OPTIONS!r})
"""
    ended = subprocess.run([sys.executable, "-c", script], env=child_environment())
    assert ended.returncode < 0
    run = Run.open(RUN)
    assert not run.finished
    assert "scores/00000001.parquet" not in files_of(run)
    assert files_of(score(pool, RUN, **OPTIONS)) == whole


def test_score__a_listing_that_lags_hides_no_shard_that_is_done(store, pool, tmp_path, monkeypatch):
    _, run = both(pool, tmp_path)
    run.score_files[1].remove()
    stamps = {file.name: file.stamp() for file in (run.score_files[0], run.score_files[-1])}
    monkeypatch.setattr(places, "_list", lambda *_, **__: {})
    assert len(run.score_files) == 2
    store.asked.clear()
    again = score(pool, RUN, targets={"task": tmp_path / "task.npy"}, **OPTIONS)
    assert {file.name: file.stamp() for file in again.score_files if file.name in stamps} == stamps
    assert len(again.score_files) == 3
    monkeypatch.undo()


def test_score__a_damaged_file_in_a_store_is_made_again(store, pool, tmp_path, caplog):
    here, there = both(pool, tmp_path)
    score_file(RUN, "00000001").write_bytes(score_file(RUN, "00000001").read()[:-40])
    with pytest.raises(RunError, match=r"00000001\.parquet: expected scores as written"):
        ScoreTable.open(there).column("clip_score")
    again = score(pool, RUN, targets={"task": tmp_path / "task.npy"}, **OPTIONS)
    assert "00000001.parquet: made again" in caplog.text
    assert files_of(here) == files_of(again)


def test_score__of_two_that_want_a_run_one_gets_it(store, pool, tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "_RENEWED_S", 0.05)
    monkeypatch.setattr(leases, "_BETWEEN_LOOKS_S", 0.05)
    refused = []

    def meanwhile(*_):
        if not refused:
            with pytest.raises(RunError, match="found a run going on: process") as error:
                score(pool, RUN, **OPTIONS)
            refused.append(error)

    run = score(pool, RUN, report=meanwhile, **OPTIONS)
    assert refused
    assert verify(run).problems == []


def test_score__that_lost_its_run_to_another_stops_and_describes_nothing(store, pool, tmp_path):
    def meanwhile(*_):
        (Place.of_named(RUN) / ".lease" / "000002").write_bytes(b'{"pid": 7, "host": "elsewhere"}')

    with pytest.raises(RunError, match="expected to hold the folder, found process 7 of elsewhere took it over"):
        score(pool, RUN, report=meanwhile, **OPTIONS)
    assert Run.open(RUN).config.skipped_rows is None


def test_select__a_list_in_a_store_is_read_below_named_places_alone(store, pool, tmp_path):
    root = score(pool, tmp_path / "run", **OPTIONS).root
    with (tmp_path / "list.txt").open("w") as file:
        file.write("\n".join(pq.read_table(pool / "metadata" / "00000000.parquet")["uid"].to_pylist()[:5]))
    upload(tmp_path, "s3://bucket/lists")
    recipe = parse_recipe("steps: [{intersect: s3://bucket/lists/list.txt}]")
    for named in (None, ["s3://bucket/lists"]):
        assert len(select(Run.open(root, named), recipe)) == 5
    with pytest.raises(RecipeError, match="expected a list below a place that was named"):
        select(Run.open(root, ["s3://bucket/other"]), recipe)


def test_run__copied_to_a_store_beside_its_pool_finds_it_there(store, pool, tmp_path):
    score(pool, tmp_path / "run", **OPTIONS)
    upload(tmp_path / "pool", "s3://bucket/a/pool")
    upload(tmp_path / "run", RUN)
    run = Run.open(RUN)
    assert (run.config.pool, run.pool_address) == ("../pool", "s3://bucket/a/pool")
    assert run.has_pool
    assert not Run.open(RUN, ["s3://bucket/b"]).has_pool


def test_export_shards__into_a_store_has_the_bytes_of_a_disk(store, pool, tmp_path):
    names = pq.read_table(pool / "metadata" / "00000000.parquet")["uid"].to_pylist()[:9]
    (pool / "shards").mkdir()
    files = {}
    for row, name in enumerate(names):
        files |= {f"{row}.jpg": image(row), f"{row}.json": json.dumps({"uid": name}).encode()}
    write_tar(pool / "shards" / "00000000.tar", files)
    run = score(pool, tmp_path / "run", **OPTIONS)
    recipe = parse_recipe("steps: [{column: clip_score, at_least: -2}]")
    made = []
    for out in (tmp_path / "tars", "s3://bucket/a/tars"):
        export_shards(run, select(run, recipe), recipe, out, pairs_per_shard=40)
        place = Place.of_named(out)
        made.append({name: (place / name).read() for name, _ in place.files()})
    assert made[0] == made[1]
    assert sum(name.endswith(".tar") for name in made[0]) >= 1
    place = Place.of_named("s3://bucket/a/tars")
    (place / "00000000_stats.json").remove()
    (place / "manifest.json").remove()
    export_shards(run, select(run, recipe), recipe, place, pairs_per_shard=40)
    assert {name: (place / name).read() for name, _ in place.files()} == made[0]
    with pytest.raises(ExportError, match="expected pairs_per_shard 40, as begun, found 50"):
        export_shards(run, select(run, recipe), recipe, place, pairs_per_shard=50)


@pytest.mark.parametrize("out", [f"{RUN}/half.npy", "s3://bucket/a/pool/half.npy", f"{RUN}/exports/x/half.npy"])
def test_export__into_a_run_or_a_pool_of_a_store_is_refused(store, pool, tmp_path, out):
    _, run = both(pool, tmp_path)
    upload(pool, "s3://bucket/a/pool")
    recipe = parse_recipe(RECIPE)
    if "exports" in out:
        assert export(run, select(run, recipe), recipe, out).pairs == 47
    else:
        with pytest.raises(ExportError, match="expected a place outside runs and pools"):
            export(run, select(run, recipe), recipe, out)


@pytest.mark.parametrize("out", ["https://127.0.0.1/half.npy", "simplecache::s3://bucket/half.npy"])
def test_export__to_what_is_only_read_is_refused(store, pool, tmp_path, out, monkeypatch):
    run = score(pool, tmp_path / "run", **OPTIONS)
    monkeypatch.setattr("clipsel_core.curation.selecting.export.check_outside", lambda _: None)
    recipe = parse_recipe(RECIPE)
    with pytest.raises(ClipselError, match=r"expected a folder or a store that is written to, found .*only read"):
        export(run, select(run, recipe), recipe, out)


def test_cli__takes_runs_by_address(store, pool, tmp_path):
    def clipsel(*words):
        command = [sys.executable, "-m", "clipsel_core", *map(str, words)]
        done = subprocess.run(command, env=child_environment() | {"COLUMNS": "200"}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr
        return done.stdout

    assert f"{RUN}: 95 pairs scored" in clipsel("score", pool, RUN, "--device", "cpu", "--batch-size", 16)
    assert "normsim_inf_task" in clipsel("add-target", RUN, "--target", f"task={tmp_path / 'task.npy'}")
    assert "caption_words" in clipsel("add-column", RUN, "caption_words")
    assert "caption_words" in clipsel("columns", RUN)
    clipsel("remove-column", RUN, "caption_words")
    Place.of_named("s3://bucket/r.yaml").write_bytes(RECIPE.encode())
    out = "s3://bucket/subset.npy"
    assert f"{out}: 47 uids" in clipsel("select", RUN, "--recipe", "s3://bucket/r.yaml", "--out", out)
    assert "47" in clipsel("compare", RUN, "s3://bucket/r.yaml", out)
    assert "written" in clipsel("project", RUN, "--sample", 20)
    assert "all as written" in clipsel("verify", RUN, "--recompute", 5)
    assert len(read_uid_list(out)) == 47
    assert not os.path.exists("s3:")
