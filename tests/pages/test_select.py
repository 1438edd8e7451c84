"""The Select page counts, saves and exports what the core selects, exactly."""

from __future__ import annotations

import fcntl
import json
import os
from decimal import Decimal

import numpy as np
import pytest
import streamlit as st

from clipsel_core import uids
from clipsel_core.curation.recipes.published import published_recipe
from clipsel_core.curation.recipes.recipe import load_recipe, parse_recipe
from clipsel_core.curation.selecting.export import export
from clipsel_core.curation.selecting.selection import select
from clipsel_core.runs.store import Run
from pages.parts import recipes
from pages.parts.select import export as export_panel
from tests.pages.conftest import say, thumbs, words
from tests.pages.worlds import LACKING, add_recipe, make_run


@pytest.fixture
def run(tmp_path):
    made = make_run(tmp_path / "world")
    add_recipe(made, "clip", "steps: [{metric: clip_score, keep_top: 0.25}]")
    add_recipe(made, "broken", "steps: [{metric: nothing, keep_top: 0.25}]")
    return made


def kept(app) -> int:
    headline = next(element.proto.body for element in app.get("html") if "headline" in element.proto.body)
    return int(headline.split("<b>")[1].split("</b>")[0].replace(",", ""))


def saved_steps(app):
    """The steps of the draft, as the file says that they would be saved in."""
    return parse_recipe(next(block.value for block in app.get("code") if block.value.startswith("steps:"))).steps


def sliders(app):
    return thumbs(app)


def test_select__begins_with_the_two_steps_of_the_paper(run, open_page):
    app = open_page("select", run)
    assert [slider.value for slider in sliders(app)] == [30.0, 20.0]
    assert kept(app) == 12
    assert "top 30 % of the pool by s-CLIPLoss" in words(app)


@pytest.mark.parametrize("percent", [0.0, 0.1, 7.3, 28.9, 29.0, 50.0, 99.9, 100.0])
def test_select__slider_keeps_what_the_core_keeps(run, open_page, percent):
    app = open_page("select", run)
    sliders(app)[0].set_value(percent).run()
    text = (
        f"steps: [{{metric: s_cliploss, keep_top: {percent / 100:.4f}}}, {{metric: normsim_inf_task, keep_top: 0.2}}]"
    )
    assert kept(app) == len(select(Run.open(run), parse_recipe(text)))
    assert not app.exception


@pytest.mark.parametrize(
    "typed", ["12.345", "0.05", "99.99999999999999999", "1e-7", "33.3333333333333333333333333", "0"]
)
def test_select__a_typed_share_is_the_share_that_is_used(run, open_page, typed):
    app = open_page("select", run)
    say(app, sliders(app)[0].id, "moved", {"place": 300, "typed": typed, "move": 1})
    assert saved_steps(app)[0].keep_top * 100 == Decimal(typed)
    assert Decimal(sliders(app)[0].head["amount"].removesuffix(" %")) == Decimal(typed)


@pytest.mark.parametrize("typed", ["0.123456789", "-3", "1e-9", "7"])
def test_select__a_typed_threshold_is_the_threshold_that_is_used(run, open_page, typed):
    app = open_page("select", run)
    app.selectbox(key="rule-0").set_value("at_least").run()
    say(app, sliders(app)[0].id, "moved", {"place": 0, "typed": typed, "move": 1})
    assert saved_steps(app)[0].at_least == float(typed)
    assert float(sliders(app)[0].head["amount"]) == float(typed)


@pytest.mark.parametrize("typed", ["100.1", "-0.1", "nan", "inf", "x", "", "1" * 200, "0." + "1" * 200, 7, None, [1]])
def test_select__what_is_no_share_changes_nothing(run, open_page, typed):
    app = open_page("select", run)
    say(app, sliders(app)[0].id, "moved", {"place": 300, "typed": typed, "move": 1})
    assert not app.exception
    assert saved_steps(app)[0].keep_top == Decimal("0.3")


def test_select__answers_say_which_move_they_have_heard(run, open_page):
    """An answer to an older move must not pull a thumb back; the other thumbs have not moved."""
    app = open_page("select", run)
    assert [thumb.head["heard"] for thumb in sliders(app)] == [0, 0]
    for move in (1, 2):
        sliders(app)[0].set_value(10.0 * move).run()
        assert [thumb.head["heard"] for thumb in sliders(app)] == [move, 0]


