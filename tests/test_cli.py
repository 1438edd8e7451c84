"""The command line as a person meets it: help, results, one-line errors, exit codes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from clipsel_core import cli, uids
from clipsel_core.curation.exploring.searches import SearchQuery, neighbours, read_nearest, read_query
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.published import published_recipe
from clipsel_core.curation.selecting import shards
from clipsel_core.errors import ClipselError, PoolFormatError
from clipsel_core.pool.images import open_images
from clipsel_core.processes import child_environment
from clipsel_core.runs.store import Run
from clipsel_core.runs.whole_pool import neighbour_ranks
from clipsel_core.status import read_status
from tests.conftest import unit_rows, write_shard
from tests.pool.making.test_extend import datacomp_pool, tars
from tests.pool.pictures import image, write_tars, write_teacher
from tests.waiting import PATIENCE_S

COMMANDS = sorted(command.callback.__name__.replace("_", "-") for command in cli.app.registered_commands)


def run_cli(*arguments, cwd=None):
    """The real thing in a process of its own: its exit code, stdout and stderr."""
    command = [sys.executable, "-m", "clipsel_core", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=PATIENCE_S)
    return done.returncode, done.stdout, done.stderr


def refused(*arguments):
    """A command's error, from this process."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, ClipselError), result.output
    return str(result.exception)


@pytest.fixture
def scored(pool, tmp_path):
    np.save(tmp_path / "task.npy", unit_rows(30, 16, 77))
    options = ["--target", f"task={tmp_path / 'task.npy'}", "--batch-size", "20"]
    result = CliRunner().invoke(cli.app, ["score", str(pool), str(tmp_path / "run"), *options])
    assert result.exit_code == 0, result.output
    return tmp_path / "run"


