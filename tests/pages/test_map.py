"""The Map shows what lies in a part of it, and takes what is drawn into the recipe."""

from __future__ import annotations

import io
import re
import threading

import numpy as np
import pytest
from PIL import Image

from clipsel_core import tasks, uids
from clipsel_core.curation.exploring.projection import CaptionWords
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import AtLeast, Intersect
from clipsel_core.curation.selecting.selection import Picker, select
from clipsel_core.jobs.control import listing
from clipsel_core.runs.store import Run
from pages.parts import catalog, pictures, recipes, state
from pages.parts.catalog import Entry
from pages.parts.map import canvas, region
from pages.parts.pair import galleries
from tests.jobs import stand_in
from tests.pages.conftest import components, trigger, words
from tests.pages.worlds import HOSTILE, LACKING, make_run
from tests.waiting import PATIENCE_S

# Pairs lie on an arc from (1, 0) over (-1, 0) nearly around: those with x > 0 come first and last.
RIGHT_HALF = {"x": [0.0, 2.0, 2.0, 0.0], "y": [-2.0, -2.0, 2.0, 2.0]}
pytestmark = pytest.mark.usefixtures("patient")
NOTHING = {"x": [5.0, 6.0, 6.0], "y": [5.0, 5.0, 6.0]}


def on_right(pairs: int = 60) -> np.ndarray:
    return np.flatnonzero(np.cos(np.linspace(0, 6, pairs)) > 0)


def draw(app, event: str, value: object):
    name = "clipsel_lasso" if event == "drawn" else "clipsel_map"
    element = next(part for part in app.get("bidi_component") if part.proto.component_name == name)
    return trigger(app, element.proto.id, event, value)


def pointed(app) -> dict | None:
    """What the pair under the pointer says of itself; it belongs to the picture that the map shows."""
    ((said,), (drawn,)) = components(app, "clipsel_tip"), components(app, "clipsel_map")
    assert [said[name] for name in ("image", "span", "colouring")] == [
        drawn[name] for name in ("image", "span", "colouring")
    ]
    return said["tip"]


def shown(app) -> list[int]:
    return [int(card["caption"].split()[-1]) for card in components(app, "clipsel_cards")[0]["cards"]]


def steps(app, run) -> list:
    key = Entry("", run.resolve()).key
    return list(app.session_state["pages.parts.recipes.Drafts "].by_run[key].values())


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "world")


@pytest.fixture
def app(run, open_page):
    return open_page("map", run)


def test_map__region_holds_what_the_lasso_encloses(app):
    assert "60 pairs on the map" in words(app)
    draw(app, "drawn", RIGHT_HALF)
    assert f"{len(on_right())} pairs in the region" in words(app)
    assert set(shown(app)) <= set(on_right().tolist())
    draw(app, "drawn", {"x": [], "y": []})
    assert "60 pairs on the map" in words(app)


def test_map__says_that_a_region_is_empty(app):
    draw(app, "drawn", NOTHING)
    assert "No pair in this region" in words(app)
    assert not app.exception


def test_map__has_no_chart_of_a_metric_that_nobody_has(tmp_path, open_page):
    app = open_page("map", make_run(tmp_path / "without", **LACKING["no_scores"]))
    assert "None of them has a CLIPScore" in words(app)
    assert components(app, "clipsel_histogram") == []


def test_map__scale_ends_where_no_pair_is_in_view(app):
    def scale() -> list[str]:
        return [text for text, _ in components(app, "clipsel_map")[0]["bar"]["ticks"]]

    assert len(scale()) == 3
    draw(app, "moved", [-0.1, 0.1, -0.1, 0.1])
    assert components(app, "clipsel_map")[0]["seen"] == 0
    assert scale() == ["0"]


@pytest.mark.parametrize("said", ["<b>", 7, {"x": "no", "y": None}, {"x": [1, 2, None], "y": [1, 2, 3]}])
def test_map__takes_no_nonsense_from_the_browser(app, said):
    for event in ("drawn", "moved"):
        draw(app, event, said)
        assert not app.exception
        assert "60 pairs on the map" in words(app)


@pytest.mark.parametrize(("order", "first"), [("highest", 59), ("lowest", 0)])
def test_map__gallery_is_ordered(app, order, first):
    app.button_group(key="map_order").set_value(order).run()
    assert len(shown(app)) == 24
    assert shown(app)[0] == first
    assert shown(app) == sorted(shown(app), reverse=order == "highest")


@pytest.mark.parametrize("kind", ["keep", "drop"])
@pytest.mark.parametrize("most_inline", [1, 100])
def test_map__keeps_and_drops_a_region(app, run, kind, most_inline, monkeypatch):
    monkeypatch.setattr(galleries, "_MOST_INLINE", most_inline)
    draw(app, "drawn", RIGHT_HALF)
    app.button(key=f"{kind} these").click().run()
    assert not app.exception
    last = steps(app, run)[-1]
    assert last.kind == {("keep", 1): "union", ("drop", 1): "subtract"}.get((kind, most_inline), kind)
    table = ScoreTable.open(Run.open(run))
    with_all = "100.0 % kept" if kind == "keep" else "0.0 % kept"
    assert with_all in words(app)
    picked = select(Run.open(run), state.parse(Entry("", run), recipe_of(app, run)), table)
    assert np.isin(on_right(), picked.rows).all() == (kind == "keep")
    assert np.isin(on_right(), picked.rows).any() == (kind == "keep")


