"""How long after a step of zooming or moving does the map show that part anew, and what does that send to the browser?

    python -m benchmarks.zooming RUN [STEPS]

A server of its own, Chromium, the number of pairs and the mean of the run's second metric. From the key to the first
drawing of the new picture, in the page's own clock; until then the map shows the pictures that it has, scaled.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks.dashboard import browser_tab, opened
from benchmarks.sending import Traffic
from benchmarks.serving import serving
from tests.browser.conftest import FLAGS, find_chromium

# Notes when the canvas first draws a picture that it had not drawn before.
_NOTING = """
    window.drawn = []
    const seen = new Set(), draw = CanvasRenderingContext2D.prototype.drawImage
    CanvasRenderingContext2D.prototype.drawImage = function (image, ...where) {
      if (!seen.has(image.src)) { seen.add(image.src); window.drawn.push(performance.now()) }
      return draw.call(this, image, ...where)
    }
"""
_KEYS = ("+", "ArrowRight", "+", "ArrowUp", "-", "ArrowLeft")
_REST_MS = 1_000


def main() -> None:
    """Prints a row a colour."""
    root, steps = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 12
    with sync_playwright() as playwright, serving("app.py", str(root), data=root / "nothing") as served:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        print("| colour | zoom -> picture, median | most | messages | KiB | fetched KiB |\n|---|---|---|---|---|---|")
        for colour in (None, 3):
            with browser_tab(chromium, served) as tab:
                print(_row(tab, f"/map?run={root.parent.name}/{root.name}", colour, steps), flush=True)
        chromium.close()


def _row(tab: Page, path: str, colour: int | None, steps: int) -> str:
    """colour: which of the choices; None for the first."""
    traffic = Traffic()
    tab.add_init_script(_NOTING)
    traffic.follow(tab)
    opened(tab, path)
    if colour is not None:
        tab.locator(".st-key-map_colour input").click()
        tab.get_by_role("option").nth(colour).click()
    tab.wait_for_timeout(5 * _REST_MS)
    name = tab.locator(".st-key-map_colour input").input_value()
    messages, fetched = traffic.messages, traffic.fetched
    traffic.forget()
    times = [_step(tab, _KEYS[step % len(_KEYS)]) for step in range(steps)]
    sent = " | ".join(f"{amount / steps:.0f}" for amount in (len(messages), sum(messages) / 1024, sum(fetched) / 1024))
    return f"| {name} | {statistics.median(times):.0f} ms | {max(times):.0f} ms | {sent} |"


def _step(tab: Page, key: str) -> float:
    """Milliseconds from a key to the new picture."""
    before: Any = tab.evaluate("window.drawn.length")
    began = tab.evaluate("performance.now()")
    tab.locator(".map .stage").press(key)
    tab.wait_for_function(f"window.drawn.length > {before}", polling="raf")
    drawn = tab.evaluate(f"window.drawn[{before}]")
    tab.wait_for_timeout(_REST_MS)
    return drawn - began


if __name__ == "__main__":
    main()