def test_commands__are_those_that_the_readme_promises():
    assert COMMANDS == [
        "add-column",
        "add-target",
        "app",
        "columns",
        "compare",
        "demo",
        "doctor",
        "embed",
        "embed-images",
        "encode",
        "export",
        "inspect",
        "project",
        "recipes",
        "remove-column",
        "score",
        "search",
        "select",
        "verify",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_help__every_command_has_a_summary_an_example_and_described_options(command):
    shown = CliRunner().invoke(cli.app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: clipsel {command} " in shown.output.replace("\n", " ").replace("  ", " ")
    found = next(c for c in cli.app.registered_commands if c.callback.__name__.replace("_", "-") == command)
    click = cli.typer.main.get_command_from_info(found, pretty_exceptions_short=False, rich_markup_mode=None)
    assert all(getattr(parameter, "help", None) for parameter in click.params if parameter.name != "help")


@pytest.mark.parametrize("command", COMMANDS)
def test_help__says_what_a_value_is_without_the_names_of_types(command):
    shown = CliRunner().invoke(cli.app, [command, "--help"]).output
    options = shown.partition("Arguments:\n")[2] or shown.partition("Options:\n")[2]
    assert not re.search(r"<[a-zA-Z]|\b(Place|str|int|float)\b", options)


def test_help__says_path_text_and_numbers():
    shown = CliRunner().invoke(cli.app, ["add-column", "--help"]).output
    said = [r"run PATH", r"column\.\.\. TEXT", r"--missing nan\|error", r"--start PATH", r"--rounds INTEGER"]
    assert all(re.search(rf"^  {one}  ", shown, re.MULTILINE) for one in [*said, "--between LEAST MOST"])


def test_score__writes_a_run(scored):
    run = Run.open(scored)
    assert run.finished
    assert run.metrics[-2:] == ["normsim_inf_task", "normsim_2_task"]


def test_select__writes_the_subset_that_datacomp_takes(scored, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "steps:\n  - {metric: s_cliploss, keep_top: 0.30}\n  - {metric: normsim_inf_task, keep_top: 0.20}\n"
    )
    code, out, err = run_cli("select", scored, "--recipe", recipe, "--out", tmp_path / "subset.npy")
    assert (code, err) == (0, "")
    assert "25 uids" in out
    subset = np.load(tmp_path / "subset.npy", allow_pickle=False)
    assert subset.dtype == np.dtype("u8,u8")
    assert len(uids.read_subset(tmp_path / "subset.npy")) == 25
    assert (tmp_path / "subset.npy.manifest.json").exists()


def test_recipes__lists_what_is_needed_or_what_a_run_lacks_and_shows_one_as_it_is(scored):
    listed = CliRunner().invoke(cli.app, ["recipes"], env={"COLUMNS": "200"}).output
    of_run = CliRunner().invoke(cli.app, ["recipes", "--run", str(scored)], env={"COLUMNS": "200"}).output
    assert "normsim_2d" in listed
    assert "normsim_2d" in of_run
    assert "s_cliploss  " in listed
    assert "s_cliploss  " not in of_run
    shown = CliRunner().invoke(cli.app, ["recipes", "show", "m_flyt"])
    assert shown.output == published_recipe("m_flyt").text
    assert "one of basic_filter" in refused("recipes", "show", "flyt")
    assert CliRunner().invoke(cli.app, ["recipes", "show"]).exit_code == 2


@pytest.mark.parametrize("command", ["select", "export", "compare"])
def test_commands__a_recipe_that_keeps_nothing_is_an_error_without_commands_to_go_on_with(scored, tmp_path, command):
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("steps: [{metric: clip_score, keep_top: 0}]")
    options = {
        "select": ["--recipe", tmp_path / "a.yaml", "--out", tmp_path / "subset.npy"],
        "export": ["--recipe", tmp_path / "a.yaml", "--shards", tmp_path / "tars"],
        "compare": [tmp_path / "a.yaml", tmp_path / "b.yaml"],
    }[command]
    code, out, err = run_cli(command, scored, *options)
    assert code == 1
    assert ("expected a pair or more, found none" in err, err.count("\n")) == (True, 1)
    assert "train" not in out
    assert not any((tmp_path / name).exists() for name in ("subset.npy", "subset.npy.manifest.json", "tars"))


def test_search__that_finds_nothing_writes_nothing(tmp_path):
    pool = write_shard(tmp_path / "pool", "00000000", 1)[0].parents[1]
    assert CliRunner().invoke(cli.app, ["score", str(pool), str(tmp_path / "run")]).exit_code == 0
    (uid,) = uids.to_hex(ScoreTable.open(Run.open(tmp_path / "run")).uids_at(np.array([0]))).to_pylist()
    said = refused("search", tmp_path / "run", "--uid", uid, "--out", tmp_path / "found.npy")
    assert "expected a pair or more that is like it, found none" in said
    assert not (tmp_path / "found.npy").exists()


RECIPE = "steps: [{metric: clip_score, keep_top: 0.5}]"


@pytest.mark.parametrize("command", ["select", "export", "compare"])
def test_commands__do_not_take_an_unfinished_run_for_a_whole_one(scored, tmp_path, command):
    (tmp_path / "a.yaml").write_text(RECIPE)
    (tmp_path / "b.yaml").write_text(RECIPE)
    (lost,) = scored.glob("scores/*1.parquet")
    lost.unlink()
    options = {
        "select": ["--recipe", tmp_path / "a.yaml", "--out", tmp_path / "subset.npy"],
        "export": ["--recipe", tmp_path / "a.yaml", "--shards", tmp_path / "tars"],
        "compare": [tmp_path / "a.yaml", tmp_path / "b.yaml"],
    }[command]
    said = refused(command, scored, *options)
    assert "expected a finished run, found 2 of 3 shards scored" in said
    assert "--unfinished" in said
    assert not (tmp_path / "subset.npy").exists()
    if command == "select":
        code, _, err = run_cli(command, scored, *options, "--unfinished")
        assert code == 0, err
        assert "2 of 3 shards are scored" in err
        assert len(uids.read_subset(tmp_path / "subset.npy")) == (40 + 61) // 2


@pytest.mark.parametrize(
    "place",
    ["run/run.json.npy", "run/scores/00000000.parquet", "run/index/x.csv", "run/recipes/x.txt", "pool/metadata/a.npy"],
)
def test_select__writes_nothing_over_a_run_or_a_pool(scored, tmp_path, place):
    (tmp_path / "a.yaml").write_text(RECIPE)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said = refused("select", scored, "--recipe", tmp_path / "a.yaml", "--out", tmp_path / place)
    assert "expected a place outside runs and pools" in said
    (tmp_path / "link").symlink_to(tmp_path / place.split("/")[0])
    inner = place.partition("/")[2]
    assert "outside" in refused("select", scored, "--recipe", tmp_path / "a.yaml", "--out", tmp_path / "link" / inner)
    assert "outside" in refused("export", scored, "--recipe", tmp_path / "a.yaml", "--shards", scored / "tars")
    assert before == {path: path.read_bytes() for path in before}
    result = CliRunner().invoke(
        cli.app, ["select", str(scored), "--recipe", f"{tmp_path}/a.yaml", "--out", f"{scored}/exports/a.npy"]
    )
    assert result.exit_code == 0, result.output


def test_compare__says_what_recipes_share_and_how_they_differ(scored, tmp_path):
    (tmp_path / "a.yaml").write_text("steps: [{metric: clip_score, keep_top: 0.5}]")
    (tmp_path / "b.yaml").write_text("steps: [{metric: clip_score, keep_top: 0.25}]")
    runner, pairs = CliRunner(), Run.open(scored).pairs
    shown = runner.invoke(cli.app, ["compare", str(scored), str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")])
    assert shown.exit_code == 0, shown.output
    assert "changed: top 50 % of the pool by clip_score -> top 25 % of the pool by clip_score" in shown.output
    assert f"{pairs // 4:,}" in shown.output


def test_search__of_the_map_takes_no_cluster(scored):
    code, _, err = run_cli("search", scored, "--text", "birds", "--among", "map", "--cluster", "auto")
    assert (code, "it goes with --among pool" in err) == (2, True), err


def test_search__prints_what_is_most_like_a_pair_and_writes_it(scored, tmp_path):
    table = ScoreTable.open(Run.open(scored))
    uid = uids.to_hex(table.uids_at(np.array([70])))[0].as_py()
    code, out, err = run_cli("search", scored, "--uid", uid, "--limit", "4", "--side", "text")
    assert code == 0, err
    found = neighbours(table, 70, side="text", limit=4)
    assert [line.split()[0] for line in out.splitlines()] == uids.to_hex(table.uids_at(found.rows)).to_pylist()
    assert [float(line.split()[1]) for line in out.splitlines()] == pytest.approx(found.similarity.tolist(), abs=1e-6)
    path = tmp_path / "found.npy"
    result = CliRunner().invoke(cli.app, ["search", str(scored), "--uid", uid, "--limit", "4", "--out", str(path)])
    assert result.exit_code == 0, result.output
    assert len(uids.read_subset(path)) == 4


def test_encode__writes_what_search_takes(tmp_path):
    run = Path(__file__).parents[1] / "data" / "demo" / "run"
    result = CliRunner().invoke(
        cli.app, ["encode", str(run), "--text", "two red birds", "--out", str(tmp_path / "q.npy")]
    )
    assert result.exit_code == 0, result.output
    printed = []
    for query in (["--text", "two red birds"], ["--vector", str(tmp_path / "q.npy")]):
        result = CliRunner().invoke(cli.app, ["search", str(run), *query, "--limit", "3", "--among", "map"])
        assert result.exit_code == 0, result.output
        printed.append([line for line in result.output.splitlines() if len(line.split()[0]) == 32])
    assert printed[0] == printed[1]
    assert len(printed[0]) == 3


def test_search__by_the_file_of_a_picture_finds_that_picture(tmp_path):
    """The demo's images, encoded again from their bytes, are most like themselves."""
    run = Path(__file__).parents[1] / "data" / "demo" / "run"
    table = ScoreTable.open(Run.open(run))
    uid = uids.to_hex(table.uids_at(np.array([70])))[0].as_py()
    (tmp_path / "a.png").write_bytes(open_images(table.metadata.pool, tmp_path / "index").read(uid))
    found = tmp_path / "found.parquet"
    asked = ["--image", str(tmp_path / "a.png"), "--limit", "3", "--out", str(found)]
    result = CliRunner().invoke(cli.app, ["search", str(run), *asked])
    assert result.exit_code == 0, result.output
    nearest = read_nearest(found, table)
    assert nearest.rows[0] == 70
    assert nearest.similarity[0] > 0.999
    assert read_query(found) == SearchQuery(query="a.png", by="image", side="image", among="pool", pairs=len(table))


def test_search__says_that_a_file_is_no_picture(tmp_path):
    run = Path(__file__).parents[1] / "data" / "demo" / "run"
    (tmp_path / "a.png").write_bytes(b"no picture")
    for name, found in (("a.png", "not an image"), ("none.png", "No such file")):
        result = CliRunner().invoke(cli.app, ["search", str(run), "--image", str(tmp_path / name)])
        assert isinstance(result.exception, PoolFormatError)
        assert found in str(result.exception)


def test_verify__is_one_line_where_all_is_well_and_names_what_is_off(scored):
    code, out, _ = run_cli("verify", scored, "--recompute", 5)
    assert (code, "all as written: " in out) == (0, True), out
    file = next((scored / "scores").iterdir())
    file.write_bytes(file.read_bytes()[:-9])
    code, out, _ = run_cli("verify", scored)
    assert (code, f"error: {file}: expected scores as written" in out) == (1, True), out


def test_inspect__prints_facts_and_exits_by_what_it_found(pool):
    code, out, _ = run_cli("inspect", pool)
    assert code == 0
    assert "126" in out
    assert "l14 (width 16)" in out
    (pool / "metadata" / "00000001.npz").unlink()
    code, out, _ = run_cli("inspect", pool)
    assert code == 1
    assert "error: " in out


def test_embed__makes_a_pool_that_score_takes_at_the_teachers_temperature(tmp_path):
    source, teacher = write_tars(tmp_path / "in"), write_teacher(tmp_path / "teacher", 0)
    options = ["--model", f"local-dir:{teacher}", "--arch", "l14"]
    code, out, err = run_cli("--status", tmp_path / "status", "embed", source, tmp_path / "pool", *options)
    assert code == 0, err
    assert "9 of 9 pairs in 1 shard" in out
    said = read_status(tmp_path / "status")
    assert (said.state, said.message) == ("done", out.strip())
    assert "webdataset, 2 tars" in err
    code, _, err = run_cli("score", tmp_path / "pool", tmp_path / "run")
    assert code == 0, err
    assert Run.open(tmp_path / "run").config.temperature == pytest.approx(0.07, rel=1e-3)


def test_embed__adds_a_teacher_to_a_pool_made_elsewhere(tmp_path):
    teacher, root = write_teacher(tmp_path / "teacher", 0), datacomp_pool(tmp_path / "pool", shards=False)
    tars(root / "shards", range(8))
    options = ["--model", f"local-dir:{teacher}", "--arch", "mine"]
    code, out, err = run_cli("embed", root / "shards", root, *options)
    assert code == 0, err
    assert "mine for 8 of 9 pairs in 2 shards, by uid" in out
    assert "1 no image in the source" in out
    code, _, err = run_cli("score", root, tmp_path / "run", "--arch", "mine", "--on-bad-rows", "skip")
    assert code == 0, err
    assert np.isnan(ScoreTable.open(Run.open(tmp_path / "run")).column("clip_score")).sum() == 1
    code, _, err = run_cli("embed", root / "shards", root, "--arch", "mine")
    assert (code, "expected --model, found none" in err) == (1, True)
    code, _, err = run_cli("embed", root / "shards", root, *options, "--shard-size", "5")
    assert (code, "expected no --shard-size, found it, and a pool that is there" in err) == (1, True)


def test_embed__a_source_without_a_usable_pair_fails_each_time(tmp_path):
    teacher, source = write_teacher(tmp_path / "teacher", 0), tmp_path / "t.csv"
    source.write_text("path,caption\nnowhere.jpg,a boat\na.jpg,a, b\n")
    options = ["--model", f"local-dir:{teacher}", "--arch", "mine"]
    for _ in range(2):
        code, out, err = run_cli("embed", source, tmp_path / "pool", *options)
        assert (code, out) == (1, "")
        assert "expected a pair that can be used, found 1 no such file, 1 more fields than the first line has" in err
    root = datacomp_pool(tmp_path / "other", shards=False)
    for name in tars(root / "shards").glob("*.tar"):
        data = name.read_bytes()
        name.write_bytes(data.replace(b"\xff\xd8\xff", b"no!"))
    for _ in range(2):
        code, out, err = run_cli("embed", root / "shards", root, *options)
        assert (code, out) == (1, "")
        assert "expected a pair that can be used, found not an image; see set_aside_mine.parquet" in err


def test_embed__says_how_many_uids_of_the_source_cannot_be_a_pools(tmp_path):
    teacher = write_teacher(tmp_path / "teacher", 0)
    source = write_tars(tmp_path / "in", (5,), uid="imgur_x1")
    code, out, err = run_cli("embed", source, tmp_path / "pool", "--model", f"local-dir:{teacher}", "--arch", "mine")
    assert code == 0, err
    assert "uids that are neither 32 hex digits nor a UUID with dashes: 5; these pairs got a derived uid" in out


def test_embed__check_looks_at_the_pool_too_and_writes_nothing(tmp_path):
    source, teacher = write_tars(tmp_path / "in"), write_teacher(tmp_path / "teacher", 0)
    options = ["embed", source, tmp_path / "pool", "--model", f"local-dir:{teacher}", "--arch", "l14"]
    assert run_cli(*options, "--check")[0] == 0
    assert not (tmp_path / "pool").exists()
    code, _, err = run_cli(*options[:3], "--arch", "a/b", "--check")
    assert (code, "--arch: expected letters" in err) == (1, True)
    assert run_cli(*options, "--shard-size", "4")[0] == 0
    code, _, err = run_cli(*options, "--shard-size", "5", "--check")
    assert (code, "expected --shard-size 4, as begun, found --shard-size 5" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "nowhere", "p", "--model", "RN50", "--arch", "a"], "nowhere: expected a file or a folder of images"),
        (["score", "nowhere", "run"], "nowhere/metadata: expected *.parquet, found no such folder"),
        (["project", "nowhere"], "nowhere: expected a run's folder, found no run.json in it"),
        (["select", "nowhere", "--recipe", "r.yaml", "--out", "s.npy"], "nowhere: expected a run's folder"),
        (["compare", "nowhere", "a.yaml", "b.npy"], "nowhere: expected a run's folder"),
        (["inspect", "nowhere"], "nowhere/metadata: expected *.parquet, found no such folder"),
    ],
)
def test_errors__bad_input_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capfd, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["clipsel", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.run()
    shown = capfd.readouterr()
    assert (stopped.value.code, shown.out) == (1, "")
    assert shown.err.startswith(message)
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["polish"],
        ["score", "pool"],
        ["score", "pool", "run", "--divisions", "many"],
        ["score", "pool", "run", "--target", "no-equals-sign"],
        ["score", "pool", "run", "--target", "a=x.npy", "--target", "a=y.npy"],
        ["embed-images", "pictures", "out.npy"],
        ["embed-images", "pictures", "out.npy", "--like", "pool", "--pretrained", "openai"],
        ["project", "run", "--sample", "0"],
        ["embed", "source", "pool", "--model", "RN50"],
        ["embed", "source", "pool", "--arch", "a", "--pretrained", "openai"],
        ["select", "run"],
        ["compare", "run", "a.yaml"],
        ["compare", "run", "a.yaml", "a.yaml"],
        ["encode", "run", "--text", "x"],
        ["search", "run"],
        ["search", "run", "--text", "x", "--uid", "0"],
        ["search", "run", "--text", "x", "--image", "y.png"],
        ["encode", "run", "--out", "x.npy", "--text", "x", "--image", "y.png"],
        ["encode", "run", "--out", "x.npy"],
        ["search", "run", "--text", "x", "--side", "both"],
    ],
)
def test_errors__wrong_usage_is_exit_code_2(arguments):
    assert CliRunner().invoke(cli.app, arguments).exit_code == 2