def test_map__the_last_word_on_a_region_counts_and_is_named_after_it(app, run, monkeypatch):
    monkeypatch.setattr(galleries, "_MOST_INLINE", 1)
    draw(app, "drawn", RIGHT_HALF)
    before = len(steps(app, run))
    for kind in ("keep", "keep", "drop", "keep", "drop"):
        app.button(key=f"{kind} these").click().run()
        assert len(steps(app, run)) == before + 1
    (listed,) = (run / "recipes" / "lists").iterdir()
    assert listed.name.startswith("region-")
    assert steps(app, run)[-1].subtract == f"lists/{listed.name}"


def test_map__a_region_of_everything_has_the_runs_median(tmp_path, open_page):
    """Scores that lie far apart: between the two in the middle any number would halve them."""
    far = np.random.default_rng(0).normal(size=60)
    app = open_page("map", make_run(tmp_path / "world", changed={"clip_score": far}))
    draw(app, "drawn", {"x": [-2, 2, 2, -2], "y": [-2, -2, 2, 2]})
    title = next(chart["title"] for chart in components(app, "clipsel_histogram"))
    here, everywhere = re.findall(r"median (\S+) here, (\S+) in the run", title)[0]
    assert here == everywhere
    assert sorted(far)[29] < float(here) < sorted(far)[30] + 1e-4


def recipe_of(app, run) -> str:
    return recipes.as_yaml(steps(app, run))


def test_map__compares_the_run_with_a_region(app, run, tmp_path, monkeypatch):
    stand_in.install(tmp_path / "home", monkeypatch, "finish")
    draw(app, "drawn", RIGHT_HALF)
    app.button(key="ask picked").click().run()
    app.button(key="add target").click().run()
    assert not app.exception
    (written,) = (run / "targets").iterdir()
    table = ScoreTable.open(Run.open(run))
    assert uids.read_subset(written).tolist() == uids.sort(table.uids_at(on_right())).tolist()
    (job,) = listing(catalog.jobs_folder())
    assert job.info.words == ("add-target", str(run), f"--target=picked={written}")
    stand_in.ended(job)


def test_map__says_that_the_run_cannot_be_written(app, run):
    (run / "targets").write_text("in the way")
    draw(app, "drawn", RIGHT_HALF)
    app.button(key="ask picked").click().run()
    app.button(key="add target").click().run()
    assert not app.exception
    assert "Not started" in words(app)


def test_map__shows_single_pairs_where_few_are_in_view(tmp_path, open_page):
    app = open_page("map", make_run(tmp_path / "world", pairs=(2_500,)))
    (drawn,) = components(app, "clipsel_map")
    assert drawn["points"]["x"] == []
    draw(app, "moved", [0.5, 1.5, -0.5, 0.5])
    (drawn,) = components(app, "clipsel_map")
    angle = np.linspace(0, 6, 2_500)
    seen = np.flatnonzero((np.cos(angle) >= 0.5) & (np.abs(np.sin(angle)) <= 0.5))
    assert drawn["points"]["x"] == pytest.approx(np.cos(angle[seen]), abs=1e-6)
    assert (drawn["seen"], drawn["said"]) == (len(seen), f"{len(seen)} in view")
    assert pointed(app) is None
    for place in (0, len(seen) - 1):
        draw(app, "pointed", place)
        assert (pointed(app)["place"], pointed(app)["caption"]) == (place, f"caption of pair {seen[place]}")
        assert components(app, "clipsel_map") == [drawn]
    for nonsense in (-1, len(seen), "3", None):
        draw(app, "pointed", nonsense)
        assert not app.exception
        assert pointed(app) is None


def test_map__opens_the_pair_that_is_clicked(app):
    draw(app, "moved", [0.5, 1.5, -0.5, 0.5])
    draw(app, "pointed", 3)
    (drawn,), tip = components(app, "clipsel_map"), pointed(app)
    draw(app, "opened", 3)
    assert not app.exception
    assert tip["caption"] in words(app)
    assert f"4 of {len(drawn['points']['x'])} in this gallery" in words(app)
    app.session_state["pages.parts.sessions.Pairs "].opened = None
    for nonsense in (-1, 10_000, "3", None):
        draw(app, "opened", nonsense)
        assert not app.exception
        assert "in this gallery" not in words(app)


