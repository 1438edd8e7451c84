"""How the browser tests run: one server over a few runs, one Chromium, and a watch on all that it says and asks for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks import serving as served
from tests.pages.worlds import HOSTILE_NAMES, LACKING, make_hostile_run, make_run, make_run_of_hostile_names

ROOT = Path(__file__).parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# Until a wait is given up; nothing that a test claims depends on it.
PATIENCE_MS = 120_000
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/browser/" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)


@dataclass
class Server:
    """A dashboard over demo/run, a copy of the bundled run under the data folder, 20 runs beside it whose names mean
    harm, and runs named on the command line: hostile/run, whose texts do, and one for each way to lack something."""

    url: str
    data: Path


@dataclass
class Watch:
    """What a page complained about, whom it asked beside our own server, and what foreign scripts it ran."""

    origin: str
    complaints: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)

    def follow(self, page: Page) -> None:
        # Told as it happens: the next address that a test opens would take the mark away.
        page.expose_binding("foreignScript", lambda source, value: self.scripts.append(f"{page.url}: {value}"))
        page.add_init_script("Object.defineProperty(window, 'pwned', { set: foreignScript, get: () => undefined })")
        page.on("dialog", lambda dialog: (self.scripts.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._console)
        page.on("request", lambda request: self._request(request.url))
        page.on("websocket", lambda channel: self._request(channel.url))

    def _console(self, message) -> None:
        # Streamlit looks for its own health address below the page's path first, and is told 404.
        if message.type == "error" and "_stcore" not in message.location.get("url", ""):
            self.complaints.append(message.text)

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != urlsplit(self.origin).netloc:
            self.strangers.append(url)


def find_chromium() -> str:
    """Where a Chromium is. Skips where there is none, or fails where CLIPSEL_REQUIRE_BROWSER=1 forbids that."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found:
        return found
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    if Path(own).exists():
        return own
    reason = "no Chromium found: apt-get install chromium, or playwright install chromium"
    if os.environ.get("CLIPSEL_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def server(browser, tmp_path_factory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("data")
    shutil.copytree(ROOT / "data" / "demo", data / "demo", ignore=shutil.ignore_patterns("teacher", "exports", "cache"))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    lacking = [make_run(elsewhere / name, **world) for name, world in LACKING.items()]
    named = make_run_of_hostile_names(data / "names")
    for name in HOSTILE_NAMES[1:20]:
        shutil.copytree(named, named.with_name(name), ignore=shutil.ignore_patterns("scores", "recipes"))
    with serving(data, make_hostile_run(elsewhere / "hostile"), *lacking) as url:
        yield Server(url, data)


@contextmanager
def serving(data: Path, *runs: Path | str) -> Iterator[str]:
    """A dashboard over a data folder and the runs named, for as long as the block lasts; gives its address.

    runs: folders, and addresses in stores.
    """
    with served.serving("app.py", *map(str, runs), data=data) as app:
        yield app.url


@pytest.fixture
def page(browser, server) -> Iterator[Page]:
    """A fresh session; at its end it must have been quiet, asked nobody else, and run no foreign script."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=server.url)
    tab = context.new_page()
    watch = Watch(server.url)
    watch.follow(tab)
    yield tab
    context.close()
    assert watch.strangers == []
    assert watch.complaints == []
    assert watch.scripts == []


def visit(page: Page, name: str, run: str = "demo/run", query: str = "") -> None:
    """Opens a page of the dashboard and waits until it has come to rest."""
    path = "" if name == "overview" else name
    page.goto(f"/{path}?run={quote(run)}{query}")
    expect(page.get_by_role("heading", name=name.capitalize(), exact=True, level=1)).to_be_visible()
    expect(page.locator(".st-key-run input")).to_have_value(run)
    settle(page)


def settle(page: Page) -> None:
    """Waits until the script has run to its end, and sees that it raised nothing."""
    at_rest = page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]')
    expect(at_rest).to_be_attached()
    expect(page.get_by_test_id("stException")).to_have_count(0)
