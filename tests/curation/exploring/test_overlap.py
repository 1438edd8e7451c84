"""What selections share is what DuckDB counts; how recipes differ is what was changed in them."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from clipsel_core import uids
from clipsel_core.curation.exploring.agreement import listed_pairs, overlap
from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import differences, parse_recipe
from clipsel_core.curation.selecting.selection import select
from tests.curation.conftest import make_uids

A = "steps: [{metric: s_cliploss, keep_top: 0.3}]"
B = "steps: [{metric: clip_score, keep_top: 0.2}]"
NONE = "steps: [{metric: clip_score, keep_top: 0}]"


def test_overlap__counts_what_duckdb_counts(big_run, tmp_path):
    table = ScoreTable.open(big_run)
    draw = np.random.default_rng(0)
    some = uids.unique(np.concatenate([table.uids_at(draw.choice(len(table), 3000, False)), make_uids(*range(1, 51))]))
    uids.write_subset(tmp_path / "list.npy", some)
    listed, unknown = listed_pairs(table, tmp_path / "list.npy")
    assert unknown == 50
    recipes = {name: select(big_run, parse_recipe(text)) for name, text in (("a", A), ("b", B), ("none", NONE))}
    found = overlap({**{name: selection.bits() for name, selection in recipes.items()}, "list": listed})
    masks = {name: selection.mask() for name, selection in recipes.items()}
    rows = pa.table({**masks, "list": bitmaps.unpack(listed, len(table))})
    for i, first in enumerate(found.names):
        for j, second in enumerate(found.names):
            counted = f'count(*) FILTER ("{first}" AND "{second}"), count(*) FILTER ("{first}" OR "{second}")'
            [(both, either)] = duckdb.connect().sql(f"SELECT {counted} FROM rows").fetchall()
            assert found.both[i, j] == both
            assert found.jaccard[i, j] == (both / either if either else 1)
    assert found.sizes[0] == len(select(big_run, parse_recipe(A)))
    assert found.of_row[0, 1] == found.both[0, 1] / found.sizes[0]
    assert np.isnan(found.of_row[2]).all()
    assert len(rows) == len(table)


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9])
def test_overlap__any_number_of_pairs(rows):
    found = overlap({"all": bitmaps.pack(np.ones(rows, bool)), "none": bitmaps.pack(np.zeros(rows, bool))})
    assert found.both.tolist() == [[rows, 0], [0, 0]]


def said(first: str, second: str) -> list[str]:
    return [change.text for change in differences(parse_recipe(first), parse_recipe(second))]


def test_differences__of_a_recipe_with_itself():
    assert said(A, A) == ["same: top 30 % of the pool by s_cliploss"]


def test_differences__names_each_change():
    before = """steps:
    - {metric: s_cliploss, keep_top: 0.3}
    - {metric: clip_score, at_least: 0.21}
    - {intersect: hype.npy}
    - {drop: [1, 2, 3]}"""
    after = """steps:
    - {metric: s_cliploss, keep_top: 0.25}
    - {metric: normsim_inf_x, keep_top: 0.2}
    - {metric: clip_score, at_least: 0.21, enabled: false}
    - {drop: [3, 4]}"""
    assert said(before, after) == [
        "changed: top 30 % of the pool by s_cliploss -> top 25 % of the pool by s_cliploss",
        "added: top 20 % of the pool by normsim_inf_x",
        "changed: clip_score at least 0.21 -> clip_score at least 0.21 (off)",
        "removed: only those in hype.npy",
        "changed: drop 3 by hand -> drop 2 by hand (1 more, 2 fewer)",
    ]


def test_differences__another_rule_for_a_metric_is_a_change():
    after = "steps: [{metric: s_cliploss, at_least: -0.2}]"
    assert said(A, after) == ["changed: top 30 % of the pool by s_cliploss -> s_cliploss at least -0.2"]


def test_differences__steps_that_change_places_moved():
    before = "steps: [{metric: a, keep_top: 0.3}, {metric: b, keep_top: 0.2}, {metric: c, keep_top: 0.1}]"
    after = "steps: [{metric: c, keep_top: 0.1}, {metric: a, keep_top: 0.3}, {metric: b, keep_top: 0.25}]"
    assert said(before, after) == [
        "moved: top 10 % of the pool by c",
        "same: top 30 % of the pool by a",
        "changed: top 20 % of the pool by b -> top 25 % of the pool by b",
    ]


def test_differences__loses_no_step():
    draw = np.random.default_rng(1)
    for _ in range(200):
        texts = []
        for _ in range(2):
            names = draw.choice(list("abc"), draw.integers(1, 6))
            steps = [f"{{metric: {name}, keep_top: 0.{draw.integers(1, 3)}}}" for name in names]
            texts.append(f"steps: [{', '.join(steps)}]")
        first, second = map(parse_recipe, texts)
        changes = differences(first, second)
        assert sorted(c.before.text for c in changes if c.before) == sorted(s.text for s in first.steps)
        assert [c.after.text for c in changes if c.after] == [s.text for s in second.steps]
