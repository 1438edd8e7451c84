"""Every column of a run can be seen, chosen and selected by: added ones, those of the pool's table, mixes."""

from __future__ import annotations

import html
from decimal import Decimal

import numpy as np
import pytest
import scipy.stats

from clipsel_core.curation.index import metadata
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.selecting.selection import select
from clipsel_core.runs.columns import Column
from clipsel_core.runs.store import Run
from pages.parts import words as words_of
from pages.parts.distributions import kinds
from tests.pages.conftest import components, say, thumbs, words
from tests.pages.test_select import kept, saved_steps
from tests.pages.worlds import add_column_by_hand, add_recipe, make_run

TITLE, ABOUT = "Dog <b>likeness</b>", "How much it looks like a dog, [says](http://evil.example) its maker."
WIDTHS = [100 + 10 * (row % 30) for row in range(60)]
ALL_KINDS = """steps:
- {column: original_width, at_least: 150}
- {column: fault, in: [good]}
- {column: text, contains: [caption, dog]}
- {any_of: [{column: dogs, at_least: 10}, {column: original_width, between: [100, 200]}]}
- {column: dogs, known: true}
- {mix: {clip_score: 1, dogs: -0.5}, keep_top: 0.5}
- {column: dogs, keep_bottom: 0.4, of: survivors}
- {column: original_width, between: [160, 380]}
- {random: 0.5, seed: 3}
"""


@pytest.fixture
def run(tmp_path):
    made = make_run(tmp_path / "world", more={"original_width": WIDTHS, "original_height": [100] * 60})
    dogs = np.where(np.arange(60) % 20 == 7, np.nan, np.arange(60) * 7 % 60)
    add_column_by_hand(made, Column(name="dogs", title=TITLE, measures=ABOUT, origin="imported"), dogs)
    breed = Column(name="breed", title="Breed", kind="category", origin="imported", values=("pug", "boxer", "*none*"))
    add_column_by_hand(made, breed, [(0, 1, 1, np.nan)[row % 4] for row in range(60)])
    add_recipe(made, "all", ALL_KINDS)
    return made


def load(app, name="all"):
    app.selectbox(key="load").set_value(name).run()
    assert not app.exception
    return app


def mark(app, component, key, first, last, turn=1.0):
    """Has the chart with this key say that some of it is marked."""
    charts = (element.proto for element in app.get("bidi_component"))
    chart = next(proto.id for proto in charts if proto.component_name == component and proto.id.endswith(f"-{key}"))
    return say(app, chart, "marked", {"turn": turn, "ends": [first, last]})


def recipe_of(app) -> str:
    """The recipe as the page writes it."""
    return next(block.value for block in app.get("code") if block.value.startswith(("steps:", "columns:")))


def expected(run, text: str) -> int:
    return len(select(Run.open(run), parse_recipe(text)))


def test_pages__say_an_added_columns_title_and_help(run, open_page):
    app = open_page("distributions", run)
    drawn = components(app, "clipsel_histogram")
    assert [chart["title"] for chart in drawn if chart["note"] == ABOUT] == [f"{TITLE} of 57 pairs"]
    for page, key in (("gallery", "metric"), ("select", "metric-0"), ("map", "map_metric")):
        app = open_page(page, run)
        options = next(box for box in app.selectbox if box.key == key).options
        assert TITLE in options
        assert "Breed" not in options
        assert options[:2] == ["CLIPScore", "s-CLIPLoss"]
        assert "Width" in options
    assert html.escape(TITLE) in words(open_page("overview", run))


def test_select__every_kind_of_step_loads_and_counts_what_the_core_keeps(run, open_page):
    app = load(open_page("select", run))
    assert kept(app) == expected(run, ALL_KINDS) > 0
    said = words(app)
    assert "Width ≥ 150" in said
    assert "fault is 'good'" in said
    assert "text has 'caption' or 'dog'" in said
    assert "By itself it keeps 40 of the 60 pairs of this run" in said
    assert "50 % of the survivors at random, seed 3" in said
    assert len(thumbs(app)) == 3
    for number in range(9):
        app.toggle(key=f"on-{number + 2}").set_value(False).run()
        assert not app.exception
    assert kept(app) == 60


