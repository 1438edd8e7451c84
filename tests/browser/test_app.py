"""What only a browser can tell: that the pages draw, the controls work, and nothing foreign is run or asked for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from clipsel_core import uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.uidlists import read_uid_list
from clipsel_core.runs.store import Run
from pages.parts import catalog
from tests.browser.conftest import PATIENCE_MS, ROOT, settle, visit
from tests.pages.worlds import HOSTILE, LACKING
from tests.waiting import PATIENCE_S, until

PAGES = ("overview", "distributions", "map", "gallery", "search", "select", "compare")


@pytest.mark.parametrize("run", ["demo/run", "hostile/run"])
def test_pages__open_quietly(page, run):
    for name in PAGES:
        visit(page, name, run)
    for tab in ("Two metrics", "By kind"):
        visit(page, "distributions", run)
        page.get_by_role("tab", name=tab).click()
        settle(page)


@pytest.mark.parametrize("world", LACKING)
def test_pages__open_quietly_on_a_run_that_lacks_something(page, world):
    for name in PAGES:
        visit(page, name, f"{world}/run")


def test_routes__answer_only_to_our_own_name(server):
    entry = catalog.Entry("demo/run", (server.data / "demo" / "run").resolve())
    uid = uids.to_hex(ScoreTable.open(Run.open(entry.root)).uids_at(np.arange(1)))[0].as_py()
    url = server.url + f"/pairs/{entry.key}/{uid}"
    assert urllib.request.urlopen(url).status == 200
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(url, headers={"Host": "evil.example"}))


def test_select__exports_the_bytes_of_the_command_line(page, server, tmp_path):
    visit(page, "select")
    kept = page.locator(".headline b")
    before = kept.inner_text()
    thumb = page.locator(".st-key-share-1 [role=slider]")
    thumb.focus()
    for _ in range(7):
        thumb.press("ArrowLeft")
    expect(kept).not_to_have_text(before)
    settle(page)
    page.get_by_label("Name").fill("from-browser")
    page.get_by_label("Name").press("Enter")
    expect(page.get_by_text("not saved yet")).to_be_visible()
    page.get_by_role("button", name="Save and export").click()
    result = page.locator(".st-key-exported")
    expect(result).to_contain_text("from-browser.npy")
    expect(result).to_contain_text(kept.inner_text())
    with page.expect_download() as download:
        result.get_by_role("link", name="Download").click()
    run, out = server.data / "demo" / "run", tmp_path / "from-shell.npy"
    recipe = run / "recipes" / "from-browser.yaml"
    assert "keep_top: 0.193" in recipe.read_text()
    command = [sys.executable, "-m", "clipsel_core", "select", str(run), "--recipe", str(recipe), "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=PATIENCE_S)
    assert (run / "exports" / "from-browser.npy").read_bytes() == out.read_bytes()
    assert Path(download.value.path()).read_bytes() == out.read_bytes()


DEAF = """
const send = WebSocket.prototype.send
WebSocket.prototype.send = function (said) { if (!window.lost) send.call(this, said) }
"""


def test_select__saves_a_move_that_was_not_heard_before(page, server):
    """What the browser says while it is deaf to itself gets lost, as where Streamlit ends the run that it came with."""
    page.add_init_script(DEAF)
    visit(page, "select")
    kept, thumb = page.locator(".headline b"), page.locator(".st-key-share-1 [role=slider]")
    page.get_by_label("Name").fill("unheard")
    page.get_by_label("Name").press("Enter")
    expect(page.get_by_text("not saved yet")).to_be_visible()
    settle(page)
    before = kept.inner_text()
    page.evaluate("lost = true")
    thumb.press("ArrowLeft")
    page.evaluate("new Promise((later) => setTimeout(later, 500)).then(() => { lost = false })")
    expect(kept).not_to_have_text(before)
    shown = kept.inner_text()
    page.get_by_role("button", name="Save and export").click()
    expect(page.locator(".st-key-exported")).to_contain_text(f"Pairs{shown}")
    assert "keep_top: 0.199" in (server.data / "demo" / "run" / "recipes" / "unheard.yaml").read_text()
    expect(kept).to_have_text(shown)


def test_select__histogram_follows_the_slider(page):
    visit(page, "select")
    title = page.locator(".st-key-effect-0 .title")
    before = title.inner_text()
    page.locator(".st-key-share-0 [role=slider]").press("ArrowRight")
    expect(title).not_to_have_text(before)
    expect(page.locator(".st-key-effect-0 path")).to_have_count(3)


def drag(page, thumb, share: float) -> None:
    """Takes hold of a thumb and pulls it to a share of its track, without letting go."""
    box = thumb.bounding_box()
    track = thumb.locator("..").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(track["x"] + 10 + share * (track["width"] - 20), y, steps=6)


def counts(page) -> list[str]:
    """All that Select counts: the headline, the funnel's rows, and of each card how many it keeps of how many.

    Not as laid out: a row that is just being put in another's place has no layout.
    """
    kept = [title.partition(" keeps ")[2] for title in page.locator(".control .title").all_text_contents()]
    return [page.locator(".headline").text_content() or "", *page.locator(".funnel .row").all_text_contents(), *kept]


def mark(page, chart, low: float, high: float) -> None:
    """Presses at a share of a histogram's width and drags to another."""
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + low * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + high * box["width"], y, steps=6)
    page.mouse.up()


