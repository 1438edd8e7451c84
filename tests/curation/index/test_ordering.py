"""A listing's pages are slices of a plain sort, whatever the mask, the ties and the bins."""

from __future__ import annotations

import numpy as np
import pytest

from clipsel_core.curation.index import bitmaps
from clipsel_core.curation.index.ordering import Listing
from clipsel_core.curation.index.ranking import Ranking

N = 3_000
KINDS = ("spread", "ties", "equal", "outlier", "none")


def scores(kind: str) -> np.ndarray:
    draw = np.random.default_rng(7)
    values = draw.normal(0.2, 0.1, N).astype(np.float32)
    values = {
        "spread": values,
        "ties": values.round(2),
        "equal": np.full(N, 0.25, np.float32),
        "outlier": np.where(np.arange(N) == 5, np.float32(1e6), values),
        "none": np.full(N, np.nan, np.float32),
    }[kind].astype(np.float32)
    values[draw.random(N) < 0.05] = np.nan
    return values


def listing(values: np.ndarray, masked: bool) -> tuple[Listing, np.ndarray]:
    mask = np.random.default_rng(1).random(N) < 0.4 if masked else None
    rows = np.flatnonzero(~np.isnan(values) & (np.ones(N, bool) if mask is None else mask))
    return Listing.of(Ranking.of(values), None if mask is None else bitmaps.pack(mask)), rows


def whole(found: Listing, order: str, size: int, **options) -> list[int]:
    """All pages one after another."""
    pages = [found.page(order, offset=start, limit=size, **options) for start in range(0, len(found) + size, size)]
    return np.concatenate(pages).tolist()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_page__is_a_slice_of_a_plain_sort(kind, masked):
    values = scores(kind)
    found, rows = listing(values, masked)
    assert len(found) == len(rows)
    assert whole(found, "ascending", 170) == rows[np.argsort(values[rows], kind="stable")].tolist()
    assert whole(found, "descending", 170) == rows[np.argsort(-values[rows], kind="stable")].tolist()
    for centre in (0.21, -5.0, 5.0):
        near = np.abs(values[rows] - np.float32(centre))
        assert whole(found, "near", 170, centre=centre) == rows[np.argsort(near, kind="stable")].tolist()


def test_page__one_page_of_near_is_enough_to_be_right():
    """Few pairs are looked at for a first page; none of the nearest may be missed, wherever the centre lies."""
    values = scores("spread")
    found, rows = listing(values, masked=True)
    for centre in np.random.default_rng(2).uniform(-0.3, 0.7, 60):
        near = np.abs(values[rows] - np.float32(centre))
        expected = rows[np.argsort(near, kind="stable")][:48]
        assert found.page("near", centre=float(centre)).tolist() == expected.tolist()


def test_page__random_lists_each_pair_once_and_holds_its_order_under_a_mask():
    values = scores("spread")
    everyone, _ = listing(values, masked=False)
    some, rows = listing(values, masked=True)
    order = whole(everyone, "random", 170, seed=3)
    assert sorted(order) == np.flatnonzero(~np.isnan(values)).tolist() != order
    listed = set(rows.tolist())
    assert whole(some, "random", 170, seed=3) == [row for row in order if row in listed]
    assert whole(some, "random", 170, seed=4) != whole(some, "random", 170, seed=3)
    assert abs(np.corrcoef(np.arange(len(order)), order)[0, 1]) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_place_of__counts_those_that_stand_before(kind):
    values = scores(kind)
    found, rows = listing(values, masked=True)
    for value in (-1.0, 0.2, 0.25, 0.3, 2.0):
        assert found.place_of(value, "ascending") == (values[rows] < np.float32(value)).sum()
        assert found.place_of(value, "descending") == (values[rows] > np.float32(value)).sum()


def test_listing__of_nothing():
    found = Listing.of(Ranking.of(np.zeros(0, np.float32)))
    assert len(found) == 0
    assert not len(found.page("near", centre=0.3))
    assert found.place_of(0.3, "descending") == 0
