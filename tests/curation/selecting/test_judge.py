"""What is said of one pair is what the selections after one step, two steps and so on say of it."""

from __future__ import annotations

import numpy as np
import pytest

from clipsel_core import uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import AtMost, Drop, Keep, KeepTop, Recipe
from clipsel_core.curation.selecting.selection import Picker, judge_pair, select


@pytest.fixture(scope="module")
def picker(big_run) -> Picker:
    return Picker(ScoreTable.open(big_run))


def test_judge_pair__goes_step_by_step_as_select_does(big_run, picker):
    table = picker.table
    by_hand = uids.to_hex(table.uids_at(np.flatnonzero(table.selectable())[:400])).to_pylist()
    steps = (
        KeepTop(column="s_cliploss", keep_top=0.3),
        AtMost(column="clip_score", at_most=0.1, enabled=False),
        KeepTop(column="normsim_inf_task", keep_top=0.5, of="survivors"),
        Keep(keep=by_hand[:200]),
        Drop(drop=by_hand[150:]),
    )
    recipe = Recipe(steps=steps)
    masks = [select(big_run, Recipe(steps=steps[:many]), table).mask() for many in (1, 3, 4, 5)]
    masks = [table.selectable(), *masks]
    # Equal scores at a threshold are told apart by uid: these rows are the ones to get wrong.
    cut = select(big_run, Recipe(steps=steps[:1]), table).report[0].threshold
    tied = np.flatnonzero(table.column("s_cliploss") == np.float32(cut))
    assert len(np.unique(masks[1][tied])) == 2
    drawn = np.random.default_rng(0).choice(len(table), 300, replace=False)
    for row in {*tied.tolist(), *drawn.tolist(), *range(30)}:
        found = judge_pair(picker, recipe, row)
        assert [judged.number for judged in found.steps] == [1, 3, 4, 5]
        assert [judged.before for judged in found.steps] == [bool(mask[row]) for mask in masks[:-1]]
        assert [judged.after for judged in found.steps] == [bool(mask[row]) for mask in masks[1:]]
        assert found.kept == masks[-1][row]
        assert found.set_aside == bool(np.isnan(table.column("clip_score")[row]))
        assert np.array_equal(found.steps[0].score, table.column("s_cliploss")[row], equal_nan=True)
        assert (found.steps[0].threshold, found.steps[2].score) == (cut, None)


def test_judge_pair__names_the_step_that_decided(picker):
    (row,) = picker.select(Recipe(steps=(KeepTop(column="s_cliploss", keep_top=0.0001),))).rows[:1]
    (name,) = uids.to_hex(picker.table.uids_at(np.array([row]))).to_pylist()
    top, bottom = KeepTop(column="s_cliploss", keep_top=0.5), AtMost(column="s_cliploss", at_most=-9.0)
    for steps, kept, decided in (
        ((top,), True, None),
        ((top, bottom, top), False, 2),
        ((top, bottom, Keep(keep=[name])), True, 3),
    ):
        found = judge_pair(picker, Recipe(steps=steps), row)
        assert (found.kept, found.decided and found.decided.number) == (kept, decided)


def test_judge_pair__a_pair_set_aside_is_kept_by_no_recipe(picker):
    row = int(np.flatnonzero(~picker.table.selectable())[0])
    found = judge_pair(picker, Recipe(steps=(KeepTop(column="s_cliploss", keep_top=1.0),)), row)
    assert (found.set_aside, found.kept, found.decided) == (True, False, None)
