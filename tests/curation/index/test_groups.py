"""Means by group against pandas, groups by percentile against scipy's ranks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clipsel_core.curation.index.counts import group_means
from clipsel_core.curation.index.ranking import Ranking, percentile_groups


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