def test_select__a_part_of_a_histogram_is_dragged_over_and_its_thumb_stays(page, server):
    visit(page, "select")
    expect(page.locator(".control .title")).to_have_count(2)
    card, before = page.locator(".st-key-effect-0"), counts(page)
    mark(page, card.locator(".plot"), 0.5, 0.65)
    said = card.locator(".shows")
    expect(said).to_contain_text("s-CLIPLoss from")
    expect(card.locator(".card")).to_have_count(12)
    low, high = map(float, re.search(r"from (\S+) to (\S+)", said.inner_text()).groups())
    scores = ScoreTable.open(Run.open(server.data / "demo" / "run")).column("s_cliploss").astype(np.float64)
    inside = int(((scores >= low) & (scores <= high)).sum())
    assert f"{inside:,} pairs" in said.inner_text()
    assert counts(page) == before
    # The thumb moves as it did, and the mark with its pairs stays.
    drag(page, card.locator(".thumb"), 0.6)
    page.mouse.up()
    expect(card.locator(".control .title")).to_contain_text("keeps 2,2")
    settle(page)
    expect(card.locator(".part")).to_have_count(1)
    expect(said).to_contain_text(f"{inside:,} pairs")
    card.get_by_role("link", name="Open in Gallery").click()
    expect(page.get_by_role("heading", name="Gallery", level=1)).to_be_visible()
    expect(page.get_by_text(f"{inside:,} pairs")).to_be_visible()


def test_distributions__a_mark_that_was_not_heard_is_said_again(page):
    page.add_init_script(DEAF)
    visit(page, "distributions")
    chart = page.locator(".st-key-spread-clip_score .histogram")
    chart.scroll_into_view_if_needed()
    settle(page)
    page.evaluate("lost = true")
    chart.press("ArrowRight")
    page.evaluate("new Promise((later) => setTimeout(later, 500)).then(() => { lost = false })")
    expect(page.locator(".card")).to_have_count(12)


def test_distributions__a_mark_is_made_by_the_keyboard_too_and_dropped_by_escape_or_a_click(page):
    visit(page, "distributions")
    chart = page.locator(".st-key-spread-clip_score .histogram")
    # A key that is pressed while the chart is put in another's place marks nothing.
    until(lambda: chart.press("ArrowRight") or chart.locator(".part").count() == 1)
    expect(page.locator(".card")).to_have_count(12)
    settle(page)
    first = page.locator(".shows").first.inner_text()
    chart.press("Shift+ArrowRight")
    expect(page.locator(".shows").first).not_to_have_text(first)
    settle(page)
    page.keyboard.press("Escape")
    expect(page.locator(".card")).to_have_count(0)
    mark(page, chart.locator(".plot"), 0.2, 0.8)
    expect(page.locator(".card")).to_have_count(12)
    settle(page)
    chart.locator(".plot").click()
    expect(page.locator(".card")).to_have_count(0)
    expect(chart.locator(".part")).to_have_count(0)


@pytest.mark.parametrize(("step", "share"), [(1, 0.05), (1, 0.6), (0, 0.1), (0, 0.9)])
def test_select__dragging_counts_what_release_finds(page, step, share):
    """The browser alone counts all steps while the thumb moves; the server then finds the same."""
    frames = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: frames.append(frame)))
    visit(page, "select")
    page.get_by_role("button", name="Add a step").click()
    expect(page.locator(".funnel .row")).to_have_count(4)
    settle(page)
    card, before, said = page.locator(f".st-key-effect-{step}"), counts(page), len(frames)
    drag(page, card.locator(".thumb"), share)
    live, title = counts(page), card.locator(".title").inner_text()
    assert len(frames) == said
    assert live != before
    assert not [text for text in live if "about" in text]
    assert title in card.locator("[role=slider]").get_attribute("aria-valuetext")
    page.mouse.up()
    expect(page.locator(".dimmed")).to_have_count(0)
    settle(page)
    assert counts(page) == live
    assert card.locator(".title").inner_text() == title


def test_select__dragging_the_lowest_share_counts_what_release_finds(page):
    """Before a category, which judges pairs whatever the share is."""
    visit(page, "select")
    page.locator(".st-key-rule-0").get_by_role("combobox").click()
    page.get_by_role("option", name="bottom share of pool").click()
    expect(page.locator(".st-key-effect-0 .title")).to_contain_text("≤")
    settle(page)
    page.locator(".st-key-remove-1").get_by_role("button", name="Take step 2 out").first.click()
    expect(page.locator(".funnel .row")).to_have_count(2)
    settle(page)
    page.get_by_role("button", name="Other kinds").click()
    page.locator(".st-key-new-category").get_by_role("combobox").click()
    page.get_by_role("option", name="fault").click()
    settle(page)
    page.locator(".st-key-add-kind button").click()
    expect(page.locator(".funnel .row").nth(2)).to_contain_text("fault is")
    settle(page)
    card, before = page.locator(".st-key-effect-0"), counts(page)
    drag(page, card.locator(".thumb"), 0.62)
    live, title = counts(page), card.locator(".title").inner_text()
    assert live != before
    assert not [text for text in live if "about" in text]
    page.mouse.up()
    settle(page)
    expect(card.locator(".title")).to_have_text(title)
    assert counts(page) == live


def test_select__dragging_says_of_what_it_can_only_guess_that_it_is_about(page):
    """A threshold behind a share judges pairs that nobody knows until the share is."""
    visit(page, "select")
    page.get_by_role("button", name="Add a step").click()
    expect(page.locator(".funnel .row")).to_have_count(4)
    settle(page)
    page.locator(".st-key-rule-2").get_by_role("combobox").click()
    page.get_by_role("option", name="at least").click()
    expect(page.locator(".funnel .row").nth(3)).to_contain_text("≥")
    settle(page)
    drag(page, page.locator(".st-key-effect-0 .thumb"), 0.1)
    headline, *rows = counts(page)[:5]
    assert ["about" in row for row in rows] == [False, False, False, True]
    assert headline.startswith("about ")
    page.mouse.up()
    settle(page)
    expect(page.locator(".headline")).not_to_contain_text("about")
    expect(page.locator(".funnel")).not_to_contain_text("about")