def test_select__a_move_is_taken_in_by_the_next_run_where_its_own_ended_before(run, open_page, monkeypatch):
    app = open_page("select", run)
    with monkeypatch.context() as patched:
        patched.setattr(recipes, "change_step", lambda *args: st.stop())
        sliders(app)[0].set_value(10.0).run()
    app.run()
    assert (sliders(app)[0].value, sliders(app)[0].head["heard"]) == (10.0, 1)
    assert saved_steps(app)[0].keep_top == Decimal("0.1")


def test_select__says_that_nobody_has_the_score_of_a_step(tmp_path, open_page):
    first, second = thumbs(open_page("select", make_run(tmp_path / "without", **LACKING["no_scores"])))
    assert first.head["title"] == "s-CLIPLoss: no pair of this run has a score"
    assert second.head["title"] == "NormSim ∞ · task: this step keeps none"


def test_select__histogram_layers_lie_within_each_other(run, open_page):
    app = open_page("select", run)
    for chart in (thumb.chart for thumb in thumbs(app)):
        pool, passes, kept_pairs = (np.array(layer["counts"]) for layer in chart["layers"])
        assert pool.sum() == 60
        assert (kept_pairs <= passes).all()
        assert (passes <= pool).all()
        assert kept_pairs.sum() == kept(app)
        assert chart["marks"][0]["kind"] == "line"


def test_select__steps_come_and_go(run, open_page):
    app = open_page("select", run)
    app.button(key="add").click().run()
    assert len(sliders(app)) == 3
    app.button(key="remove-1").click().run()
    app.button(key="remove-2").click().run()
    assert kept(app) == 18
    app.button(key="remove-0").click().run()
    assert "No step yet" in words(app)
    assert not app.exception


def test_select__a_step_that_is_off_is_not_applied(run, open_page):
    app = open_page("select", run)
    app.toggle(key="on-1").set_value(False).run()
    assert kept(app) == 18
    assert "this step is off" in thumbs(app)[1].chart["title"]
    app.toggle(key="on-1").set_value(True).run()
    assert kept(app) == 12


def test_select__threshold_is_inclusive(run, open_page):
    app = open_page("select", run)
    app.button(key="remove-1").click().run()
    app.selectbox(key="metric-0").set_value("clip_score").run()
    app.selectbox(key="rule-0").set_value("at_least").run()
    sliders(app)[0].set_value(0.5).run()
    assert kept(app) == 30
    app.selectbox(key="rule-0").set_value("at_most").run()
    sliders(app)[0].set_value(0.5).run()
    assert kept(app) == 31


def test_select__draft_survives_a_change_of_page(run, open_page):
    app = open_page("select", run)
    sliders(app)[1].set_value(10.0).run()
    app.switch_page("gallery.py").run()
    app.switch_page("select.py").run()
    assert sliders(app)[1].value == 10.0
    assert kept(app) == 6


def test_select__loads_a_saved_recipe(run, open_page):
    app = open_page("select", run)
    app.selectbox(key="load").set_value("clip").run()
    assert kept(app) == 15
    assert [slider.value for slider in sliders(app)] == [25.0]
    assert not app.exception


def test_select__loads_a_published_recipe_or_says_how_to_have_what_it_needs(run, open_page):
    app = open_page("select", run)
    app.selectbox(key="load").set_value("published: s-CLIPLoss 30 %").run()
    assert kept(app) == len(select(Run.open(run), published_recipe("s_cliploss_30").recipe))
    assert [slider.value for slider in sliders(app)] == [30.0]
    app.selectbox(key="load").set_value("published: s-CLIPLoss and NormSim 2-D").run()
    assert "clipsel add-column RUN normsim_2d --start s_cliploss_30.yaml --keep 0.2" in words(app)
    assert [slider.value for slider in sliders(app)] == [30.0]
    assert not app.exception


def test_select__refuses_a_recipe_that_does_not_fit(run, open_page):
    app = open_page("select", run)
    app.selectbox(key="load").set_value("broken").run()
    assert "cannot be loaded" in words(app)
    assert "one of the run's columns" in words(app)
    assert kept(app) == 12


