"""Rounding says nothing untrue: only all is 100 %, only nothing is 0 %, and ties are called ties."""

from __future__ import annotations

import numpy as np
import pytest

from pages.parts import words
from pages.parts.pair import pair
from pages.parts.registry import Marginal
from tests.pages.conftest import components, press
from tests.pages.conftest import words as said
from tests.pages.worlds import make_run


def marginal(values) -> Marginal:
    counts, edges = np.histogram(values, 65_536)
    return Marginal(edges, np.concatenate([[0], np.cumsum(counts)]))


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 0, "0.0 %"),
        (0, 5, "0.0 %"),
        (1, 12_800_000, "under 0.1 %"),
        (1, 3, "33.3 %"),
        (12_799_999, 12_800_000, "over 99.9 %"),
        (9_994, 10_000, "99.9 %"),
        (5, 5, "100.0 %"),
    ],
)
def test_share__only_all_is_all(part, whole, shown):
    assert words.share(part, whole) == shown


@pytest.mark.parametrize(("last", "shown"), [(0, "no more so than any of"), (9_999, "more so than over 99.9 % of")])
def test_more_so__of_the_least_and_the_most(last, shown):
    values = np.arange(10_000) / 10_000
    assert shown in pair._rank_in_words(marginal(values), values[last], "images")


def test_alike__is_not_said_of_one_pair_or_of_two_scores():
    assert marginal([3.0, 3.0]).alike
    assert not marginal([3.0]).alike
    assert not marginal([3.0, 3.0, 3.1]).alike
    assert not marginal([]).alike


def test_cards__of_equal_scores_say_so(tmp_path, open_page):
    app = open_page("gallery", make_run(tmp_path / "world", changed={"clip_score": np.full(60, 0.25)}))
    card = components(app, "clipsel_cards")[0]["cards"][0]
    assert [bar["rank"] for bar in card["bars"]] == ["all alike"]
    component = next(e for e in app.get("bidi_component") if e.proto.component_name == "clipsel_cards")
    app = press(app, component.proto.id, "open", uid=card["uid"])
    score = components(app, "clipsel_scores")[0]["scores"][0]
    assert (score["rank"], score["percentile"]) == ("1 of 60", "all alike")
    assert "100 %" not in said(app)
