"""The address holds the draft: it opens the same steps elsewhere, and a bad one opens the usual steps, calmly."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from clipsel_core.curation.recipes import recipe_link
from clipsel_core.curation.recipes.recipe_files import parse_recipe
from clipsel_core.runs.store import Run
from pages.parts import catalog
from tests.pages.conftest import MAIN, thumbs, words
from tests.pages.test_select import kept
from tests.pages.worlds import make_run
from tests.waiting import PATIENCE_S

STEPS = """steps:
- {metric: s_cliploss, keep_top: 0.4}
- {metric: normsim_inf_task, keep_top: 0.25, enabled: false}
- {metric: clip_score, at_most: 0.9}
"""


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "world")


@pytest.fixture
def opened(run, tmp_path, monkeypatch):
    """Opens the Select page at an address, in a session of its own."""
    monkeypatch.setenv("CLIPSEL_DATA", str(tmp_path / "nothing"))
    catalog.allow([run])

    def opener(recipe: str = "") -> AppTest:
        app = AppTest.from_file(str(MAIN), default_timeout=PATIENCE_S)
        if recipe:
            app.query_params["recipe"] = recipe
        return app.run().switch_page("select.py").run()

    return opener


def link_of(run: Path, text: str, label: str | None = None) -> str:
    steps = parse_recipe(text).steps
    return recipe_link.pack(steps, run=label or catalog.entries()[0].label, lists=()).text


def address(app: AppTest) -> str:
    """The recipe in the page's address."""
    held = app.query_params.get("recipe", "")
    return held if isinstance(held, str) else held[0]


def test_link__the_suggestion_needs_none(opened):
    assert address(opened()) == ""


def test_link__opens_the_same_steps_in_another_session(run, opened):
    app = opened(link_of(run, STEPS))
    assert kept(app) == 19
    assert [thumb.value for thumb in thumbs(app)] == [40.0, 25.0, 0.9]
    assert [toggle.value for toggle in app.toggle] == [True, False, True]
    assert address(app) == link_of(run, STEPS)
    assert not app.exception


def test_link__follows_the_draft_and_carries_it(run, opened):
    first = opened()
    thumbs(first)[0].set_value(12.5).run()
    link = address(first)
    entry = catalog.entries()[0]
    steps = recipe_link.unpack(
        link, run=entry.label, metrics=Run.open(run).metrics, lists=(), folder=run / "recipes"
    ).steps
    assert steps[0].keep_top == Decimal("0.125")
    second = opened(link)
    assert kept(second) == kept(first) == 7
    thumbs(second)[0].set_value(20.0).run()
    first.run()
    assert kept(first) == 7


def test_link__is_empty_again_when_the_draft_is_the_suggestion(opened):
    app = opened()
    thumbs(app)[0].set_value(12.5).run()
    thumbs(app)[0].set_value(30.0).run()
    assert address(app) == ""


@pytest.mark.parametrize("recipe", ["1broken", "<script>alert(1)</script>", "x" * 9_000, "1" + "A" * 3_999])
def test_link__a_broken_one_is_a_calm_error(opened, recipe):
    app = opened(recipe)
    assert not app.exception
    assert "cannot be used" in words(app)
    assert "load a saved recipe" in words(app)
    assert kept(app) == 12
    assert address(app) == ""
    thumbs(app)[0].set_value(12.5).run()
    assert "cannot be used" not in words(app)


def test_link__of_another_run_is_refused(run, opened):
    app = opened(link_of(run, STEPS, label="other/run"))
    assert "found one for another run" in words(app)
    assert kept(app) == 12


def test_link__opens_no_list_outside_the_run(run, opened, tmp_path):
    (tmp_path / "secret.txt").write_text("00000000000000000000000000000007\n")
    text = f"steps: [{{intersect: '{tmp_path}/secret.txt'}}]"
    steps = parse_recipe(text).steps
    forged = recipe_link.pack(steps, run=catalog.entries()[0].label, lists=(f"{tmp_path}/secret.txt",))
    app = opened(forged.text)
    assert "expected a uid list of this run" in words(app)
    assert kept(app) == 12


def test_link__says_what_it_leaves_out_on_both_sides(run, opened):
    pairs = ", ".join(f"{number * 7919:032x}" for number in range(900))
    (run / "recipes" / "much.yaml").write_text(f"steps: [{{metric: clip_score, keep_top: 0.5}}, {{drop: [{pairs}]}}]")
    app = opened()
    app.selectbox(key="load").set_value("much").run()
    assert "leaves out 900 pairs kept or dropped by hand" in words(app)
    other = opened(address(app))
    assert "leaves out 900 pairs kept or dropped by hand" in words(other)
    assert kept(other) == 30