def test_select__saves_what_it_shows(run, open_page):
    app = open_page("select", run)
    sliders(app)[0].set_value(12.5).run()
    app.text_input[0].set_value("mine").run()
    assert "not saved yet" in words(app)
    app.button(key="save").click().run()
    assert load_recipe(run / "recipes" / "mine.yaml").steps[0].text == "top 12.5 % of the pool by s_cliploss"
    sliders(app)[0].set_value(13.0).run()
    assert "changed since it was saved or loaded" in words(app)
    app.button(key="save").click().run()
    assert load_recipe(run / "recipes" / "mine.yaml").steps[0].text == "top 13 % of the pool by s_cliploss"


@pytest.mark.parametrize("name", ["", "../outside", "a/b", ".hidden", "with space"])
def test_select__takes_no_name_that_leaves_the_folder(run, open_page, name):
    app = open_page("select", run)
    before = sorted(run.rglob("*"))
    app.text_input[0].set_value(name).run()
    assert not [button for button in app.button if button.key == "export"]
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("ending", [".npy", ".parquet", ".csv", ".txt"])
def test_select__exports_the_bytes_of_the_core(run, open_page, tmp_path, ending):
    app = open_page("select", run)
    sliders(app)[0].set_value(40.0).run()
    app.text_input[0].set_value("mine").run()
    app.selectbox(key="ending").set_value(ending).run()
    app.button(key="export").click().run()
    assert not app.exception
    out = run / "exports" / f"mine{ending}"
    opened, recipe = Run.open(run), load_recipe(run / "recipes" / "mine.yaml")
    expected = export(opened, select(opened, recipe), recipe, tmp_path / f"mine{ending}")
    assert out.read_bytes() == expected.path.read_bytes()
    manifest = json.loads((run / "exports" / f"mine{ending}.manifest.json").read_text())
    assert manifest["sha256"] in words(app)
    assert f"mine{ending}.manifest.json" in words(app)
    assert f"{out.stat().st_size:,} bytes" in words(app)
    shown = next(json.loads(block.value) for block in app.get("code") if block.value.startswith("{"))
    assert {**manifest, "shards": shown["shards"]} == shown
    assert f"--recipe {run}/recipes/mine.yaml --out {out}" in words(app)
    if ending == ".npy":
        assert len(uids.read_subset(out)) == kept(app)


def two_under_one_name(run, open_page):
    """Two sessions: the first has exported its 5 % under a name that the second wants for its 50 %."""
    first, second = open_page("select", run), open_page("select", run)
    for app, percent in ((first, 5.0), (second, 50.0)):
        sliders(app)[0].set_value(percent).run()
        app.text_input[0].set_value("mine").run()
    first.button(key="export").click().run()
    return first, second


def exported(run) -> dict[str, bytes]:
    files = [*(run / "exports").glob("[!.]*"), *(run / "recipes").glob("m*")]
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("key", ["save", "export"])
def test_select__asks_before_it_replaces_what_somebody_else_saved(run, open_page, key):
    _, second = two_under_one_name(run, open_page)
    before = exported(run)
    assert "another recipe has this name: saving asks first" in words(second.run())
    second.button(key=key).click().run()
    assert not second.exception
    assert "Another recipe was saved as mine: nothing was written" in words(second)
    assert exported(run) == before
    second.button(key="another name").click().run()
    assert second.text_input[0].value == "mine-2"
    after = exported(run)
    assert {name: after[name] for name in before} == before
    assert load_recipe(run / "recipes" / "mine-2.yaml").steps[0].text == "top 50 % of the pool by s_cliploss"
    assert ("mine-2.npy" in after) == (key == "export")


@pytest.mark.parametrize("key", ["save", "export"])
def test_select__two_who_save_a_new_name_in_the_same_moment(run, open_page, monkeypatch, key):
    """Nobody comes between the look and the writing: the second finds the first one's file, and is asked."""
    path, turns, taken = run / "recipes" / "mine.yaml", [], export_panel._taken

    def look_while_another_tries(*given):
        found = taken(*given)
        file = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            turns.append("came between")
        except BlockingIOError:
            turns.append("waits")
        finally:
            os.close(file)
        return found

    monkeypatch.setattr(export_panel, "_taken", look_while_another_tries)
    first, second = open_page("select", run), open_page("select", run)
    second.button(key="up-1").click().run()
    for app in (first, second):
        next(box for box in app.text_input if box.label == "Name").set_value("mine").run()
    first.button(key=key).click().run()
    saved = path.read_bytes()
    second.button(key=key).click().run()
    assert turns == ["waits", "waits"]
    assert "Another recipe was saved as mine: nothing was written" in words(second)
    assert path.read_bytes() == saved


