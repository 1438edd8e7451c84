"""Each tab of the Distributions page shows what it says it shows."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from clipsel_core import uids
from clipsel_core.curation.recipes.recipe import load_recipe
from clipsel_core.curation.selecting.selection import select
from clipsel_core.runs.store import Run
from pages.parts import words as words_of
from tests.pages.conftest import components, words
from tests.pages.worlds import make_run, scores
from tests.waiting import until

DEMO = Path(__file__).parents[2] / "data" / "demo" / "run"
VIEWS = ("Each metric", "Two metrics", "By kind", "Rank disagreement", "Normalizer")


def shown(app, view: str):
    app.session_state["view"] = view
    app.run()
    until(lambda: not app.get("progress") or not app.run().get("progress"), "the tab is drawn")
    assert not app.exception
    return app


def figure(app) -> dict:
    return json.loads(app.get("plotly_chart")[0].proto.spec)


@pytest.fixture
def app(tmp_path, open_page):
    return open_page("distributions", make_run(tmp_path / "world"))


def test_distributions__histogram_counts_every_pair(app):
    drawn = components(app, "clipsel_histogram")
    assert [sum(chart["layers"][0]["counts"]) for chart in drawn] == [60] * 7
    assert "CLIPScore of 60 pairs" in drawn[0]["title"]


def test_distributions__kinds_add_up(app):
    rows = components(shown(app, "By kind"), "clipsel_histogram")
    assert [chart["title"].split(":")[0] for chart in rows] == ["good", "<b>odd</b>"]
    assert sum(sum(chart["layers"][1]["counts"]) for chart in rows) == 60


def test_distributions__kinds_are_none_of_the_columns_that_say_something_of_each_pair(tmp_path, open_page):
    """The demo's sha256, and what embed writes beside uids, which may be empty in all rows."""
    own = {"source_uid": [None] * 60, "json": ["{}"] * 60, "key": ["a", "b"] * 30}
    app = shown(open_page("distributions", make_run(tmp_path, more={**own, "language": ["en", "fr"] * 30})), "By kind")
    assert app.selectbox(key="kind").options == ["fault", "language"]


def test_distributions__says_what_the_recipe_keeps_of_each_kind(open_page):
    app = open_page("distributions", DEMO)
    titles = [chart["title"] for chart in components(shown(app, "By kind"), "clipsel_histogram")]
    shares = {title.split(":")[0]: title.split("pairs, ")[1].split(" kept by")[0] for title in titles}
    run = Run.open(DEMO)
    picked = select(run, load_recipe(Path(run.recipes_dir) / "two_steps.yaml"))
    kept = pa.table({"uid": uids.to_hex(picked.uids())})  # noqa: F841
    metadata = f"read_parquet('{DEMO.parent}/pool/metadata/*.parquet')"
    counted = duckdb.sql(f"select fault, sum((uid in (from kept))::int), count(*) from {metadata} group by fault")
    assert shares == {fault: words_of.share(part, whole) for fault, part, whole in counted.fetchall()}


def test_distributions__draws_the_drafts_thresholds(app):
    shown(app, "Two metrics")
    app.selectbox(key="across").set_value("s_cliploss").run()
    app.selectbox(key="up").set_value("normsim_inf_task").run()
    upright, level = (
        [line[f"{axis}0"], line[f"{axis}1"]]
        for line, axis in zip(figure(app)["layout"]["shapes"], ("x", "y"), strict=True)
    )
    # The top 18 of 60 begin at row 42; of those the 12 most like the target are the rows 42 to 53.
    across, up = scores(60)["s_cliploss"][42], scores(60)["normsim_inf_task"][53]
    assert upright == [pytest.approx(across)] * 2
    assert level == [pytest.approx(up)] * 2
    labels = [note["text"] for note in figure(app)["layout"]["annotations"]]
    assert labels == [f"step 1: ≥ {across:.4f}", f"step 2: ≥ {up:.4f}"]
    app.selectbox(key="across").set_value("r_image").run()
    app.selectbox(key="up").set_value("r_text").run()
    assert not figure(app)["layout"].get("shapes")
    assert "no step has a threshold on these metrics" in words(app)


def test_distributions__two_metrics_begin_with_those_of_the_recipe(app):
    """What a curator thinks of first is where the two steps cut."""
    shown(app, "Two metrics")
    assert app.selectbox(key="across").value == "s_cliploss"
    assert app.selectbox(key="up").value == "normsim_inf_task"


