"""Orders by score and by uid against numpy's stable sort, where groups, parts and ties could go wrong."""

from __future__ import annotations

import numpy as np
import pytest

from clipsel_core import uids
from clipsel_core.curation.index import sorting
from clipsel_core.curation.index.ranking import bin_codes, extent
from clipsel_core.curation.index.sorting import Sorter

PAIRS = 30_011
DRAW = np.random.default_rng(0)
SCORES = {
    "usual": DRAW.normal(0.2, 0.05, PAIRS),
    "few values": DRAW.integers(-3, 4, PAIRS) / 10,
    "one value": np.full(PAIRS, -0.5),
    "an outlier": np.where(np.arange(PAIRS) == 77, 1e30, DRAW.normal(0, 1e-3, PAIRS)),
    "many orders of magnitude": np.exp(DRAW.normal(0, 20, PAIRS)) * DRAW.choice([-1, 1], PAIRS),
    "some set aside": np.where(DRAW.random(PAIRS) < 0.3, np.nan, DRAW.normal(0.2, 0.05, PAIRS)),
    "infinities": np.where(DRAW.random(PAIRS) < 0.3, np.inf, -DRAW.exponential(1, PAIRS)),
    "a peak in a wide group": np.where(DRAW.random(PAIRS) < 0.5, 0, DRAW.choice([-1, 1e-20, 1e-30], PAIRS)),
    "all set aside": np.full(PAIRS, np.nan),
}


@pytest.mark.parametrize("many", [1, 10**6], ids=["in groups", "at once"])
@pytest.mark.parametrize("scores", SCORES)
def test_order__is_numpys_in_groups_and_at_once(scores, many, monkeypatch):
    monkeypatch.setattr(sorting, "_MANY_KEYS", many)
    monkeypatch.setattr(sorting, "_BLOCK", 1000)
    values, by_uid = SCORES[scores].astype(np.float32), DRAW.permutation(PAIRS).astype(np.uint32)
    sorter = Sorter(by_uid)
    for turn in values, -values:  # In the same memory, twice.
        codes = bin_codes(turn, *extent(turn))
        descending, scored = by_uid[::-1], int((~np.isnan(turn)).sum())
        expected = descending[np.argsort(turn[descending] + np.float32(0), kind="stable")]
        assert np.array_equal(sorter.order(turn, codes, scored), expected[:scored])


@pytest.mark.parametrize("many", [1, 10**6], ids=["in groups", "at once"])
def test_order_by_uid__sorts_any_uids(many, monkeypatch):
    monkeypatch.setattr(sorting, "_MANY_KEYS", many)
    draw = np.random.default_rng(3)
    for high, low in (
        draw.integers(0, 2**64, (2, 5000), dtype=np.uint64),
        draw.integers(0, 3, (2, 5000), dtype=np.uint64),
        (draw.integers(0, 40, 5000).astype(np.uint64) << np.uint64(32), draw.integers(0, 2**64, 5000, dtype=np.uint64)),
    ):
        names = uids.from_halves(high, low)
        order = sorting.order_by_uid(names)
        assert np.array_equal(names[order], uids.sort(names))
        assert np.array_equal(np.sort(order), np.arange(5000))


def test_extent__looks_at_finite_scores_alone():
    assert extent(np.array([np.nan, -np.inf, 2, -3, np.inf], np.float32)) == (-3, 2)
    assert extent(np.array([np.nan], np.float32)) == (0, 1)
    assert extent(np.array([4, 4], np.float32)) == (3.5, 4.5)
    for alike in (2.0**62, -1e20, float(np.finfo(np.float32).max)):
        values = np.full(3, alike, np.float32)
        low, high = extent(values)
        assert low < alike < high
        assert len(set(bin_codes(values, low, high).tolist())) == 1


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("many", [3, 4_000])
def test_rows_of__finds_few_and_many_alike(many, alike):
    high, low = DRAW.integers(0, 2**64, (2, PAIRS), dtype=np.uint64)
    names = uids.from_halves(np.zeros_like(high) if alike else high, low)
    rows = DRAW.integers(0, PAIRS, many)  # Some of them twice.
    wanted = np.concatenate([names[rows], uids.from_halves(high[:5] + np.uint64(1), low[:5])])
    found = sorting.rows_of(names, sorting.order_by_uid(names), wanted)
    assert found.tolist() == [*rows.tolist(), *[-1] * 5]
    assert len(sorting.rows_of(names, sorting.order_by_uid(names), wanted[:0])) == 0