def test_select__steps_of_every_kind_move_and_are_removed(run, open_page):
    app = load(open_page("select", run))
    app.button(key="down-3").click().run()
    assert [step.kind for step in saved_steps(app)][1:3] == ["contains", "in"]
    for number in range(2, 11):
        app.button(key=f"remove-{number}").click().run()
        assert not app.exception
    assert "No step yet" in words(app)


def test_select__the_lowest_share_is_drawn_over_the_column_as_it_is(run, open_page):
    add_recipe(run, "low", "steps: [{column: original_width, keep_bottom: 0.2}]")
    thumb = thumbs(load(open_page("select", run), "low"))[0]
    assert thumb.head["title"] == "Width ≤ 150.00 keeps 12 of 60"
    assert thumb.head["unit"] == "px"
    assert (thumb.head["low"], thumb.head["high"]) == (100, 390)
    _, _, now = (np.array(layer["counts"]) for layer in thumb.chart["layers"])
    edges = np.linspace(100, 390, 129)
    assert now.tolist() == np.histogram(sorted(WIDTHS)[:12], edges)[0].tolist()
    app = thumb.set_value(40.0).run()
    assert kept(app) == 24


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        ("lowest pool", "keep_bottom"),
        ("lowest survivors", "keep_bottom"),
        ("at_most", "at_most"),
        ("between", "between"),
    ],
)
def test_select__a_score_takes_every_rule(run, open_page, rule, kind):
    app = open_page("select", run)
    app.selectbox(key="metric-0").set_value("original_width").run()
    app.selectbox(key="rule-0").set_value(rule).run()
    assert not app.exception
    step = saved_steps(app)[0]
    assert (step.column, step.kind) == ("original_width", kind)
    if kind == "keep_bottom":
        assert (float(step.value), step.of) == (0.3, rule.split()[1])
    assert kept(app) == expected(run, recipe_of(app))
    app.selectbox(key="rule-0").set_value("pool").run()
    assert saved_steps(app)[0].kind == "keep_top"


def test_select__ticks_the_values_of_a_category(run, open_page):
    app = open_page("select", run)
    app.session_state["other kinds 0"] = True
    app.run()
    app.selectbox(key="new category").set_value("breed").run()
    app.button(key="add kind").click().run()
    box = app.multiselect(key="values-2")
    assert box.options == ["boxer · 30", "pug · 15", "(none) · 15"]
    box.set_value(["pug"]).run()
    assert saved_steps(app)[2].value == ("pug",)
    assert "By itself it keeps 15 of the 60 pairs of this run" in words(app)
    box = app.multiselect(key="values-2").set_value([]).run()
    assert "expected a value to keep" in words(app)
    assert saved_steps(app)[2].value == ("pug",)


def test_pages__say_what_to_do_with_many_values(run, tmp_path, open_page, monkeypatch):
    monkeypatch.setattr(metadata, "MOST_CATEGORIES", 12)
    many = make_run(tmp_path / "many", more={"tag": [f"tag {row}" for row in range(60)]})
    app = open_page("distributions", many)
    app.multiselect(key="besides").set_value(["tag"]).run()
    assert not app.exception
    assert "<b>tag</b> <span>many values" in words(app)
    app = open_page("select", many)
    app.session_state["other kinds 0"] = True
    app.run()
    app.selectbox(key="new category").set_value("tag").run()
    assert "tag has many values" in words(app)
    assert app.button(key="add kind").disabled
    app.text_input(key="new value").set_value("tag 7").run()
    app.button(key="add kind").click().run()
    assert "By itself it keeps 1 of the 60 pairs of this run" in words(app)
    app.multiselect(key="values-2").set_value(["tag 7", "tag 8"]).run()
    assert saved_steps(app)[2].value == ("tag 7", "tag 8")


def test_by_kind__finds_any_of_many_kinds(run, open_page, monkeypatch):
    monkeypatch.setattr(kinds, "_MOST_ROWS", 1)
    app = open_page("distributions", run)
    app.session_state["view"] = "By kind"
    app.run()
    box = app.multiselect(key="kinds of breed")
    assert (box.label, box.options) == ("Of 3 kinds", ["boxer · 30", "pug · 15", "(none) · 15"])
    assert [chart["title"].split(":")[0] for chart in components(app, "clipsel_histogram")] == ["boxer"]
    box.set_value([""]).run()
    assert [chart["title"].split(":")[0] for chart in components(app, "clipsel_histogram")] == ["(none)"]


