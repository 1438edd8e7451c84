"""The parts that only compute: shapes on the map, percentiles, words for numbers, tables."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from pages.parts import messages, recipes, words
from pages.parts.map.canvas import Shape
from pages.parts.map.region import read_shape
from pages.parts.registry import Marginal


def test_holds__square_by_hand():
    x, y = np.array([0.5, 1.5, -0.1, 0.5, 0.5]), np.array([0.5, 0.5, 0.5, 1.2, 0.01])
    found = Shape((0.0, 1, 1, 0), (0.0, 0, 1, 1)).holds(x, y)
    assert found.tolist() == [True, False, False, False, True]


def test_holds__concave_against_angles():
    """A point is inside exactly where the corners turn around it by a whole circle."""
    rng = np.random.default_rng(0)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 40))
    radius = rng.uniform(0.2, 1, 40)
    corner_x, corner_y = radius * np.cos(angle), radius * np.sin(angle)
    x, y = rng.uniform(-1, 1, (2, 2000))
    turns = np.arctan2(corner_y[None] - y[:, None], corner_x[None] - x[:, None])
    steps = np.diff(np.concatenate([turns, turns[:, :1]], 1), axis=1)
    winding = np.abs(((steps + np.pi) % (2 * np.pi) - np.pi).sum(1)) > np.pi
    assert np.array_equal(Shape(tuple(corner_x), tuple(corner_y)).holds(x, y), winding)


@pytest.mark.parametrize(
    "said",
    [
        None,
        {"x": [], "y": []},
        {"x": [0, 1], "y": [0, 1]},
        {"x": [0, 1, 2], "y": [0, 1]},
        {"x": [0, 1, "2"], "y": [0, 1, 2]},
        {"x": [0, 1, float("nan")], "y": [0, 1, 2]},
        {"x": [0] * 5000, "y": [0] * 5000},
        [[0, 0], [1, 1], [2, 2]],
    ],
)
def test_read_shape__takes_nothing_but_a_polygon(said):
    assert read_shape(said) is None
    assert read_shape({"x": [0, 1, 1], "y": [0, 0, 1]}) == Shape((0.0, 1.0, 1.0), (0.0, 0.0, 1.0))


def test_marginal__percentiles_by_hand():
    counts = np.zeros(65_536, int)
    counts[[0, 16_384, 32_768, 65_535]] = [1, 2, 3, 4]
    spread = Marginal(np.linspace(0, 1, 65_537), np.concatenate([[0], np.cumsum(counts)]))
    assert spread.pairs == 10
    assert [spread.pairs_below(value) for value in (-1, 0, 0.26, 0.5, 1.0, 2.0)] == [0, 0, 3, 3, 6, 6]
    assert spread.percentile(1.0) == 60
    assert [spread.quantile(percent) for percent in (0, 20, 50)] == [0, 0.25, 0.5]
    assert spread.coarse(4)[1].tolist() == [1, 2, 3, 4]
    assert spread.coarse(4)[0].tolist() == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (words.number(12_800_000), "12,800,000"),
        (words.pairs(1), "1 pair"),
        (words.share(1, 8), "12.5 %"),
        (words.share(0, 0), "0.0 %"),
        (words.decimal(0.12345), "0.1235"),
        (words.decimal(1234.5), "1,234.50"),
        (words.decimal(float("nan")), "–"),
        (words.percent(Decimal("0.125")), "12.5 %"),
        (words.percent(Decimal("1.0")), "100 %"),
        (words.duration(3725), "1 h 2 min"),
        (words.duration(61), "1 min 1 s"),
        (words.duration(0.4), "less than 1 s"),
    ],
)
def test_words__as_people_write_them(shown, expected):
    assert shown == expected


def test_as_yaml__of_no_step_is_nothing():
    assert recipes.as_yaml([]) == ""


def test_show_table__shows_the_values_as_they_are(monkeypatch):
    drawn = []
    monkeypatch.setattr(messages.st, "dataframe", lambda table, **shown: drawn.append((table, shown)))
    rows = [
        {"kind": "2024-01-01", "pairs": 3, "mean": 0.0, "spread": [1, 2]},
        {"kind": "2024-02-29", "pairs": 12_800_000_000, "mean": float("nan"), "spread": []},
        {"kind": None, "pairs": 0, "mean": -0.25, "spread": [0]},
    ]
    messages.show_table(rows, height=9)
    ((table, shown),) = drawn
    assert table.to_pylist() == [rows[0], {**rows[1], "mean": None}, rows[2]]
    assert (shown["height"], shown["placeholder"]) == (9, "–")