def test_select__asks_before_it_replaces_a_subset_of_another_recipe(run, open_page):
    _, second = two_under_one_name(run, open_page)
    (run / "recipes" / "mine.yaml").unlink()
    before = exported(run)
    second.button(key="export").click().run()
    assert "Another subset was exported as mine.npy: nothing was written" in words(second)
    assert exported(run) == before
    (run / "exports" / "mine.npy.manifest.json").write_text("[]")
    second.button(key="export").click().run()
    assert "Another subset was exported as mine.npy" in words(second)
    second.button(key="save").click().run()
    assert "nothing was written" not in words(second)


def test_select__replaces_what_it_was_told_to_and_the_other_is_told(run, open_page):
    first, second = two_under_one_name(run, open_page)
    assert "Another file has this name by now" not in words(first.run())
    second.button(key="export").click().run()
    second.button(key="replace taken").click().run()
    assert load_recipe(run / "recipes" / "mine.yaml").steps[0].text == "top 50 % of the pool by s_cliploss"
    assert "Another file has this name by now" not in words(second)
    assert "Another file has this name by now" in words(first.run())
    links = [link.proto.url for link in first.get("link_button")]
    assert not [link for link in links if "exports" in link]
    second.button(key="export").click().run()
    assert "nothing was written" not in words(second)


def test_select__agreed_to_one_recipe_is_not_agreed_to_another(run, open_page):
    _, second = two_under_one_name(run, open_page)
    second.button(key="export").click().run()
    before = exported(run)
    second.selectbox(key="ending").set_value(".csv")
    second.button(key="replace taken").click().run()
    assert exported(run) == before


def test_select__two_sessions_keep_their_own_drafts(run, open_page):
    first, second = open_page("select", run), open_page("select", run)
    sliders(first)[0].set_value(5.0).run()
    second.run()
    assert sliders(second)[0].value == 30.0


def test_select__steps_change_places(run, open_page):
    app = open_page("select", run)
    assert app.button(key="up-0").disabled
    assert app.button(key="down-1").disabled
    app.button(key="down-0").click().run()
    assert [slider.value for slider in sliders(app)] == [20.0, 30.0]
    text = "steps: [{metric: normsim_inf_task, keep_top: 0.2}, {metric: s_cliploss, keep_top: 0.3}]"
    assert kept(app) == len(select(Run.open(run), parse_recipe(text)))
    app.button(key="up-0").click().run()
    assert [slider.value for slider in sliders(app)] == [30.0, 20.0]
    assert kept(app) == 12


@pytest.mark.parametrize("page", ["select", "compare"])
def test_unfinished_run__is_said_where_pairs_are_picked(tmp_path, open_page, page):
    said = "This run is unfinished: 1 of 2 shards are scored."
    assert said in words(open_page(page, make_run(tmp_path / "half", finished=1)))
    assert said not in words(open_page(page, make_run(tmp_path / "whole")))


def test_select__keeps_the_names_that_a_recipe_gives_its_mixes(run, open_page):
    text = """columns: {good: {mix: {s_cliploss: 1, normsim_inf_task: 0.5}}}
steps:
- {column: good, keep_top: 0.5}
- {column: good, between: [-1, 2]}
- {any_of: [{column: good, at_least: -0.5}]}
"""
    (run / "recipes" / "named.yaml").write_text(text)
    app = open_page("select", run)
    app.selectbox(key="load").set_value("named").run()
    assert not app.exception
    recipe = load_recipe(run / "recipes" / "named.yaml")
    assert kept(app) == len(select(Run.open(run), recipe))
    assert "columns:\n  good:\n" in app.get("code")[0].value
    number = next(w.key.rpartition("-")[2] for w in app.selectbox if w.key.startswith("metric-") and w.value == "good")
    app.selectbox(key=f"rule-{number}").set_value("at_least").run()
    assert not app.exception
    assert "column: good, at_least: " in app.get("code")[0].value
    app.selectbox(key=f"metric-{number}").set_value("clip_score").run()
    assert not app.exception
    assert "column: clip_score, at_least: " in app.get("code")[0].value