def test_embed__a_pool_that_is_a_file(tmp_path):
    (tmp_path / "pool").write_text("not a folder")
    code, _, err = run_cli("embed", write_tars(tmp_path / "in"), tmp_path / "pool", "--model", "RN50", "--arch", "a")
    assert (code, "expected a folder for the pool, found a file" in err) == (1, True)


_A_QUERY = (
    "import duckdb; duckdb.sql('SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b').fetchall()"
)
_AN_ERROR = """
try:
    time.sleep(60)
except KeyboardInterrupt:
    raise PoolFormatError('a.parquet', expected='a whole file', found='ArrowCancelled') from None
"""


_A_DEAF_LIBRARY = """
class Deaf:
    def __del__(self):
        time.sleep(1)
Deaf()
time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", [_A_QUERY, _AN_ERROR, _A_DEAF_LIBRARY])
def test_main__interrupted_is_one_line_and_exit_code_130_whatever_a_library_makes_of_it(number, work):
    script = f"""
import os, signal, threading, time
# Whoever started the tests in the background of a script may have had them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from clipsel_core import cli
from clipsel_core.errors import PoolFormatError
cli._GRACE_S = 3
threading.Timer(0.5, os.kill, (os.getpid(), {int(number)})).start()
cli.app = lambda: exec({work!r}, globals())
cli.run()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    said = done.stderr.splitlines()[-1:] if work == _A_DEAF_LIBRARY else done.stderr.splitlines()
    assert (done.returncode, done.stdout, said) == (130, "", ["interrupted; start it again to go on"])


