"""Two runs of one pool: how far they agree, and the pairs on which they do not."""

from __future__ import annotations

import os
import shutil
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

from clipsel_core import tasks
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.runs.store import Run
from pages.parts import catalog, sessions
from pages.parts.compare import runs
from pages.parts.compare.runs import Agreements
from tests.pages.conftest import MAIN, components, words
from tests.pages.worlds import make_run, scores
from tests.waiting import PATIENCE_S, until


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
        app.session_state["what"] = "Runs"
        return ranked(app.run())

    return opener


def ranked(app):
    """The page once the ranking is through."""
    until(lambda: not app.get("progress") or not app.run().get("progress"), "the ranking is through")
    return app


def captions(app) -> list[str]:
    return [card["caption"] for card in components(app, "clipsel_cards")[0]["cards"]]


def test_compare_runs__alone_says_how_to_make_another(against):
    app = against()
    assert "No other run to compare with" in words(app)
    assert "--seed 1" in words(app)


def test_compare_runs__agree_and_disagree_by_metric(against, worlds):
    app = against(worlds[1])
    assert "The same 60 pairs, in the same order" in words(app)
    table = next(element.proto.body for element in app.get("html") if "<td" in element.proto.body)
    rows = {row.split("</th>")[0].split("<th>")[-1]: row for row in table.split("<tr>")[2:]}
    assert "1.0000" in rows["s-CLIPLoss"]
    assert "100.0 %" in rows["s-CLIPLoss"]
    assert "-1.0000" in rows["CLIPScore"]
    assert not app.exception


ENDS = [("only this one", range(59, 41, -1)), ("only the other", range(17, -1, -1))]


@pytest.mark.parametrize(("part", "rows"), ENDS)
def test_compare_runs__show_who_the_other_leaves_out(against, worlds, part, rows):
    app = against(worlds[1])
    app.selectbox(key="ranked").set_value("clip_score").run()
    app.segmented_control(key="part").set_value(part).run()
    assert captions(app) == [f"caption of pair {row}" for row in rows]


def test_compare_runs__top_share_moves_the_parts(against, worlds):
    app = against(worlds[1])
    app.selectbox(key="ranked").set_value("clip_score").run()
    app.slider(key="top").set_value(5).run()
    assert captions(app) == ["caption of pair 59", "caption of pair 58", "caption of pair 57"]


def test_compare_runs__an_unreadable_one_is_not_offered(against, worlds, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(worlds[1], broken)
    (broken / "run.json").write_text("{}")
    app = against(broken)
    assert "No other run to compare with" in words(app)


def test_compare_runs__of_other_pairs_have_nothing_in_common(against, tmp_path, monkeypatch):
    other = make_run(tmp_path / "other")
    for file in (other / "scores").glob("*.parquet"):
        table = pq.read_table(file)
        high = np.asarray(table["uid_hi"]) + np.uint64(10**9)
        pq.write_table(table.set_column(0, "uid_hi", [high]), file)
    app = against(other)
    assert "No pair in common" in words(app)
    assert not app.exception


def followed(link: dict):
    """The Compare page in a session of its own, opened at an address."""
    app = AppTest.from_file(str(MAIN), default_timeout=PATIENCE_S)
    for name, value in link.items():
        app.query_params[name] = value
    return ranked(app.switch_page("compare.py").run())


def test_compare_runs__a_link_shows_the_same(against, worlds):
    app = against(worlds[1])
    app.selectbox(key="ranked").set_value("clip_score").run()
    app.slider(key="top").set_value(10).run()
    app.segmented_control(key="part").set_value("only the other").run()
    app.segmented_control(key="end").set_value("lowest").run()
    # What the browser writes into the address.
    link = {"what": "Runs", "ranked": "CLIPScore", "top": "10", "part": "only the other", "end": "lowest"}
    other = followed(link)
    assert captions(other) == captions(app) == [f"caption of pair {row}" for row in range(6)]
    assert "top 10 % by CLIPScore, and not in this one" in words(other)


def test_compare_runs__a_link_to_what_is_not_there_opens_the_usual(against, worlds):
    against(worlds[1])
    app = followed({"what": "Runs", "rival": "nobody", "ranked": "nothing", "top": "900", "part": "none", "at": "77"})
    assert app.slider(key="top").value in (30, 99)
    assert app.selectbox(key="ranked").value == "s_cliploss"
    assert not app.exception


def test_compare_runs__what_was_ranked_is_kept_beside_the_run(against, worlds, monkeypatch):
    first = words(against(worlds[1]))
    runs._agreements.clear()
    monkeypatch.setattr(runs, "measure_agreement", None)
    assert words(against(worlds[1])) == first
    # Other scores are ranked anew.
    file = next((worlds[1] / "scores").glob("*.parquet"))
    os.utime(file, ns=(1, 1))
    with pytest.raises(TypeError, match="not callable"):
        Agreements(*(ScoreTable.open(Run.open(run)) for run in worlds))._do(tasks.silent)


def test_agreements__stopped_and_taken_up_again(worlds, monkeypatch):
    gate, agreement = threading.Event(), runs.measure_agreement

    def slowly(alignment, metric, between):
        if metric == "r_image":
            gate.wait(PATIENCE_S)
            between(1, 2)
        return agreement(alignment, metric, between)

    monkeypatch.setattr(runs, "measure_agreement", slowly)
    compared = Agreements(*(ScoreTable.open(Run.open(run)) for run in worlds))
    compared.task.begin()
    work = compared.task
    until(lambda: "r image" in work.note or not work.active)
    work.stop()
    gate.set()
    until(lambda: not work.active, "the work has stopped")
    assert work.stopped
    assert not work.finished
    assert list(compared.found) == ["s_cliploss", "clip_score"]
    work.start()
    until(lambda: not work.active, "the work is done")
    assert work.finished
    assert len(compared.found) == 7


def test_agreements__of_two_pools_are_of_what_their_tables_say_too(tmp_path):
    """Of one pool, both runs have the same from its table."""
    widths = np.random.default_rng(1).permutation(60)
    first, second = (
        ScoreTable.open(
            Run.open(make_run(tmp_path / name, more={"width": list(values), "only": [1] * 60, name: widths}))
        )
        for name, values in (("one", widths), ("two", -widths))
    )
    compared = Agreements(first, second)
    compared._do(tasks.silent)
    assert compared.names == [*first.run.metrics, "width", "only"]
    assert compared.found["width"].spearman == pytest.approx(-1)
    assert Agreements(first, ScoreTable.open(Run.open(tmp_path / "one" / "run"))).names == first.run.metrics


def test_compare_runs__shows_what_is_matched_while_the_page_is_drawn(worlds, open_page, monkeypatch):
    """The work ends between what the page knows of it and the table, which waits for what it does not know."""
    go_on, do, fragment = threading.Event(), Agreements._do, sessions.fragment

    def slowly(self, report):
        go_on.wait(PATIENCE_S)
        do(self, report)

    def late(draw, **given):
        if draw is runs._table:
            go_on.set()
            runs._agreements(*catalog.entries()).task.wait(PATIENCE_S)
        return fragment(draw, **given)

    monkeypatch.setattr(tasks, "_AT_ONCE_S", 0)
    monkeypatch.setattr(Agreements, "_do", slowly)
    monkeypatch.setattr(sessions, "fragment", late)
    app = open_page("compare", worlds[0])
    catalog.allow(worlds)
    app.session_state["what"] = "Runs"
    app.run()
    assert not app.exception
    assert "What the tops by s-CLIPLoss share" in words(app)
