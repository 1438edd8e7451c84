"""Nothing that somebody else wrote runs a script or calls home, and nobody sees another's unsaved work.

The `page` fixture holds every test here to that: at its end no request went to a stranger, nothing was complained
about, and no foreign script has run.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Watch, settle, visit
from tests.browser.test_app import PAGES, lasso
from tests.pages.worlds import HOSTILE, HOSTILE_NAME, HOSTILE_NAMES

RUN = "hostile/run"
NAMES_RUN = f"names/{HOSTILE_NAMES[0]}"


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


@pytest.mark.parametrize("name", PAGES)
def test_hostile_names__every_page_stays_quiet(page, name):
    """Names of the run and of others in the picker, of recipes, of uid lists, of the metadata's columns."""
    visit(page, name, NAMES_RUN)
    page.locator(".st-key-run input").click()
    expect(page.get_by_role("option").first).to_be_visible()
    page.keyboard.press("Escape")
    unfold(page)


def test_hostile_names__recipes_and_lists_are_only_names(page):
    visit(page, "select", NAMES_RUN)
    for place in range(3):
        page.locator(".st-key-load input").click()
        page.get_by_role("option").nth(place).click()
        expect(page.locator(".funnel .row")).to_have_count(2)
        settle(page)
    for place, number in enumerate((0, 2, 3, 24, 41, 117)):
        page.get_by_role("button", name="Add a list").click()
        page.get_by_role("combobox", name="List").fill(f" {number}.txt")
        page.get_by_role("option", name=re.compile(rf" {number}\.txt$")).first.click()
        settle(page)
        page.get_by_role("button", name="Add", exact=True).click()
        expect(page.locator(".funnel .row")).to_have_count(3 + place)
        settle(page)
        shown = HOSTILE_NAMES[number].replace("\r\n", "\n")
        assert f"lists/{shown}.txt" in page.locator(".funnel .row").last.text_content()
    page.get_by_role("link", name="Gallery").click()
    page.locator(".card").first.click()
    expect(page.get_by_role("dialog").locator(".verdict li")).to_have_count(7)
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Compare").click()
    expect(page.locator(".matrix td").first).to_be_visible()
    settle(page)


def test_hostile_names__columns_of_the_metadata_are_only_names(page):
    visit(page, "distributions", NAMES_RUN, "&view=By+kind")
    kind = page.locator(".st-key-kind input")
    for place in range(0, 200, 20):
        kind.click()
        kind.fill(HOSTILE_NAMES[place].rpartition(" ")[2])
        page.get_by_role("option").first.click()
        expect(page.locator(".histogram svg").first).to_be_visible()
        settle(page)


def test_hostile_names__columns_and_their_values_are_only_text_on_cards_and_bars(page):
    visit(page, "select", NAMES_RUN)
    page.get_by_role("button", name="Other kinds").click()
    kind = page.locator(".st-key-new-category input")
    for place in (0, 40, 180):
        kind.click()
        kind.fill(HOSTILE_NAMES[place].rpartition(" ")[2])
        page.get_by_role("option").first.click()
        settle(page)
    page.locator(".st-key-add-kind button").click()
    expect(page.locator(".funnel .row")).to_have_count(4)
    expect(page.locator(".st-key-values-2")).to_contain_text("window.pwned")
    settle(page)
    visit(page, "distributions", NAMES_RUN)
    besides = page.locator(".st-key-besides input")
    for _ in range(3):
        besides.click()  # choosing may close it
        besides.press("ArrowDown")
        besides.press("Enter")
        expect(page.locator(".bars").first).to_be_visible()
        settle(page)


def test_hostile__names_of_regions_and_what_is_said_in_them(page):
    visit(page, "map", RUN)
    expect(page.locator(".stage .label").first).to_be_visible()
    lasso(page, [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98)])
    expect(page.get_by_text("in the region").first).to_be_visible()
    unfold(page)
    page.get_by_role("button", name="Drop these").click()
    expect(page.get_by_text("dropped by hand: the last step").first).to_be_visible()
    settle(page)