def test_debug__shows_the_traceback(tmp_path):
    code, _, err = run_cli("--debug", "inspect", tmp_path)
    assert code == 1
    assert "Traceback" in err


def test_score__check_says_what_is_wrong_and_writes_nothing(pool, tmp_path):
    code, out, err = run_cli("score", pool, tmp_path / "run", "--check")
    assert (code, err) == (0, "")
    assert "126 pairs" in out
    code, _, err = run_cli("score", pool, tmp_path / "run", "--check", "--target", f"a={tmp_path / 'absent.npy'}")
    assert code == 1
    assert "no such file" in err
    assert not (tmp_path / "run").exists()


def test_score__plan_says_what_it_takes_and_writes_nothing(pool, tmp_path):
    code, out, err = run_cli("score", pool, tmp_path / "run", "--device", "cpu", "--plan")
    assert (code, err) == (0, "")
    for word in ("126 pairs", "bound by", "H100", "Counted, not measured"):
        assert word in out
    code, out, _ = run_cli("score", pool, tmp_path / "run", "--device", "cpu", "--plan", "--json")
    found = json.loads(out)
    assert (code, found["work"]["pairs"], found["workers"]) == (0, 126, 1)
    assert found["expected"]["bound_by"] in ("reading", "arithmetic")
    assert not (tmp_path / "run").exists()
    assert run_cli("score", pool, tmp_path / "run", "--json")[0] == 2
    assert (
        "--cpus-per-worker: expected" in run_cli("score", pool, tmp_path / "run", "--plan", "--cpus-per-worker", "2")[2]
    )


