"""Images come from our own route; from the web only where the curator switches that on."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pages.parts import pictures
from pages.parts.catalog import Entry
from pages.parts.gallery.contents import web_address
from tests.pages.conftest import components
from tests.pages.hostile import strings
from tests.pages.worlds import make_run
from tests.waiting import PATIENCE_S, join, until

TOGGLE = "Images from the web"


def by_root(run):
    return Entry(run.name, run)


def switch(app):
    return next((toggle for toggle in app.toggle if toggle.label == TOGGLE), None)


def addresses(app):
    return [card["src"] for card in components(app, "clipsel_cards")[0]["cards"]]


def test_sources__the_web_is_asked_only_when_switched_on(tmp_path, open_page):
    app = open_page("gallery", make_run(tmp_path / "world", images=False, urls=["javascript:alert(1)"] * 59))
    assert set(addresses(app)) == {""}
    switch(app).set_value(True).run()
    shown = [address for address in addresses(app) if address]
    assert len(shown) == 1
    assert shown[0].startswith("http://evil.example/")
    switch(app).set_value(False).run()
    assert set(addresses(app)) == {""}


def test_sources__a_pool_with_images_has_no_such_switch(tmp_path, open_page):
    app = open_page("gallery", make_run(tmp_path / "world"))
    assert switch(app) is None
    assert all(address.startswith("/pairs/") for address in addresses(app))


def test_sources__a_link_cannot_switch_it_on(tmp_path, open_page):
    app = open_page("gallery", make_run(tmp_path / "world", images=False))
    assert not [name for name in app.query_params if "web" in name]


@pytest.mark.parametrize(
    "text", [*strings(), "file:///etc/passwd", "//x.example/a", "http://a:b@x.example/", "http://"]
)
def test_web_address__of_what_is_none(text):
    assert web_address(text) == ""


def test_web_address__of_a_picture():
    assert web_address("https://example.org/a b.jpg?x=1") == "https://example.org/a b.jpg?x=1"


def test_index__of_one_run_does_not_wait_for_anothers(tmp_path, monkeypatch):
    runs = [make_run(tmp_path / name) for name in ("slow", "quick")]
    gate, begun, opening = threading.Event(), threading.Event(), pictures.open_images

    def slowly(pool, *given):
        if Path(pool.root).is_relative_to(tmp_path / "slow"):
            begun.set()
            gate.wait(PATIENCE_S)
        return opening(pool, *given)

    monkeypatch.setattr(pictures, "_PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(pictures, "open_images", slowly)
    waiting = threading.Thread(target=pictures.read, args=(by_root(runs[0]), "0" * 32))
    waiting.start()
    assert begun.wait(PATIENCE_S)
    assert pictures.read(by_root(runs[1]), f"{7:016x}{0:016x}")
    assert waiting.is_alive()
    gate.set()
    join([waiting])


def test_index__is_opened_once_until_the_pool_changes(tmp_path, monkeypatch):
    run, opened, opening = make_run(tmp_path / "world"), [], pictures.open_images
    monkeypatch.setattr(pictures, "open_images", lambda *given: opened.append(1) or opening(*given))
    for number in range(5):
        assert pictures.read(by_root(run), f"{7 * (number + 1):016x}{number:016x}")
    assert len(opened) == 1
    os.utime(tmp_path / "world" / "pool" / "shards", ns=(1, 1))
    assert pictures.read(by_root(run), f"{7:016x}{0:016x}")
    assert len(opened) == 2


@pytest.mark.usefixtures("patient")
def test_watch__names_a_damaged_tar_and_shows_the_others(tmp_path, open_page):
    run = make_run(tmp_path / "world")
    tar = tmp_path / "world" / "pool" / "shards" / "00000001.tar"
    tar.write_bytes(b"")
    app = open_page("gallery", run)
    assert [error.value for error in app.error] == ["Not all of the pool's images can be shown"]
    assert f"{tar}: 0 images are shown; the tar cannot be read at all: empty file" in [code.value for code in app.code]
    assert all(address.startswith("/pairs/") for address in addresses(app))
    assert pictures.read(by_root(run), f"{7:016x}{0:016x}")
    assert pictures.read(by_root(run), f"{7 * 60:016x}{59:016x}") is None


def test_search__goes_through_a_tar_that_is_asked_for_as_it_leaves(tmp_path, monkeypatch):
    """Its last look said that there was none left, and it has not ended yet."""
    entry, gone, go_through = by_root(make_run(tmp_path / "world")), [], pictures.ImageFinder._go_through

    class Tars:
        def __init__(self):
            self.windows = self.place = self
            self.tars, self.name = [self] * 3, "tar"

        def go_through(self, tar, report):
            gone.append(tar)

    def leave(self, report):
        go_through(self, report)
        if gone == [1]:
            self._seek(2)

    monkeypatch.setattr(pictures.ImageFinder, "_go_through", leave)
    monkeypatch.setattr(pictures, "OrderedImages", Tars)
    finder = pictures.ImageFinder(entry)
    finder.index = Tars()
    finder._seek(1)
    until(lambda: gone == [1, 2])
    until(lambda: not finder._mixed)
