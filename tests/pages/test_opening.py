"""A large run is put in order with a bar and a way to stop; a small one is simply there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from clipsel_core.curation.index.score_table import ScoreTable
from pages.parts import state
from tests.pages.conftest import words
from tests.pages.worlds import make_run
from tests.waiting import PATIENCE_S


@pytest.fixture
def gate(monkeypatch):
    """Opening a run takes until this is set; before, it reports that one column of four is in order."""
    opened, reported = threading.Event(), threading.Event()

    def slowly(run, report):
        report(1, 4)
        reported.set()
        while not opened.wait(0.01):
            report(1, 4)
        return ScoreTable.open(run)

    monkeypatch.setattr(state, "must_build", lambda run: True)
    monkeypatch.setattr(state, "open_indexed", slowly)
    yield opened
    assert reported.is_set()
    opened.set()


def test_opening__shows_how_far_it_is_and_then_the_page(tmp_path, open_page, gate):
    app = open_page("gallery", make_run(tmp_path / "world"))
    assert not app.exception
    assert "scores in order" in words(app)
    assert "Sort and filter" not in [toggle.label for toggle in app.toggle]
    assert [button.label for button in app.button] == ["Stop"]
    gate.set()
    state.opening(state.catalog.entries()[0]).work.wait(PATIENCE_S)
    app.run()
    assert "scores in order" not in words(app)
    assert any(button.label == "Next" for button in app.button)


def test_opening__can_be_stopped_and_gone_on_with(tmp_path, open_page, gate):
    app = open_page("overview", make_run(tmp_path / "world"))
    app.button[0].click().run()
    opening = state.opening(state.catalog.entries()[0])
    opening.work.wait(PATIENCE_S)
    app.run()
    assert "cannot be shown" in words(app)
    assert opening.table is None
    gate.set()
    next(button for button in app.button if button.label == "Go on").click().run()
    opening.work.wait(PATIENCE_S)
    app.run()
    assert "A few pairs at random" in words(app)


def test_opening__another_run_to_compare_with_has_the_same_bar(tmp_path, open_page, gate, monkeypatch):
    mine, other = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    slowly = state.open_indexed
    monkeypatch.setattr(state, "must_build", lambda run: Path(run.root) == other)
    at_once = lambda run, report: slowly(run, report) if Path(run.root) == other else ScoreTable.open(run)  # noqa: E731
    monkeypatch.setattr(state, "open_indexed", at_once)
    app = open_page("compare", mine)
    state.catalog.allow([mine, other])
    app.session_state["what"] = "Runs"
    app.run()
    assert "Putting the other run&#x27;s scores in order" in words(app)
    next(button for button in app.button if button.label == "Stop").click().run()
    opening = next(state.opening(entry) for entry in state.catalog.entries() if Path(entry.root) == other)
    opening.work.wait(PATIENCE_S)
    assert "cannot be compared" in words(app.run())
    gate.set()
    next(button for button in app.button if button.label == "Go on").click().run()
    opening.work.wait(PATIENCE_S)
    app.run()
    assert "Agreement by metric" in words(app)
    assert not app.exception