def test_select__thumb_obeys_the_keyboard(page):
    visit(page, "select")
    thumb, kept = page.locator(".st-key-share-1 [role=slider]"), page.locator(".headline b")
    thumb.press("Home")
    expect(thumb).to_have_attribute("aria-valuenow", "0")
    expect(kept).to_have_text("0")
    expect(page.locator(".st-key-effect-1 .title")).to_contain_text("keeps none")
    thumb.press("End")
    expect(kept).to_have_text("1,140")
    thumb.press("PageDown")
    expect(thumb).to_have_attribute("aria-valuenow", "980")
    settle(page)
    expect(thumb).to_be_focused()
    expect(page.locator(".funnel")).to_contain_text("top 98 % of the pool")


def test_select__a_thumb_of_another_recipe_writes_nothing_into_the_funnel(page):
    """As one that comes late would, when another recipe has been loaded meanwhile."""
    visit(page, "select")
    funnel, thumb = page.locator(".funnel"), page.locator(".st-key-effect-1 .thumb")
    first = funnel.get_attribute("data-recipe")
    drag(page, thumb, 0.5)
    expect(funnel).to_contain_text("top 50 % of the pool")
    page.mouse.up()
    expect(funnel).not_to_have_attribute("data-recipe", first)  # the server's answer
    settle(page)
    before = funnel.inner_text()
    page.evaluate("document.querySelector('.funnel').dataset.recipe = 'another'")
    drag(page, thumb, 0.8)
    assert funnel.inner_text() == before
    page.mouse.up()
    expect(funnel).to_contain_text("top 80 % of the pool")


def test_select__the_smallest_share_is_not_called_none(page):
    """Said by the browser while the thumb moves; the funnel says it as the server does."""
    visit(page, "select")
    page.locator(".st-key-rule-1 input").click()
    page.get_by_role("option", name="top share of survivors").click()
    settle(page)
    page.locator(".st-key-effect-0 [role=slider]").focus()
    page.keyboard.type("0.1")
    page.keyboard.press("Enter")
    settle(page)
    drag(page, page.locator(".st-key-effect-1 .thumb"), 0.5)
    headline = page.locator(".headline")
    assert headline.locator("b").inner_text() == "1"
    assert headline.locator("span").inner_text() == "pair kept · under 0.1 % of 3,800"
    page.mouse.up()
    expect(page.locator(".funnel .row").last).to_contain_text("under 0.1 %")
    settle(page)


@pytest.mark.parametrize("width", [1440, 390])
def test_select__the_count_stays_in_view_at_a_step_further_down(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    visit(page, "select")
    page.get_by_role("button", name="Add a step").click()
    thumb, kept = page.locator(".st-key-effect-2 [role=slider]"), page.locator(".headline b")
    thumb.scroll_into_view_if_needed()
    expect(thumb).to_be_in_viewport()
    thumb.press("Home")
    expect(kept).to_have_text("0")
    settle(page)
    # On top of all that the page draws there, and below Streamlit's bar, which a phone has there. Asked until it is so:
    # an answer draws the count anew, and takes away what was asked about.
    seen = """least => {
      const node = document.querySelector('.headline b')
      const { x, y, width, height } = node.getBoundingClientRect()
      const there = document.elementsFromPoint(x + width / 2, y + height / 2)
      return y >= least && there.find(one => one.closest('.stMainBlockContainer')) === node
    }"""
    page.wait_for_function(seen, arg=0 if width == 1440 else 56, timeout=PATIENCE_MS)


def test_select__amounts_can_be_typed(page):
    visit(page, "select")
    card, kept = page.locator(".st-key-effect-0"), page.locator(".headline b")
    thumb, field = card.locator("[role=slider]"), card.locator(".typed")
    thumb.focus()
    page.keyboard.type("12.5")
    expect(field).to_have_value("12.5")
    expect(thumb).to_have_attribute("aria-valuenow", "300")
    page.keyboard.press("Enter")
    expect(field).to_have_count(0)
    expect(thumb).to_be_focused()
    expect(kept).to_have_text("475")
    expect(page.locator(".funnel")).to_contain_text("top 12.5 % of the pool")
    settle(page)
    card.locator(".amount").click()
    expect(field).to_have_value("12.5 %")
    for typed in ("many", "250", "-1", "1,2,3", "1e999"):
        field.fill(typed)
        page.keyboard.press("Enter")
        expect(field).to_be_focused()
        assert field.evaluate("field => field.validationMessage") == "A number from 0 to 100, please."
    page.keyboard.press("Escape")
    expect(thumb).to_have_attribute("aria-valuenow", "125")
    card.locator(".amount").click()
    field.fill("40")
    page.keyboard.press("Escape")
    expect(thumb).to_have_attribute("aria-valuenow", "125")
    card.locator(".amount").click()
    field.fill("250")
    page.locator(".headline").click()
    expect(field).to_have_count(0)
    expect(thumb).to_have_attribute("aria-valuenow", "125")
    for typed, pairs in (("12.345", "469"), ("0.05", "1"), ("12.31", "467"), ("12.3", "467")):
        card.locator(".amount").click()
        field.fill(typed)
        page.keyboard.press("Enter")
        expect(page.locator(".funnel")).to_contain_text(f"top {typed} % of the pool")
        expect(card.locator(".amount")).to_have_text(f"{typed} %")
        expect(page.locator(".funnel .row b").nth(1)).to_have_text(pairs)
    settle(page)


def test_select__moved_and_removed_steps_leave_the_keyboard_where_it_is_wanted(page):
    visit(page, "select")
    page.get_by_role("button", name="Add a step").click()
    expect(page.get_by_role("button", name="Take step 3 out")).to_be_visible()
    page.get_by_role("button", name="Run step 1 later").focus()
    for place, name in ((2, "Run step 2 later"), (3, "Run step 3 earlier"), (2, "Run step 2 earlier")):
        page.keyboard.press("Enter")
        expect(page.locator(f'[aria-label^="Step {place}: s-CLIPLoss"]')).to_be_visible()
        expect(page.get_by_role("button", name=name)).to_be_focused()
    page.get_by_role("button", name="Take step 2 out").focus()
    for left, name in ((2, "Take step 2 out"), (1, "Add a step")):
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name=re.compile("Take step . out"))).to_have_count(left)
        settle(page)
        expect(page.get_by_role("button", name=name)).to_be_focused()


