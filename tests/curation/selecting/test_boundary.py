"""The pairs around a threshold are those that sorting finds."""

from __future__ import annotations

import numpy as np
import pytest

from clipsel_core import uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.selecting.live import boundary
from clipsel_core.curation.selecting.selection import Picker, select
from tests.curation.conftest import hand_run, make_uids

SECOND = "steps: [{metric: s_cliploss, keep_top: 0.4}, {metric: normsim_inf_task, %s}]"


def sorted_sides(table, before, passes, metric, upward):
    values = table.column(metric).astype(np.float64) * (1 if upward else -1)
    known = before & ~np.isnan(values)
    above = sorted(np.flatnonzero(known & passes), key=lambda row: values[row])
    below = sorted(np.flatnonzero(known & ~passes), key=lambda row: -values[row])
    return values, above, below


@pytest.mark.parametrize("rule", ["keep_top: 0.2", "keep_top: 0.5, of: survivors", "at_least: 0.61", "at_most: 0.61"])
def test_boundary__is_what_sorting_finds(big_run, rule):
    table = ScoreTable.open(big_run)
    first = select(big_run, parse_recipe("steps: [{metric: s_cliploss, keep_top: 0.4}]"), table).mask()
    both = select(big_run, parse_recipe(SECOND % rule), table).mask()
    values, above, below = sorted_sides(table, first, both, "normsim_inf_task", "at_most" not in rule)
    found = boundary(Picker(table), parse_recipe(SECOND % rule), 1)
    passing, failing = (side.rows(0, len(table)) for side in (found.passing, found.failing))
    assert (len(found.passing), len(found.failing)) == (len(above), len(below))
    assert values[passing].tolist() == values[above].tolist()
    assert values[failing].tolist() == values[below].tolist()
    assert both[passing].all()
    assert not both[failing].any()
    assert first[failing].all()


def test_side__in_pages_is_what_it_is_at_once(big_run):
    found = boundary(Picker(ScoreTable.open(big_run)), parse_recipe(SECOND % "keep_top: 0.2"), 1)
    for side in (found.passing, found.failing):
        every = side.rows(0, len(side))
        assert len(np.unique(every)) == len(side) > 24
        pages = [side.rows(offset, 7) for offset in range(0, len(side), 7)]
        assert np.concatenate(pages).tolist() == every.tolist()
        assert not len(side.rows(len(side), 7))
        assert not len(side.rows(-1, 7))


def test_boundary__splits_ties_as_the_selection_does(tmp_path):
    scores = {"clip_score": [0.5] * 6}
    run = hand_run(tmp_path / "run", [(make_uids(6, 5, 4, 3, 2, 1), scores)])
    table, recipe = ScoreTable.open(run), parse_recipe("steps: [{metric: clip_score, keep_top: 0.5}]")
    found = boundary(Picker(table), recipe, 0)
    passing, failing = (side.rows(0, 6) for side in (found.passing, found.failing))
    assert uids.sort(table.uids_at(passing)).tolist() == make_uids(1, 2, 3).tolist()
    assert uids.sort(table.uids_at(failing)).tolist() == make_uids(4, 5, 6).tolist()
    assert table.uids_at(found.failing.rows(1, 1)).tolist() == table.uids_at(failing[1:2]).tolist()


@pytest.mark.parametrize(("share", "sides"), [("0", (0, 5)), ("1", (5, 0))])
def test_boundary__one_side_may_be_empty(tmp_path, share, sides):
    values = [0.1, 0.2, 0.3, 0.4, np.nan, 0.5]
    run = hand_run(tmp_path / "run", [(make_uids(*range(6)), {"clip_score": values})])
    recipe = parse_recipe(f"steps: [{{metric: clip_score, keep_top: {share}}}]")
    found = boundary(Picker(ScoreTable.open(run)), recipe, 0)
    assert (len(found.passing), len(found.failing)) == sides
    assert (len(found.passing.rows(0, 9)), len(found.failing.rows(0, 9))) == sides


def test_boundary__looks_at_a_step_that_is_off(big_run):
    table = ScoreTable.open(big_run)
    off = parse_recipe(SECOND % "keep_top: 0.2, enabled: false")
    assert len(boundary(Picker(table), off, 1).passing.rows(0, 12)) == 12


def test_boundary__needs_a_metric(big_run):
    with pytest.raises(TypeError, match="metric"):
        boundary(Picker(ScoreTable.open(big_run)), parse_recipe("steps: [{keep: [7]}]"), 0)
