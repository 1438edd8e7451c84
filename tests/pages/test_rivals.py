"""Two runs of one pool: how far they agree, and the pairs on which they do not."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from pages.parts import catalog
from tests.pages.conftest import components, words
from tests.pages.worlds import make_run, scores


@pytest.fixture
def worlds(tmp_path):
    """A run, and another of the same pairs whose CLIPScore runs the other way."""
    first = make_run(tmp_path / "one")
    second = make_run(tmp_path / "two", changed={"clip_score": -scores(60)["clip_score"]})
    return first, second


@pytest.fixture
def against(worlds, open_page, monkeypatch):
    """The page with its part about runs open."""

    def opener(*runs):
        app = open_page("compare", worlds[0])
        catalog.allow([worlds[0], *runs])
        app.session_state["compare what"] = "Runs"
        return app.run()

    return opener


def captions(app) -> list[str]:
    return [card["caption"] for card in components(app, "clipsel_cards")[0]["cards"]]


def test_rivals__alone_says_how_to_make_another(against):
    app = against()
    assert "No other run to compare with" in words(app)
    assert "--seed 1" in words(app)


def test_rivals__agree_and_disagree_by_metric(against, worlds):
    app = against(worlds[1])
    assert "The same 60 pairs, in the same order" in words(app)
    table = next(element.proto.body for element in app.get("html") if "<td" in element.proto.body)
    rows = {row.split("</th>")[0].split("<th>")[-1]: row for row in table.split("<tr>")[2:]}
    assert "1.0000" in rows["s-CLIPLoss"]
    assert "100.0 %" in rows["s-CLIPLoss"]
    assert "-1.0000" in rows["CLIPScore"]
    assert not app.exception


@pytest.mark.parametrize(("part", "rows"), [(0, range(59, 41, -1)), (2, range(17, -1, -1))])
def test_rivals__show_who_the_other_leaves_out(against, worlds, part, rows):
    app = against(worlds[1])
    app.selectbox(key="rival metric").set_value("clip_score").run()
    app.segmented_control(key="rival part").set_value(part).run()
    assert captions(app) == [f"caption of pair {row}" for row in rows]


def test_rivals__top_share_moves_the_parts(against, worlds):
    app = against(worlds[1])
    app.selectbox(key="rival metric").set_value("clip_score").run()
    app.slider(key="rival share").set_value(5).run()
    assert captions(app) == ["caption of pair 59", "caption of pair 58", "caption of pair 57"]


def test_rivals__an_unreadable_one_is_not_offered(against, worlds, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(worlds[1], broken)
    (broken / "run.json").write_text("{}")
    app = against(broken)
    assert "No other run to compare with" in words(app)


def test_rivals__of_other_pairs_have_nothing_in_common(against, tmp_path, monkeypatch):
    other = make_run(tmp_path / "other")
    for file in (other / "scores").glob("*.parquet"):
        table = pq.read_table(file)
        high = np.asarray(table["uid_hi"]) + np.uint64(10**9)
        pq.write_table(table.set_column(0, "uid_hi", [high]), file)
    app = against(other)
    assert "No pair in common" in words(app)
    assert not app.exception