@pytest.mark.parametrize("colour", ["amount", "kept", "clip_score", "normsim_inf_task"])
def test_map__is_coloured_and_says_how(app, colour):
    app.selectbox(key="map_colour").set_value(colour).run()
    assert not app.exception
    (drawn,) = components(app, "clipsel_map")
    picture = Image.open(io.BytesIO(pictures.read_drawing(drawn["image"].removeprefix("./drawings/"))))
    pixels = np.asarray(picture.convert("RGBA"))
    assert (pixels[..., 3] > 0).any()
    assert (pixels[..., 3] == 0).any()
    assert len({tuple(pixel) for pixel in pixels[pixels[..., 3] > 200][:, :3].tolist()}) > 1 or colour == "amount"
    assert drawn["bar"]["blank"] == "no pair"
    assert len(drawn["bar"]["ticks"]) == 3
    assert len(set(drawn["points"]["colour"])) > 1 or colour == "amount"


def test_map__captions_stay_text(tmp_path, open_page):
    app = open_page("map", make_run(tmp_path / "world", captions=HOSTILE))
    for place in range(0, 60, 4):
        draw(app, "pointed", place)
        assert pointed(app)["caption"] == HOSTILE[place][:200]
        assert "<script" not in words(app)


def test_map__pages_through_a_region(app):
    draw(app, "drawn", RIGHT_HALF)
    first = shown(app)
    app.button(key="next region_page").click().run()
    assert not app.exception
    assert sorted(first + shown(app)) == sorted(on_right().tolist(), reverse=False)[-len(first + shown(app)) :]
    assert "of 2" in words(app)
    app.button_group(key="map_order").set_value("lowest").run()
    assert shown(app) == on_right().tolist()[:24]
    app.button(key="next region_page").click().run()
    draw(app, "drawn", {"x": [], "y": []})
    assert shown(app) == list(range(24))


def test_map__is_there_before_it_is_known_what_the_recipe_keeps(run, open_page, monkeypatch):
    monkeypatch.setattr(tasks, "_AT_ONCE_S", 0)
    gate, select = threading.Event(), Picker.select
    monkeypatch.setattr(Picker, "select", lambda self, recipe: gate.wait(PATIENCE_S) and select(self, recipe))
    app = open_page("map", run)
    assert not app.exception
    assert len(shown(app)) == 24
    assert "kept by the recipe" not in words(app)
    assert {card["badge"] for card in components(app, "clipsel_cards")[0]["cards"]} == {""}
    gate.set()
    monkeypatch.setattr(tasks, "_AT_ONCE_S", PATIENCE_S)
    for thread in threading.enumerate():
        if thread.daemon and "_run" in thread.name:
            thread.join(PATIENCE_S)
    app.run()
    assert "kept by the recipe" in words(app)
    assert {card["badge"] for card in components(app, "clipsel_cards")[0]["cards"]} == {"kept", "dropped"}


def test_map__stays_where_the_recipe_does_not_fit(run, open_page):
    app = open_page("map", run)
    key = Entry("", run.resolve()).key
    app.session_state["pages.parts.recipes.Drafts "].by_run[key] = {1: AtLeast(column="nonsense", at_least=0.5)}
    app.run()
    assert not app.exception
    assert "does not fit this run" in "".join(error.value for error in app.error)
    assert len(shown(app)) == 24


def test_map__a_list_that_is_written_over_colours_it_anew(run, app):
    names = uids.to_hex(ScoreTable.open(Run.open(run)).uids()).to_pylist()
    listed = run / "recipes" / "mine.txt"

    def drawn(kept: list[str]) -> tuple[str, str]:
        listed.write_text("".join(f"{name}\n" for name in kept))
        view = components(app.run(), "clipsel_map")[0]
        assert not app.exception
        return view["image"], view["colouring"]

    listed.parent.mkdir(exist_ok=True)
    listed.write_text("")
    key = Entry("", run.resolve()).key
    app.session_state["pages.parts.recipes.Drafts "].by_run[key] = {1: Intersect(intersect="mine.txt")}
    app.selectbox(key="map_colour").set_value(canvas.KEPT)
    first, second, third = drawn(names[:30]), drawn(names[25:]), drawn(names[:30])
    assert (first[0] != second[0], first[0] == third[0], first[1] != second[1]) == (True, True, True)


def test_map__has_names_that_were_found_while_it_was_drawn(run, open_page, monkeypatch):
    labels = [[("red · bird", 0.0, 0.0)]]
    task = tasks.Task(lambda report: region.Names(labels, np.arange(1), CaptionWords(["red bird"])))
    draws, draw_map = [], canvas.draw_map

    def named_meanwhile(view, *session, **said):
        draws.append(view.labels)
        task.start()
        task.wait(PATIENCE_S)
        return draw_map(view, *session, **said)

    monkeypatch.setattr(task, "begin", lambda: None)
    monkeypatch.setattr(region, "naming_task", lambda entry: task)
    monkeypatch.setattr(canvas, "draw_map", named_meanwhile)
    app = open_page("map", run)
    assert not app.exception
    assert (draws[0], draws[-1]) == ([], labels)
    assert components(app, "clipsel_map")[0]["labels"] == [[["red · bird", 0.0, 0.0]]]
