"""Can everything be read and reached, in either theme and on a phone? Measured in the browser, not by its pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch, settle, visit

PAGES = ("overview", "distributions", "map", "gallery", "search", "select", "compare")
VIEWS = ("Two metrics", "By kind", "Rank disagreement", "Normalizer")
LOOKS = (Path(__file__).parent / "looks.js").read_text(encoding="utf-8")
FINGER = 32
SCREENS = {
    "wide, dark": {"viewport": {"width": 1440, "height": 900}, "color_scheme": "dark"},
    "phone, light": {
        "viewport": {"width": 390, "height": 844},
        "color_scheme": "light",
        "has_touch": True,
        "is_mobile": True,
    },
}


@pytest.fixture(params=SCREENS)
def screen(request, browser, server):
    """A quiet session on one kind of screen, and how large what a finger must hit has to be there, in CSS pixels."""
    context = browser.new_context(base_url=server.url, **SCREENS[request.param])
    page, watch = context.new_page(), Watch(server.url)
    watch.follow(page)
    yield page, FINGER if "phone" in request.param else 0
    context.close()
    assert watch.complaints == []


def wrong(page: Page, finger: int) -> list[str]:
    page.wait_for_load_state("networkidle")
    return page.evaluate(LOOKS, {"finger": finger})


def test_pages__can_be_read_and_reached(screen):
    page, finger = screen
    found = {}
    for name in PAGES:
        visit(page, name)
        found[name] = wrong(page, finger)
        expect(page).to_have_title(f"{name.capitalize()} · clipsel")
    assert found == {name: [] for name in PAGES}


def test_views__can_be_read_and_reached(screen):
    page, finger = screen
    found = {}
    visit(page, "distributions")
    for name in VIEWS:
        page.get_by_role("tab", name=name).click()
        settle(page)
        expect(page.get_by_test_id("stSkeleton")).to_have_count(0)
        found[name] = wrong(page, finger)
    visit(page, "select")
    page.get_by_text("The recipe as a file").click()
    found["recipe"] = wrong(page, finger)
    visit(page, "gallery")
    page.locator(".card").nth(2).click()
    expect(page.get_by_role("dialog").locator(".scores .row").first).to_be_visible()
    settle(page)
    found["pair"] = wrong(page, finger)
    assert not any(found.values()), found


def test_distributions__charts_side_by_side_stand_on_one_line(page):
    visit(page, "distributions")
    axes = page.locator('[class*="st-key-spread-"] .axis')
    expect(axes).to_have_count(7)
    tops = [axes.nth(place).bounding_box()["y"] for place in range(6)]
    assert [round(top) for top in tops[::2]] == [round(top) for top in tops[1::2]]


def test_gallery__the_controls_that_choose_pairs_stand_in_one_row(page):
    visit(page, "gallery")
    tops = {page.locator(f".st-key-{name}").bounding_box()["y"] for name in ("metric", "from", "to", "kind", "order")}
    assert len(tops) == 1