@pytest.mark.parametrize("kind", ["words", "at random", "a mix", "any of several", "what is known", "samples"])
def test_select__adds_steps_of_other_kinds(run, open_page, kind):
    app = open_page("select", run)
    app.session_state["other kinds 0"] = True
    app.session_state["kind of step"] = kind
    app.run()
    if kind == "words":
        assert app.button(key="add kind").disabled
        app.text_input(key="new words").set_value("dog,  pair 7").run()
    app.button(key="add kind").click().run()
    assert not app.exception
    steps = saved_steps(app)
    assert [step.kind for step in steps[:2]] == ["keep_top", "keep_top"]
    if kind == "words":
        assert steps[2].value == ("dog", "pair 7")
    assert kept(app) == expected(run, recipe_of(app))


def test_select__weighs_a_mix(run, open_page):
    add_recipe(run, "mix", "steps: [{mix: {clip_score: 1, dogs: -0.5}, keep_top: 0.5}]")
    app = load(open_page("select", run), "mix")
    app.number_input(key="weight-dogs-2").set_value(0.25).run()
    app.multiselect(key="mixed-2").set_value(["clip_score", "dogs", "original_width"]).run()
    app.selectbox(key="standardise-2").set_value("rank").run()
    step = saved_steps(app)[0]
    assert {name: float(weight) for name, weight in step.mix} == {"clip_score": 1, "dogs": 0.25, "original_width": 1}
    assert step.standardise == "rank"
    text = "steps: [{mix: {clip_score: 1, dogs: 0.25, original_width: 1}, standardise: rank, keep_top: 0.5}]"
    assert kept(app) == expected(run, text)
    head = thumbs(app)[0].head
    assert head["title"].startswith("Mix ≥ ")
    assert head["note"] == f"1 CLIPScore + 0.25 {TITLE} + 1 Width (ranks)"
    app.multiselect(key="mixed-2").set_value(["clip_score", "original_width"]).run()
    assert dict(saved_steps(app)[0].mix).keys() == {"clip_score", "original_width"}


def test_select__a_weights_slider_and_number_say_the_same(run, open_page):
    add_recipe(run, "mix", "steps: [{mix: {clip_score: 1, dogs: 0.123456789}, keep_top: 0.5}]")
    app = load(open_page("select", run), "mix")
    assert (app.slider(key="slide-dogs-2").value, app.number_input(key="weight-dogs-2").value) == (0.123456789,) * 2
    app.slider(key="slide-clip_score-2").set_value(-0.5).run()
    assert app.number_input(key="weight-clip_score-2").value == -0.5
    assert dict(saved_steps(app)[0].mix) == {"clip_score": Decimal("-0.5"), "dogs": Decimal("0.123456789")}
    app.number_input(key="weight-clip_score-2").set_value(7.0).run()
    assert not app.exception
    slider = app.slider(key="slide-clip_score-2")
    assert (slider.value, slider.max) == (7.0, 7.0)
    app.slider(key="slide-dogs-2").set_value(0.0).run()
    assert [float(weight) for _, weight in saved_steps(app)[0].mix] == [7.0, 0.0]


def test_select__edits_a_sample(run, open_page):
    add_recipe(run, "drawn", "steps: [{sample: 40, by: {dogs: 0.1}, seed: 1}]")
    app = load(open_page("select", run), "drawn")
    app.number_input(key="samples-2").set_value(50).run()
    app.number_input(key="seed-2").set_value(4).run()
    assert recipe_of(app) == "steps:\n- {sample: 50, by: {dogs: 0.1}, seed: 4}"
    app.number_input(key="penalty-2").set_value(0.5).run()
    app.number_input(key="round-2").set_value(20).run()
    assert recipe_of(app) == "steps:\n- {sample: 50, by: {dogs: 0.1}, penalty: 0.5, round: 20, seed: 4}"
    app.selectbox(key="method-2").set_value("hard_cap").run()
    app.number_input(key="limit-2").set_value(2).run()
    app.multiselect(key="mixed-2").set_value(["dogs", "clip_score"]).run()
    app.selectbox(key="standardise-2").set_value("zscore").run()
    assert not app.exception
    (step,) = saved_steps(app)
    assert (step.method, step.limit, step.penalty, step.round_, step.standardise) == (
        "hard_cap",
        2,
        None,
        None,
        "zscore",
    )
    assert "50 samples of" in words(app)
    app.selectbox(key="standardise-2").set_value("rank").run()
    app.selectbox(key="method-2").set_value("proportional").run()
    assert (saved_steps(app)[0].method, saved_steps(app)[0].limit) == ("proportional", None)