def test_distributions__rank_disagreement_names_the_pairs(tmp_path, open_page):
    other = scores(60)["clip_score"].copy()
    other[[3, 50]] = other[[50, 3]]
    app = open_page("distributions", make_run(tmp_path / "world", changed={"s_cliploss": other}))
    shown(app, "Rank disagreement")
    likes, dislikes = components(app, "clipsel_cards")
    assert [card["caption"] for card in likes["cards"]] == ["caption of pair 50"]
    assert [card["caption"] for card in dislikes["cards"]] == ["caption of pair 3"]
    assert "CLIPScore likes, s-CLIPLoss does not" in words(app)
    assert [bar["rank"] for bar in likes["cards"][0]["bars"]] == ["P83.3", "P5.0", "points"]
    rho = stats.spearmanr(scores(60)["clip_score"], other).statistic
    assert f"{rho:.4f} (Spearman)" in words(app)
    assert "by up to 78.3 points of rank" in words(app)


def test_distributions__one_metric_agrees_with_itself(app):
    shown(app, "Rank disagreement")
    app.selectbox(key="other").set_value("clip_score").run()
    assert "One metric agrees with itself" in words(app)


def test_distributions__turns_the_pages_of_a_disagreement(tmp_path, open_page):
    twisted = np.random.default_rng(0).permutation(60) / 60
    app = open_page("distributions", make_run(tmp_path / "world", changed={"s_cliploss": twisted}))
    shown(app, "Rank disagreement")
    gap = np.arange(60) - 60 * twisted
    order = [row for row in np.argsort(-gap, kind="stable") if gap[row] > 0.5]
    first = [int(card["caption"].split()[-1]) for card in components(app, "clipsel_cards")[0]["cards"]]
    app.number_input(key="first page").set_value(2).run()
    second = [int(card["caption"].split()[-1]) for card in components(app, "clipsel_cards")[0]["cards"]]
    assert [round(gap[row]) for row in first + second] == [round(gap[row]) for row in order[: len(first + second)]]
    assert not set(first) & set(second)


def test_distributions__what_the_normalizer_took(app):
    shown(app, "Normalizer")
    curves = {trace["name"]: trace["y"] for trace in figure(app)["data"]}
    assert list(curves) == ["r image", "r text"]
    assert "60 pairs in 50 groups" in words(app)
    app.button_group(key="split").set_value("kind").run()
    table = app.dataframe[0].value.set_index("kind")
    odd = np.arange(60) % 3 == 0
    for name, mask in (("good", ~odd), ("<b>odd</b>", odd)):
        assert table.loc[name, "pairs"] == mask.sum()
        assert table.loc[name, "r image"] == pytest.approx(scores(60)["r_image"][mask].mean(), abs=1e-6)
        assert table.loc[name, "normalizer"] == pytest.approx(0.5, abs=1e-6)
        assert table.loc[name, "against the mean"] == pytest.approx(0, abs=1e-6)


def test_distributions__a_metric_that_no_pair_has_is_no_empty_chart(tmp_path, open_page):
    gone = {"clip_score": np.full(60, np.nan)}
    run = make_run(tmp_path / "world", changed=gone)
    app = open_page("distributions", run)
    assert len(components(app, "clipsel_histogram")) == 6
    assert "CLIPScore: no pair of this run has a score" in words(app)
    assert f"clipsel inspect {run.parent / 'pool'}" in words(app)
    app.session_state["across"] = "clip_score"
    shown(app, "Two metrics")
    assert not app.get("plotly_chart")
    assert "CLIPScore: no pair of this run has a score" in words(app)
    app.session_state["of"] = "clip_score"
    shown(app, "By kind")
    assert not components(app, "clipsel_histogram")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("world", ["without_target", "one_pair", "equal_scores", "no_scores", "no_pool"])
def test_distributions__every_tab_opens_on_any_run(tmp_path, open_page, world, view):
    gone = {"changed": {name: np.full(60, np.nan) for name in ("clip_score", "s_cliploss")}}
    equal = {"changed": {"clip_score": np.full(60, 0.2), "s_cliploss": np.full(60, 0.25)}}
    how = {"without_target": {"target": False}, "one_pair": {"pairs": (1,)}, "equal_scores": equal, "no_scores": gone}
    run = make_run(tmp_path / "world", **how.get(world, {}))
    if world == "no_pool":
        (tmp_path / "world" / "pool").rename(tmp_path / "world" / "moved")
    app = shown(open_page("distributions", run), view)
    if view == "Normalizer":
        app.button_group(key="split").set_value("kind").run()
        assert not app.exception