def test_select__a_cross_pressed_twice_takes_out_one_step(page):
    """The second press reaches a server that has taken the step out already."""
    visit(page, "select")
    cross = page.get_by_role("button", name="Take step 1 out")
    page.evaluate("cross => { cross.click(); setTimeout(() => cross.click(), 30) }", cross.element_handle())
    expect(page.get_by_role("button", name=re.compile("Take step . out"))).to_have_count(1)
    page.wait_for_timeout(300)
    settle(page)
    expect(page.get_by_role("button", name="Take step 1 out")).to_be_focused()


def test_select__quick_moves_to_and_fro_are_all_counted(page):
    """Places that were shown before come again while answers are on their way: the browser must know them still."""
    visit(page, "select")
    thumb, funnel = page.locator(".st-key-share-1 [role=slider]"), page.locator(".funnel")
    for key in ("ArrowLeft", "ArrowRight", "ArrowLeft", "ArrowRight", "ArrowLeft"):
        for _ in range(7):
            thumb.press(key)
    expect(funnel).to_contain_text("top 19.3 % of the pool")
    settle(page)
    expect(thumb).to_have_attribute("aria-valuenow", "193")
    expect(page).to_have_url(re.compile("recipe="))


def test_gallery__shows_images_from_our_route(page):
    visit(page, "gallery")
    expect(page.locator(".card")).to_have_count(48)
    picture = page.locator(".card img").first
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("node => node.naturalWidth") > 0
    assert re.match(r"http://127\.0\.0\.1:\d+/pairs/", picture.evaluate("node => node.src"))


def test_gallery__keyboard_moves_and_opens(page):
    visit(page, "gallery")
    cards = page.locator(".card")
    cards.first.focus()
    for key, place in (
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", 47),
        ("Home", 0),
        ("ArrowDown", None),
    ):
        page.keyboard.press(key)
        if place is not None:
            expect(cards.nth(place)).to_be_focused()
    caption = page.evaluate(
        "() => { let n = document.activeElement; while (n.shadowRoot) n = n.shadowRoot.activeElement;"
        " return n.querySelector('.caption').textContent }"
    )
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(caption)
    expect(dialog).to_contain_text("/")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_gallery__k_keeps_and_d_drops(page):
    """Judging a card leaves the keyboard on it, and the recipe on the Select page has the pair."""
    visit(page, "gallery")
    cards = page.locator(".card")
    cards.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    expect(cards.nth(1).locator(".badge")).to_have_text("dropped by hand")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("k")
    expect(cards.nth(2).locator(".badge")).to_have_text("kept by hand")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Take back").click()
    expect(page.get_by_role("dialog").get_by_role("button", name="Take back")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(cards.nth(2).locator(".badge")).not_to_have_text("kept by hand")
    page.get_by_role("link", name="Select").click()
    expect(page.locator(".funnel")).to_contain_text("drop 1 by hand")
    settle(page)


def test_gallery__loses_no_key_however_fast_they_are_typed(page):
    """All within one task of the browser: nobody types faster."""
    visit(page, "gallery")
    cards = page.locator(".card")
    cards.first.focus()
    page.evaluate(
        """() => {
          const deepest = () => { let held = document.activeElement
            while (held.shadowRoot?.activeElement) held = held.shadowRoot.activeElement
            return held }
          for (let place = 0; place < 20; place += 1) {
            for (const key of [place % 2 ? "d" : "k", "ArrowRight"]) {
              const how = { key, bubbles: true, cancelable: true, composed: true }
              deepest().dispatchEvent(new KeyboardEvent("keydown", how))
            }
          }
        }"""
    )
    expect(cards.filter(has=page.locator(".badge.kept", has_text="by hand"))).to_have_count(10)
    expect(cards.filter(has=page.locator(".badge", has_text="dropped by hand"))).to_have_count(10)
    settle(page)
    for _ in range(6):
        page.keyboard.press("d")
        page.keyboard.press("ArrowRight")
    expect(cards.filter(has=page.locator(".badge", has_text="dropped by hand"))).to_have_count(16)


def test_gallery__cards_that_do_not_change_stay(page):
    """A click that begins before the page is drawn anew would end on another card than it began on, and be lost."""
    visit(page, "gallery")
    cards = page.locator(".card")

    def old() -> list[int]:
        """The places of the cards that were there at first."""
        return [place for place, known in enumerate(cards.evaluate_all("all => all.map((one) => one.known)")) if known]

    def stay() -> bool:
        """Whether the page that was just opened has come to rest: it may be drawn once more after its first run."""
        cards.evaluate_all("all => all.forEach((one) => { one.known = true })")
        page.wait_for_timeout(1000)
        settle(page)
        return old() == list(range(48))

    until(stay, "the cards of a page that was just opened stay")
    cards.nth(5).click()
    expect(page.get_by_role("dialog")).to_contain_text("uid")
    page.keyboard.press("Escape")
    expect(cards.nth(5)).to_be_focused()
    settle(page)
    assert old() == list(range(48))
    page.keyboard.press("d")
    expect(cards.nth(5).locator(".badge")).to_have_text("dropped by hand")
    expect(cards.nth(5)).to_be_focused()
    assert old() == [place for place in range(48) if place != 5]
    page.keyboard.press("PageDown")
    expect(page.get_by_label("Page", exact=True)).to_have_value("2")
    settle(page)
    assert old() == []
    assert cards.evaluate_all("all => all.map((one) => one.tabIndex).filter((index) => index === 0).length") == 1


def test_select__steps_of_other_kinds_are_added_and_edited_on_their_cards(page):
    visit(page, "select")

    def add(kind: str) -> None:
        page.get_by_role("button", name="Other kinds").click()
        page.get_by_role("radiogroup").get_by_text(kind, exact=True).click()
        settle(page)
        page.locator(".st-key-add-kind button").click()
        expect(page.locator(".st-key-add-kind")).to_have_count(0)
        settle(page)

    add("any of several")
    row = page.locator(".funnel .row").nth(3)
    expect(row).to_contain_text("CLIPScore ≥")
    page.locator(".st-key-add-filter-2 button").click()
    expect(row).to_contain_text(" or s-CLIPLoss ≥")
    # What shut the panel holds: the browser does not open it again.
    settle(page)
    expect(page.locator(".st-key-add-kind")).to_have_count(0)
    page.locator(".st-key-remove-filter-2-1-0 button").first.click()
    expect(row).not_to_contain_text("CLIPScore ≥ 0")
    settle(page)
    add("a mix")
    title = page.locator(".st-key-effect-3 .title")
    expect(title).to_contain_text("Mix ≥")
    before = title.inner_text()
    page.locator(".st-key-slide-clip_score-3").get_by_role("slider").press("ArrowLeft")
    expect(page.locator(".st-key-weight-clip_score-3 input")).to_have_value("0.95")
    expect(title).not_to_have_text(before)
    expect(page.locator(".funnel .row").nth(4)).to_contain_text("0.95 CLIPScore + 1 s-CLIPLoss")
    settle(page)
    # The histogram moves with the slider, before the server hears of it.
    path, thumb = (
        page.locator(".st-key-effect-3 path").first,
        page.locator(".st-key-slide-s_cliploss-3").get_by_test_id("stSliderThumbValue"),
    )
    drawn, box = path.get_attribute("d"), thumb.locator("..").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 150, box["y"] + box["height"] / 2, steps=5)
    expect(title).to_contain_text("Mix, about: as 3,800 pairs have it")
    assert path.get_attribute("d") != drawn
    page.mouse.up()
    expect(title).to_contain_text("Mix ≥")