def test_select__edits_which_column_is_known(run, open_page):
    add_recipe(run, "known", "steps: [{column: dogs, known: true}]")
    app = load(open_page("select", run), "known")
    assert kept(app) == 57
    app.selectbox(key="known-2").set_value("is not known").run()
    assert kept(app) == 3
    app.selectbox(key="column-2").set_value("breed").run()
    assert recipe_of(app) == "steps:\n- {column: breed, known: false}"
    assert kept(app) == 15


def test_select__edits_the_filters_of_any_of(run, open_page):
    text = "steps: [{any_of: [{column: dogs, at_least: 50}, {column: breed, in: [pug]}]}]"
    add_recipe(run, "any", text)
    app = load(open_page("select", run), "any")
    assert kept(app) == expected(run, text)
    app.number_input(key="limit-2-0-0").set_value(40.0).run()
    app.multiselect(key="values-2-0-1").set_value(["pug", "boxer"]).run()
    app.button(key="add-filter-2").click().run()
    app.selectbox(key="column-2-1-2").set_value("original_width").run()
    app.selectbox(key="rule-2-1-2").set_value("between").run()
    app.number_input(key="low-2-1-2").set_value(100.0).run()
    app.number_input(key="high-2-1-2").set_value(150.0).run()
    assert not app.exception
    (step,) = saved_steps(app)
    assert [(judge.column, judge.value) for judge in step.any_of] == [
        ("dogs", 40),
        ("breed", ("pug", "boxer")),
        ("original_width", (100, 150)),
    ]
    app.button(key="remove-filter-2-1-0").click().run()
    (step,) = saved_steps(app)
    assert [judge.column for judge in step.any_of] == ["breed", "original_width"]
    assert app.multiselect(key="values-2-2-0").value == ["pug", "boxer"]
    assert kept(app) == expected(run, recipe_of(app))
    for column, rule in (("text", "contains"), ("text", "in"), ("fault", "unknown"), ("clip_score", "at_most")):
        app.selectbox(key="column-2-2-0").set_value(column).run()
        app.selectbox(key="rule-2-2-0").set_value(rule).run()
        assert not app.exception
        judge = saved_steps(app)[0].any_of[0]
        assert (judge.column, judge.kind) == (column, "known" if rule == "unknown" else rule)
        assert kept(app) == expected(run, recipe_of(app))


def test_select__filters_of_a_mix_that_has_a_name_are_edited_and_marked(run, open_page):
    text = """columns: {good: {mix: {clip_score: 1, dogs: 0.5}}}
steps: [{any_of: [{column: good, at_least: 0.5}, {column: dogs, at_least: 50}]}, {column: good, between: [-1, 1]}]"""
    add_recipe(run, "named", text)
    app = load(open_page("select", run), "named")
    assert kept(app) == expected(run, text)
    app = mark(app, "clipsel_histogram", "between-3", 0, 127)
    assert not app.exception
    assert "57 pairs" in words(app)
    app.selectbox(key="rule-2-0-0").set_value("between").run()
    app.number_input(key="low-2-0-0").set_value(-0.5).run()
    assert not app.exception
    assert kept(app) == expected(run, recipe_of(app))
    assert recipe_of(app).startswith("columns:")


def test_select__a_column_that_cannot_be_mixed_is_named(run, open_page):
    add_recipe(run, "flat", "steps: [{mix: {clip_score: 1, original_height: 1}, keep_top: 0.5}]")
    app = load(open_page("select", run), "flat")
    assert "A step of this recipe does not fit this run" in words(app)
    assert "60 values, all alike" in words(app)


