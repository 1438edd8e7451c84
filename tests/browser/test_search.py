"""Searching in the browser: the second text is answered at once, a picture is uploaded, a whole pool is a job."""

from __future__ import annotations

import shutil
import unicodedata

import numpy as np
import pytest
from playwright.sync_api import expect

from clipsel_core import uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.jobs.control import listing
from clipsel_core.pool.images import open_images
from clipsel_core.pool.layout import open_pool
from clipsel_core.runs.store import Run
from tests.browser.conftest import ROOT, Watch, serving, settle, visit
from tests.pages.worlds import HOSTILE, make_run
from tests.pool.pictures import drawn, encoded
from tests.waiting import until

ROWS = 200_001


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The demo with its teacher, and a run too large to be searched at once; no search has been made of either."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copytree(ROOT / "data" / "demo", folder / "demo", ignore=shutil.ignore_patterns("exports", "cache"))
    large = make_run(folder / "large", pairs=(ROWS,), images=False, projection=False, target=False)
    rows = np.random.default_rng(0).normal(size=(ROWS, 8))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    np.savez(large.parent / "pool" / "metadata" / "00000000.npz", demo_img=rows, demo_txt=rows[::-1])
    return folder


@pytest.fixture(scope="module")
def url(data):
    with serving(data) as url:
        yield url


@pytest.fixture
def page(browser, url):
    context = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=url)
    tab, watch = context.new_page(), Watch(url)
    watch.follow(tab)
    yield tab
    context.close()
    assert watch.strangers == []
    assert watch.complaints == []
    assert watch.scripts == []


def ask(page, text: str) -> None:
    """Searches for a text, and waits until its pairs are shown."""
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_label("Text", exact=True).press("Enter")
    expect(page.locator(".shows").first).to_contain_text(f"“{text}”")


def test_search__one_text_after_another(page):
    visit(page, "search")
    ask(page, "two red birds")
    ask(page, "a green house")
    expect(page.locator(".card")).to_have_count(48)
    settle(page)
    page.get_by_text("captions", exact=True).click()
    expect(page.locator(".shows").first).to_contain_text("captions are most like")


def test_search__by_an_uploaded_picture(page, data, tmp_path):
    uid = uids.to_hex(ScoreTable.open(Run.open(data / "demo" / "run")).uids_at(np.array([70])))[0].as_py()
    content = open_images(open_pool(data / "demo" / "pool"), tmp_path / "images").read(uid)
    visit(page, "search")
    page.get_by_text("a picture", exact=True).click()

    def upload(name, content):
        page.locator("input[type=file]").set_input_files([{"name": name, "mimeType": "image/png", "buffer": content}])

    upload("<img src=x onerror=window.pwned=1>.png", content)
    expect(page.locator(".shows").first).to_contain_text("most like picture <img")
    expect(page.locator(".shows").first).to_contain_text("cosine 1.0000")
    expect(page.locator(".frame img.whole")).to_have_js_property("complete", True)
    settle(page)
    upload("bad.png", b"no picture")
    expect(page.get_by_text("bad.png: expected a picture, found bytes that are none of JPEG")).to_be_visible()
    upload("other.png", encoded(drawn(5), "PNG"))
    expect(page.locator(".shows").first).to_contain_text("most like picture other.png")
    settle(page)


def test_pair__look_alikes_in_the_whole_pool(page, data):
    visit(page, "gallery", "large/run")
    page.locator(".card").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("tab", name="Look-alikes").click()
    expect(dialog.get_by_text("of the 50,000 pairs drawn at random")).to_be_visible()
    dialog.get_by_role("button", name="Search all 200,001 pairs").click()
    found = dialog.get_by_role("link", name="See what it found")
    expect(found).to_be_visible()
    (job,) = listing(data / ".jobs")
    until(lambda: not job.active)
    found.click()
    expect(page.get_by_role("heading", name="Search", exact=True, level=1)).to_be_visible()
    expect(page.get_by_text("The best 96 of 1,000 images like pair")).to_be_visible()
    assert "kept=" in page.url
    settle(page)
    page.reload()
    expect(page.get_by_text("The best 96 of 1,000 images like pair")).to_be_visible()
    visit(page, "gallery", "large/run")
    page.locator(".card").first.click()
    dialog.get_by_role("tab", name="Look-alikes").click()
    expect(dialog.get_by_text("of all 200,001 pairs, by cosine")).to_be_visible()


def test_search__of_the_whole_pool_is_seen_from_the_panel_of_jobs(page, data):
    uid = uids.to_hex(ScoreTable.open(Run.open(data / "large" / "run")).uids_at(np.array([7])))[0].as_py()
    visit(page, "search", "large/run", f"&like={uid}")
    page.get_by_role("button", name="Search all 200,001 pairs").click()
    expect(page.get_by_role("button", name="See the best of all 200,001 pairs")).to_be_visible()
    page.get_by_role("button", name="See what it found").first.click()
    expect(page.get_by_text(f"The best 96 of 1,000 images like pair {uid[:8]}")).to_be_visible()
    settle(page)


def printable(text):
    """As an error quotes it: whitespace closed up, U+FFFD for each character that would move or hide others."""
    return "".join("\ufffd" if unicodedata.category(c).startswith("C") else c for c in " ".join(text.split()))


def test_search__an_upload_by_any_name_is_only_a_picture(page):
    """200 hostile strings in names of files, five to a name: an error quotes all of a name, a title its beginning."""
    visit(page, "search", query="&by=a+picture&search_size=24")
    chooser, picture = page.locator("input[type=file]"), encoded(drawn(5), "PNG")
    # As a browser writes names into what it sends; Streamlit itself refuses those of 100 kB.
    sent = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})
    cut = [text[:120] for text in HOSTILE]
    for place in range(0, 200, 5):
        name = f"{place} {' '.join(cut[place : place + 5])}.png"
        chooser.set_input_files([{"name": name, "mimeType": "image/png", "buffer": b"no picture"}])
        expect(page.get_by_test_id("stCode")).to_contain_text(printable(name.translate(sent))[:60])
    for place, text in enumerate(cut[:20]):
        chooser.set_input_files([{"name": f"{place} {text}.png", "mimeType": "image/png", "buffer": picture}])
        shown = f"{place} {text.translate(sent)}"[:60]
        expect(page.locator(".shows").first).to_contain_text(f"most like picture {shown}")
    settle(page)
