"""Disagreement of ranks against scipy's ranks and plain sorting."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy import stats

from clipsel_core import tasks
from clipsel_core.curation.exploring import agreement
from clipsel_core.curation.exploring.agreement import disagreement, doubled_ranks, keep_gaps, places_from_top
from clipsel_core.curation.index.ranking import Ranking, standing

N = 4_000


def two(decimals: int = 5, missing: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(5)
    x = draw.normal(0, 0.1, N)
    y = x + draw.normal(0, 0.1, N)
    x, y = (values.round(decimals).astype(np.float32) for values in (x, y))
    x[draw.random(N) < missing] = np.nan
    y[draw.random(N) < missing] = np.nan
    return x, y


@pytest.mark.parametrize("step", [7, 10**6])
@pytest.mark.parametrize("decimals", [1, 2, 5])
def test_doubled_ranks__are_scipys_average_ranks(decimals, step, monkeypatch):
    monkeypatch.setattr(agreement, "_STEP", step)
    values, other = two(decimals)
    among = ~np.isnan(values) & ~np.isnan(other)
    found = doubled_ranks(values, Ranking.of(values).order, among)
    assert (found[among] == 2 * stats.rankdata(values[among]) - 1).all()
    assert not found[~among].any()


@pytest.mark.parametrize("step", [7, 10**6])
def test_places_from_top__count_who_stands_above(step, monkeypatch):
    monkeypatch.setattr(agreement, "_STEP", step)
    values, other = two()
    among = ~np.isnan(values) & ~np.isnan(other)
    order = Ranking.of(values).order
    found = places_from_top(order, among)
    assert found[order[among[order]]].tolist() == list(range(np.count_nonzero(among)))[::-1]
    assert not found[~among].any()


def test_disagreement__can_be_stopped_within_a_ranking(monkeypatch):
    monkeypatch.setattr(agreement, "_STEP", 100)
    x, y = (Ranking.of(values) for values in two())
    asked, told = [], []
    with tasks.stoppable(lambda: asked.append(len(told))):
        disagreement(x, y, report=lambda done, total, *_: told.append(done / total))
    assert asked.count(1) > 2 * N // 200


def test_doubled_ranks__by_hand():
    values = np.array([0.5, -np.inf, 0.0, -0.0, np.nan, -3, np.inf], np.float32)
    found = doubled_ranks(values, Ranking.of(values).order, ~np.isnan(values))
    assert found.tolist() == [9, 1, 6, 6, 0, 3, 11]


@pytest.mark.parametrize("decimals", [1, 5])
def test_disagreement__against_scipy(decimals):
    x, y = two(decimals)
    both = ~np.isnan(x) & ~np.isnan(y)
    found = disagreement(Ranking.of(x), Ranking.of(y), bins=10)
    assert found.pairs == both.sum()
    assert found.spearman == pytest.approx(stats.spearmanr(x[both], y[both]).statistic, abs=1e-12)
    rank_x, rank_y = (100 * (stats.rankdata(v[both]) - 0.5) / both.sum() for v in (x, y))
    assert (found.counts == np.histogram2d(rank_x, rank_y, bins=10, range=[(0, 100)] * 2)[0]).all()
    rows = np.flatnonzero(both)
    for end, gap in (("first", rank_x - rank_y), ("second", rank_y - rank_x)):
        order = np.argsort(-gap.round(9), kind="stable")[: (gap.round(9) > 0).sum()]
        assert found.listed(end) == len(order)
        assert found.page(end, limit=N).tolist() == rows[order].tolist()
        assert np.allclose(found.points(rows[order]), gap[order])
        for offset in (0, 48, 333, len(order) - 30, len(order)):
            assert found.page(end, offset=offset).tolist() == rows[order][offset : offset + 48].tolist()


def test_disagreement__kept_on_disk_is_the_same(tmp_path):
    x, y = (Ranking.of(values) for values in two())
    found = disagreement(x, y)
    for number in range(6):
        mapped = keep_gaps(found, tmp_path, f"{number:02d}-99")
        os.utime(tmp_path / f"gaps-{number:02d}-99.npy", (number, number))  # Clocks of files may tick slowly.
    assert [file.name for file in sorted(tmp_path.iterdir())] == [f"gaps-{n:02d}-99.npy" for n in (2, 3, 4, 5)]
    assert mapped.page("second", offset=99).tolist() == found.page("second", offset=99).tolist()
    assert keep_gaps(found, tmp_path / "nowhere" / "file", "a").listed("first") == found.listed("first")


def test_disagreement__of_a_metric_with_itself_names_nobody():
    x = two()[0]
    found = disagreement(Ranking.of(x), Ranking.of(x))
    assert found.spearman == pytest.approx(1)
    assert not found.listed("first")
    assert not len(found.page("second"))
    assert np.trace(found.counts) == found.pairs


def test_disagreement__where_there_is_nothing_to_rank():
    none = np.full(3, np.nan, np.float32)
    found = disagreement(Ranking.of(none), Ranking.of(none))
    assert found.pairs == found.counts.sum() == 0
    assert np.isnan(found.spearman)
    assert np.isnan(disagreement(*(Ranking.of(np.asarray(x, np.float32)) for x in (np.ones(5), np.arange(5)))).spearman)


def test_standing__against_scipy():
    values = two(2)[0]
    scored = values[~np.isnan(values)]
    for value in scored[:40]:
        found = standing(Ranking.of(values), float(value))
        assert found.rank == (scored > value).sum() + 1
        assert found.scored == len(scored)
        assert found.percentile == pytest.approx(stats.percentileofscore(scored, value, kind="strict"))
