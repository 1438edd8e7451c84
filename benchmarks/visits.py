"""How long does each page of the dashboard take to open, first and again, and what does the server hold after it?

    python -m benchmarks.visits RUN [PAGE ...]

In a fresh server whose index exists, one page after another, in the page's own clock to the page at rest. The rows go
to stdout as they are measured. Memory: what the process owns, what it has mapped from files, and the peak of both.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.dashboard import browser_tab, opened
from benchmarks.serving import serving
from tests.browser.conftest import FLAGS, find_chromium

PAGES = ("select", "gallery", "distributions", "map", "search", "compare", "")


def main() -> None:
    """Opens the pages named, or all, and prints a row for each."""
    root, pages = Path(sys.argv[1]).resolve(), sys.argv[2:] or PAGES
    query = f"run={root.parent.name}/{root.name}"
    print("| page | first | again | third | own | mapped | peak |\n|---|---|---|---|---|---|---|")
    with sync_playwright() as playwright, serving("app.py", str(root), data=root / "nothing") as served:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        for page in pages:
            times = []
            for _ in range(3):
                with browser_tab(chromium, served) as tab:
                    times.append(f"{opened(tab, f'/{page}?{query}'):,.0f} ms")
            own, mapped, peak = (f"{part:,.0f} MiB" for part in served.memory_parts_mib())
            print(f"| {page or 'overview'} | {' | '.join(times)} | {own} | {mapped} | {peak} |", flush=True)
        chromium.close()


if __name__ == "__main__":
    main()
