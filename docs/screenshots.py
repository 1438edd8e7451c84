"""Makes the README's pictures, or with --all those of every page, light and dark, wide and narrow.

    python docs/screenshots.py [--all] [--data DATA] [FOLDER]

Writes FOLDER/<page>-<theme>-<width>.png from the bundled demo, or from another folder of runs; leaves no trace there.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from itertools import product
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.conftest import FLAGS, find_chromium, serving, settle  # noqa: E402

HEIGHTS = {1440: 900, 390: 844}
README = {("select", "light", 1440), ("gallery", "dark", 1440), ("map", "light", 1440)}


def lasso(page: Page) -> None:
    """Draws around the middle of the map, so that its gallery shows a region."""
    box = page.locator(".stage").bounding_box()
    corners = ((0.3, 0.25), (0.75, 0.2), (0.85, 0.6), (0.4, 0.65), (0.3, 0.25))
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=6)
    page.mouse.up()
    expect(page.get_by_text("in the region")).to_be_visible()


def open_tab(name: str):
    return lambda page: page.get_by_role("tab", name=name).click()


def open_card(page: Page) -> None:
    page.locator(".card").nth(2).click()
    expect(page.get_by_role("dialog")).to_be_visible()


def ask(page: Page) -> None:
    page.get_by_label("Text", exact=True).fill("two red birds in the snow")
    page.get_by_label("Text", exact=True).press("Enter")
    expect(page.get_by_text("most like “two red birds in the snow”")).to_be_visible(timeout=60_000)


def export(page: Page) -> None:
    page.get_by_role("button", name="Save and export").click()
    expect(page.locator(".st-key-exported")).to_be_visible()


# What to open, what must be there before anything else, and what to do then.
SHOTS = {
    "overview": ("", ".card img", None),
    "distributions": ("distributions", ".histogram svg", None),
    "two-metrics": ("distributions", ".histogram svg", open_tab("Two metrics")),
    "by-kind": ("distributions", ".histogram svg", open_tab("By kind")),
    "rank-disagreement": ("distributions", ".histogram svg", open_tab("Rank disagreement")),
    "normalizer": ("distributions", ".histogram svg", open_tab("Normalizer")),
    "map": ("map", ".stage", lasso),
    "gallery": ("gallery", ".card img", None),
    "pair": ("gallery", ".card img", open_card),
    "search": ("search", ".st-key-q input", ask),
    "select": ("select", ".histogram svg", None),
    "compare": ("compare", ".matrix td", None),
    "export": ("select", ".histogram svg", export),
}


def come_to_rest(page: Page) -> None:
    """Waits for what is drawn after the script has run: charts, and the images in view."""
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)
    expect(page.get_by_test_id("stProgress")).to_have_count(0)
    if page.get_by_test_id("stPlotlyChart").count():
        expect(page.locator(".main-svg").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    in_view = "images => images.every(one => one.complete || one.getBoundingClientRect().top > innerHeight)"
    while not page.locator(".card img").evaluate_all(in_view):
        page.wait_for_timeout(100)
    page.wait_for_timeout(400)


def shoot(browser: Browser, url: str, folder: Path, theme: str, width: int, names: list[str]) -> None:
    """Opens each page in a session of its own and takes its picture."""
    height = HEIGHTS[width]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    for name in names:
        path, sign, act = SHOTS[name]
        page = context.new_page()
        page.goto(f"{url}/{path}")
        expect(page.locator(sign).first).to_be_attached()
        settle(page)
        if act:
            act(page)
            settle(page)
        page.mouse.move(0, 0)
        come_to_rest(page)
        page.screenshot(path=folder / f"{name}-{theme}-{width}.png")
        page.close()
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "screenshots")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        for theme, width in product(("light", "dark"), HEIGHTS):
            names = [name for name in SHOTS if options.all or (name, theme, width) in README]
            if not names:
                continue
            # A copy for each: what one picture saves is not to be seen in another.
            with tempfile.TemporaryDirectory() as copy:
                data = Path(shutil.copytree(options.data, Path(copy) / "data"))
                with serving(data) as url:
                    shoot(browser, url, options.folder, theme, width, names)
        browser.close()


if __name__ == "__main__":
    main()
