"""Draws against the published procedures, done plainly, and against every outcome of a small pool."""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict

import numpy as np
import pytest
from scipy import stats

from clipsel_core.curation.selecting import sampling
from clipsel_core.curation.selecting.sampling import hard_cap, proportional, soft_cap
from clipsel_core.errors import ClipselError, SamplingError

SEEDS = 3000
RARE = 1e-4  # Of a right sampler, one test in ten thousand would find outcomes as far off as this.


def published_soft_cap(scores, samples, penalty, per_round, generator):
    """Gumbel noise on every pair in every round, and the largest are drawn. scores: finite. Returns (N,) int64."""
    scores, counts = np.array(scores, np.float64), np.zeros(len(scores), np.int64)
    while samples:
        wanted = min(per_round, samples, len(scores))
        drawn = np.argpartition(-(scores + generator.gumbel(size=len(scores))), wanted - 1)[:wanted]
        counts[drawn] += 1
        scores[drawn] -= penalty
        samples -= wanted
    return counts


def published_hard_cap(scores, samples, limit, generator):
    """Pairs drawn one after another from those below the limit. Returns (N,) int64."""
    counts = np.zeros(len(scores), np.int64)
    for _ in range(samples):
        weights = np.where(counts < limit, np.exp(scores), 0)
        counts[generator.choice(len(scores), p=weights / weights.sum())] += 1
    return counts


def soft_cap_outcomes(scores, samples, penalty, per_round):
    """The probability of each outcome, from the counts: every order of every round is gone through."""
    outcomes = {(0,) * len(scores): 1.0}
    while samples:
        wanted, after = min(per_round, samples, len(scores)), defaultdict(float)
        for counts, probability in outcomes.items():
            for drawn, share in sets_drawn(scores - penalty * np.array(counts), wanted).items():
                after[tuple(count + (i in drawn) for i, count in enumerate(counts))] += probability * share
        outcomes, samples = after, samples - wanted
    return outcomes


def sets_drawn(scores, wanted):
    """The probability of each set of different pairs that are drawn one after another."""
    sets = {frozenset(): 1.0}
    for _ in range(wanted):
        after = defaultdict(float)
        for drawn, probability in sets.items():
            left = [i for i in range(len(scores)) if i not in drawn]
            weights = np.exp(scores[left] - scores[left].max())
            for i, share in zip(left, weights / weights.sum(), strict=True):
                after[drawn | {i}] += probability * share
        sets = after
    return sets


def hard_cap_outcomes(scores, samples, limit):
    outcomes, weights = {(0,) * len(scores): 1.0}, np.exp(scores)
    for _ in range(samples):
        after = defaultdict(float)
        for counts, probability in outcomes.items():
            left = [i for i, count in enumerate(counts) if count < limit]
            for i in left:
                drawn = tuple(count + (j == i) for j, count in enumerate(counts))
                after[drawn] += probability * weights[i] / weights[left].sum()
        outcomes = after
    return outcomes


def check_outcomes(draw, outcomes):
    """Draws with many seeds, and compares how often each outcome came with its probability."""
    assert sum(outcomes.values()) == pytest.approx(1)
    came = Counter(tuple(draw(seed).tolist()) for seed in range(SEEDS))
    assert set(came) <= set(outcomes)
    found = [(came[counts], SEEDS * probability) for counts, probability in sorted(outcomes.items())]
    usual = [pair for pair in found if pair[1] >= 5]
    observed, expected = np.array([*usual, np.sum([pair for pair in found if pair[1] < 5] or [(0, 0)], axis=0)]).T
    if expected[-1] < 5:  # Too few even together.
        observed, expected = (np.append(part[:-2], part[-2:].sum()) for part in (observed, expected))
    if len(observed) > 1:
        assert stats.chisquare(observed, expected).pvalue > RARE