def test_add_target__check_says_what_is_wrong_and_writes_nothing(pool, tmp_path):
    run = tmp_path / "run"
    assert run_cli("score", pool, run, "--batch-size", "16", "--divisions", "2")[0] == 0
    np.save(tmp_path / "task.npy", unit_rows(5, 16, 1))
    np.save(tmp_path / "wide.npy", unit_rows(5, 17, 1))
    before = sorted(run.rglob("*"))
    code, out, err = run_cli("add-target", run, "--target", f"task={tmp_path / 'task.npy'}", "--check")
    said = f"target task: 5 embeddings of width 16\n{run}: 126 pairs can be compared with task\n"
    assert (code, err, out) == (0, "", said)
    for file, said in (("absent", "no such file"), ("wide", "expected width 16")):
        code, _, err = run_cli("add-target", run, "--target", f"task={tmp_path / file}.npy", "--check")
        assert (code, said in err) == (1, True)
    assert sorted(run.rglob("*")) == before


def test_inspect__says_what_a_target_would_be_taken_for(pool, tmp_path):
    rows = unit_rows(30, 16, 1).astype("f4")
    np.save(tmp_path / "moment.npy", rows.T @ rows)
    rows[[3, 9]] *= 2
    for part in range(2):
        np.save(tmp_path / f"part_{part}.npy", rows[15 * part :])
    pattern = tmp_path / "part_{0..1}.npy"
    for given, said in (
        (pattern, "2 files, 45 embeddings of width 16, 2 not of unit length"),
        (tmp_path / "moment.npy", "a second moment of width 16: NormSim_2 only"),
        (pool, "3 files, 126 images of a pool of width 16"),
    ):
        assert run_cli("inspect", pool, "--target", given) == (0, f"{said}\n", "")
    code, out, err = run_cli("inspect", pool, "--target", tmp_path / "absent.npy")
    assert (code, out) == (1, "")
    assert "found no such file" in err


