"""Nothing that somebody else wrote runs a script or calls home, and nobody sees another's unsaved work.

The `page` fixture holds every test here to that: at its end no request went to a stranger, nothing was complained
about, and no foreign script has run.
"""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Watch, settle, visit
from tests.browser.test_app import PAGES
from tests.pages.worlds import HOSTILE, HOSTILE_NAME

RUN = "hostile/run"


def unfold(page) -> None:
    """Opens every tab and expander of a page in turn, and scrolls through it, so that all of it is drawn."""
    for place in range(page.get_by_role("tab").count()):
        page.get_by_role("tab").nth(place).click()
        settle(page)
    for place in range(page.locator("details:not([open]) > summary").count()):
        page.locator("summary").nth(place).click()
        settle(page)
    for _ in range(6):
        page.mouse.wheel(0, 1500)
    settle(page)


@pytest.mark.parametrize("name", PAGES)
def test_hostile__every_page_stays_quiet(page, name):
    visit(page, name, RUN)
    unfold(page)


def test_hostile__every_caption_is_shown_as_text(page):
    visit(page, "gallery", RUN, "&order=lowest")
    seen: list[str] = []
    for number in range(1, 6):
        if number > 1:
            page.get_by_role("button", name="Next").click()
        expect(page.get_by_role("listbox", name=f"page {number} of 5")).to_be_visible()
        unfold(page)
        seen += page.locator(".card .caption").evaluate_all("nodes => nodes.map(node => node.textContent)")
    assert [text[:2000] for text in seen[: len(HOSTILE)]] == [text[:2000] for text in HOSTILE]


def test_hostile__captions_under_the_pointer_on_the_map_are_text(page):
    visit(page, "map", RUN)
    stage, tip, seen = page.locator(".stage"), page.locator(".stage .tip .caption"), set()

    def point_at(angle: float) -> None:
        """The pairs of this run lie on a circle of radius 1; the view leaves 8 % of room around it."""
        box = stage.bounding_box()
        middle, radius = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), box["height"] / 2 / 1.08
        page.mouse.move(middle[0] + radius * np.cos(angle), middle[1] - radius * np.sin(angle))

    for angle in np.linspace(0, 6, 240)[:200:5]:
        point_at(angle)
        expect(tip).to_be_visible()
        seen.add(tip.text_content())
        page.mouse.move(stage.bounding_box()["x"] + 5, stage.bounding_box()["y"] + 5)
        expect(tip).to_be_hidden()
    assert len(seen) > 30
    assert seen <= {text[:200] for text in HOSTILE} | {"no caption"} | {f"caption of pair {row}" for row in range(300)}
    settle(page)


def test_hostile__an_opened_pair_shows_caption_and_url_as_text(page):
    visit(page, "gallery", RUN, "&order=lowest")
    for place in range(0, 48, 4):
        page.locator(".card").nth(place).click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("uid")
        settle(page)
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)


def test_hostile__a_recipe_by_any_name_is_only_a_name(page):
    visit(page, "select", RUN)
    page.locator(".st-key-load input").click()
    page.get_by_role("option", name=HOSTILE_NAME).click()
    expect(page.locator(".funnel")).to_contain_text("top 50 %")
    settle(page)


def test_two_people__do_not_see_each_others_draft(page, browser, server):
    visit(page, "select")
    visitor = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=server.url).new_page()
    watch = Watch(server.url)
    watch.follow(visitor)
    visit(visitor, "select")
    mine, theirs = page.locator(".headline b"), visitor.locator(".headline b")
    before = theirs.inner_text()
    page.locator(".st-key-share-1 [role=slider]").press("Home")
    expect(mine).to_have_text("0")
    visit(visitor, "gallery")
    visitor.locator(".card").first.press("d")
    expect(visitor.locator(".card .badge").first).to_have_text("dropped by hand")
    visitor.get_by_role("link", name="Select").click()
    expect(visitor.locator(".funnel")).to_contain_text("drop 1 by hand")
    assert theirs.inner_text() != "0"
    assert abs(int(theirs.inner_text().replace(",", "")) - int(before.replace(",", ""))) <= 1
    assert "by hand" not in page.locator(".funnel").inner_text()
    visitor.context.close()
    assert watch.strangers == watch.complaints == []