def p_of_equal_means(ours, theirs):
    """Hotelling's test: are the means of two samples of vectors, (n, D) and (m, D), the same? Its p-value."""
    n, m, width = len(ours), len(theirs), ours.shape[1]
    difference = ours.mean(0) - theirs.mean(0)
    pooled = ((n - 1) * np.cov(ours.T) + (m - 1) * np.cov(theirs.T)) / (n + m - 2)
    squared = n * m / (n + m) * difference @ np.linalg.solve(pooled, difference)
    return stats.f.sf(squared * (n + m - width - 1) / ((n + m - 2) * width), width, n + m - width - 1)


def shape_of(counts, scores, most):
    """Shares of the samples by decile of the score but the last, and of the pairs by count from 0 to most."""
    deciles = np.array_split(counts[np.argsort(scores)], 10)
    shares = [part.sum() / counts.sum() for part in deciles[:-1]]
    return np.array([*shares, *[(counts == count).mean() for count in range(most + 1)]])


def p_of_the_published(scores, samples, per_round, most, seeds=20):
    """The p-value of our soft cap's shares by decile and histogram of counts against the published procedure's."""
    ours = [soft_cap(scores, samples, per_round=per_round, seed=seed) for seed in range(seeds)]
    draw = np.random.default_rng(7)
    theirs = [published_soft_cap(scores, samples, 0.15, per_round, draw) for _ in range(seeds)]
    return p_of_equal_means(*[np.array([shape_of(one, scores, most) for one in all_]) for all_ in (ours, theirs)])


@pytest.mark.parametrize(
    ("scores", "samples", "penalty", "per_round"),
    [
        pytest.param([0, 0.3, -0.5, 1.1], 5, 0.15, 2, id="as published, with a rest"),
        pytest.param([0.05, 0.1, 0, 0.14], 4, 0.15, 2, id="within one level"),
        pytest.param([0, 0.9, -2, 0.4, 0.4], 4, 1.1, 2, id="a penalty of several levels"),
        pytest.param([0, 0.9, -1, 0.4], 6, 1e3, 2, id="a penalty that all come before"),
        pytest.param([0, 0.9, -1, 0.4], 4, 0, 2, id="no penalty"),
        pytest.param([0, 0.9, -1, 0.4], 4, 0.003, 2, id="a small penalty"),
        pytest.param([40, 39.5, 0, 0.5, -1], 5, 0.15, 3, id="two hold nearly all the weight"),
        pytest.param([700, 0, 0.7, -700, -700.5], 4, 0.15, 4, id="beyond what exp can hold"),
        pytest.param([0.2, 1.3, 0], 4, 0.15, 3, id="all in a round, with a rest"),
        pytest.param([0.2, 1.3, 0], 5, 0.15, 100, id="fewer than a round wants"),
        pytest.param([0.2, 1.3, 0], 4, 0.3, 1, id="one a round"),
    ],
)
def test_soft_cap__has_the_probability_of_every_outcome(scores, samples, penalty, per_round):
    scores = np.array(scores, np.float64)
    check_outcomes(
        lambda seed: soft_cap(scores, samples, penalty=penalty, per_round=per_round, seed=seed),
        soft_cap_outcomes(scores, samples, penalty, per_round),
    )


@pytest.mark.parametrize("per_round", [250, 2000], ids=["few a round", "most pairs in each round"])
def test_soft_cap__draws_as_the_published_procedure(per_round):
    scores = np.random.default_rng(3).normal(0, 1.5, 2500).astype(np.float32)
    assert p_of_the_published(scores, 20 * per_round - 100, per_round, 6 if per_round == 250 else 19) > RARE


def test_soft_cap__draws_each_pair_as_often_as_the_published_procedure():
    draw = np.random.default_rng(5)
    scores = draw.exponential(2, 30)
    ours = [soft_cap(scores, 200, penalty=0.4, per_round=9, seed=seed) for seed in range(1000)]
    theirs = [published_soft_cap(scores, 200, 0.4, 9, draw) for _ in range(1000)]
    # The last follows from the others, as their sum is given.
    assert p_of_equal_means(np.array(ours)[:, :-1], np.array(theirs)[:, :-1]) > RARE