def test_select__takes_an_uploaded_list(page, server, tmp_path):
    run = Run.open(server.data / "demo" / "run")
    listed = ScoreTable.open(run).uids_at(np.arange(500))
    (tmp_path / "<b>mine.txt").write_text("\n".join(uids.to_hex(listed).to_pylist()))
    visit(page, "select")
    page.get_by_role("button", name="Add a list").click()
    page.locator("input[type=file]").set_input_files(tmp_path / "<b>mine.txt")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".funnel")).to_contain_text("only those in lists/b-mine-")
    expect(page.get_by_text("500 listed, 0 not in this run")).to_be_visible()
    settle(page)
    (stored,) = (Path(run.recipes_dir) / "lists").iterdir()
    assert np.array_equal(read_uid_list(stored), uids.sort(listed))


def test_pair__arrows_walk_on_over_the_page_and_back_to_it(page):
    """Previous and Next go through the whole gallery; closing turns to the page where the walk ended."""
    visit(page, "gallery")
    page.locator(".card").last.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("48 of 3,800 in this gallery")
    expect(dialog.locator("img.whole")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text("49 of 3,800 in this gallery")
    page.keyboard.press("ArrowLeft")
    expect(dialog).to_contain_text("48 of 3,800 in this gallery")
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text("49 of 3,800 in this gallery")
    settle(page)
    page.keyboard.press("k")
    expect(dialog.get_by_role("button", name="Take back")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.locator(".st-key-page input")).to_have_value("2")
    expect(page.locator(".card .badge").first).to_have_text("kept by hand")


PRESS = """(keys) => {
  let held = document.activeElement
  while (held.shadowRoot?.activeElement) held = held.shadowRoot.activeElement
  for (const key of keys) {
    held.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, composed: true }))
  }
}"""
# Walks on and judges each pair as soon as its picture is there.
WALK = """async (times) => {
  const press = %s
  const deep = (root) => [...root.querySelectorAll("*")].flatMap((one) => one.shadowRoot ? deep(one.shadowRoot) : one)
  const shown = () => deep(document).find((one) => one.matches("img.whole"))?.src
  for (let time = 0; time < times; time += 1) {
    const before = shown()
    press(["ArrowRight"])
    while (shown() === before || !shown()) await new Promise((then) => setTimeout(then, 1))
    press(["k"])
  }
}"""


def test_pair__keys_judge_the_pair_that_the_arrows_before_them_lead_to(page):
    """However fast they are typed, and whatever the server is at by then."""
    visit(page, "gallery")
    cards, dialog = page.locator(".card"), page.get_by_role("dialog")
    cards.first.click()
    expect(dialog).to_contain_text("1 of 3,800 in this gallery")
    expect(dialog.locator("img.whole")).to_be_visible()
    page.evaluate(PRESS, ["ArrowRight", "k", "ArrowRight", "ArrowRight"])
    expect(dialog).to_contain_text("4 of 3,800 in this gallery")
    settle(page)
    page.evaluate(WALK % PRESS, 6)
    expect(dialog).to_contain_text("10 of 3,800 in this gallery")
    expect(dialog.get_by_role("button", name="Take back")).to_be_visible()
    page.evaluate(PRESS, ["ArrowLeft", "d"])
    expect(dialog).to_contain_text("9 of 3,800 in this gallery")
    page.evaluate(PRESS, [*["ArrowRight"] * 3, "d", "ArrowRight", "k", "ArrowRight", "k"])
    expect(dialog).to_contain_text("14 of 3,800 in this gallery")
    expect(dialog.get_by_role("button", name="Take back")).to_be_visible()
    settle(page)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    settle(page)
    # The page may draw the cards once more after it has come to rest, so each badge is waited for.
    kept, dropped = "kept by hand", "dropped by hand"
    for place, said in enumerate(
        ["", kept, "", "", kept, kept, kept, kept, dropped, kept, "", dropped, kept, kept, ""]
    ):
        expect(cards.nth(place).locator(".badge")).to_have_text(said or re.compile("^(kept|dropped)$"))


@pytest.mark.parametrize("way", ["Escape", "the cross", "beside it"])
def test_pair__keys_are_heard_that_are_typed_right_before_it_is_closed(page, way):
    visit(page, "gallery")
    cards, dialog = page.locator(".card"), page.get_by_role("dialog")
    for place in (0, 4, 8, 12):
        cards.nth(place).click()
        expect(dialog).to_contain_text(f"{place + 1} of 3,800 in this gallery")
        expect(dialog.locator("img.whole")).to_be_visible()
        page.evaluate(PRESS, ["ArrowRight", "k", "ArrowRight", "d"])
        if way == "Escape":
            page.keyboard.press("Escape")
        elif way == "the cross":
            dialog.get_by_role("button", name="Close").click()
        else:
            page.mouse.click(5, 300)
        expect(dialog).to_have_count(0)
        expect(cards.nth(place + 1).locator(".badge")).to_have_text("kept by hand")
        expect(cards.nth(place + 2).locator(".badge")).to_have_text("dropped by hand")
        # The gallery goes on at the card that was looked at last.
        expect(cards.nth(place + 2)).to_have_attribute("tabindex", "0")
        settle(page)


def test_pair__keys_are_heard_that_are_typed_before_its_picture_is_drawn(page):
    """Whether the pair lies over the page by then or not."""
    scripts = []
    page.route("**/scripts/picture-*", lambda route: scripts.append(route))
    visit(page, "gallery")
    cards, dialog = page.locator(".card"), page.get_by_role("dialog")
    cards.nth(2).click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    expect(cards.nth(2)).to_have_attribute("tabindex", "0")
    expect(dialog.get_by_role("button", name="Drop by hand")).to_be_visible()
    page.keyboard.press("ArrowRight")
    dialog.get_by_role("tab", name="Scores").focus()
    # This one is the tabs' own.
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("tab", name="Look-alikes")).to_be_focused()
    assert "3 of 3,800" in dialog.inner_text()
    scripts[0].continue_()
    expect(dialog).to_contain_text("5 of 3,800 in this gallery")
    settle(page)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(cards.nth(3).locator(".badge")).to_have_text("dropped by hand")
    page.keyboard.press("k")
    expect(cards.nth(4).locator(".badge")).to_have_text("kept by hand")
    assert page.locator(".badge", has_text="by hand").count() == 2


