"""What lies below and beside the steps: pairs at a threshold, what another seed would change, how an export goes on."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.selecting.live import boundary
from clipsel_core.curation.selecting.selection import Picker
from clipsel_core.runs.store import Run
from pages.parts.select import export as export_panel
from tests.pages.conftest import components, press, thumbs, words
from tests.pages.worlds import make_run
from tests.waiting import until


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "world")


def opened(open_page, run, *panels):
    app = open_page("select", run)
    for panel in panels:
        app.session_state[panel] = True
    return app.run()


def captions(app) -> list[list[str]]:
    return [[card["caption"] for card in gallery["cards"]] for gallery in components(app, "clipsel_cards")]


def test_thresholds__wait_to_be_opened(run, open_page):
    assert captions(open_page("select", run)) == []


def test_thresholds__show_both_sides_and_follow_the_thumb(run, open_page):
    app = opened(open_page, run, "at threshold")
    below, above = captions(app)
    assert below[:2] == ["caption of pair 41", "caption of pair 40"]
    assert above[:2] == ["caption of pair 42", "caption of pair 43"]
    thumbs(app)[0].set_value(50.0).run()
    below, above = captions(app)
    assert (below[0], above[0]) == ("caption of pair 29", "caption of pair 30")
    assert not app.exception


def test_thresholds__of_a_chosen_step_are_the_cores(run, open_page):
    app = opened(open_page, run, "at threshold")
    app.segmented_control(key="threshold of").set_value(1).run()
    text = "steps: [{metric: s_cliploss, keep_top: 0.3}, {metric: normsim_inf_task, keep_top: 0.2}]"
    found = boundary(Picker(ScoreTable.open(Run.open(run))), parse_recipe(text), 1)
    sides = (side.rows(0, 12) for side in (found.failing, found.passing))
    assert captions(app) == [[f"caption of pair {row}" for row in rows] for rows in sides]


def test_thresholds__have_pages_that_a_moved_thumb_turns_back(run, open_page):
    app = opened(open_page, run, "at threshold")
    app.button(key="next below_page").click().run()
    below, above = captions(app)
    assert below[:2] == ["caption of pair 29", "caption of pair 28"]
    assert above[0] == "caption of pair 42"
    thumbs(app)[0].set_value(40.0).run()
    below, above = captions(app)
    assert (below[0], above[0]) == ("caption of pair 35", "caption of pair 36")
    assert not app.exception


def test_thresholds__a_pair_judged_by_hand_turns_no_page(run, open_page):
    app = opened(open_page, run, "at threshold")
    app.button(key="next below_page").click().run()
    below = next(element for element in app.get("bidi_component") if element.proto.component_name == "clipsel_cards")
    uid = components(app, "clipsel_cards")[0]["cards"][0]["uid"]
    press(app, below.proto.id, "keep", uid=uid)
    card = components(app, "clipsel_cards")[0]["cards"][0]
    assert (card["caption"], card["badge"]) == ("caption of pair 29", "kept by hand")


def test_thresholds__an_empty_side_says_so(run, open_page):
    app = opened(open_page, run, "at threshold")
    thumbs(app)[0].set_value(100.0).run()
    assert "No pair just below the threshold" in words(app)


def test_seeds__says_how_much_would_flip(run, open_page):
    app = opened(open_page, run, "other seed")
    assert "of the selection would be other pairs under another seed" in words(app)
    bars = [card["bars"][-1] for card in components(app, "clipsel_cards")[0]["cards"]]
    assert bars
    assert {bar["title"] for bar in bars} == {"chance to flip"}


def test_seeds__of_steps_without_a_seed(run, open_page):
    app = opened(open_page, run, "other seed")
    app.button(key="remove-0").click().run()
    assert "No step of this recipe depends on the seed" in words(app)


def test_seeds__without_a_record(tmp_path, open_page):
    run = make_run(tmp_path / "still", changed={"normalizer_se": np.zeros(60)})
    assert "Every shard is one batch" in words(opened(open_page, run, "other seed"))


@pytest.mark.parametrize(("key", "title"), [("save", "The recipe was not saved"), ("export", "Nothing was exported")])
def test_save__says_why_it_was_not_possible(run, open_page, key, title):
    """Where the folder should be lies a file: root may write to any folder."""
    app = open_page("select", run)
    (run / "recipes").rmdir()
    (run / "recipes").write_text("in the way")
    app.button(key=key).click().run()
    assert not app.exception
    assert title in words(app)
    assert "my-recipe.yaml: expected to write it, found File exists; make room" in words(app)
    assert app.button(key="save")


@pytest.fixture
def gate(monkeypatch):
    """Writing a subset takes until this is set, and everything is large enough to be watched."""
    opened, write = threading.Event(), export_panel.export

    def slowly(run, picked, recipe, out, report):
        while not opened.wait(0.01):
            report(1, 2, "", "Writing 12 uids …")
        return write(run, picked, recipe, out, report)

    monkeypatch.setattr(export_panel, "_FEW", 0)
    monkeypatch.setattr(export_panel, "export", slowly)
    yield opened
    opened.set()


def test_export__of_many_says_how_far_it_is(run, open_page, gate):
    app = open_page("select", run)
    app.button(key="export").click().run()
    assert not app.exception
    assert app.button(key="writing stop")
    assert "Exported" not in words(app)
    gate.set()
    until(lambda: (run / "exports" / "my-recipe.npy.manifest.json").exists())
    until(lambda: "**Exported**" in words(app.run()))
    assert "my-recipe.npy" in words(app)


def test_export__of_many_can_be_stopped_and_gone_on_with(run, open_page, gate):
    app = open_page("select", run)
    app.button(key="export").click().run()
    app.button(key="writing stop").click().run()
    until(lambda: "Stopped: nothing was written." in [text.value for text in app.run().text])
    assert not list((run / "exports").glob("*"))
    gate.set()
    app.button(key="writing on").click().run()
    until(lambda: "**Exported**" in words(app.run()))