def test_select__a_random_share_and_an_interval_are_typed(run, open_page):
    add_recipe(run, "two", "steps: [{random: 0.5, seed: 3}, {column: original_width, between: [100, 300]}]")
    app = load(open_page("select", run), "two")
    app.number_input(key="random-2").set_value(12.5).run()
    app.number_input(key="seed-2").set_value(9).run()
    app.number_input(key="high-3").set_value(200.0).run()
    random, between = saved_steps(app)
    assert (float(random.random), random.seed, between.between) == (0.125, 9, (100, 200))
    app.number_input(key="low-3").set_value(201.0).run()
    assert "expected two numbers, the lower first" in words(app)
    assert saved_steps(app)[1].between == (100, 200)


def test_distributions__draws_what_is_asked_of_the_pool_and_bars_of_categories(run, open_page):
    app = open_page("distributions", run)
    rows = components(app, "clipsel_bars")[0]["rows"]
    assert [(row["label"], row["count"], row["share"]) for row in rows] == [
        ("boxer", "30", "50.0 %"),
        ("pug", "15", "25.0 %"),
        ("(none)", "15", "25.0 %"),
    ]
    assert len(components(app, "clipsel_histogram")) == 8
    app.multiselect(key="besides").set_value(["original_width", "fault"]).run()
    assert not app.exception
    assert len(components(app, "clipsel_histogram")) == 9
    assert components(app, "clipsel_bars")[0]["rows"][0]["share"] == "66.7 %"
    app.session_state["view"] = "By kind"
    app.run()
    assert app.selectbox(key="kind").options == ["Breed", "fault"]
    titles = [chart["title"].split(":")[0] for chart in components(app, "clipsel_histogram")]
    assert titles == ["boxer", "pug", "(none)"]


def test_distributions__show_the_pairs_in_a_marked_part_and_lead_to_all_of_them(run, open_page):
    app = mark(open_page("distributions", run), "clipsel_histogram", "spread-clip_score", 32, 63)
    assert not app.exception
    # clip_score is row / 60, and the last is 59 / 60: a quarter of its span to the half.
    rows = [row for row in range(60) if 0.2458 <= row / 60 <= 0.4917]
    assert f"CLIPScore from 0.2458 to 0.4917</b> <span>{len(rows)} pairs" in words(app)
    cards = components(app, "clipsel_cards")[0]["cards"]
    assert {int(card["caption"].removeprefix("caption of pair ")) for card in cards} <= set(rows)
    assert len(cards) == 12
    link = app.get("page_link")[0].proto
    assert (link.page, link.query_string) == ("gallery", "metric=CLIPScore&from=0.2458&to=0.4917")
    app.button(key="unmark spread-clip_score").click().run()
    assert components(app, "clipsel_cards") == []
    app = mark(app, "clipsel_histogram", "spread-clip_score", 0, 127, turn=2.0)
    assert "60 pairs" in words(app)


def test_distributions__show_the_pairs_of_marked_bars(run, open_page):
    app = mark(open_page("distributions", run), "clipsel_bars", "spread-breed", 1, 2)
    assert "Breed: pug, (none)</b> <span>30 pairs" in words(app)
    cards = components(app, "clipsel_cards")[0]["cards"]
    assert {int(card["caption"].removeprefix("caption of pair ")) % 4 for card in cards} == {0, 3}
    assert app.get("page_link")[0].proto.query_string == "kind=Breed&value=pug&value=%28none%29"


def test_distributions__a_marked_part_is_of_one_chart_alone(run, open_page):
    app = mark(open_page("distributions", run), "clipsel_histogram", "spread-clip_score", 0, 5)
    app = mark(app, "clipsel_histogram", "spread-s_cliploss", 3, 5)
    assert len(components(app, "clipsel_cards")) == 1
    marks = {chart["title"]: chart["mark"] for chart in components(app, "clipsel_histogram")}
    assert marks["CLIPScore of 60 pairs"] == {"heard": 1}
    assert marks["s-CLIPLoss of 60 pairs"] == {"heard": 1, "first": 3, "last": 5}


def test_by_kind__marks_pairs_of_the_kind(run, open_page):
    app = open_page("distributions", run)
    app.session_state["view"] = "By kind"
    app.run()
    app = mark(app, "clipsel_histogram", "kind-breed-1", 64, 127)
    cards = components(app, "clipsel_cards")[0]["cards"]
    rows = {int(card["caption"].removeprefix("caption of pair ")) for card in cards}
    assert rows == {row for row in range(60) if row % 4 == 0 and row / 60 >= 0.4917}


