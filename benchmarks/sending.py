"""What does the server send when a thumb is let go, and when the pointer rests on a pair of the map?

    python -m benchmarks.sending RUN

A server of its own and Chromium. Messages of the page's socket, as they are before compression, and what was fetched
besides: pictures of the map and scripts, but not the pairs' own images.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Page, Response, WebSocket, sync_playwright

from benchmarks.dashboard import browser_tab, opened
from benchmarks.serving import serving
from tests.browser.conftest import FLAGS, find_chromium

_REST_MS = 1_000
_TIMES = 3
_FEW = 1_500


@dataclass
class Traffic:
    """What came: the sizes of messages, and of answers to other requests, in bytes."""

    messages: list[int] = field(default_factory=list)
    fetched: list[int] = field(default_factory=list)

    def follow(self, page: Page) -> None:
        """Notes what comes to a page from now on."""
        page.on("websocket", self._listen)
        page.on("response", self._answer)

    def forget(self) -> None:
        """Begins to count anew."""
        self.messages.clear()
        self.fetched.clear()

    def row(self) -> str:
        """What came, as the end of a table's row."""
        said, got = (f"{sum(sizes) / 1024:.1f} KiB" for sizes in (self.messages, self.fetched))
        return f"{len(self.messages)} | {said} | {got} |"

    def _listen(self, channel: WebSocket) -> None:
        channel.on("framereceived", lambda frame: self.messages.append(len(frame)))

    def _answer(self, response: Response) -> None:
        if "/drawings/" in response.url or "/scripts/" in response.url:
            self.fetched.append(int(response.headers.get("content-length", 0)))


def main() -> None:
    """Prints a row for each of the two, some times over."""
    root = Path(sys.argv[1]).resolve()
    query = f"run={root.parent.name}/{root.name}"
    with sync_playwright() as playwright, serving("app.py", str(root), data=root / "nothing") as served:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        print("| | messages | sent | fetched |\n|---|---|---|---|")
        with browser_tab(chromium, served) as tab:
            traffic = Traffic()
            traffic.follow(tab)
            opened(tab, f"/select?{query}")
            thumb = tab.get_by_role("slider").first
            thumb.focus()
            for _ in range(_TIMES):
                traffic.forget()
                thumb.press("ArrowRight")
                tab.wait_for_timeout(_REST_MS)
                print("| a thumb is let go |", traffic.row(), flush=True)
        with browser_tab(chromium, served) as tab:
            traffic = Traffic()
            traffic.follow(tab)
            opened(tab, f"/map?{query}")
            for row in _pointing(tab, traffic):
                print("| the pointer rests on a pair of the map |", row, flush=True)
        chromium.close()


def _pointing(tab: Page, traffic: Traffic) -> Iterator[str]:
    """Zooms to where single pairs are shown, and points at some."""
    stage = tab.locator(".stage")
    box = stage.bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(*middle)
    while not _few(tab):
        tab.mouse.wheel(0, -150)
        tab.wait_for_timeout(_REST_MS)
    told = 0
    for step in range(0, int(box["width"]), 7):
        traffic.forget()
        tab.mouse.move(box["x"] + step, middle[1] + step % 90)
        if stage.evaluate("node => node.style.cursor") == "pointer":
            tab.wait_for_timeout(_REST_MS)
            yield traffic.row()
            told += 1
        if told == _TIMES:
            return


def _few(tab: Page) -> bool:
    said = tab.locator(".tools .said").inner_text().split()[0].replace(",", "")
    return said.isdigit() and int(said) < _FEW


if __name__ == "__main__":
    main()
