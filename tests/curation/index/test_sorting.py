"""Sorting in groups on all cores against numpy's stable sort, where groups, parts and ties could go wrong."""

from __future__ import annotations

import numpy as np
import pytest

from clipsel_core import uids
from clipsel_core.curation.index import binning, counts, score_order, sorting, uid_order
from clipsel_core.curation.index.bins import FINE
from clipsel_core.curation.index.score_order import Sorter

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


@pytest.mark.parametrize(("most_in_group", "place_bits"), [(50, 32), (50, 2), (5_000, 2)])
@pytest.mark.parametrize("scores", SCORES)
def test_order__is_numpys_in_many_groups_and_parts(scores, most_in_group, place_bits, monkeypatch):
    for name, few in (("_FEWEST_IN_PART", 1000), ("_FEWEST_IN_GROUP", most_in_group)):
        monkeypatch.setattr(sorting, name, few)
    monkeypatch.setattr(score_order, "_PLACE_BITS", place_bits)  # As few as there is room for in large runs.
    values, by_uid = SCORES[scores].astype(np.float32), DRAW.permutation(PAIRS).astype(np.uint32)
    sorter = Sorter(by_uid)
    for turn in values, -values:  # In the same room, twice.
        span = counts.extent(turn)
        found = sorter.order(turn, span, FINE, sorting.Tally.of(binning.codes(turn, *span, FINE)))
        descending = by_uid[::-1]
        expected = descending[np.argsort(turn[descending] + np.float32(0), kind="stable")]
        assert np.array_equal(found, expected[: int((~np.isnan(turn)).sum())])


def test_extent__looks_at_finite_scores_alone():
    assert counts.extent(np.array([np.nan, -np.inf, 2, -3, np.inf], np.float32)) == (-3, 2)
    assert counts.extent(np.array([np.nan], np.float32)) == (0, 1)
    assert counts.extent(np.array([4, 4], np.float32)) == (3.5, 4.5)


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("many", [3, 4_000])
def test_rows_of__finds_few_and_many_alike(many, alike):
    high, low = DRAW.integers(0, 2**64, (2, PAIRS), dtype=np.uint64)
    names = uids.from_halves(np.zeros_like(high) if alike else high, low)
    rows = DRAW.integers(0, PAIRS, many)  # Some of them twice.
    wanted = np.concatenate([names[rows], uids.from_halves(high[:5] + np.uint64(1), low[:5])])
    found = uid_order.rows_of(names, uid_order.order_by_uid(names), wanted)
    assert found.tolist() == [*rows.tolist(), *[-1] * 5]
    assert len(uid_order.rows_of(names, uid_order.order_by_uid(names), wanted[:0])) == 0