def test_hostile__an_opened_pairs_tabs_stay_quiet(page):
    visit(page, "gallery", RUN, "&order=lowest")
    page.locator(".card").nth(2).click()
    dialog = page.get_by_role("dialog")
    for tab in ("Look-alikes", "Same caption", "Target images"):
        dialog.get_by_role("tab", name=tab).click()
        settle(page)
    page.keyboard.press("d")
    expect(dialog.get_by_role("button", name="Take back")).to_be_visible()


def test_hostile__export_says_what_it_wrote(page):
    visit(page, "select", RUN)
    page.get_by_role("button", name="Save and export").click()
    expect(page.locator(".st-key-exported")).to_contain_text("SHA-256")
    settle(page)


def test_markup_that_got_through__would_run_nothing_and_ask_nobody(browser, server):
    """As if a caption were put on a page as it is: what the browser refuses, by the rule that forbids it."""
    tab = browser.new_context(base_url=server.url).new_page()
    watch = Watch(server.url)
    watch.follow(tab)
    visit(tab, "gallery", RUN)
    tab.evaluate("""() => {
      window.refused = []
      addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective))
      document.body.insertAdjacentHTML("beforeend", `
        <img src="data:," onerror="pwned = 'handler'"><a href="javascript:pwned = 'link'" id="led">here</a>
        <iframe src="https://example.org"></iframe><object data="https://example.org/a.swf"></object>
        <form action="https://example.org" id="asked"></form><link rel="stylesheet" href="https://example.org/a.css">`)
      for (const script of [{ textContent: "pwned = 'inline'" }, { src: "https://example.org/a.js" }])
        document.body.append(Object.assign(document.createElement("script"), script))
      led.click(); asked.submit()
      fetch("https://example.org").catch(() => undefined)
    }""")
    kinds = "script-src-attr script-src-elem script-src-elem script-src-elem frame-src object-src form-action"
    expected = sorted([*kinds.split(), "style-src-elem", "connect-src"])
    tab.wait_for_function("count => refused.length >= count", arg=len(expected))
    assert sorted(tab.evaluate("refused")) == expected
    assert watch.scripts == []
    tab.context.close()


def test_server__answers_on_this_machine_alone(server):
    """Linux says in hexadecimal who listens where: 0100007F is 127.0.0.1."""
    port = f"{urlsplit(server.url).port:04X}"
    tables = [Path("/proc/net") / name for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    listening = {local for _, local, _, state, *_ in lines if state == "0A" and local.endswith(f":{port}")}
    assert listening == {f"0100007F:{port}"}


@pytest.mark.parametrize("address", ["/nowhere", "/map/deeper", "/<img src=x onerror=pwned=1>"])
def test_unknown_address__is_said_to_be_none(page, address):
    page.goto(f"{quote(address)}?run=demo/run")
    expect(page.get_by_role("heading", name="Overview", exact=True, level=1)).to_be_visible()
    notice = page.locator(".st-key-no-page")
    expect(notice).to_contain_text(f"Asked for{address}")
    settle(page)
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Go on").click()
    expect(notice).to_have_count(0)
    expect(page.locator(".st-key-run input")).to_have_value("demo/run")
    assert "no_page" not in page.url


def test_two_tabs__of_one_person_have_drafts_of_their_own(page):
    """The same link twice in one browser: what one tab changes is the other's only when it is saved."""
    visit(page, "select")
    page.locator(".st-key-share-1 [role=slider]").press("PageDown")
    expect(page).to_have_url(re.compile("recipe="))
    settle(page)
    other = page.context.new_page()
    other.goto(page.url)
    mine, theirs = page.locator(".headline b"), other.locator(".headline b")
    expect(theirs).to_have_text(mine.inner_text())
    settle(other)
    before = mine.inner_text()
    other.locator(".st-key-share-1 [role=slider]").press("Home")
    expect(theirs).to_have_text("0")
    other.get_by_label("Name").fill("tab")
    other.get_by_label("Name").press("Enter")
    expect(other.get_by_text("not saved yet")).to_be_visible()
    other.get_by_role("button", name="Save recipe").click()
    expect(other.get_by_text("DataComp subset · saved")).to_be_visible()
    assert mine.inner_text() == before
    page.get_by_label("Name").fill("tab")
    page.get_by_label("Name").press("Enter")
    expect(page.get_by_text("another recipe has this name: saving asks first")).to_be_visible()
    expect(mine).to_have_text(before)
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
    assert watch.strangers == watch.complaints == watch.scripts == []
