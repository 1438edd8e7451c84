"""Regions are named by what their captions say and others do not, the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from clipsel_core.curation.exploring.regions import SMOOTHING, CaptionWords, find_regions

TOPICS = ("boats harbour", "cats sofa", "bread bakery", "planes sky")


def world(seed: int = 0, pairs: int = 800) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """Four clusters of unequal size, each with two words of its own behind words that all share."""
    rng = np.random.default_rng(seed)
    topic = rng.choice(4, pairs, p=[0.4, 0.3, 0.2, 0.1])
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], float)
    places = centres[topic] + 0.6 * rng.standard_normal((pairs, 2))
    fill = ("the", "a", "photo", "of", "with")
    captions = [
        " ".join([*rng.permutation(fill)[:3], *(word for word in TOPICS[t].split() if rng.random() < 0.7)])
        for t in topic
    ]
    return places[:, 0], places[:, 1], captions, topic


def test_find_regions__names_each_cluster_by_its_own_words():
    x, y, captions, topic = world()
    found = find_regions(x, y, CaptionWords(captions), SMOOTHING[0])
    assert [set(region.words) for region in found] == [set(words.split()) for words in TOPICS]
    assert [region.pairs for region in found] == pytest.approx(np.bincount(topic), abs=3)
    for region, (cx, cy) in zip(found, [(0, 0), (10, 0), (0, 10), (10, 10)], strict=True):
        assert np.hypot(region.x - cx, region.y - cy) < 1


def test_find_regions__are_the_same_each_time_and_in_any_order():
    x, y, captions, _ = world()
    first = find_regions(x, y, CaptionWords(captions), SMOOTHING[1])
    assert find_regions(x, y, CaptionWords(captions), SMOOTHING[1]) == first
    order = np.random.default_rng(1).permutation(len(x))
    mixed = find_regions(x[order], y[order], CaptionWords([captions[place] for place in order]), SMOOTHING[1])
    assert [(region.words, region.pairs) for region in mixed] == [(region.words, region.pairs) for region in first]


def test_distinctive__are_those_a_count_by_hand_finds():
    captions = ["red ball"] * 20 + ["red cube"] * 20 + ["tall blue cube"] * 60
    member = np.arange(100) < 20
    assert CaptionWords(captions).distinctive(member) == ("ball", "red")
    # tall, blue and cube are in three of five captions and more: too common to say anything.
    assert CaptionWords(captions).distinctive(~member) == ()


@pytest.mark.parametrize("captions", [[""] * 50, ["1234 5678 ..."] * 50, ["x"] * 50, ["same words here"] * 50])
def test_find_regions__without_words_have_no_name(captions):
    rng = np.random.default_rng(0)
    assert find_regions(*rng.standard_normal((2, 50)), CaptionWords(captions), SMOOTHING[0]) == []


@pytest.mark.parametrize("pairs", [0, 1, 2, 3, 30])
def test_find_regions__of_few_or_equal_places(pairs):
    place = np.ones(pairs)
    assert find_regions(place, place, CaptionWords(["a cat"] * pairs), SMOOTHING[0]) == []


def test_caption_words__leave_out_small_words_but_not_short_nouns_of_other_scripts():
    captions = ["cat at a wall"] * 20 + ["\u732b\u732b by a wall"] * 20 + ["nothing here"] * 60
    first, second = np.arange(100) < 20, (np.arange(100) >= 20) & (np.arange(100) < 40)
    assert CaptionWords(captions).distinctive(first) == ("cat", "wall")
    assert CaptionWords(captions).distinctive(second) == ("\u732b\u732b", "wall")


def test_caption_words__keep_nothing_of_markup():
    hostile = ['<script>alert("x")</script>', "\u202eevil\u202c http://a.example/b.png"] * 10
    said = CaptionWords(hostile + ["plain words"] * 300).distinctive(np.arange(320) < 20, most=20)
    assert said
    assert all(word.isalpha() for word in said)
