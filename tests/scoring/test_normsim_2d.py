"""NormSim_2-D against float64 in every round, and how its order becomes a column."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.pools import clip_like_pairs
from clipsel_core.errors import ScoringError
from clipsel_core.scoring.normsim import second_moment
from clipsel_core.scoring.normsim_2d import falling_order, normsim_2d, round_shares
from tests import reference


def falls(image: np.ndarray, pool: np.ndarray, *, keep: int, rounds: int, **options) -> np.ndarray:
    order = options.pop("order", None)
    order = order if order is None else torch.from_numpy(order)
    moment = second_moment(torch.from_numpy(pool))
    return normsim_2d(torch.from_numpy(image), moment, keep=keep, rounds=rounds, order=order, **options).numpy()


def agree(image: np.ndarray, pool: np.ndarray, *, keep: int, rounds: int, order: np.ndarray | None = None) -> None:
    """Makes sure that every pair falls out where float64 says, after as many others."""
    expected = reference.normsim_2d(
        image, pool, keep=keep, rounds=rounds, order=np.arange(len(image)) if order is None else order
    )
    np.testing.assert_array_equal(falls(image, pool, keep=keep, rounds=rounds, order=order), expected)


@pytest.mark.parametrize(
    ("start", "length"), [("any", 1), ("least typical", 1), ("most typical", 1), ("least typical", 4)]
)
def test_normsim_2d__every_round_of_5000_clip_like_pairs(start, length):
    """The first round's moment is the pool's; of a start that is unlike it the second round's is quite another.

    What a value may fall by grows with the rows' lengths.
    """
    pool = clip_like_pairs(8334, width=64, seed=1)[0]
    typical = pool.astype(np.float64) @ pool.astype(np.float64).mean(0)
    chosen = {"any": np.arange(8334), "least typical": np.argsort(typical), "most typical": np.argsort(-typical)}
    agree(length * pool[chosen[start][:5000]], length * pool, keep=1667, rounds=120)


@pytest.mark.parametrize(("count", "keep", "rounds"), [(1, 0, 1), (1, 1, 7), (2, 1, 3), (700, 700, 5), (700, 0, 9)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_normsim_2d__few_or_none_fall_or_all(rows, count, keep, rounds, dtype):
    agree(rows(count, 24, 1, dtype, 0.3), rows(900, 24, 2, dtype, 0.3), keep=keep, rounds=rounds)


@pytest.mark.parametrize("rounds", [1, 2, 199, 200, 201, 5000])
def test_normsim_2d__any_number_of_rounds(rows, rounds):
    """One at a time where there are as many rounds as pairs to drop, and more."""
    image = rows(300, 20, 3, np.float16, 0.5)
    agree(image, image, keep=100, rounds=rounds)


def test_normsim_2d__by_hand():
    """The pool lies along the first axis; those that are left after the first round lie along the second."""
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.28, 0.96]])
    moment = torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64))
    # By the pool: 3, 1, 1.72, 1.1568. By rows 0, 2 and 3: 1.4384, of the second axis 1.5616, so that row 0 is lowest.
    assert normsim_2d(image, moment, keep=0, rounds=1).tolist() == [3, 0, 2, 1]
    assert normsim_2d(image, moment, keep=2, rounds=2).tolist() == [1, 0, 2, 2]


@pytest.mark.parametrize("order", ["ascending", "descending", "any"])
def test_normsim_2d__of_equal_images_the_larger_number_falls_out_first(order):
    """Wherever copies of an image stand, and however many rounds it takes until all have fallen out."""
    distinct, draw = clip_like_pairs(150, width=64, seed=6)[0], np.random.default_rng(7)
    image = distinct[draw.integers(0, 150, 3000)]
    numbers = {"ascending": np.arange(3000), "descending": np.arange(3000)[::-1].copy(), "any": draw.permutation(3000)}
    agree(image, image, keep=300, rounds=90, order=numbers[order])


def test_normsim_2d__same_order_on_any_number_of_threads():
    image = clip_like_pairs(4000, width=96, seed=8)[0]
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(falls(image, image, keep=1000, rounds=60))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_falling_order__reads_each_image_once_and_then_few():
    """Of so many images most are not even looked at in a round."""
    image = clip_like_pairs(24_000, width=48, seed=9)[0]
    asked: list[np.ndarray] = []

    def read(rows: np.ndarray) -> torch.Tensor:
        asked.append(rows)
        return torch.from_numpy(image[rows])

    moment, told = second_moment(torch.from_numpy(image)), []
    place = falling_order(
        read, moment, moment, count=24_000, keep=8_000, rounds=80, report=lambda *said: told.append(said)
    )
    expected = reference.normsim_2d(image, image, keep=8_000, rounds=80, order=np.arange(24_000))
    np.testing.assert_array_equal(place.numpy(), expected)
    assert all((np.diff(rows) > 0).all() and len(rows) <= 256 for rows in asked)
    in_full = sum(range(8_200, 24_001, 200))
    assert 24_000 < sum(map(len, asked)) < 0.15 * in_full
    assert told == [(done, 16_000, "pairs") for done in range(200, 16_001, 200)]


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"keep": 11}, "keep: expected 0 to 10 pairs"),
        ({"keep": -1}, "keep: expected 0 to 10 pairs"),
        ({"rounds": 0}, "rounds: expected a whole number"),
        ({"order": torch.arange(9)}, "order: expected a number for each of 10 rows"),
        ({"pool_moment": torch.eye(5, dtype=torch.float64)}, "pool_moment: expected"),
        ({"pool_moment": torch.eye(4)}, "pool_moment: expected"),
        ({"pool_moment": torch.zeros((4, 4), dtype=torch.float64)}, "pool_moment: expected"),
        ({"image": torch.full((10, 4), float("nan"))}, "image, row 0"),
        ({"pool_moment": torch.full((4, 4), float("inf"), dtype=torch.float64)}, "pool_moment: expected"),
        ({"device": "no such"}, "device no such"),
    ],
)
def test_normsim_2d__names_what_does_not_fit(rows, changed, where):
    image = torch.from_numpy(rows(10, 4, 1))
    asked = {"image": image, "pool_moment": second_moment(image), "keep": 5, "rounds": 3} | changed
    with pytest.raises(ScoringError, match=where):
        normsim_2d(**asked)


@pytest.mark.parametrize(("count", "keep", "rounds"), [(100, 20, 8), (100, 20, 7), (100, 0, 3), (7, 5, 500), (5, 5, 2)])
def test_round_shares__of_a_round_and_the_place_in_it(count, keep, rounds):
    place = torch.from_numpy(np.random.default_rng(1).permutation(np.minimum(np.arange(count), count - keep)))
    share = round_shares(place, keep=keep, rounds=rounds).double().numpy()
    per_round = max(1, -(-(count - keep) // rounds))
    remain = place.numpy() == count - keep
    assert (share[remain] == 1).all()
    fallen = place.numpy()[~remain]
    assert (np.diff(share[np.argsort(place.numpy(), kind="stable")][: count - keep]) > 0).all()
    assert (share[~remain] < 1).all()
    np.testing.assert_array_equal(np.floor(share[~remain] * rounds + 1e-5), fallen // per_round)


def test_round_shares__distinct_up_to_2_to_the_24():
    most = 1 << 24
    share = round_shares(torch.arange(most + 1), keep=1, rounds=1)
    assert (share.diff() > 0).all()
    assert share[-1] == 1
    # Twice as many: neighbours may share a number, the order is kept, and only those that remain have 1.
    few = round_shares(torch.arange(2 * most + 1), keep=1, rounds=1)
    assert (few.diff() >= 0).all()
    assert few[-2] < 1 == few[-1]