def test_pair__keys_that_a_field_needs_are_its_own(page):
    visit(page, "gallery")
    page.locator(".card").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("img.whole")).to_be_visible()
    dialog.get_by_role("tab", name="Scores").focus()
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("tab", name="Look-alikes")).to_be_focused()
    expect(dialog).to_contain_text("1 of 3,800 in this gallery")
    page.keyboard.press("k")
    expect(dialog.get_by_role("button", name="Take back")).to_be_visible()
    settle(page)


def test_pair__opens_others_from_within_and_comes_back(page):
    visit(page, "gallery")
    page.locator(".card").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".scores .row")).to_have_count(11)
    for tab, sign in (
        ("Target images", "is the first of these"),
        ("Same caption", "exactly"),
        ("Look-alikes", "cosine"),
    ):
        dialog.get_by_role("tab", name=tab).click()
        expect(dialog).to_contain_text(sign)
    uid = dialog.locator("dd").first
    first, caption = uid.inner_text(), dialog.locator(".card .caption").nth(1).inner_text()
    dialog.locator(".card").nth(1).click()
    expect(uid).not_to_have_text(first)
    expect(dialog).to_contain_text(caption)
    dialog.get_by_role("button", name="Back").click()
    expect(uid).to_have_text(first)
    settle(page)


def test_gallery__the_keyboard_turns_pages(page):
    visit(page, "gallery")
    cards = page.locator(".card")
    first = cards.locator(".caption").first.inner_text()
    cards.first.focus()
    page.keyboard.press("PageDown")
    expect(page.locator(".st-key-page input")).to_have_value("2")
    expect(cards.locator(".caption").first).not_to_have_text(first)
    page.keyboard.press("ArrowRight")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("PageUp")
    expect(cards.locator(".caption").first).to_have_text(first)


def test_gallery__arrows_lead_to_it_where_nobody_has_the_keyboard(page):
    """Else a card is two dozen presses of Tab away; while somebody types or looks at a pair the keys are theirs."""
    visit(page, "gallery")
    cards, dialog = page.locator(".card"), page.get_by_role("dialog")
    expect(cards.first).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(cards.first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("d")
    expect(cards.nth(1).locator(".badge")).to_have_text("dropped by hand")
    cards.nth(1).evaluate("node => node.blur()")
    page.keyboard.press("ArrowLeft")
    expect(cards.nth(1)).to_be_focused()
    words = page.get_by_role("searchbox")
    words.focus()
    page.keyboard.press("ArrowRight")
    expect(words).to_be_focused()
    cards.nth(3).click()
    expect(dialog).to_contain_text("4 of 3,800 in this gallery")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text("5 of 3,800 in this gallery")


def test_gallery__next_page_is_another(page):
    visit(page, "gallery")
    first = page.locator(".card .caption").first.inner_text()
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".card .caption").first).not_to_have_text(first)


