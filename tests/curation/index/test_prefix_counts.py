"""What is looked up from counts along an order is what counting each pair finds, at any rank."""

from __future__ import annotations

import shutil
from fractions import Fraction

import numpy as np
import pytest

from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.array_files import save
from clipsel_core.curation.index.index import open_indexed, wait_until_kept
from clipsel_core.curation.index.ordering import Shares, count_of_fraction, counts_of_fraction
from clipsel_core.curation.index.prefix_counts import PrefixCounts
from clipsel_core.curation.index.ranking import Ranking
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe_files import parse_recipe
from clipsel_core.curation.selecting import selection
from clipsel_core.curation.selecting.selection import Picker, select
from clipsel_core.runs.store import Run
from tests.waiting import PATIENCE_S


@pytest.mark.parametrize("alike", [0, 0.6])
@pytest.mark.parametrize("pairs", [1, 63, 1_000, 20_011])
def test_prefix_counts__are_those_of_each_pair(pairs, alike):
    draw = np.random.default_rng(pairs)
    values = np.where(draw.random(pairs) < alike, 0.5, draw.normal(0, 1, pairs)).astype(np.float32)
    values[draw.random(pairs) < 0.1] = np.nan
    first = Ranking.of(values)
    order, codes = first.order, draw.integers(0, 300, pairs).astype(np.uint16)
    mask = draw.random(pairs) < 0.7
    counts = PrefixCounts.of(first.order, codes, bitmaps.pack(mask))
    for rank in {0, 1, len(order) // 3, len(order) // 2 + 1, len(order) - 1, len(order)}:
        for found, rows in ((counts.from_rank(rank), order[rank:]), (counts.below_rank(rank), order[:rank])):
            assert (found == np.bincount(codes[rows][mask[rows]], minlength=65_536)).all()


@pytest.mark.parametrize("alike", [0, 0.6])
def test_prefix_counts__are_kept_and_counted_anew_where_they_are_damaged(tmp_path, alike):
    draw, file = np.random.default_rng(5), tmp_path / "along.npy"
    values = np.where(draw.random(9_000) < alike, 0.5, draw.normal(0, 1, 9_000)).astype(np.float32)
    first, codes = Ranking.of(values), draw.integers(0, 300, 9_000).astype(np.uint16)
    given = first.order, codes, bitmaps.pack(draw.random(9_000) < 0.7)
    counted = PrefixCounts.of(*given)
    assert (PrefixCounts.of(*given, file).sums == counted.sums).all()
    read = PrefixCounts.of(*given, file)
    assert all((read.from_rank(rank) == counted.from_rank(rank)).all() for rank in (0, 1_234, 8_999))
    save(file, counted.sums + np.uint32(1))
    assert (PrefixCounts.of(*given, file).sums == counted.sums + 1).all(), "what is kept is not counted again"
    for damage in (file.read_bytes()[:-1], b"", b"no array"):
        file.write_bytes(damage)
        assert (PrefixCounts.of(*given, file).sums == counted.sums).all()
    assert (PrefixCounts.of(*given, tmp_path / "gone" / "along.npy").sums == counted.sums).all()
    assert not (tmp_path / "gone").exists()


def test_picker__keeps_them_beside_the_index(big_run, monkeypatch, tmp_path):
    monkeypatch.setattr(selection, "_MANY_PAIRS", 0)
    table = open_indexed(Run.open(shutil.copytree(big_run.root, tmp_path / "run")), fewest=0)
    wait_until_kept()
    recipe = parse_recipe("steps: [{metric: s_cliploss, keep_top: 0.3}, {metric: clip_score, keep_top: 0.2}]")
    asked = Picker(table)
    asked.select(recipe)
    for counting in asked._crossed._known.values():
        counting.result(PATIENCE_S)
    assert table.index_folder is not None
    assert list(table.index_folder.glob("from-*.npy"))
    assert Picker(table).select(recipe).report == select(big_run, recipe, table).report


def test_picker__counts_the_same_with_and_without_them(big_run, monkeypatch):
    monkeypatch.setattr(selection, "_MANY_PAIRS", 0)
    table = ScoreTable.open(big_run)
    asked, draw = Picker(table), np.random.default_rng(2)
    for _ in range(20):
        first, second = (int(share) / 1000 for share in draw.integers(0, 1001, 2))
        kind = ["keep_top", "at_most"][int(draw.integers(2))]
        text = f"steps: [{{metric: s_cliploss, {kind}: {first}}}, {{metric: clip_score, keep_top: {second}}}]"
        recipe = parse_recipe(text)
        assert asked.select(recipe).report == select(big_run, recipe, table).report
        for counting in asked._crossed._known.values():
            counting.result(PATIENCE_S)


def test_shares__are_exact():
    shares = Shares.evenly(1000)
    for pairs in (0, 1, 100, 128_000_001):
        assert shares.counts(pairs).tolist() == [count_of_fraction(Fraction(p, 1000), pairs) for p in range(1001)]


def test_counts_of_fraction__are_exact():
    pairs = np.array([0, 1, 100, 12_800_000_000])
    for part in (Fraction(29, 100), Fraction(0), Fraction(1), Fraction(0.1), Fraction(10**30 - 1, 10**30)):
        expected = [count_of_fraction(part, int(count)) for count in pairs]
        assert counts_of_fraction(part, pairs).tolist() == expected