def test_embed_images__gives_what_embed_gives_of_the_same_pictures(tmp_path):
    teacher = write_teacher(tmp_path / "clip", 3)
    for number in range(12):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / f"{number:02d}.png").write_bytes(image(number, "PNG"))
        (tmp_path / "pictures" / f"{number:02d}.txt").write_text(f"picture {number}")
    named = ["--model", f"local-dir:{teacher}", "--device", "cpu"]
    assert run_cli("embed", tmp_path / "pictures", tmp_path / "pool", "--arch", "tiny", *named)[0] == 0
    with np.load(next((tmp_path / "pool" / "metadata").glob("*.npz"))) as archive:
        stored = archive["tiny_img"]
    for text in (tmp_path / "pictures").glob("*.txt"):
        text.unlink()
    (tmp_path / "pictures" / "03.png").write_bytes(b"broken")
    (tmp_path / "pictures" / "07.png").write_bytes(b"")
    out = tmp_path / "out.npy"
    like = ["embed-images", tmp_path / "pictures", out, "--like", tmp_path / "pool"]
    assert run_cli(*like, "--check")[0] == 0
    assert not out.exists()
    code, said, _ = run_cli(*like)
    assert code == 0
    assert said.splitlines()[:2] == [
        f"{out}: 10 of 12 images embedded",
        f"rejected: 2, listed in {tmp_path / 'out_rejected.parquet'}",
    ]
    np.testing.assert_array_equal(np.load(out), np.delete(stored, [3, 7], axis=0))
    listed = pq.read_table(tmp_path / "out_rejected.parquet").to_pylist()
    assert [row["key"] for row in listed] == ["03.png", "07.png"]
    (tmp_path / "pool" / "teachers.json").unlink()
    again = ["embed-images", tmp_path / "pictures", tmp_path / "again.npy", "--like", tmp_path / "pool"]
    code, _, err = run_cli(*again)
    assert (code, "say which with --model and --pretrained" in err) == (1, True)
    assert run_cli(*again, *named)[0] == 0
    assert (tmp_path / "again.npy").read_bytes() == out.read_bytes()
    for picture in (tmp_path / "pictures").glob("*.png"):
        picture.write_bytes(b"broken")
    code, _, err = run_cli(*again, *named)
    assert (code, "expected a picture that can be used, found 12 " in err) == (1, True)
    assert (tmp_path / "again.npy").read_bytes() == out.read_bytes()


@pytest.fixture
def demo(tmp_path) -> Path:
    """A copy of the demo: its run lies in demo/run."""
    assert run_cli("demo", "demo", cwd=tmp_path)[0] == 0
    return tmp_path


