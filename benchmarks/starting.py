"""How long does one wait for what a server, or a machine, does for the first time?

    python -m benchmarks starting

On the demo, in Chromium: the first page of a new server beside a page of plain Streamlit, the first search by a text,
the first form of a new pool, and the first maps, small ones and one of 50,000 pairs, drawn with nothing kept by any
process before. Seconds of the clock, and of the cores of the server with the processes that it started: under other
load only the latter, and ratios, mean something.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks.pools import write_pool
from benchmarks.serving import ROOT, Served, serving
from benchmarks.table import Row
from tests.browser.conftest import FLAGS, find_chromium

_PATIENCE_MS = 180_000
# Between two letters: meanwhile the teacher is being loaded.
_TYPED_MS = 200
_RESTED = '[data-testid="stApp"][data-test-script-state="notRunning"]'
# Seconds: what each may take on a machine with nothing else at work.
_HOLD = {"page": 2.0, "search": 3.0, "form": 2.0, "map": 8.0}


def measure(rounds: int, map_pairs: tuple[int, ...] = (500, 50_000)) -> list[Row]:
    """The rows of the table. rounds: new servers of each kind, in turns; the median is told."""
    with tempfile.TemporaryDirectory() as aside, sync_playwright() as playwright:
        folder = Path(aside)
        shutil.copytree(ROOT / "data" / "demo", folder / "data" / "demo")
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        rows = [*_pages(chromium, folder, rounds), *_asked(chromium, folder, rounds)]
        chromium.close()
        return [*rows, *(_map(folder, pairs) for pairs in map_pairs)]


def _pages(chromium: Browser, folder: Path, rounds: int) -> Iterator[Row]:
    """The first page at rest, counted from the server's start."""
    bare = folder / "plain.py"
    bare.write_text("import streamlit as st\nst.title('plain')\n")
    scripts = {"select": "app.py", "": "app.py", "plain": str(bare)}
    found: dict[str, list[tuple[float, float, float]]] = {page: [] for page in scripts}
    for _ in range(rounds):
        for page, script in scripts.items():
            start = time.perf_counter()
            with serving(script, data=folder / "data") as served, _tab(chromium, served) as tab:
                answered = time.perf_counter() - start
                tab.goto("/" if page == "plain" else f"/{page}")
                _rest(tab)
                found[page].append((time.perf_counter() - start, _core_seconds(served.pid), answered))
    wall, cores, _ = _medians(found["plain"])
    for page in ("select", ""):
        took, used, answered = _medians(found[page])
        said = f"{took:.1f} s, {used:.1f} s of a core (it answered after {answered:.1f} s)"
        hold = max(_HOLD["page"], wall + 1)
        what = f"server started -> {page or 'overview'} at rest"
        plain = f"plain Streamlit {wall:.1f} s, {cores:.1f} s of a core"
        yield Row(what, f"{said}; {plain}", f"<= {hold:.1f} s", took <= hold)


def _asked(chromium: Browser, folder: Path, rounds: int) -> Iterator[Row]:
    """What is asked for first on a page at rest, counted from the press."""

    def search(tab: Page) -> None:
        tab.get_by_label("Text", exact=True).press("Enter")
        expect(tab.get_by_text("most like “two red birds”")).to_be_visible(timeout=_PATIENCE_MS)

    def form(tab: Page) -> None:
        tab.get_by_role("button", name="Make a pool").first.click()
        asks = tab.get_by_role("dialog").get_by_text("Check and start")
        expect(asks).to_be_visible(timeout=_PATIENCE_MS)

    asked: dict[str, tuple[str, str, Callable[[Page], None]]] = {
        "search": ("search", "text entered -> what is like it, first search of a server", search),
        "form": ("", "Make a pool pressed -> its form, first of a server", form),
    }
    for name, (page, what, ask) in asked.items():
        times = []
        for _ in range(rounds):
            with serving("app.py", data=folder / "data") as served, _tab(chromium, served) as tab:
                tab.goto(f"/{page}")
                _rest(tab)
                if name == "search":
                    tab.get_by_label("Text", exact=True).press_sequentially("two red birds", delay=_TYPED_MS)
                before, start = _core_seconds(served.pid), time.perf_counter()
                ask(tab)
                times.append((time.perf_counter() - start, _core_seconds(served.pid) - before))
            # An embedding that is kept there would be the answer to the next server's search.
            shutil.rmtree(folder / "data" / "demo" / "run" / "cache", ignore_errors=True)
        took, used = _medians(times)
        yield Row(what, f"{took:.1f} s, {used:.1f} s of a core", f"<= {_HOLD[name]:g} s", took <= _HOLD[name])


def _map(folder: Path, pairs: int) -> Row:
    """`project` in processes that find nothing compiled at first, and what the first kept afterwards."""
    root, cache = folder / f"map-{pairs}" / "run", folder / f"compiled-{pairs}"
    pool = write_pool(root.parent, [max(pairs, 2_000)], width=512)
    clipsel = [sys.executable, "-m", "clipsel_core"]
    usual: dict[str, Any] = {"cwd": ROOT, "check": True, "capture_output": True}
    subprocess.run([*clipsel, "score", str(pool), str(root), "--divisions", "1", "--batch-size", "1000"], **usual)
    times = []
    for _ in range(2):
        before, start = os.times(), time.perf_counter()
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
        subprocess.run([*clipsel, "project", str(root), "--sample", str(pairs)], env=environment, **usual)
        after = os.times()
        used = sum(after[2:4]) - sum(before[2:4])
        times.append((time.perf_counter() - start, used))
    (took, used), (again, used_again) = times
    said = f"{took:.1f} s, {used:.1f} s of a core; the next {again:.1f} s, {used_again:.1f} of a core"
    hold = _HOLD["map"] if pairs <= 1_000 else None
    what = f"map of {pairs:,} pairs, first on a machine"
    return Row(what, said, f"<= {hold:g} s" if hold else "", took <= hold if hold else None)


def _medians(times: list[tuple[float, ...]]) -> list[float]:
    return [statistics.median(column) for column in zip(*times, strict=True)]


@contextmanager
def _tab(chromium: Browser, served: Served) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, base_url=served.url)
    page = context.new_page()
    page.set_default_timeout(_PATIENCE_MS)
    yield page
    context.close()


def _rest(tab: Page) -> None:
    tab.wait_for_selector("h1")
    tab.wait_for_selector(_RESTED)


def _core_seconds(pid: int) -> float:
    """Processor time of a process and of all that it started, those that have ended included."""
    parents, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:  # ended meanwhile
            continue
        number = int(stat.parent.name)
        parents[number], used[number] = int(fields[1]), sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(used.get(one, 0.0) for one in family)