def test_soft_cap__draws_a_heavy_pair_every_round_until_it_is_lowered():
    scores = np.zeros(2000)
    scores[[3, 70]] = 60, 45
    counts = soft_cap(scores, 50 * 300, penalty=1, per_round=50, seed=0)
    # Down to a lead of 30 nothing else can win; a lead below 0 is that of any other.
    assert 30 < counts[70] < counts[3] < 75
    assert counts[70] < 60
    assert np.delete(counts, [3, 70]).max() < 20


def test_soft_cap__draws_no_pair_without_a_score():
    scores = np.array([0.1, np.nan, 0.3, -np.inf, 0.2, 0.1], np.float32)
    counts = soft_cap(scores, 50, per_round=3, seed=2)
    assert counts.dtype == np.uint16
    assert counts.sum() == 50
    assert counts[[1, 3]].tolist() == [0, 0]
    assert soft_cap(scores, 9, seed=2)[[1, 3]].tolist() == [0, 0]


def test_soft_cap__counts_beyond_65535():
    counts = soft_cap(np.array([0.0, 1.0, -1.0]), 3 * 70_000, per_round=3, seed=0)
    assert counts.dtype == np.uint32
    assert counts.tolist() == [70_000] * 3


@pytest.mark.parametrize("penalty", [0.15, 2.0])
def test_soft_cap__goes_down_by_many_levels(penalty):
    """A pair comes again about every other round, however far down all have gone."""
    counts = soft_cap(np.array([0.0, 0.5, 1.0, 1.2]), 4000, penalty=penalty, per_round=2, seed=0)
    assert counts.sum() == 4000
    assert np.abs(counts - 1000.0).max() < 60


KEPT = [
    pytest.param(lambda scores: soft_cap(scores, 5000, per_round=300, seed=4), 1699383441, id="soft_cap"),
    pytest.param(lambda scores: hard_cap(scores, 5000, limit=9, seed=4), 4047244707, id="hard_cap"),
    pytest.param(lambda scores: proportional(np.abs(scores), 5000, seed=4), 3962047655, id="proportional"),
]


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "as Python"])
@pytest.mark.parametrize(("draw", "checksum"), KEPT)
def test_draws__are_the_same_bytes_everywhere(draw, checksum, compiled, monkeypatch):
    """On other machines and with other compilers, too: a recipe draws the same pairs next year."""
    if not compiled:
        for name in ("_draw", "_sort_into_levels"):
            monkeypatch.setattr(sampling, name, getattr(sampling, name).__wrapped__)
    scores = ((np.arange(3000) * 7919) % 3001 / 500 - 3).astype(np.float32)
    scores[::100] = np.nan
    given = scores.copy()
    assert zlib.crc32(draw(scores).astype("<u4").tobytes()) == checksum
    assert np.array_equal(scores, given, equal_nan=True)


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: soft_cap(np.zeros(500), 900, per_round=100, seed=seed),
        lambda seed: hard_cap(np.zeros(500), 900, limit=5, seed=seed),
        lambda seed: proportional(np.ones(500), 900, seed=seed),
    ],
    ids=["soft_cap", "hard_cap", "proportional"],
)
def test_draws__differ_by_seed(draw):
    assert not np.array_equal(draw(0), draw(1))


@pytest.mark.parametrize(
    ("scores", "samples", "limit"),
    [
        pytest.param([0, 0.3, -0.5, 1.1], 5, 2, id="usual"),
        pytest.param([0, 0.3, -0.5, 1.1], 3, 1, id="each once at most"),
        pytest.param([0, 0.3, -0.5], 6, 2, id="just met"),
        pytest.param([0, 0.3, -0.5], 4, 4, id="no limit"),
        pytest.param([50, 0, 0.7, -300, -300.5], 6, 2, id="one far above and two far below"),
    ],
)
def test_hard_cap__has_the_probability_of_every_outcome(scores, samples, limit):
    scores = np.array(scores, np.float64)
    check_outcomes(
        lambda seed: hard_cap(scores, samples, limit=limit, seed=seed), hard_cap_outcomes(scores, samples, limit)
    )