def test_add_column__from_a_file_and_another_run_to_a_subset(demo, monkeypatch):
    """Values by uid of some pairs, what captions say, and another run's score, picked by one recipe."""
    table = ScoreTable.open(Run.open(demo / "demo" / "run"))
    names = uids.to_hex(table.uids()).to_pylist()
    dfn = np.random.default_rng(3).random(3000).astype(np.float32)
    pq.write_table(pa.table({"uid": ["ff" * 16, *names[:3000]], "dfn": [0, *dfn]}), demo / "dfn.parquet")
    assert run_cli("score", "demo/pool", "other", "--temperature", 0.3, "--divisions", 1, cwd=demo)[0] == 0
    added = ["dfn=dfn.parquet", "other_s_cliploss=other#s_cliploss", "caption_words"]
    code, out, err = run_cli("add-column", "demo/run", *added, "--direction", "higher", cwd=demo)
    assert code == 0, err
    assert out.splitlines() == [
        "demo/run: dfn for 3,000 of 3,800 pairs; 1 uid that the run lacks",
        "demo/run: other_s_cliploss for 3,800 of 3,800 pairs",
        "demo/run: caption_words for 3,800 of 3,800 pairs",
    ]
    monkeypatch.setenv("COLUMNS", "160")
    code, out, _ = run_cli("columns", "demo/run", cwd=demo)
    assert code == 0
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    said = {name: below for (name, _), (_, below) in pairwise(cells) if name}
    assert said["clip_score"] == "computed, number, -1 to 1, higher is better"
    assert said["dfn"] == "imported, number, higher is better"
    assert said["original_width"] == "pool, number, 0 or more px"
    assert said["caption_words"] == "computed, number, 0 or more words"
    assert said["caption_copies"] == "not there yet: add-column computes it"
    (demo / "a.yaml").write_text(
        "steps: [{column: dfn, at_least: 0.5}, {column: other_s_cliploss, keep_top: 0.2}, "
        "{column: caption_words, between: [3, 12]}]"
    )
    code, _, err = run_cli("select", "demo/run", "--recipe", "a.yaml", "--out", "demo/run/exports/a.npy", cwd=demo)
    assert (code, err) == (0, "")
    theirs = ScoreTable.open(Run.open(demo / "other")).column("s_cliploss")
    words = np.array([len(text.split()) for text in table.metadata.of(np.arange(3800))["caption"]])
    good = np.flatnonzero(np.pad(dfn >= 0.5, (0, 800)))
    best = good[np.argsort(-theirs[good], kind="stable")[: 3800 // 5]]
    kept = best[(words[best] >= 3) & (words[best] <= 12)]
    assert np.array_equal(uids.read_subset(demo / "demo" / "run" / "exports" / "a.npy"), uids.sort(table.uids()[kept]))
    manifest = json.loads((demo / "demo" / "run" / "exports" / "a.npy.manifest.json").read_text())
    assert [one["column"]["name"] for one in manifest["added_columns"]] == [
        "caption_words",
        "dfn",
        "other_s_cliploss",
    ]
    code, out, _ = run_cli("verify", "demo/run", "--recompute", 5, cwd=demo)
    assert (code, "all as written: 3,800 pairs, " in out, "1 export" in out) == (0, True, True), out


def test_add_column__interrupted_nobody_sees_it_and_started_again_it_has_the_same_bytes(demo):
    before = sorted((demo / "demo" / "run").rglob("*"))
    command = ["add-column", "demo/run", "fit=demo/run#clip_score"]
    assert run_cli(*command, cwd=demo)[0] == 0
    folder = demo / "demo" / "run" / "added" / "fit"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run_cli("remove-column", "demo/run", "fit", cwd=demo)[0] == 0
    # Killed where the description, the last of the files, is written.
    ending = "__import__('os').kill(__import__('os').getpid(), 9)"
    script = f"""
from clipsel_core.places import Place
Place.write_json = lambda *_: {ending}
from clipsel_core import cli
cli.run()
"""
    killed = subprocess.run([sys.executable, "-c", script, *command], cwd=demo, env=child_environment())
    assert killed.returncode == -signal.SIGKILL
    assert {path.name for path in folder.iterdir()} == set(whole) - {"column.json"}
    code, _, err = run_cli("verify", "demo/run", cwd=demo)
    assert code == 0, err
    assert run_cli(*command, cwd=demo)[0] == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert run_cli("remove-column", "demo/run", "fit", cwd=demo)[:2] == (0, "demo/run: fit removed\n")
    assert {*before, folder.parent} == {path for path in (demo / "demo" / "run").rglob("*") if path.name != ".lock"}


def test_add_column__check_says_what_is_wrong_and_nothing_is_added_before_all_can_be(scored, tmp_path):
    (tmp_path / "a.csv").write_text("uid,x\n1,2\n")
    code, out, err = run_cli("add-column", scored, f"x={tmp_path}/a.csv", "caption_words", "--check")
    assert (code, err, out) == (0, "", f"{scored}: x can be added\n{scored}: caption_words can be added\n")
    fit = f"fit={scored}#clip_score"
    for wrong, said in (
        (f"x={tmp_path}/absent.csv", "no such file"),
        (f"clip_score={tmp_path}/a.csv", "expected a new column's name, found 'clip_score', a score of the run"),
        ("caption_length", "found 'caption_length'"),
    ):
        assert said in refused("add-column", scored, fit, wrong)
    assert not (scored / "added").exists()


def test_add_column__neighbour_ranks_of_a_target_are_a_column_that_recipes_take(scored, tmp_path):
    np.save(tmp_path / "moment.npy", np.eye(16))
    given = ["add-column", scored, "neighbour_rank_task", "--neighbours", "3"]
    code, out, err = run_cli(*given, "--target", tmp_path / "task.npy")
    assert code == 0, err
    expected = neighbour_ranks(Run.open(scored), torch.from_numpy(np.load(tmp_path / "task.npy")), most=3)
    table = ScoreTable.open(Run.open(scored))
    np.testing.assert_array_equal(table.column("neighbour_rank_task"), expected)
    assert f"{np.isfinite(expected).sum()} of" in out
    assert table.columns["neighbour_rank_task"].direction == "lower"
    (tmp_path / "near.yaml").write_text("steps: [{column: neighbour_rank_task, at_most: 2}]")
    run_cli("select", scored, "--recipe", tmp_path / "near.yaml", "--out", tmp_path / "near.npy")
    assert len(uids.read_subset(tmp_path / "near.npy")) == (expected <= 2).sum()
    given[2] = "neighbour_rank_moment"
    assert "found a second moment" in refused(*given, "--target", tmp_path / "moment.npy")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("caption_words", "caption_words"), "two columns are named 'caption_words'"),
        (("caption_words", "--direction", "higher"), "it goes with NAME=FILE"),
        (("x=a.csv", "y=a.csv", "--title", "X"), "it goes with one column"),
        (("x=a.csv", "--keep", "0.2"), "it goes with normsim_2d"),
        (("x=a.csv", "--cluster", "auto"), "it goes with normsim_2d"),
        (("normsim_2d", "--keep", "0.2"), "normsim_2d needs both"),
        (("normsim_2d", "--start", "a.yaml", "--keep", "some"), "'some' is no number"),
        (("neighbour_rank_task",), "one neighbour_rank_NAME needs one"),
        (("neighbour_rank_a", "neighbour_rank_b", "--target", "a.npy"), "one neighbour_rank_NAME needs one"),
        (("caption_words", "--neighbours", "5"), "it goes with neighbour_rank_NAME"),
        (("x=a.csv", "--direction", "up"), "'up' is not one of 'higher', 'lower'"),
    ],
)
def test_add_column__options_that_do_not_go_together_are_wrong_usage(scored, options, said):
    result = CliRunner().invoke(cli.app, ["add-column", str(scored), *options])
    assert (result.exit_code, said in result.output) == (2, True), result.output


