"""What the browser counts while a thumb moves is what select() picks: random recipes, any place of the thumb."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic_run import write_run
from clipsel_core.curation.index.ranking import Shares
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import (
    AnyOf,
    AnyStep,
    AtLeast,
    AtMost,
    Between,
    KeepBottom,
    KeepTop,
    Random,
    Recipe,
    Sample,
    ScoreStep,
    ShareStep,
)
from clipsel_core.curation.selecting.live import settings_of
from clipsel_core.curation.selecting.selection import Picker, select
from clipsel_core.runs.store import Run
from pages.parts.select.steps import packed, turned

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


def random_new_step(draw: np.random.Generator, table: ScoreTable) -> AnyStep:
    """One of the lowest share, a mix, a filter, a random share."""
    metric, part = METRICS[draw.integers(len(METRICS))], int(draw.integers(1, 1001)) / 1000
    low, high = np.nanquantile(table.column(metric), sorted(draw.random(2))).round(3).tolist()
    of = ("pool", "survivors")[draw.integers(2)]
    mix = (("clip_score", Decimal(1)), ("normsim_inf_task", Decimal("-0.5")))
    steps = (
        KeepBottom(column=metric, keep_bottom=part, of=of),
        KeepTop.model_validate({"mix": mix, "keep_top": part, "of": of}),
        Between(column=metric, between=(low, high)),
        AnyOf(any_of=(AtLeast(column=metric, at_least=high), AtMost(column=metric, at_most=low))),
        Random(random=part, seed=int(draw.integers(100)), of=of),
    )
    return steps[draw.integers(len(steps))]


def check(picker: Picker, tab, draw: np.random.Generator, steps: list[AnyStep], at: int) -> None:
    """Holds what the browser says of five places of a step's thumb against what select() picks."""
    table = picker.table
    moved, recipe = steps[at], Recipe(steps=tuple(steps))
    metric = moved.ranked if isinstance(moved, KeepBottom) else moved.metric
    shares, start, pace = isinstance(moved, ShareStep), 0.0, 0.001
    if not shares:
        start = round(float(np.nanmin(table.column(metric))), 3)
    amounts = Shares.evenly(1000) if shares else (start + pace * np.arange(300)).round(3)
    settings = settings_of(picker, recipe, picker.take(recipe), at, amounts)
    if isinstance(moved, KeepBottom):
        settings = turned(settings)
    upward = not isinstance(moved, AtMost | KeepBottom)
    head = {"start": start, "pace": pace, "absolute": not shares, "upward": upward, "layers": []}
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
        if not any(isinstance(step, ShareStep | Random | Sample) for step in steps[at + 1 :]):
            # The bin that the threshold cuts is foreseen to a fine bin, which holds a few of these pairs.
            expected = table.ranking(metric).spread(picked.bits()).coarse
            assert np.abs(layer - expected).max() <= 5


@pytest.mark.parametrize("seed", range(30))
def test_mirror__counts_what_select_picks(picker, tab, seed):
    draw = np.random.default_rng(seed)
    steps = [random_step(draw, picker.table) for _ in range(draw.integers(1, 4))]
    check(picker, tab, draw, steps, int(draw.integers(len(steps))))


@pytest.mark.parametrize("seed", range(30))
def test_mirror__counts_what_select_picks_with_other_kinds_of_steps(picker, tab, seed):
    draw, table = np.random.default_rng(1000 + seed), picker.table
    steps = [random_new_step(draw, table) for _ in range(draw.integers(1, 4))]
    with_thumbs = [place for place, step in enumerate(steps) if isinstance(step, ScoreStep)]
    if not with_thumbs:
        steps.insert(0, random_step(draw, table))
        with_thumbs = [0]
    if seed % 3 == 0:
        by = (("normsim_2_task", Decimal(1)),)
        steps.append(Sample(sample=500, by=by, method="proportional", seed=seed))
    check(picker, tab, draw, steps, with_thumbs[draw.integers(len(with_thumbs))])
