"""The Compare page counts what the core counts, and shows the pairs that set two selections apart."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from clipsel_core import tasks, uids
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.selecting.selection import Picker, select
from clipsel_core.runs.store import Run
from tests.pages.conftest import components, words
from tests.pages.worlds import add_recipe, make_run
from tests.waiting import PATIENCE_S, until

DRAFT = "steps: [{metric: s_cliploss, keep_top: 0.3}, {metric: normsim_inf_task, keep_top: 0.2}]"
pytestmark = pytest.mark.usefixtures("patient")
PARTS = ("only this one", "both", "only the other")
CLIP = "steps: [{metric: clip_score, keep_top: 0.25}]"


@pytest.fixture
def run(tmp_path):
    made = make_run(tmp_path / "world")
    add_recipe(made, "clip", CLIP)
    return made


def rows_of(run, text: str) -> set[int]:
    return set(select(Run.open(run), parse_recipe(text)).rows.tolist())


def cells(app) -> list[str]:
    table = next(element.proto.body for element in app.get("html") if "<td" in element.proto.body)
    return [part.split("</td>")[0].split(">")[-1] for part in table.split("<td")[1:]]


def captions(app) -> list[str]:
    return [card["caption"] for card in components(app, "clipsel_cards")[0]["cards"]]


def test_compare__counts_what_is_in_both(run, open_page):
    app = open_page("compare", run)
    draft, clip = rows_of(run, DRAFT), rows_of(run, CLIP)
    both = len(draft & clip)
    assert 0 < both < len(draft)
    assert cells(app) == [str(number) for number in (len(draft), len(draft), both, len(clip), both, len(clip))]
    app.segmented_control(key="measure").set_value("Jaccard").run()
    assert f"{100 * both / len(draft | clip):.1f} %" in cells(app)
    app.segmented_control(key="measure").set_value("share of the row").run()
    assert f"{100 * both / len(clip):.1f} %" in cells(app)


@pytest.mark.parametrize("part", PARTS)
def test_compare__shows_each_part(run, open_page, part):
    app = open_page("compare", run)
    app.segmented_control(key="part").set_value(part).run()
    draft, clip = rows_of(run, DRAFT), rows_of(run, CLIP)
    expected = (draft - clip, draft & clip, clip - draft)[PARTS.index(part)]
    assert captions(app) == [f"caption of pair {row}" for row in sorted(expected, reverse=True)]
    assert not app.exception


def test_compare__tells_recipes_apart_step_by_step(run, open_page):
    add_recipe(run, "near", DRAFT.replace("0.3", "0.25"))
    app = open_page("compare", run)
    app.selectbox(key="against").set_value("recipe near").run()
    assert "1 of 2 steps differ" in words(app)
    assert "top 25 % of the pool by s-CLIPLoss" in words(app)


def test_compare__takes_lists_and_says_what_the_run_lacks(run, open_page):
    known = uids.from_halves(np.arange(1, 6, dtype=np.uint64) * 7, np.arange(5, dtype=np.uint64))
    strange = uids.from_halves(np.array([1], np.uint64), np.array([1], np.uint64))
    uids.write_subset(run / "recipes" / "old.npy", uids.union(known, strange))
    app = open_page("compare", run)
    assert "old.npy names 1 more uids that this run lacks" in words(app)
    app.selectbox(key="against").set_value("list old.npy").run()
    app.segmented_control(key="part").set_value(PARTS[2]).run()
    assert captions(app) == [f"caption of pair {row}" for row in (4, 3, 2, 1, 0)]


def test_compare__a_recipe_that_does_not_fit_is_told_and_left_out(run, open_page):
    add_recipe(run, "broken", "steps: [{metric: nothing, keep_top: 0.25}]")
    app = open_page("compare", run)
    assert "cannot be compared" in words(app)
    assert "broken.yaml:1: expected one of the run's columns" in words(app)
    assert len(cells(app)) == 6


def test_compare__with_nothing_says_what_to_do(tmp_path, open_page):
    app = open_page("compare", make_run(tmp_path / "bare"))
    assert "Save a recipe on the Select page" in words(app)
    assert not app.exception


def test_compare__one_selection_is_not_enough(run, open_page):
    app = open_page("compare", run)
    app.multiselect(key="compared").set_value(["draft"]).run()
    assert "Choose two or more" in words(app)
    assert not app.exception


def test_compare__shows_how_far_it_is_and_can_be_stopped(run, open_page, monkeypatch):
    monkeypatch.setattr(tasks, "_AT_ONCE_S", 0)
    gate, begun, select = threading.Event(), threading.Event(), Picker.select

    def slowly(self, recipe):
        begun.set()
        assert gate.wait(PATIENCE_S)
        return select(self, recipe)

    monkeypatch.setattr(Picker, "select", slowly)
    app = open_page("compare", run)
    assert begun.wait(PATIENCE_S)
    assert not app.exception
    assert "only in the draft" not in words(app).lower()
    app.button(key="sharing stop").click().run()
    gate.set()
    monkeypatch.setattr(tasks, "_AT_ONCE_S", PATIENCE_S)
    app.run()
    assert "Stopped." in words(app)
    app.button(key="sharing on").click().run()
    until(lambda: any("<td" in element.proto.body for element in app.run().get("html")), "the table is there")
    assert not app.exception