def test_score__a_refused_one_leaves_nothing_behind(pool, tmp_path):
    np.save(tmp_path / "wide.npy", unit_rows(5, 17, 1))
    run = tmp_path / "run"
    assert "expected width 16" in refused("score", pool, run, "--target", f"wide={tmp_path / 'wide.npy'}")
    assert refused("score", pool, run, "--batch-size", "0") == (
        "--batch-size: expected a number greater than or equal to 1, found 0"
    )
    assert "found 'x'" in refused("score", pool, run, "--norm", "x")
    assert not run.exists()
    run.mkdir()
    assert "found 0" in refused("score", pool, run, "--divisions", "0")
    assert run.exists()


def test_score__not_into_a_pool(pool):
    assert refused("score", pool, pool).endswith("expected a folder for the run, found a pool; choose a new folder")
    assert not (pool / "run.json").exists()


def test_export__looks_at_its_folder_before_it_looks_for_images(scored, tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text("steps: [{metric: clip_score, keep_top: 0.5}]")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    monkeypatch.setattr(shards, "open_images", lambda *_: pytest.fail("images are sought"))
    command = ("export", scored, "--recipe", tmp_path / "recipe.yaml", "--shards", tmp_path / "out")
    assert "expected an empty folder, or one of export's, found mine.txt" in refused(*command)


@pytest.mark.parametrize(
    ("options", "expected"), [((), "a new or empty folder"), (("--build",), "an empty folder, or a demo")]
)
def test_demo__not_into_a_folder_of_something_else(tmp_path, options, expected):
    (tmp_path / "mine.txt").write_text("mine")
    assert f"expected {expected}, found mine.txt" in refused("demo", tmp_path, *options)
    assert "expected a folder for the demo" in refused("demo", tmp_path / "mine.txt", *options)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_demo__a_copy_is_a_finished_run_with_its_pool(tmp_path):
    code, out, err = run_cli("demo", "demo", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "clipsel app demo/run" in out
    copied = Run.open(tmp_path / "demo" / "run")
    assert copied.finished
    assert Path(copied.pool_address) == tmp_path / "demo" / "pool"
    assert "expected a new or empty folder, found pool" in refused("demo", tmp_path / "demo")


def test_search__a_file_that_cannot_be_written_is_an_error_in_one_line(scored, tmp_path):
    uid = uids.to_hex(ScoreTable.open(Run.open(scored)).uids_at(np.array([7])))[0].as_py()
    (tmp_path / "file").write_text("no folder")
    code, out, err = run_cli("search", scored, "--uid", uid, "--out", tmp_path / "file" / "found.npy")
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith(f"{tmp_path / 'file'}: expected to read and write it, found ")


def test_search_and_encode__look_at_the_name_before_they_begin(scored, tmp_path):
    found = "expected a name ending in .parquet, .csv, .npy, found .zip"
    assert found in refused("search", scored, "--uid", "7", "--out", tmp_path / "a.zip")
    found = "expected a name ending in .npy, found .txt"
    assert found in refused("encode", scored, "--text", "a", "--out", tmp_path / "a.txt")


def test_search__a_uid_that_says_nothing_is_none(scored):
    assert "the pair: expected a uid of 1 to 32 hex digits, found ''" in refused("search", scored, "--uid", "")


def test_add_column__bounds_have_the_least_first(scored, tmp_path):
    for bounds in (("1", "0"), ("nan", "1")):
        result = CliRunner().invoke(
            cli.app, ["add-column", str(scored), f"x={tmp_path / 'x.csv'}", "--between", *bounds]
        )
        assert result.exit_code == 2
        assert "the least comes first" in result.output