def test_select__shows_the_pairs_in_a_marked_part_and_whether_they_are_kept(run, open_page):
    app = mark(open_page("select", run), "clipsel_control", "share-0", 0, 127)
    assert not app.exception
    assert "s-CLIPLoss from -0.5000 to 0.4834</b> <span>60 pairs" in words(app)
    badges = {card["badge"] for card in components(app, "clipsel_cards")[0]["cards"]}
    assert badges <= {"kept", "dropped"}
    assert thumbs(app)[0].head["place"] == 300


def test_distributions__ranks_and_averages_by_columns_of_the_pool_and_added_ones(run, open_page, patient):
    app = open_page("distributions", run)
    app.session_state["view"] = "Rank disagreement"
    app.run()
    app.selectbox(key="one").set_value("original_width").run()
    app.selectbox(key="other").set_value("dogs").run()
    assert not app.exception
    dogs = np.where(np.arange(60) % 20 == 7, np.nan, np.arange(60) * 7 % 60)
    both = ~np.isnan(dogs)
    spearman = scipy.stats.spearmanr(np.array(WIDTHS)[both], dogs[both]).statistic
    assert f"{spearman:.4f} (Spearman)" in words(app)
    assert len(components(app, "clipsel_cards")) == 2
    app.session_state["view"] = "Normalizer"
    app.run()
    app.selectbox(key="along").set_value("original_width").run()
    assert not app.exception
    assert "by percentile of Width" in words(app)


def test_gallery__takes_an_interval_and_values_of_a_category(run, open_page):
    app = open_page("gallery", run)
    app.number_input(key="from").set_value(0.3).run()
    app.number_input(key="to").set_value(0.5).run()
    app.selectbox(key="kind").set_value("breed").run()
    app.multiselect(key="value").set_value(["pug", ""]).run()
    assert not app.exception
    cards = components(app, "clipsel_cards")[0]["cards"]
    rows = [row for row in range(59, -1, -1) if 0.3 <= row / 60 <= 0.5 and row % 4 in (0, 3)]
    assert [card["caption"] for card in cards] == [f"caption of pair {row}" for row in rows]
    app.selectbox(key="metric").set_value("s_cliploss").run()
    assert (app.number_input(key="from").value, app.number_input(key="to").value) == (None, None)
    app.number_input(key="from").set_value(9.0).run()
    assert "Nothing to show" in words(app)


def test_gallery__sorts_by_a_column_of_the_pool(run, open_page):
    app = open_page("gallery", run)
    app.selectbox(key="metric").set_value("original_width").run()
    assert not app.exception
    cards = components(app, "clipsel_cards")[0]["cards"]
    assert [card["bars"][0]["value"] for card in cards[:3]] == ["390.00", "390.00", "380.00"]
    assert "Width of the image" in words(app)


def test_map__is_coloured_by_a_column_of_the_pool(run, open_page):
    app = open_page("map", run)
    app.selectbox(key="map_colour").set_value("original_width").run()
    assert not app.exception
    assert "Mean Width" in words(app)


def test_two_columns_of_one_title_are_told_apart(run, open_page):
    add_column_by_hand(run, Column(name="mine", title="CLIPScore", origin="imported"), range(60))
    options = open_page("gallery", run).selectbox(key="metric").options
    assert {"CLIPScore (clip_score)", "CLIPScore (mine)"} <= set(options)


def test_as_markdown__shows_text_as_it_is():
    assert words_of.as_markdown("a_b [c](d)") == r"a\_b \[c\]\(d\)"


def test_select__a_sample_stays_the_last_step(run, open_page):
    text = "steps: [{column: dogs, at_least: 5}, {sample: 40, by: {dogs: 0.1}, method: proportional, seed: 1}]"
    add_recipe(run, "drawn", text)
    app = load(open_page("select", run), "drawn")
    assert kept(app) == expected(run, text)
    assert f"40 samples by 0.1 {html.escape(TITLE)} (values), in proportion, seed 1" in words(app)
    assert f"40 samples of {kept(app)} pairs" in words(app)
    app.button(key="add").click().run()
    assert not app.exception
    assert [step.kind for step in saved_steps(app)] == ["at_least", "keep_top", "sample"]
    app.button(key="down-4").click().run()
    assert not app.exception
    assert [step.kind for step in saved_steps(app)] == ["at_least", "keep_top", "sample"]