def test_gallery__hostile_captions_stay_text(page):
    visit(page, "gallery", "hostile/run", "&order=lowest")
    captions = page.locator(".card .caption")
    for place, caption in enumerate(HOSTILE[:4]):
        assert captions.nth(place).evaluate("node => node.textContent") == caption
        page.locator(".card").nth(place).click()
        expect(page.get_by_role("dialog")).to_contain_text(caption.split("http")[0].strip()[:20])
        settle(page)
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)


def lasso(page, corners) -> None:
    """Draws on the map with the mouse, through these shares of its width and height."""
    box = page.locator(".stage").bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def test_map__lasso_fills_the_gallery_and_stays(page):
    visit(page, "map")
    title = page.locator(".shows").nth(1)
    expect(title).to_contain_text("on the map")
    lasso(page, [(0.05, 0.05), (0.95, 0.05), (0.95, 0.6), (0.05, 0.6)])
    expect(title).to_contain_text("in the region")
    expect(page.locator(".card").first).to_be_visible()
    found = title.inner_text()
    page.get_by_role("link", name="Gallery").click()
    settle(page)
    page.get_by_role("link", name="Map").click()
    expect(title).to_have_text(found)
    expect(page.locator(".stage polygon")).to_have_count(1)
    page.get_by_role("button", name="Clear").click()
    expect(title).to_contain_text("on the map")


def test_map__zoom_shows_pairs_with_their_captions(page):
    visit(page, "map")
    expect(page.locator(".stage .label").first).to_be_visible()
    box = page.locator(".stage").bounding_box()
    # The middle of the largest cluster, by its name.
    name = page.locator(".stage .label").first.bounding_box()
    page.mouse.move(name["x"] + name["width"] / 2, name["y"] + name["height"])
    for _ in range(6):
        page.mouse.wheel(0, -200)
    expect(page.locator(".tools .said")).to_contain_text(re.compile(r"\d in view"))
    settle(page)
    tip = page.locator(".stage .tip")
    for step in range(0, int(box["width"]), 6):
        page.mouse.move(box["x"] + step, box["y"] + box["height"] / 2 + step % 90)
        if page.locator(".stage").evaluate("node => node.style.cursor") == "pointer":
            break
    expect(tip.locator(".caption")).not_to_be_empty()
    page.locator(".stage").press("0")
    expect(page.locator(".tools .said")).to_contain_text("all in view")


def test_search__goes_on_from_an_opened_pairs_look_alikes(page):
    visit(page, "search")
    page.get_by_role("link", name="Gallery").click()
    expect(page.get_by_role("heading", name="Gallery", exact=True, level=1)).to_be_visible()
    settle(page)
    page.locator(".card").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("tab", name="Look-alikes").click()
    alike = dialog.locator(".card").first.locator(".caption")
    expect(alike).to_be_visible()
    caption = alike.inner_text()
    dialog.get_by_role("link", name="More of them").click()
    expect(page.get_by_role("heading", name="Search", exact=True, level=1)).to_be_visible()
    expect(page.locator(".shows").first).to_contain_text("96 pairs whose images are most like that of pair")
    expect(page.locator(".card .caption").first).to_have_text(caption)
    settle(page)
    assert "like=" in page.url
    page.locator(".card").nth(1).click()
    dialog.get_by_role("tab", name="Look-alikes").click()
    caption = dialog.locator(".card").first.locator(".caption").inner_text()
    dialog.get_by_role("button", name="More of them").click()
    expect(dialog).to_have_count(0)
    expect(page.locator(".card .caption").first).to_have_text(caption)


def test_link__carries_run_and_view_into_another_session(page, browser, server):
    visit(page, "gallery")
    caption = page.locator(".card .caption").first
    highest = caption.inner_text()
    page.locator(".st-key-order").get_by_text("lowest").click()
    expect(caption).not_to_have_text(highest)
    settle(page)
    first = caption.inner_text()
    assert "order=lowest" in page.url
    context = browser.new_context()
    other = context.new_page()
    other.goto(page.url)
    expect(other.locator(".card .caption").first).to_have_text(first)
    context.close()


def test_link__carries_the_draft_and_back_undoes_a_change(page, browser, server):
    visit(page, "select")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    kept, thumb = page.locator(".headline b"), page.locator(".st-key-share-1 [role=slider]")
    usual, begun = kept.inner_text(), page.url
    thumb.press("PageDown")
    expect(kept).not_to_have_text(usual)
    # The browser counts before the server has heard; each change that was heard has an address.
    expect(page).not_to_have_url(begun)
    settle(page)
    moved = page.url
    page.locator(".st-key-on-1 label").click()
    expect(page.locator(".st-key-effect-1 .title")).to_contain_text("this step is off")
    expect(page).not_to_have_url(moved)
    settle(page)
    changed = kept.inner_text()
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    context = browser.new_context()
    other = context.new_page()
    other.goto(page.evaluate("navigator.clipboard.readText()"))
    expect(other.locator(".headline b")).to_have_text(changed)
    expect(other.locator(".st-key-effect-1 .title")).to_contain_text("this step is off")
    context.close()
    page.reload()
    expect(kept).to_have_text(changed)
    settle(page)
    page.go_back()
    expect(kept).not_to_have_text(changed)
    settle(page)
    page.go_back()
    expect(kept).to_have_text(usual)


