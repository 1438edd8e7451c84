"""Captions and urls are read once, ahead where they can be, and never for a page that nobody waits for any more."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from clipsel_core.curation.index.metadata import Metadata
from pages.parts import catalog
from pages.parts.gallery import contents
from tests.pages.conftest import components
from tests.pages.worlds import make_run
from tests.waiting import PATIENCE_S


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(contents, "_DELAY_S", 0)


@pytest.fixture
def asked(monkeypatch):
    """The rows and columns that the metadata was asked for, in turn."""
    said, metadata = [], Metadata.of

    def listening(self, rows, columns=("caption", "url")):
        said.append((len(rows), tuple(columns), threading.current_thread().name))
        return metadata(self, rows, columns)

    monkeypatch.setattr(Metadata, "of", listening)
    return said


def captions(app) -> list[str]:
    return [card["caption"] for card in components(app, "clipsel_cards")[0]["cards"]]


def prefetched() -> None:
    for prefetch in list(contents._prefetches.values()):
        assert prefetch.done.wait(PATIENCE_S)


def test_next__was_prefetched(tmp_path, open_page, asked):
    app = open_page("gallery", make_run(tmp_path / "world", pairs=(100, 60)))
    prefetched()
    asked.clear()
    app.button(key="next page").click().run()
    prefetched()
    assert captions(app) == [f"caption of pair {row}" for row in range(111, 63, -1)]
    assert all("prefetch" in thread for _, _, thread in asked)
    asked.clear()
    app.button(key="previous page").click().run()
    prefetched()
    assert not asked


@pytest.mark.parametrize(("page", "key"), [("map", "next region_page"), ("distributions", "next first page")])
def test_next__was_prefetched_in_every_gallery_with_pages(tmp_path, open_page, asked, patient, page, key):
    app = open_page(page, make_run(tmp_path / "world", pairs=(100, 60)))
    if page == "distributions":
        app.session_state["view"] = "Rank disagreement"
        app.run()
        app.selectbox(key="other").set_value("normsim_inf_task").run()
    prefetched()
    asked.clear()
    app.button(key=key).click().run()
    prefetched()
    assert not app.exception
    assert asked
    assert all("prefetch" in thread for _, _, thread in asked)


def test_last_page__prefetches_nothing(tmp_path, open_page, asked):
    open_page("gallery", make_run(tmp_path / "small", pairs=(30,)))
    prefetched()
    assert not [thread for _, _, thread in asked if "prefetch" in thread]


def test_images_from_the_web__take_one_question_a_page(tmp_path, open_page, asked):
    app = open_page("gallery", make_run(tmp_path / "world", images=False))
    prefetched()
    asked.clear()
    next(toggle for toggle in app.toggle if toggle.label == "Images from the web").set_value(True).run()
    prefetched()
    assert [(rows, columns) for rows, columns, _ in asked] == [(48, ("caption", "url")), (12, ("caption", "url"))]


def test_prefetch__cancelled_when_the_session_goes_elsewhere(tmp_path, asked, monkeypatch):
    monkeypatch.setenv("CLIPSEL_DATA", str(tmp_path / "nothing"))
    monkeypatch.setattr(contents, "_AT_ONCE", 5)
    run = make_run(tmp_path / "world", pairs=(200,))
    catalog.allow([run])
    entry, gate, begun = catalog.entries()[0], threading.Event(), threading.Event()
    monkeypatch.setattr(contents, "get_script_run_ctx", lambda: type("Context", (), {"session_id": "one"}))

    def slowly() -> np.ndarray:
        begun.set()
        gate.wait(PATIENCE_S)
        return np.arange(100)

    contents.prefetch(entry, "cards", slowly, ("caption",))
    first = contents._prefetches["one", "cards"]
    assert begun.wait(PATIENCE_S)
    contents.prefetch(entry, "cards", lambda: np.arange(100, 120), ("caption",))
    second = contents._prefetches["one", "cards"]
    gate.set()
    assert first.done.wait(PATIENCE_S)
    assert second.done.wait(PATIENCE_S)
    assert sum(rows for rows, _, thread in asked if "prefetch" in thread) == 20


def test_read_texts__waits_for_what_is_on_its_way(tmp_path, asked, monkeypatch):
    monkeypatch.setenv("CLIPSEL_DATA", str(tmp_path / "nothing"))
    run = make_run(tmp_path / "world")
    catalog.allow([run])
    entry, gate, begun = catalog.entries()[0], threading.Event(), threading.Event()
    monkeypatch.setattr(contents, "get_script_run_ctx", lambda: type("Context", (), {"session_id": "two"}))
    listening = Metadata.of

    def slowly(self, rows, columns):
        begun.set()
        gate.wait(PATIENCE_S)
        return listening(self, rows, columns)

    monkeypatch.setattr(Metadata, "of", slowly)
    contents.prefetch(entry, "cards", lambda: np.arange(9), ("caption",))
    assert begun.wait(PATIENCE_S)
    threading.Timer(0.1, gate.set).start()
    assert contents.read_texts(entry, np.arange(9), ("caption",))["caption"][8] == "caption of pair 8"
    assert len(asked) == 1
