"""What the browser counts while a thumb moves is what select() picks: random recipes, any place of the thumb."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic_run import write_run
from clipsel_core.curation.index.ranking import Shares
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import AtLeast, AtMost, KeepTop, Recipe
from clipsel_core.curation.selecting.live import settings_of
from clipsel_core.curation.selecting.selection import Picker, select
from clipsel_core.runs.store import Run
from pages.parts.select.steps import packed

MIRROR = Path(__file__).parents[2] / "pages" / "parts" / "select" / "mirror.js"
METRICS = ("clip_score", "s_cliploss", "normsim_inf_task")
READ = """([bytes, places]) => {
  const head = read(Uint8Array.from(bytes))
  const counted = (place) => ({
    threshold: threshold(head, place), left: leftAt(head, place), alone: head.at.alone[place],
    layer: Array.from(keptLayer(head, place)),
  })
  return places.map(counted)
}"""


@pytest.fixture(scope="module")
def picker(tmp_path_factory) -> Picker:
    run = write_run(tmp_path_factory.mktemp("mirror"), rows=20_000, shards=3, seed=2, bad=0.02, pool=False)
    return Picker(ScoreTable.open(Run.open(run)))


@pytest.fixture(scope="module")
def tab(browser):
    page = browser.new_page()
    page.add_script_tag(content=MIRROR.read_text())
    yield page
    page.close()


def random_step(draw: np.random.Generator, table: ScoreTable) -> KeepTop | AtLeast | AtMost:
    metric, kind = METRICS[draw.integers(len(METRICS))], draw.integers(4)
    if kind < 2:
        of = "pool" if kind else "survivors"
        return KeepTop(column=metric, keep_top=int(draw.integers(1, 1001)) / 1000, of=of)
    value = round(float(np.nanquantile(table.column(metric), draw.random())), 3)
    return AtLeast(column=metric, at_least=value) if kind == 2 else AtMost(column=metric, at_most=value)


@pytest.mark.parametrize("seed", range(30))
def test_mirror__counts_what_select_picks(picker, tab, seed):
    draw, table = np.random.default_rng(seed), picker.table
    steps = [random_step(draw, table) for _ in range(draw.integers(1, 4))]
    at = int(draw.integers(len(steps)))
    moved, recipe = steps[at], Recipe(steps=tuple(steps))
    shares, start, pace = isinstance(moved, KeepTop), 0.0, 0.001
    if not shares:
        start = round(float(np.nanmin(table.column(moved.metric))), 3)
    amounts = Shares.evenly(1000) if shares else (start + pace * np.arange(300)).round(3)
    settings = settings_of(picker, recipe, picker.take(recipe), at, amounts)
    head = {"start": start, "pace": pace, "absolute": not shares, "upward": not isinstance(moved, AtMost), "layers": []}
    head |= {"places": len(amounts)}
    places = draw.integers(0, len(amounts), 5).tolist()
    for place, seen in zip(places, tab.evaluate(READ, [list(packed(head, settings)), places]), strict=True):
        amount = place / 1000 if shares else float(amounts[place])
        steps[at] = type(moved).model_validate({**moved.model_dump(), moved.kind: amount})
        picked = select(table.run, Recipe(steps=tuple(steps)), table)
        threshold, layer = picked.report[at].threshold, np.array(seen["layer"])
        left = [report.kept_after for report in picked.report[at:]]
        assert seen["left"][: settings.exact] == left[: settings.exact]
        assert len(seen["left"]) == len(left)
        assert seen["alone"] == picked.report[at].alone_drops
        if threshold is not None:  # Of a share behind other steps it may lie at a pair beside it.
            assert seen["threshold"] == pytest.approx(threshold, abs=np.ptp(settings.edges) / 65_000)
        if settings.exact == len(left):
            # Nothing is drawn where none of them passes the later shares as these stand.
            assert not layer.any() or layer.sum() == pytest.approx(len(picked))
        if not any(isinstance(step, KeepTop) for step in steps[at + 1 :]):
            # The bin that the threshold cuts is foreseen to a fine bin, which holds a few of these pairs.
            expected = table.ranking(moved.metric).spread(picked.bits()).coarse
            assert np.abs(layer - expected).max() <= 5
