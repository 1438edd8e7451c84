"""What a thumb says before it is released is what select() finds after: at random settings, ties, NaN, one pair."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest

from clipsel_core import uids
from clipsel_core.curation.index.ranking import Shares
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
)
from clipsel_core.curation.selecting import selection
from clipsel_core.curation.selecting.live import Settings, settings_of
from clipsel_core.curation.selecting.selection import Picker, select
from clipsel_core.runs.store import Run
from tests.curation.conftest import hand_run, make_uids

METRICS = ("clip_score", "s_cliploss", "normsim_inf_task")
PERMILLE = Shares.evenly(1000)
NAN = float("nan")


def settings(table: ScoreTable, recipe: Recipe, place: int, amounts) -> Settings:
    asked = Picker(table)
    return settings_of(asked, recipe, asked.take(recipe), place, amounts)


def moved(recipe: Recipe, place: int, to: float) -> Recipe:
    step = recipe.steps[place]
    changed = type(step).model_validate({**dict(step), step.kind: to})
    return Recipe(steps=(*recipe.steps[:place], changed, *recipe.steps[place + 1 :])).in_folder(recipe.folder)


def random_step(draw: np.random.Generator, table: ScoreTable):
    metric = METRICS[draw.integers(len(METRICS))]
    kind = draw.integers(4)
    if kind < 2:
        of = "pool" if kind else "survivors"
        return KeepTop(column=metric, keep_top=draw.integers(1, 1001) / 1000, of=of)
    value = round(float(np.nanquantile(table.column(metric), draw.random())), 3)
    return AtLeast(column=metric, at_least=value) if kind == 2 else AtMost(column=metric, at_most=value)


def amounts_for(step, table: ScoreTable):
    if isinstance(step, KeepTop):
        return PERMILLE
    low, high = table.extent(step.metric)
    return np.linspace(low - 0.1, high + 0.1, 200).round(4)


def amount(amounts, at: int) -> float:
    return amounts.parts[at] / amounts.whole if isinstance(amounts, Shares) else float(amounts[at])


@pytest.mark.parametrize("seed", range(50))
def test_settings__agree_with_select_wherever_the_thumb_goes(big_run, seed, monkeypatch):
    if seed % 2:  # As in a large run, where metrics are counted along one another, and sets made when they are needed.
        monkeypatch.setattr(selection, "_MANY_PAIRS", 0)
        monkeypatch.setattr(selection, "_FEW", 1)
    draw, table = np.random.default_rng(seed), ScoreTable.open(big_run)
    recipe = Recipe(steps=tuple(random_step(draw, table) for _ in range(draw.integers(1, 5))))
    place = int(draw.integers(len(recipe.steps)))
    amounts = amounts_for(recipe.steps[place], table)
    found = settings(table, recipe, place, amounts)
    for at in draw.integers(0, len(amounts), 6):
        then = select(big_run, moved(recipe, place, amount(amounts, at)), table)
        assert found.passes[at] == then.report[place].kept_after
        after = [report.kept_after for report in then.report[place:]]
        assert found.left[: found.exact, at].tolist() == after[: found.exact]
        assert found.exact >= 1
        assert len(found.left) == len(after)
        assert found.alone[at] == then.report[place].alone_drops
        if isinstance(recipe.steps[place], KeepTop):
            threshold, bins = then.report[place].threshold, table.ranking(recipe.steps[place].metric)
            near = found.thresholds[at]
            assert np.isnan(near) if threshold is None else np.ptp(bins.codes_of(np.float32([near, threshold]))) == 0


def test_settings__most_recipes_are_exact(big_run):
    """Only a step that judges pairs one by one behind a later share makes the count an estimate."""
    table = ScoreTable.open(big_run)
    first, second = KeepTop(column="s_cliploss", keep_top=0.3), KeepTop(metric="normsim_inf_task", keep_top=0.2)
    floor = AtLeast(column="clip_score", at_least=0.2)
    for steps, place, exact in (
        ((first, second), 0, 2),
        ((first, second), 1, 1),
        ((floor, first, second), 0, 3),
        ((first, floor, second), 0, 3),
        ((first, second, floor), 1, 2),
        ((first, second, floor), 0, 2),
    ):
        found = settings(table, Recipe(steps=steps), place, amounts_for(steps[place], table))
        assert (found.exact, len(found.left)) == (exact, len(steps) - place)


def test_settings__agree_with_sql_at_every_threshold(big_run):
    table = ScoreTable.open(big_run)
    steps = (AtLeast(column="clip_score", at_least=0.2), AtMost(column="r_image", at_most=0.12))
    values = np.linspace(-0.1, 0.5, 61).round(3)
    found = settings(table, Recipe(steps=steps), 0, values)
    query = """
        SELECT count(*) FROM read_parquet($files)
        WHERE CAST(clip_score AS DOUBLE) >= $value AND NOT isnan(clip_score)
          AND CAST(r_image AS DOUBLE) <= 0.12 AND NOT isnan(r_image)
    """
    files = [str(file) for file in map(Path, big_run.score_files)]
    for at, value in enumerate(values.tolist()):
        assert found.left[-1, at] == duckdb.connect().execute(query, {"files": files, "value": value}).fetchone()[0]


def test_settings__with_lists_and_pairs_by_hand(big_run, tmp_path):
    draw, table = np.random.default_rng(0), ScoreTable.open(big_run)
    good = table.uids_at(np.flatnonzero(table.selectable()))
    for name in ("a", "b", "c"):
        uids.write_subset(tmp_path / f"{name}.npy", uids.sort(draw.choice(good, 4000, replace=False)))
    hexes = uids.to_hex(draw.choice(good, 300, replace=False)).to_pylist()
    share, floor = KeepTop(column="s_cliploss", keep_top=0.3), AtLeast(column="clip_score", at_least=0.22)
    others = (Union(union="a.npy"), Subtract(subtract="b.npy"), Keep(keep=hexes[:150]), Drop(drop=hexes[150:]))
    for steps, place in (
        ((share, floor, *others), 0),
        ((others[0], share, floor, *others[1:]), 1),
        ((Intersect(intersect="c.npy"), floor, *others), 1),
        ((floor, *others, share), 0),
    ):
        recipe = Recipe(steps=steps).in_folder(tmp_path)
        amounts = amounts_for(steps[place], table)
        found = settings(table, recipe, place, amounts)
        assert found.exact == len(found.left) == len(steps) - place
        for at in draw.integers(0, len(amounts), 8):
            then = select(big_run, moved(recipe, place, amount(amounts, at)), table)
            assert found.left[:, at].tolist() == [report.kept_after for report in then.report[place:]]
            assert found.alone[at] == then.report[place].alone_drops


@pytest.mark.parametrize(
    "scores",
    [[0.5] * 40, [0.5], [NAN], [0.1, NAN, 0.1, 0.1, NAN], [0.1, 0.1, 0.3, 0.3, 0.3, 0.2] * 5],
    ids=["constant", "one pair", "no score", "NaN", "ties"],
)
def test_settings__on_awkward_runs(tmp_path, scores):
    numbers = np.random.default_rng(4).permutation(len(scores)) + 1
    other = np.where(np.isnan(scores), NAN, np.arange(len(scores)) % 3)
    run: Run = hand_run(tmp_path / "run", [(make_uids(*numbers), {"clip_score": scores, "other": other})])
    table = ScoreTable.open(run)
    for steps in (
        (KeepTop(column="clip_score", keep_top=0.5), AtLeast(column="other", at_least=1.0)),
        (KeepTop(column="other", keep_top=0.5), KeepTop(metric="clip_score", keep_top=0.25, of="survivors")),
    ):
        recipe = Recipe(steps=steps)
        for place in range(2):
            amounts = amounts_for(steps[place], table)
            found = settings(table, recipe, place, amounts)
            for at in range(0, len(amounts), 37):
                then = select(run, moved(recipe, place, amount(amounts, at)), table)
                assert (found.passes[at], found.left[-1, at]) == (then.report[place].kept_after, len(then))
                assert found.alone[at] == then.report[place].alone_drops


def test_settings__layers_lie_within_each_other(big_run):
    table = ScoreTable.open(big_run)
    steps = (KeepTop(column="s_cliploss", keep_top=0.3), KeepTop(metric="normsim_inf_task", keep_top=0.2))
    found = settings(table, Recipe(steps=steps), 0, PERMILLE)
    assert (found.fixed <= found.others).all()
    assert (found.others <= found.pool).all()
    assert found.shown[-1] == found.others.sum()
    assert found.shown[0] == found.left[-1, 0] == 0
    assert (np.diff(found.below) <= 0).all()
    assert found.reaching == table.selectable().sum()


def test_settings__a_step_that_is_off_changes_nothing(big_run):
    table = ScoreTable.open(big_run)
    steps = (
        KeepTop(column="s_cliploss", keep_top=0.3, enabled=False),
        KeepTop(column="normsim_inf_task", keep_top=0.2),
    )
    found = settings(table, Recipe(steps=steps), 0, PERMILLE)
    assert found.left.shape == (0, 1001)
    assert found.passes[300] == int(0.3 * len(table))


def test_settings__refuses_a_step_without_a_metric(big_run):
    table = ScoreTable.open(big_run)
    recipe = Recipe(steps=(Drop(drop=uids.to_hex(table.uids_at(np.arange(1))).to_pylist()),))
    with pytest.raises(TypeError, match="metric"):
        settings(table, recipe, 0, PERMILLE)