def test_hard_cap__draws_as_one_after_another():
    draw = np.random.default_rng(6)
    scores = draw.normal(0, 1.5, 300)
    ours = [hard_cap(scores, 600, limit=6, seed=seed) for seed in range(40)]
    theirs = [published_hard_cap(scores, 600, 6, draw) for _ in range(40)]
    assert p_of_equal_means(*[np.array([shape_of(one, scores, 5) for one in all_]) for all_ in (ours, theirs)]) > RARE


def test_proportional__is_a_multinomial():
    weights = np.random.default_rng(8).exponential(1, 150_000).astype(np.float32)
    weights[5:9] = 0, np.nan, 0, 40_000
    counts = proportional(weights, 3_000_000, seed=1)
    assert counts.dtype == np.uint32
    assert counts.sum() == 3_000_000
    assert counts[5:8].tolist() == [0, 0, 0]
    share = np.nan_to_num(weights).astype(np.float64)
    expected = 3_000_000 * share / share.sum()
    likely = expected > 5
    observed, expected = (np.append(of[likely], of[~likely].sum()) for of in (counts, expected))
    assert stats.chisquare(observed, expected).pvalue > RARE


SOME = np.array([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda: soft_cap(SOME, 0, seed=0), "samples: expected 1 to 4,294,967,295, found 0"),
        (lambda: soft_cap(SOME, 5, seed=-1), "seed: expected at least 0, found -1"),
        (lambda: soft_cap(SOME, 5, per_round=0, seed=0), "round: expected at least 1"),
        (lambda: soft_cap(SOME, 5, penalty=-0.1, seed=0), "penalty: expected a number of at least 0, found -0.1"),
        (lambda: soft_cap(SOME, 5, penalty=np.nan, seed=0), "penalty: expected a number of at least 0, found nan"),
        (lambda: soft_cap(SOME * np.nan, 5, seed=0), "scores: expected a pair that has one, found none of 3 pairs"),
        (lambda: soft_cap(SOME[:0], 5, seed=0), "scores: expected a pair that has one, found none of 0 pairs"),
        (lambda: soft_cap(SOME / 0, 5, seed=0), "scores: expected finite numbers, found inf"),
        (lambda: soft_cap(np.array([0, 1e30]), 5, per_round=1, seed=0), "found 1e+30; scale the scores"),
        (
            lambda: soft_cap(SOME, 5, per_round=1, penalty=1e-300, seed=0),
            "times 1e-300 between the lowest and the highest, found 0.2",
        ),
        (lambda: soft_cap(SOME[None], 5, seed=0), "scores: expected a number a pair, found float64 of shape (1, 3)"),
        (lambda: soft_cap(np.array(["a"]), 5, seed=0), "scores: expected a number a pair"),
        (
            lambda: hard_cap(SOME, 7, limit=2, seed=0),
            "limit: expected at least 3, to draw 7 samples from 3 pairs, found 2; raise the limit",
        ),
        (lambda: hard_cap(SOME, 7, limit=-2, seed=0), "limit: expected at least 3"),
        (lambda: proportional(SOME - 0.2, 5, seed=0), "weights: expected at least 0, found -0.1"),
        (lambda: proportional(SOME * 0, 5, seed=0), "weights: expected a finite sum above 0, found 0"),
        (lambda: proportional(SOME / 0, 5, seed=0), "weights: expected a finite sum above 0, found inf"),
        (lambda: proportional(SOME[:0], 5, seed=0), "weights: expected a finite sum above 0, found 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_draws__refuse_what_cannot_be_met(draw, said):
    with pytest.raises(SamplingError) as raised:
        draw()
    assert said in str(raised.value)
    assert isinstance(raised.value, ClipselError)
    assert isinstance(raised.value, ValueError)
