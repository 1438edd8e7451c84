"""The address holds the draft: it opens the same steps elsewhere, and a bad one opens the usual steps, calmly."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from clipsel_core.curation.recipes import recipe_link
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.runs.store import Run
from pages.parts import catalog, links, recipes
from tests.pages.conftest import MAIN, thumbs, words
from tests.pages.test_select import kept, saved_steps
from tests.pages.worlds import add_target_by_hand, make_run
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
    return recipe_link.encode_link(steps, run=label or catalog.entries()[0].label, lists=()).text


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
    assert [toggle.value for toggle in app.toggle if toggle.key.startswith("on-")] == [True, False, True]
    assert address(app) == link_of(run, STEPS)
    assert not app.exception


def test_link__follows_the_draft_and_carries_it(run, opened):
    first = opened()
    thumbs(first)[0].set_value(12.5).run()
    link = address(first)
    entry = catalog.entries()[0]
    steps = recipe_link.decode_link(
        link, run=entry.label, columns=Run.open(run).metrics, lists=(), folder=run / "recipes"
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
    forged = recipe_link.encode_link(steps, run=catalog.entries()[0].label, lists=(f"{tmp_path}/secret.txt",))
    app = opened(forged.text)
    assert "expected a uid list of this run" in words(app)
    assert kept(app) == 12


def much(run: Path, pairs: int, kind: str = "drop") -> str:
    """A recipe with so many pairs by hand, and the name it is saved under."""
    names = ", ".join(f"{number * 7919:032x}" for number in range(pairs))
    (run / "recipes" / "much.yaml").write_text(f"steps: [{{metric: clip_score, keep_top: 0.5}}, {{{kind}: [{names}]}}]")
    return "much"


def hand_of(app: AppTest) -> int:
    """How many pairs the draft keeps or drops by hand."""
    steps = app.session_state["pages.parts.recipes.Drafts "].by_run[catalog.entries()[0].key].values()
    return sum(len(getattr(step, step.kind)) for step in steps if step.kind in ("keep", "drop"))


@pytest.mark.parametrize("pairs", [169, 171, 900, 20_000])
def test_link__however_many_picks_survive_a_reload(run, opened, pairs):
    name = much(run, pairs)
    app = opened()
    app.selectbox(key="load").set_value(name).run()
    assert "leaves out" not in words(app)
    other = opened(address(app))
    assert hand_of(other) == hand_of(app) == pairs
    assert address(other) == address(app)
    assert "leaves out" not in words(other)


def test_link__two_tabs_do_not_swap_their_drafts(run, opened):
    name = much(run, 900)
    first = opened()
    first.selectbox(key="load").set_value(name).run()
    before = address(first)
    second = opened(before)
    thumbs(second)[0].set_value(10.0).run()
    thumbs(first)[0].set_value(20.0).run()
    for app, percent in (
        (first, 20.0),
        (second, 10.0),
        (opened(address(first)), 20.0),
        (opened(address(second)), 10.0),
    ):
        assert thumbs(app.run())[0].value == percent
        assert hand_of(app) == 900
    assert thumbs(opened(before))[0].value == 50.0


@pytest.mark.parametrize("damage", ["gone", "cut", "another run's", "empty"])
def test_link__a_kept_draft_that_is_damaged_is_a_calm_error(run, opened, tmp_path, damage):
    name = much(run, 900)
    app = opened()
    app.selectbox(key="load").set_value(name).run()
    (file,) = (tmp_path / "nothing" / ".drafts").iterdir()
    link = file.name
    if damage == "gone":
        file.unlink()
    elif damage == "another run's":
        link = links.store_draft("other/run", "steps: [{metric: clip_score, keep_top: 0.1}]")
    else:
        file.write_bytes(file.read_bytes()[:1000] if damage == "cut" else b"")
    other = opened(link)
    assert not other.exception
    assert "cannot be used" in words(other)
    assert kept(other) == 12


def test_drafts__are_bounded_and_the_last_ones_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("CLIPSEL_DATA", str(tmp_path))
    for name, most in (("_STORED_UNCOUNTED", 1), ("_MOST_KEPT", 3), ("_uncounted", 0), ("_MOST_BYTES", 1000)):
        monkeypatch.setattr(links, name, most)
    names = []
    for number in range(6):
        names.append(links.store_draft("run", f"steps: {number}"))
        os.utime(tmp_path / ".drafts" / names[-1], (number, number))
        if number == 2:
            assert links.read_stored(names[0], "run") == "steps: 0"
    left = {file.name for file in (tmp_path / ".drafts").iterdir()}
    assert names[0] in left
    assert len(left) == 3
    assert links.store_draft("run", "x" * 1001) is None


def test_link__an_untouched_draft_is_the_same_after_a_target_was_added(tmp_path, opened, run):
    app = opened()
    before, link = saved_steps(app), address(app)
    add_target_by_hand(run, "aaa")
    assert saved_steps(app.run()) == before
    assert saved_steps(opened(link)) == saved_steps(opened(address(app))) == before


def test_suggestion__of_a_run_without_a_target_stays_when_one_is_added(tmp_path):
    made = make_run(tmp_path / "bare", target=False)
    before = recipes.suggestion(Run.open(made))
    add_target_by_hand(made, "aaa")
    assert recipes.suggestion(Run.open(made)) == before
    assert [step.metric for step in before] == ["s_cliploss"]


def test_link__says_what_it_leaves_out_on_both_sides(run, opened, monkeypatch):
    """Where the server can keep nothing."""
    monkeypatch.setattr(links, "_MOST_BYTES", 0)
    pairs = ", ".join(f"{number * 7919:032x}" for number in range(900))
    (run / "recipes" / "much.yaml").write_text(f"steps: [{{metric: clip_score, keep_top: 0.5}}, {{drop: [{pairs}]}}]")
    app = opened()
    app.selectbox(key="load").set_value("much").run()
    assert "leaves out 900 pairs kept or dropped by hand" in words(app)
    other = opened(address(app))
    assert "leaves out 900 pairs kept or dropped by hand" in words(other)
    assert kept(other) == 30
