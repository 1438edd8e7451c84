"""Means by group against pandas, groups by percentile against scipy's ranks, cells of the map against numpy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clipsel_core.curation.index.counts import group_means, map_cells, span_around, within
from clipsel_core.curation.index.ranking import Ranking, percentile_groups

RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((2, 30_000)).astype(np.float32)
SPAN = (-2.0, 2.0, -1.0, 1.0)


@pytest.mark.parametrize("decimals", [1, 2, 6])
@pytest.mark.parametrize("groups", [1, 7, 50])
def test_percentile_groups__are_shares_of_lower_ranks(groups, decimals):
    draw = np.random.default_rng(3)
    values = draw.normal(0, 0.1, 1_999).round(decimals).astype(np.float32)
    values[::17] = np.nan
    scored = ~np.isnan(values)
    lower = stats.rankdata(values[scored], method="min").astype(int) - 1
    found = percentile_groups(Ranking.of(values), groups)
    assert (found[scored] == groups * lower // scored.sum()).all()
    assert (found[~scored] == -1).all()


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [0.5], [0.5, 0.5, 0.5]])
def test_percentile_groups__of_hardly_anything(values):
    found = percentile_groups(Ranking.of(np.array(values, np.float32)), 20)
    assert found.tolist() == [-1 if np.isnan(value) else 0 for value in values]


def test_group_means__against_pandas():
    draw = np.random.default_rng(4)
    group_of = draw.integers(-1, 5, 3_000)
    columns = [draw.normal(size=3_000).astype(np.float32) for _ in range(2)]
    columns[0][::9] = np.nan
    frame = pd.DataFrame({"group": group_of, "a": columns[0].astype(float), "b": columns[1].astype(float)}).dropna()
    expected = frame[frame.group >= 0].groupby("group")
    found = group_means(group_of, 6, columns)
    assert found.counts.tolist() == [*expected.size(), 0]
    assert np.allclose(found.means[:5], expected.mean(), atol=1e-12)
    assert np.isnan(found.means[5]).all()


def test_map_cells__count_as_numpy_does():
    found = map_cells(X, Y, SPAN, longest=64, sigma=0)
    expected, _, _ = np.histogram2d(X, Y, bins=(64, 32), range=(SPAN[:2], SPAN[2:]))
    assert found.density.shape == (64, 32)
    assert found.pairs == expected.sum() == within(SPAN, X, Y).sum()
    # A pair on a cell's edge may fall to either side.
    assert np.abs(found.density - expected).sum() <= 4


def test_map_cells__average_what_lies_in_them():
    values = np.where(X > 0, X, np.nan)
    found = map_cells(X, Y, SPAN, longest=16, values=values, sigma=0)
    sums, _, _ = np.histogram2d(X[X > 0], Y[X > 0], bins=(16, 8), range=(SPAN[:2], SPAN[2:]), weights=X[X > 0])
    counts, _, _ = np.histogram2d(X[X > 0], Y[X > 0], bins=(16, 8), range=(SPAN[:2], SPAN[2:]))
    assert np.isnan(found.mean[:8]).all()
    np.testing.assert_allclose(found.mean[8:], (sums / np.maximum(counts, 1))[8:], rtol=1e-3)


def test_map_cells__smoothing_spreads_one_pair_round_about_it():
    found = map_cells(np.zeros(1), np.zeros(1), (-1.0, 1.0, -1.0, 1.0), longest=101, values=np.array([7.0]))
    assert found.sigma > 3
    assert found.density.sum() == pytest.approx(1, rel=1e-3)
    assert np.unravel_index(found.density.argmax(), found.density.shape) == (50, 50)
    assert found.density.max() == pytest.approx(found.single, rel=1e-3)
    assert found.density[50, 60] == pytest.approx(found.density[60, 50])
    assert found.mean[50, 50] == pytest.approx(7)
    assert found.mean[45, 52] == pytest.approx(7)


def test_map_cells__large_samples_are_not_smoothed():
    assert map_cells(X, Y, SPAN, longest=16).sigma == 0


def test_map_cells__of_an_empty_view():
    found = map_cells(X, Y, (50.0, 51.0, 50.0, 51.0), values=X)
    assert found.pairs == 0
    assert found.density.sum() == 0
    assert np.isnan(found.mean).all()


@pytest.mark.parametrize("places", [[0.0], [3.0, 3.0], [-1.0, 5.0]])
def test_span_around__leaves_room_around_everything(places):
    x = np.array(places)
    left, right, bottom, top = span_around(x, x)
    assert left < x.min()
    assert x.max() < right
    assert bottom < x.min()
    assert x.max() < top
