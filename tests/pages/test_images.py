"""Images come from our own route; from the web only where the curator switches that on."""

from __future__ import annotations

import pytest

from pages.parts.images import web_address
from tests.pages.conftest import components
from tests.pages.hostile import strings
from tests.pages.worlds import make_run

TOGGLE = "Images from the web"


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
