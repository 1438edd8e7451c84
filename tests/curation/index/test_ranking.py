"""Counts above thresholds against plain numpy, where binning could go wrong: ties, NaN, infinities, bin edges."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from clipsel_core.curation.index import bitmaps, ranking
from clipsel_core.curation.index.ranking import PrefixCounts, Ranking, Shares, count_of_fraction, counts_of_fraction
from clipsel_core.curation.index.sorting import Sorter
from clipsel_core.npy import save_checked

NAN, INF = float("nan"), float("inf")
SCORES = {
    "usual": np.random.default_rng(0).normal(0.2, 0.05, 5000),
    "ties": np.random.default_rng(1).integers(0, 7, 3000) / 10,
    "with NaN": np.where(np.arange(2000) % 3, np.linspace(-1, 1, 2000), NAN),
    "constant": np.full(500, 0.25),
    "one pair": np.array([0.3]),
    "nothing scored": np.full(9, NAN),
    "infinite": np.array([-INF, -1.0, 0.0, -0.0, 1.0, INF, INF]),
    "an outlier": np.array([*np.linspace(0.1, 0.3, 999), 1e30]),
    "neighbours": np.nextafter(np.float32(0.5), np.float32(1)) * np.array([1, 1 - 1e-7, 1, 1 + 1e-7]),
}


@pytest.fixture(params=SCORES)
def scores(request) -> np.ndarray:
    return SCORES[request.param].astype(np.float32)


def some(scores: np.ndarray, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).random(len(scores)) < 0.6


def test_counts_from__counts_above_any_score_as_numpy_does(scores):
    bins, mask = Ranking.of(scores), some(scores)
    thresholds = np.concatenate([scores[~np.isnan(scores)], [-INF, -2, 0, 0.25, 0.5, 2, INF]]).astype(np.float32)
    bits, chosen = bitmaps.pack(mask), scores[mask]
    for above, passes in ((True, np.greater), (False, np.greater_equal)):
        found = bins.counts_from(
            partial(bitmaps.holds, bits), bins.spread(bits), bins.ranks_of_scores(thresholds, above=above)
        )
        assert found.tolist() == [int(passes(chosen, value).sum()) for value in thresholds]


def test_ranks_of_top__find_every_place(scores):
    bins, mask = Ranking.of(scores), some(scores)
    chosen = scores[mask]
    ordered = np.sort(chosen[~np.isnan(chosen)])[::-1]
    bits = bitmaps.pack(mask)
    ranks = bins.ranks_of_top(partial(bitmaps.holds, bits), bins.spread(bits), np.arange(len(ordered) + 1))
    found = bins.scores_at(ranks)
    assert np.isnan(found[0])
    assert np.array_equal(found[1:], ordered)
    assert bins.counts_from(partial(bitmaps.holds, bits), bins.spread(bits), ranks).tolist() == list(
        range(len(ordered) + 1)
    )


def test_below__counts_lower_scores(scores):
    bins = Ranking.of(scores)
    known = scores[~np.isnan(scores)]
    ordered = np.sort(known)
    expected = [int((known < value).sum()) for value in ordered[:: max(len(ordered) // 60, 1)]]
    ranks = np.arange(bins.scored + 1)
    assert bins.below(ranks)[:-1][:: max(len(ordered) // 60, 1)].tolist() == expected
    assert bins.below(ranks)[-1] == bins.scored


def test_nearest__are_the_set_along_the_order_from_a_rank_on(scores, monkeypatch):
    monkeypatch.setattr(ranking, "_FIRST_LOOK", 3)
    bins, mask = Ranking.of(scores), some(scores)
    for rank in {0, bins.scored // 3, bins.scored}:
        for upwards, rows in ((True, bins.order[rank:]), (False, bins.order[:rank][::-1])):
            expected = rows[mask[rows]].tolist()
            for most in (0, 1, 40, len(scores)):
                found = bins.nearest(bitmaps.pack(mask), rank, most, upwards=upwards)
                assert found.tolist() == expected[:most]


def test_near__is_right_but_for_the_bin_that_is_cut(scores):
    bins, bits = Ranking.of(scores), bitmaps.pack(some(scores))
    spread, everything = bins.spread(bits), bins.spread(bitmaps.pack(np.ones(len(scores), bool)))
    most = np.arange(spread.scored + 1)
    near, ranks = bins.ranks_near_top(spread, most), bins.ranks_of_top(partial(bitmaps.holds, bits), spread, most)
    assert bins.bins_of(near).tolist() == bins.bins_of(ranks).tolist()
    counts, cut = bins.counts_near(spread, ranks), bins.bins_of(ranks)
    assert (np.abs(counts - most) <= spread.fine[cut]).all()
    # Of all pairs nothing has to be guessed.
    places = np.arange(bins.scored + 1)
    assert bins.ranks_near_top(everything, places).tolist() == (bins.scored - places).tolist()
    assert bins.counts_near(everything, bins.scored - places).tolist() == places.tolist()


def test_order__gives_equal_scores_to_the_smaller_uid(scores):
    by_uid = np.random.default_rng(9).permutation(len(scores)).astype(np.uint32)
    bins, place = Ranking.of(scores, Sorter(by_uid)), np.argsort(by_uid)
    rows = np.flatnonzero(~np.isnan(scores))
    expected = rows[np.lexsort((-place[rows], scores[rows] + np.float32(0)))]
    assert np.array_equal(bins.order, expected)


def test_stand_from__says_of_rows_what_the_order_does(scores):
    bins, rows = Ranking.of(scores), np.random.default_rng(3).permutation(len(scores)).astype(np.uint32)
    for rank in {0, 1, bins.scored // 3, bins.scored}:
        assert np.array_equal(bins.stand_from(rank, rows), np.isin(rows, bins.order[rank:]))


def test_from_rank__and_below_it_part_the_scored(scores):
    bins, mask = Ranking.of(scores), some(scores)
    for rank in {0, 1, bins.scored // 3, bins.scored - 1, bins.scored} & set(range(bins.scored + 1)):
        upper, lower = bins.from_rank(bitmaps.pack(mask), rank), bins.below_rank(bitmaps.pack(mask), rank)
        expected = np.zeros(len(scores), bool)
        expected[bins.order[rank:]] = True
        assert np.array_equal(bitmaps.unpack(upper, len(scores)), expected & mask)
        assert np.array_equal(bitmaps.unpack(lower, len(scores)), ~expected & mask & ~np.isnan(scores))
        assert bitmaps.pairs_in(upper) == (expected & mask).sum()


@pytest.mark.parametrize("ends", [(-0.5, 0.25), (-np.inf, np.inf), (0.1, 0.1), (2.0, 9.0), (0.3, 0.2)])
def test_between__takes_the_scores_in_an_interval_with_its_ends(scores, ends):
    ranking, mask = Ranking.of(scores), np.arange(len(scores)) % 3 > 0
    values = scores.astype(np.float64)
    expected = mask & (values >= ends[0]) & (values <= ends[1])
    found = ranking.between(bitmaps.pack(mask), *ends)
    np.testing.assert_array_equal(bitmaps.unpack(found, len(scores)), expected)


def test_counts__are_of_scored_pairs_only(scores):
    bins, mask = Ranking.of(scores), some(scores)
    assert bins.spread(bitmaps.pack(mask)).coarse.sum() == (~np.isnan(scores[mask])).sum()
    assert bins.everything.sum() == (~np.isnan(scores)).sum()
    assert len(bins.edges()) == 129


def test_counts__in_many_parts_are_those_of_the_whole():
    scores = np.random.default_rng(2).normal(size=(1 << 20) * 2 + 77).astype(np.float32)
    bins, mask = Ranking.of(scores), some(scores)
    thresholds = np.linspace(-4, 4, 50).astype(np.float32)
    ranks, bits = bins.ranks_of_scores(thresholds, above=True), bitmaps.pack(mask)
    above = bins.counts_from(partial(bitmaps.holds, bits), bins.spread(bits), ranks)
    assert above.tolist() == [int((scores[mask] > value).sum()) for value in thresholds]
    rows = bins.rows_in(bitmaps.pack(mask), bins.codes_of(thresholds))
    assert (np.diff(rows) > 0).all()
    assert mask[rows].all()


def test_holds__says_of_rows_what_the_mask_says():
    mask = np.random.default_rng(0).random(1_003) < 0.4
    rows = np.array([1_002, 0, 8, 7, 7, 999, 512])
    for kind in (np.int64, np.uint32):
        assert bitmaps.holds(bitmaps.pack(mask), rows.astype(kind)).tolist() == mask[rows].tolist()
    assert bitmaps.holds(bitmaps.pack(mask), np.empty(0, np.int64)).tolist() == []


@pytest.mark.parametrize("pairs", [0, 1, 8, 63, 64, 65, 1_003])
def test_count__of_bitmaps_of_any_length(pairs):
    mask = np.random.default_rng(pairs).random(pairs) < 0.6
    assert bitmaps.pairs_in(bitmaps.pack(mask)) == mask.sum()
    assert bitmaps.pairs_in(bitmaps.pack(np.repeat(mask, 16))[::2]) == 8 * mask.sum()


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
    save_checked(file, counted.sums + np.uint32(1))
    assert (PrefixCounts.of(*given, file).sums == counted.sums + 1).all(), "what is kept is not counted again"
    for damage in (file.read_bytes()[:-1], b"", b"no array"):
        file.write_bytes(damage)
        assert (PrefixCounts.of(*given, file).sums == counted.sums).all()
    assert (PrefixCounts.of(*given, tmp_path / "gone" / "along.npy").sums == counted.sums).all()
    assert not (tmp_path / "gone").exists()


def test_shares__are_exact():
    shares = Shares.evenly(1000)
    for pairs in (0, 1, 100, 128_000_001):
        assert shares.counts(pairs).tolist() == [count_of_fraction(Fraction(p, 1000), pairs) for p in range(1001)]


def test_counts_of_fraction__are_exact():
    pairs = np.array([0, 1, 100, 12_800_000_000])
    for part in (Fraction(29, 100), Fraction(0), Fraction(1), Fraction(0.1), Fraction(10**30 - 1, 10**30)):
        expected = [count_of_fraction(part, int(count)) for count in pairs]
        assert counts_of_fraction(part, pairs).tolist() == expected
