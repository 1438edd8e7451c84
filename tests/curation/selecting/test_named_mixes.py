"""A mix that a recipe gives a name: the same as the mix written out, kept by whatever writes the recipe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import (
    Recipe,
    check_columns,
    columns_of,
    differences,
    dump_recipe,
    load_recipe,
    parse_recipe,
    save_recipe,
)
from clipsel_core.curation.recipes.recipe_link import decode_link, encode_link
from clipsel_core.curation.selecting.export import export
from clipsel_core.curation.selecting.selection import Picker, judge_pair, select
from clipsel_core.errors import RecipeError
from clipsel_core.runs.store import Run

DEMO = Path("data/demo/run")
MIX = "{s_cliploss: 1.0, normsim_inf_task: 0.5}"
COLUMNS = f"columns: {{good: {{mix: {MIX}}}, plain: {{mix: {{clip_score: -2}}, standardise: none, missing: mean}}}}\n"


@pytest.fixture(scope="module")
def table() -> ScoreTable:
    return ScoreTable.open(Run.open(DEMO))


def recipe_of(*steps: str, columns: str = COLUMNS) -> Recipe:
    return parse_recipe(columns + "steps:\n" + "\n".join(f"- {step}" for step in steps))


@pytest.mark.parametrize(
    ("named", "written_out"),
    [
        ("{column: good, keep_top: 0.2}", f"{{mix: {MIX}, keep_top: 0.2}}"),
        ("{metric: good, keep_bottom: 0.2}", f"{{mix: {MIX}, keep_bottom: 0.2}}"),
        ("{column: good, at_least: 0.5}", f"{{mix: {MIX}, at_least: 0.5}}"),
        ("{column: plain, at_most: -0.4}", "{mix: {clip_score: -2}, standardise: none, missing: mean, at_most: -0.4}"),
        (
            "{any_of: [{column: good, at_least: 1}, {column: plain, at_most: -0.5}]}",
            f"{{any_of: [{{mix: {MIX}, at_least: 1}}, {{column: clip_score, at_least: 0.25}}]}}",
        ),
        (
            "{sample: 3000, by: good, seed: 3}",
            f"{{sample: 3000, by: {MIX}, standardise: zscore, seed: 3}}",
        ),
    ],
)
def test_select__as_the_mix_written_out(table, named, written_out):
    expected = select(table.run, parse_recipe(f"steps: [{written_out}]"), table)
    for picker in (Picker(table), Picker(table, ranks=False)):
        found = picker.select(recipe_of(named))
        assert np.array_equal(found.mask(), expected.mask())
        assert found.samples == expected.samples
    assert 0 < len(expected) < len(table)


def test_select__filters_and_mixes_of_a_named_mix(table):
    """Held against numpy: z-scores over the demo's pairs, all of which have both scores."""
    weights = {"s_cliploss": 1.0, "normsim_inf_task": 0.5}
    columns = {name: table.column(name).astype(np.float64) for name in (*weights, "clip_score")}
    scored = ~np.isnan(columns["clip_score"])
    z = {name: (v - v[scored].mean()) / v[scored].std() for name, v in columns.items()}
    good = sum(weight * z[name] for name, weight in weights.items()).astype(np.float32)
    found = select(table.run, recipe_of("{column: good, between: [-0.25, 0.75]}", "{column: good, known: true}"), table)
    assert np.array_equal(found.mask(), scored & (good >= np.float32(-0.25)) & (good <= np.float32(0.75)))
    rest = good.astype(np.float64)
    total = (rest - rest[scored].mean()) / rest[scored].std() + 3 * z["clip_score"]
    found = select(table.run, recipe_of("{mix: {good: 1, clip_score: 3}, keep_top: 0.1}"), table)
    truth = np.argsort(-np.where(scored, total, -np.inf).astype(np.float32), kind="stable")[: len(table) // 10]
    assert len(set(truth) - set(found.rows.tolist())) <= 1
    assert found.report[0].text == "top 10 % of the pool by 3 clip_score + 1 good (z-scores)"
    verdict = judge_pair(Picker(table), recipe_of("{column: good, keep_top: 0.1}"), int(found.rows[0]))
    assert verdict.steps[0].score == pytest.approx(good[found.rows[0]])


def test_dump_recipe__keeps_the_names(tmp_path, table):
    recipe = recipe_of("{column: good, keep_top: 0.2}", "{any_of: [{column: plain, at_most: 0.1}]}")
    text = dump_recipe(recipe)
    assert text.startswith(
        "columns:\n  good:\n    mix:\n      s_cliploss: 1\n      normsim_inf_task: 0.5\n"
        "  plain:\n    mix:\n      clip_score: -2\n    standardise: none\n    missing: mean\n"
        "steps:\n- {column: good, keep_top: 0.2}\n"
    )
    assert parse_recipe(text, columns=table.columns) == recipe
    assert save_recipe(recipe, tmp_path / "r.yaml") == load_recipe(tmp_path / "r.yaml") == recipe
    # Steps alone bring the columns along, as the dashboard has them.
    assert dump_recipe(Recipe(steps=recipe.steps)) == text
    link = encode_link(recipe.steps, run="demo", lists=())
    folder = table.run.recipes_dir
    assert decode_link(link.text, run="demo", columns=table.columns, lists=(), folder=folder).steps == recipe.steps
    manifest = export(table.run, select(table.run, recipe, table), recipe, tmp_path / "s.npy")
    assert manifest.content["recipe"] == text
    assert json.loads(json.dumps(manifest.content))["steps"][0]["text"] == "top 20 % of the pool by good"
    assert [columns_of(step) for step in recipe.steps] == [["s_cliploss", "normsim_inf_task"], ["clip_score"]]


def test_differences__of_recipes_that_define_a_name_otherwise():
    step = "{column: good, keep_top: 0.2}"
    other = recipe_of(step, columns="columns: {good: {mix: {clip_score: 1}}}\n")
    assert recipe_of(step) != other
    assert {change.kind for change in differences(recipe_of(step), other)} == {"added", "removed"}


@pytest.mark.parametrize(
    ("columns", "where", "said"),
    [
        ("columns: []\n", 1, "expected columns that mixes get, .*, found an empty list"),
        ("columns: {}\n", 1, "expected columns that mixes get"),
        ("columns:\n  good: s_cliploss\n", 2, "expected a mix, such as .*, found 's_cliploss'"),
        ("columns:\n  good: {standardise: rank}\n", 2, "expected a mix, such as .*, found a mapping"),
        ("columns:\n  good: {mix: {s_cliploss: much}}\n", 2, "expected mix to be columns with their weights.*'much'"),
        (
            "columns:\n  good: {mix: {s_cliploss: 1}, standardise: no}\n",
            2,
            "expected standardise to be zscore, rank or",
        ),
        ("columns:\n  good: {mix: {s_cliploss: 1}, keep_top: 1}\n", 2, "expected one of the keys mix, standardise"),
        ("columns:\n  '{x': {mix: {s_cliploss: 1}}\n", 2, "expected a column's name of at most 200 characters"),
        (
            "columns:\n  clip_score: {mix: {s_cliploss: 1}}\n",
            2,
            "expected a new column's name, found 'clip_score', which",
        ),
        ("columns:\n  original_width: {mix: {s_cliploss: 1}}\n", 2, "a new column's name, found 'original_width'"),
        ("columns:\n  a: {mix: {s_cliploss: 1}}\n  b: {mix: {a: 1}}\n", 3, "some of the run's columns .*, found 'a'"),
        ("columns:\n  good: {mix: {nothing: 1}}\n", 2, "expected some of the run's columns .*, found 'nothing'"),
    ],
)
def test_parse_recipe__says_what_is_wrong_with_a_column(table, columns, where, said):
    with pytest.raises(RecipeError, match=f"^recipe:{where}: .*{said}"):
        parse_recipe(columns + "steps: [{column: clip_score, keep_top: 0.5}]", columns=table.columns)


def test_check_columns__a_name_that_the_run_has_got_meanwhile(table):
    with pytest.raises(RecipeError, match=r"^recipe:1: expected a new column's name, found 'good', which the run has"):
        check_columns(recipe_of("{column: good, keep_top: 0.5}"), [*table.columns, "good"])
    with pytest.raises(RecipeError, match=r"recipe:3: expected one of the run's columns .*, found 'goods'"):
        check_columns(recipe_of("{column: goods, keep_top: 0.5}"), table.columns)