def test_select__pairs_at_the_threshold_are_judged_by_keyboard(page):
    visit(page, "select")
    page.get_by_text("Pairs at the threshold").click()
    above = page.locator(".card", has=page.locator(".badge.kept")).last
    above.focus()
    kept = page.locator(".headline b")
    before = int(kept.inner_text().replace(",", ""))
    above.press("d")
    expect(page.get_by_text("dropped by hand").first).to_be_attached()
    expect(kept).to_have_text(f"{before - 1:,}")
    expect(page.locator(".funnel")).to_contain_text("drop 1 by hand")


_MOVES = """() => {
  window.moved = 0
  new PerformanceObserver((list) => { for (const one of list.getEntries()) window.moved += one.value })
    .observe({ type: "layout-shift" })
}"""


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("select", lambda page: page.locator(".st-key-share-1 [role=slider]").press("PageDown")),
        ("gallery", lambda page: page.get_by_role("button", name="Next").click()),
        ("gallery", lambda page: page.locator(".card").nth(1).press("d")),
        ("distributions", lambda page: page.get_by_text("log", exact=True).click()),
        ("compare", lambda page: page.get_by_text("Jaccard", exact=True).click()),
        ("map", lambda page: page.get_by_text("lowest", exact=True).click()),
    ],
)
def test_rerun__nothing_jumps(page, name, act):
    """Chromium's own measure: 0 where nothing moved, 0.1 is what web pages are told to stay below."""
    visit(page, name)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)
    page.evaluate(_MOVES)
    act(page)
    page.wait_for_timeout(500)
    settle(page)
    assert page.evaluate("window.moved") < 0.01


def test_phone__shows_images_before_controls(page):
    page.set_viewport_size({"width": 390, "height": 844})
    visit(page, "gallery")
    box = page.locator(".card img").first.bounding_box()
    assert box["y"] + box["height"] < 844
    order = page.get_by_role("radio", name="lowest").or_(page.get_by_role("button", name="lowest"))
    expect(order.first).not_to_be_visible()
    page.get_by_text("Sort and filter").click()
    order.first.click()
    expect(page.get_by_text("CLIPScore, lowest first")).to_be_visible()
    page.set_viewport_size({"width": 1440, "height": 900})
    expect(page.get_by_text("Sort and filter")).not_to_be_visible()
    expect(order.first).to_be_visible()


def test_link__carries_what_is_compared_into_another_session(page, browser):
    visit(page, "compare")
    page.get_by_test_id("stMultiSelect").get_by_label("Remove clip_score_30").click()
    # The boxes below have other choices from then on.
    expect(page.locator(".matrix").first).not_to_contain_text("clip_score_30")
    settle(page)
    page.get_by_label("against", exact=True).click()
    page.get_by_role("option", name="s_cliploss_30").click()
    page.get_by_text("share of the row", exact=True).click()
    page.get_by_text("only the other", exact=True).click()
    settle(page)
    captions = page.locator(".card .caption")
    expect(page.get_by_text("Only in s_cliploss_30")).to_be_visible()
    expect(captions.first).to_be_visible()
    shown = captions.all_inner_texts()
    table = page.locator(".matrix").first.inner_text()
    context = browser.new_context()
    other = context.new_page()
    other.goto(page.url)
    expect(other.get_by_text("Only in s_cliploss_30")).to_be_visible()
    expect(other.locator(".card .caption").first).to_have_text(shown[0])
    assert other.locator(".card .caption").all_inner_texts() == shown
    assert other.locator(".matrix").first.inner_text() == table
    context.close()


def test_phone__fingers_move_zoom_and_draw_on_the_map(browser, server):
    viewport = {"width": 390, "height": 844}
    context = browser.new_context(viewport=viewport, has_touch=True, is_mobile=True, base_url=server.url)
    page = context.new_page()
    visit(page, "map")
    title, stage, fingers = page.locator(".shows"), page.locator(".stage"), context.new_cdp_session(page)
    box = stage.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x + right, "y": y + down, "id": place} for place, (right, down) in enumerate(places)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (-20, 0))
    touch("touchStart", (-20, 0), (20, 0))
    for far in range(20, 80, 10):
        touch("touchMove", (-far, 0), (far, 0))
    touch("touchEnd", (-70, 0))
    touch("touchEnd")
    expect(page.locator(".tools .said")).to_contain_text(re.compile(r"\d in view"))
    page.get_by_role("button", name="Whole map").tap()
    expect(page.locator(".tools .said")).to_contain_text("all in view")
    page.get_by_role("button", name="Lasso").tap()
    touch("touchStart", (-90, -60))
    for corner in ((0, -75), (60, -90), (75, 0), (90, 60), (0, 75), (-60, 90), (-75, 0)):
        touch("touchMove", corner)
    touch("touchEnd")
    expect(title.nth(1)).to_contain_text("in the region")
    before = stage.bounding_box()["y"]
    settle(page)
    page.get_by_role("button", name="Clear").tap()
    expect(title.nth(1)).to_contain_text("on the map")
    assert stage.bounding_box()["y"] == before == box["y"]
    context.close()


def test_select__a_run_that_vanishes_while_a_thumb_is_moved_leaves_a_way_back(page, server):
    gone = server.data / "demo" / "gone"
    shutil.copytree(server.data / "demo" / "run", gone)
    visit(page, "select", "demo/gone")
    shutil.rmtree(gone)
    page.locator(".st-key-share-0 [role=slider]").press("PageDown")
    back = page.get_by_role("button", name="Draw the page anew")
    expect(back).to_be_visible()
    expect(page.get_by_text("expected a run's folder, found no run.json in it")).to_be_visible()
    settle(page)
    back.click()
    expect(page.locator(".st-key-elsewhere")).to_contain_text("demo/gone")
    settle(page)
