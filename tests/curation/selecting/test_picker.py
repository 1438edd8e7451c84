"""What the pages count is what DuckDB counts and what select() exports: 50 random recipes, asked in any order."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from clipsel_core import uids
from clipsel_core.curation.index.index import open_indexed, wait_until_kept
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import (
    AtLeast,
    AtMost,
    Drop,
    Intersect,
    Keep,
    KeepTop,
    Recipe,
    Subtract,
    Union,
    parse_recipe,
)
from clipsel_core.curation.selecting import selection
from clipsel_core.curation.selecting.selection import Picker, select
from clipsel_core.errors import RecipeError
from clipsel_core.runs.store import Run
from tests.waiting import PATIENCE_S

METRICS = ("clip_score", "s_cliploss", "normsim_inf_task", "normsim_2_task")
LISTS = ("a.npy", "b.npy", "c.npy")


@pytest.fixture(scope="module")
def folder(big_run, tmp_path_factory) -> Path:
    """Three lists of 5,000 uids each, some of which were set aside and are never picked."""
    root, draw, table = tmp_path_factory.mktemp("lists"), np.random.default_rng(1), ScoreTable.open(big_run)
    names = table.uids_at(np.arange(len(table)))
    for name in LISTS:
        uids.write_subset(root / name, uids.sort(draw.choice(names, 5000, replace=False)))
    return root


@pytest.fixture(scope="module")
def picker(big_run) -> Picker:
    """One for all recipes, so that what it remembers of one could spoil another."""
    return Picker(ScoreTable.open(big_run))


@pytest.fixture(scope="module")
def database(big_run, folder) -> duckdb.DuckDBPyConnection:
    found = duckdb.connect()
    files = [str(file) for file in map(Path, big_run.score_files)]
    found.execute("CREATE TABLE pairs AS SELECT * FROM read_parquet(?)", [files])
    found.execute("CREATE TABLE usable AS SELECT * FROM pairs WHERE NOT isnan(clip_score)")
    for name in LISTS:
        listed = uids.read_subset(folder / name)
        frame = {"uid_hi": listed["f0"].copy(), "uid_lo": listed["f1"].copy()}
        found.register("frame", pa.table(frame))
        found.execute(f"CREATE TABLE {name[0]} AS SELECT * FROM frame")
    return found


def random_step(draw: np.random.Generator, table: ScoreTable):
    metric, kind = METRICS[draw.integers(len(METRICS))], int(draw.integers(9))
    enabled = bool(draw.random() < 0.85)
    if kind < 4:
        of = "pool" if kind % 2 else "survivors"
        return KeepTop(column=metric, keep_top=int(draw.integers(1, 1001)) / 1000, of=of, enabled=enabled)
    if kind < 6:
        value = round(float(np.nanquantile(table.column(metric), draw.random())), 3)
        made = AtLeast if kind == 4 else AtMost
        return made(**{"metric": metric, "at_least" if kind == 4 else "at_most": value, "enabled": enabled})
    made = (Intersect, Union, Subtract)[kind - 6]
    return made(**{made.__name__.lower(): LISTS[draw.integers(3)], "enabled": enabled})


def by_sql(database: duckdb.DuckDBPyConnection, recipe: Recipe) -> list[int]:
    """Pairs left after each step."""
    left, alive = [], "SELECT * FROM usable"
    total = database.execute("SELECT count(*) FROM pairs").fetchone()[0]
    for place, step in enumerate(step for step in recipe.steps if step.enabled):
        if isinstance(step, KeepTop):
            pairs = total if step.of == "pool" else database.execute(f"SELECT count(*) FROM ({alive})").fetchone()[0]
            most = int(Fraction(step.keep_top) * pairs)
            scored = f"SELECT * FROM ({alive}) WHERE NOT isnan({step.metric})"
            query = f"{scored} ORDER BY {step.metric} DESC, uid_hi, uid_lo LIMIT {most}"
        elif isinstance(step, AtLeast | AtMost):
            sign, value = (">=", step.at_least) if isinstance(step, AtLeast) else ("<=", step.at_most)
            query = f"SELECT * FROM ({alive}) WHERE CAST({step.metric} AS DOUBLE) {sign} {value!r}::DOUBLE"
            query += f" AND NOT isnan({step.metric})"
        else:
            listed = getattr(step, step.kind)[0]
            inside = f"(uid_hi, uid_lo) IN (SELECT (uid_hi, uid_lo) FROM {listed})"
            query = {
                "intersect": f"SELECT * FROM ({alive}) WHERE {inside}",
                "subtract": f"SELECT * FROM ({alive}) WHERE NOT {inside}",
                "union": f"SELECT * FROM ({alive}) UNION SELECT * FROM usable WHERE {inside}",
            }[step.kind]
        database.execute(f"CREATE OR REPLACE TEMP TABLE step{place} AS {query}")
        alive = f"SELECT * FROM step{place}"
        left.append(database.execute(f"SELECT count(*) FROM step{place}").fetchone()[0])
    return left


@pytest.mark.parametrize("seed", range(50))
def test_select__counts_what_sql_counts_and_picks_what_is_exported(big_run, picker, database, folder, seed):
    draw = np.random.default_rng(seed)
    steps = tuple(random_step(draw, picker.table) for _ in range(draw.integers(1, 6)))
    recipe = Recipe(steps=steps).in_folder(folder)
    found, exported = picker.select(recipe), select(big_run, recipe, picker.table)
    assert [report.kept_after for report in found.report] == by_sql(database, recipe)
    assert found.report == exported.report
    assert len(found) == len(exported)
    assert np.array_equal(found.rows, exported.rows)
    assert np.array_equal(found.uids(), exported.uids())


def test_select__takes_pairs_by_hand(big_run, picker):
    aside = np.flatnonzero(~picker.table.selectable())[:1]
    rows = np.concatenate([aside, np.flatnonzero(picker.table.selectable())[:40]])
    names = uids.to_hex(picker.table.uids_at(rows)).to_pylist()
    share = KeepTop(column="s_cliploss", keep_top=0.1)
    for steps in (
        (share, Keep(keep=names)),
        (Keep(keep=names), share),
        (share, Drop(drop=names), Keep(keep=names[:3])),
    ):
        found, exported = picker.select(Recipe(steps=steps)), select(big_run, Recipe(steps=steps), picker.table)
        assert found.report == exported.report
        assert np.array_equal(found.mask(), exported.mask())
        assert not found.mask()[aside]


def test_select__reads_a_list_again_when_it_changes(big_run, picker, tmp_path):
    names = picker.table.uids_at(np.flatnonzero(picker.table.selectable())[:100])
    recipe = Recipe(steps=(Intersect(intersect="mine.npy"),)).in_folder(tmp_path)
    for many in (100, 30):
        uids.write_subset(tmp_path / "mine.npy", uids.sort(names[:many]))
        assert len(picker.select(recipe)) == many


def test_select__refuses_what_the_run_lacks(picker):
    with pytest.raises(RecipeError, match="no_such"):
        picker.select(Recipe(steps=(KeepTop(column="no_such", keep_top=0.1),)))
    with pytest.raises(RecipeError, match="uids of the run"):
        picker.select(Recipe(steps=(Keep(keep=["f" * 32]),)))


def test_select__is_the_same_from_the_index_on_disk(big_run, picker):
    indexed = Picker(open_indexed(big_run, fewest=0))
    steps = (KeepTop(column="s_cliploss", keep_top=0.3), KeepTop(metric="normsim_inf_task", keep_top=0.2))
    found, again = picker.select(Recipe(steps=steps)), indexed.select(Recipe(steps=steps))
    assert found.report == again.report
    assert np.array_equal(found.uids(), again.uids())


def test_picker__keeps_what_it_counts_along_a_metric_beside_the_index(big_run, monkeypatch, tmp_path):
    monkeypatch.setattr(selection, "_MANY_PAIRS", 0)
    table = open_indexed(
        Run.open(shutil.copytree(big_run.root, tmp_path / "run", ignore=shutil.ignore_patterns("index"))), fewest=0
    )
    wait_until_kept()
    recipe = parse_recipe("steps: [{metric: s_cliploss, keep_top: 0.3}, {metric: clip_score, keep_top: 0.2}]")
    asked = Picker(table)
    asked.select(recipe)
    for counting in asked._crossed._known.values():
        counting.result(PATIENCE_S)
    assert table.index_folder is not None
    assert list(table.index_folder.glob("from-*.npy"))
    assert Picker(table).select(recipe).report == select(big_run, recipe, table).report


def test_picker__counts_the_same_with_and_without_counts_along_a_metric(big_run, monkeypatch):
    monkeypatch.setattr(selection, "_MANY_PAIRS", 0)
    table = ScoreTable.open(big_run)
    asked, draw = Picker(table), np.random.default_rng(2)
    for _ in range(20):
        first, second = (int(share) / 1000 for share in draw.integers(0, 1001, 2))
        kind = ["keep_top", "at_most"][int(draw.integers(2))]
        text = f"steps: [{{metric: s_cliploss, {kind}: {first}}}, {{metric: clip_score, keep_top: {second}}}]"
        recipe = parse_recipe(text)
        assert asked.select(recipe).report == select(big_run, recipe, table).report
        for counting in asked._crossed._known.values():
            counting.result(PATIENCE_S)
