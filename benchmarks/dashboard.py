"""How long does a curator wait for the dashboard? Chromium over a synthetic run, beside a plain page.

    python -m benchmarks dashboard --rows 12800000

Every figure is from the moment a key or a button is let go, in the page's own clock, to the page at rest: the script
has run to its end and nothing on the page has changed since. The plain page (plain_slider.py) takes turns with ours.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks import crowd
from benchmarks.serving import ROOT, Served, serving
from benchmarks.synthetic_map import add_map
from benchmarks.synthetic_run import write_run
from benchmarks.table import Row
from clipsel_core.runs.store import Run
from tests.browser.conftest import FLAGS, find_chromium

_THREE = "steps:\n- {metric: s_cliploss, keep_top: 0.4}\n- {metric: clip_score, keep_top: 0.3}\n"
_THREE += "- {metric: normsim_inf_task, keep_top: 0.2}\n"
WAITS = ("build", "open", "settle", "three", "crowd", "page", "lasso")
_PLAIN, _BARE = "benchmarks/plain_slider.py", "benchmarks/bare_fragment.py"
_SCRIPT = (Path(__file__).parent / "settling.js").read_text(encoding="utf-8")
_PATIENCE_MS = 120_000
# The bounds by rows of the run, in milliseconds and MiB: small runs are held to the same as the small pool.
_HOLD = {
    12_800_000: {
        "drag": 5,
        "final": 15,
        "settle": 200,
        "three": 150,
        "open": 3000,
        "build": 3000,
        "page": 500,
        "lasso": 500,
    }
    | {"crowd": 100, "memory": 1536},
    128_000_000: {
        "drag": 5,
        "final": 15,
        "settle": 300,
        "three": 700,
        "open": 5000,
        "build": 25_000,
        "page": 800,
        "lasso": 500,
    }
    | {"crowd": 150, "memory": 6144},
}


def measure(
    rows: int, folder: Path | None = None, rounds: int = 7, waits: Collection[str] = WAITS, *, plain: bool = True
) -> list[Row]:
    """The rows of the table, each of them also told on stderr when it is there.

    folder: where the synthetic run is, or is left for the next time; None throws it away. waits: some of WAITS. plain:
    whether a plain page takes turns with ours; it needs 50 bytes a pair.
    """
    with tempfile.TemporaryDirectory() as aside:
        run = _synthetic(folder or Path(aside), rows)
        hold = _HOLD[max((size for size in _HOLD if size <= rows), default=min(_HOLD))]
        found = []
        for row in _Measuring(run, hold, rounds).rows(waits, plain):
            print(f"{row.what}: {row.measured}", file=sys.stderr, flush=True)
            found.append(row)
        return found


def _synthetic(folder: Path, rows: int) -> Run:
    """The run in a folder, written where it is not there yet."""
    root = folder / "run"
    if not (root / "run.json").exists():
        write_run(folder, rows=rows, shards=max(1, rows // 100_000))
        add_map(Run.open(root), min(1_000_000, rows // 2))
    run = Run.open(root)
    Path(run.recipes_dir).mkdir(exist_ok=True)
    (Path(run.recipes_dir) / "three.yaml").write_text(_THREE)
    return run


class _Measuring:
    """One run, two servers in turn, one browser."""

    def __init__(self, run: Run, hold: dict[str, float], rounds: int) -> None:
        self.run, self.hold, self.rounds = run, hold, rounds
        self.query = f"run={Path(run.root).parent.name}/{Path(run.root).name}"

    def rows(self, waits: Collection[str], beside_plain: bool) -> Iterator[Row]:
        """Those of the waits that are asked for, one after another as they are measured."""
        if "build" in waits:
            built, kept, mib, core_s = self._build()
            what = (
                f"build the index (once; {core_s:.1f} s of a core, peak {mib:,.0f} MiB, on disk after {kept:,.0f} ms)"
            )
            yield self._row(what, "build", built)
        with _browser() as browser, self._ours() as ours, self._plain(beside_plain) as plain:
            if "open" in waits:
                opened = self._open(browser, ours, plain)
                yield self._row("open Select in a fresh server, index kept", "open", *opened)
            if "settle" in waits:
                dragged, settled, settled_plain = self._thumb(browser, ours, plain)
                yield self._row(
                    "redraw while a thumb is dragged, all steps' counts too", "drag", dragged, settled_plain
                )
                yield self._row("let go -> page at rest, two steps", "settle", settled, settled_plain)
            if "three" in waits:
                (final, final_plain), counted = self._three(browser, ours, plain)
                yield self._row("let go -> the final numbers stand, three steps", "final", final, final_plain)
                yield self._row("let go -> the server has counted them, three steps", "three", *counted)
            yield self._memory("memory of the server on Select, peak", ours, plain)
            if "crowd" in waits:
                yield self._crowds(ours, plain)
            if "page" in waits:
                yield self._row("next gallery page of 48, images shown", "page", *self._pages(browser, ours, plain))
                what = "the same after a look at the page, 1.5 s"
                yield self._row(what, "page", *self._pages(browser, ours, plain, look_ms=1500))
            if "lasso" in waits:
                what = f"lasso -> 24 cards and their images, {self._mapped():,} pairs on the map"
                yield self._row(what, "lasso", self._lasso(browser, ours))
            yield self._memory("the same after all of this, peak", ours, None)

    def _row(self, what: str, name: str, ours_ms: float, plain_ms: float | None = None) -> Row:
        times = f", {plain_ms / ours_ms:.1f}x" if plain_ms and ours_ms else ""
        beside = "" if plain_ms is None else f"; plain page {plain_ms:,.0f} ms{times}"
        bound = self.hold[name]
        shown = f"{ours_ms:.2g}" if ours_ms < 10 else f"{ours_ms:,.0f}"
        return Row(what, f"{shown} ms{beside}", f"<= {bound:,.0f} ms", ours_ms <= bound)

    def _memory(self, what: str, ours: Served, plain: Served | None) -> Row:
        beside = f"; plain page {plain.memory_mib()[1]:,.0f} MiB" if plain else ""
        bound, (now, peak) = self.hold["memory"], ours.memory_mib()
        return Row(what, f"{peak:,.0f} MiB, {now:,.0f} now{beside}", f"<= {bound:,.0f} MiB", peak <= bound)

    def _build(self) -> tuple[float, float, float, float]:
        """Milliseconds until a new index can be used, and is on the disk, in a process of its own; its peak memory in
        MiB; and the seconds of a core that it took."""
        command = [sys.executable, "-m", "benchmarks.build_index", str(self.run.root)]
        # Twice: the first process on a machine compiles the loops for all others.
        found = [subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True) for _ in range(2)]
        built_ms, kept_ms, mib, core_s = json.loads(found[-1].stdout)
        return built_ms, kept_ms, mib, core_s

    @contextmanager
    def _ours(self) -> Iterator[Served]:
        with serving("app.py", str(self.run.root), data=self.run.root / "nothing") as served:
            yield served

    @contextmanager
    def _plain(self, wanted: bool) -> Iterator[Served | None]:
        if not wanted:
            yield None
            return
        with serving(_PLAIN, str(self.run.root), data=ROOT) as served:
            yield served

    def _open(self, browser: Browser, ours: Served, plain: Served | None) -> tuple[float, float | None]:
        """The first page that a fresh server shows."""
        with browser_tab(browser, ours) as mine, browser_tab(browser, plain) as other:
            return opened(mine, f"/select?{self.query}"), opened(other, "/") if other else None

    def _thumb(self, browser: Browser, ours: Served, plain: Served | None) -> tuple[float, float, float | None]:
        """Milliseconds of a redraw, and to rest after the first or the second thumb was moved, ours and the plain's."""
        with browser_tab(browser, ours) as mine, browser_tab(browser, plain) as other:
            opened(mine, f"/select?{self.query}")
            opened(other, "/")
            track = mine.locator(".control .track").first
            dragged = track.evaluate("node => window.settling.drag(node, 100)")
            return dragged, *self._turns(mine, other)

    def _three(self, browser: Browser, ours: Served, plain: Served | None) -> list[tuple[float, float | None]]:
        """With three steps, of which any is moved: until the final numbers stand, and until the server has counted."""
        with browser_tab(browser, ours) as mine, browser_tab(browser, plain) as other:
            opened(mine, f"/select?{self.query}")
            _load(mine, "three")
            opened(other, "/?steps=3")
            return [self._turns(mine, other, what) for what in ("toFinal", "toCount")]

    def _turns(self, mine: Page, other: Page | None, what: str = "took") -> tuple[float, float | None]:
        found: dict[Page, list[float]] = {page: [] for page in (mine, other) if page}
        for turn in range(self.rounds):
            for page, times in found.items():
                thumbs = page.locator("[role=slider], input[type=range]")
                thumbs.nth(turn % thumbs.count()).press("ArrowLeft" if turn % 2 else "ArrowRight")
                _rested(page)
                times.append(page.evaluate(f"window.settling.{what}()"))
        return statistics.median(found[mine]), statistics.median(found[other]) if other else None

    def _crowds(self, ours: Served, plain: Served | None) -> Row:
        mine = crowd.measure(ours.url, self.query, "select", crowd.thumb_of, crowd.thumb_moved)
        slid = "", "", crowd.slider_of, crowd.slider_moved((0.0, 0.5))
        other = crowd.measure(plain.url, *slid) if plain else None
        with serving(_BARE, data=ROOT) as served:
            bare = crowd.measure(served.url, *slid)
        what = f"20 people moving thumbs, 95 of 100 wait at most (a fragment that does nothing: {_p95(bare):,.0f} ms)"
        return self._row(what, "crowd", _p95(mine), None if other is None else _p95(other))

    def _pages(
        self, browser: Browser, ours: Served, plain: Served | None, look_ms: int = 0
    ) -> tuple[float, float | None]:
        """look_ms: how long a page is looked at before the next is asked for; at once otherwise."""
        with browser_tab(browser, ours) as mine, browser_tab(browser, plain) as other:
            opened(mine, f"/gallery?{self.query}")
            opened(other, "/?page=gallery")
            found: tuple[list[float], list[float]] = ([], [])
            for _ in range(self.rounds):
                mine.wait_for_timeout(look_ms)
                before = mine.evaluate("window.settling.first()")
                mine.get_by_role("button", name="Next").click()
                found[0].append(_filled(mine, 48, before))
                if other:
                    steps_up = other.get_by_test_id("stNumberInputStepUp")
                    other.get_by_role("button", name="Increment").or_(steps_up).click()
                    found[1].append(_rested(other))
        return statistics.median(found[0]), statistics.median(found[1]) if other else None

    def _lasso(self, browser: Browser, ours: Served) -> float:
        times = []
        with browser_tab(browser, ours) as page:
            opened(page, f"/map?{self.query}")
            plot = page.locator(".map .stage").first
            for turn in range(max(3, self.rounds // 2)):
                before = page.evaluate("window.settling.first()")
                # Never over part of the one before: they could have the same first card.
                _draw_lasso(page, plot, 0.65 if turn % 2 else 0.35)
                times.append(_filled(page, 24, before))
        return statistics.median(times)

    def _mapped(self) -> int:
        return min(1_000_000, self.run.pairs // 2)


@contextmanager
def _browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield chromium
        chromium.close()


@contextmanager
def browser_tab(browser: Browser, served: Served | None) -> Iterator[Any]:
    """A page of a server in a browser context of its own; None where there is no server."""
    if served is None:
        yield None
        return
    context = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=served.url)
    context.add_init_script(_SCRIPT)
    page = context.new_page()
    page.set_default_timeout(_PATIENCE_MS)
    yield page
    context.close()


def opened(page: Page | None, path: str) -> float | None:
    """Milliseconds from asking for the address to the page at rest."""
    if page is None:
        return None
    page.goto(path, wait_until="commit")
    page.evaluate("() => { window.settling.from = 0; window.settling.ran = true }")
    return _rested(page)


def _rested(page: Page) -> float:
    page.wait_for_function("() => window.settling.rested()", timeout=_PATIENCE_MS)
    if page.get_by_test_id("stException").count():
        raise RuntimeError(page.get_by_test_id("stException").first.inner_text())
    return page.evaluate("window.settling.took()")


def _filled(page: Page, cards: int, before: str) -> float:
    asked = "([count, before]) => window.settling.filled(count, before)"
    return page.wait_for_function(asked, arg=[cards, before], timeout=_PATIENCE_MS, polling="raf").json_value()


def _load(page: Page, recipe: str) -> None:
    """Takes a saved recipe as the draft."""
    page.get_by_label("Load a recipe").click()
    page.evaluate("() => { window.settling.from = performance.now(); window.settling.ran = true }")
    page.get_by_role("option", name=recipe).click()
    page.wait_for_function("() => document.querySelectorAll('.funnel .row').length === 4")
    # A thumb that is moved while the page still runs interrupts it, and nobody could tell the two runs apart.
    _rested(page)


def _draw_lasso(page: Page, plot, middle: float) -> None:
    box = plot.bounding_box()
    corners = ((0, -1), (1, 0), (0, 1), (-1, 0), (0, -1))
    points = [
        (box["x"] + box["width"] * (middle + 0.1 * x), box["y"] + box["height"] * (0.5 + 0.1 * y)) for x, y in corners
    ]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=5)
    page.mouse.up()


def _p95(times: list[float]) -> float:
    """Milliseconds; times in seconds."""
    return 1000 * statistics.quantiles(times, n=20)[-1]
