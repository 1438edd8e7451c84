"""Has the demo world the pairs that it says, each with its fault?"""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from random import Random

import numpy as np
import pytest
from PIL import Image

from clipsel_core.demo.captions import describe_scene
from clipsel_core.demo.pairs import (
    POOL_SHARES,
    TRAINING_SHARES,
    Pair,
    Picture,
    draw,
    draw_jpegs,
    pool_pairs,
    target_pictures,
    training_pairs,
)
from clipsel_core.demo.scenes import random_scene, to_jpeg
from clipsel_core.demo.things import LIVING
from clipsel_core.errors import LostWorkerError
from tests.tasks import Doomed


def clean_pairs(count: int) -> list[Pair]:
    """Held-out scenes of all kinds, with true captions that name the main thing and its colour in words the teacher
    knows: none that names only another part of the scene, which would fit many others as well.
    """
    rng = Random("clipsel demo held-out")
    scenes = [random_scene(rng) for _ in range(count)]
    return [
        Pair("", Picture(scene), describe_scene(scene, rng, wild=False, naming="colour"), "good") for scene in scenes
    ]


@pytest.fixture(scope="module")
def pairs():
    return pool_pairs(1000)


def of(pairs, fault):
    return [pair for pair in pairs if pair.fault == fault]


def test_pool_pairs__faults_have_their_shares(pairs):
    assert sum(POOL_SHARES.values()) == pytest.approx(1)
    assert sum(TRAINING_SHARES.values()) == pytest.approx(1)
    counts = Counter(pair.fault for pair in pairs)
    assert counts == {fault: round(1000 * share) for fault, share in POOL_SHARES.items()}


def test_pool_pairs__same_again_and_uids_differ(pairs):
    assert pool_pairs(1000) == pairs
    assert len({pair.uid for pair in pairs}) == 1000
    assert all(len(pair.uid) == 32 and int(pair.uid, 16) >= 0 for pair in pairs)


def test_pool_pairs__faults_are_spread_over_the_pool(pairs):
    for fault in POOL_SHARES:
        places = [place for place, pair in enumerate(pairs) if pair.fault == fault]
        assert 400 < np.mean(places) < 600


def test_pool_pairs__off_target_scenes_show_no_living_thing(pairs):
    shown = [group.kind for pair in of(pairs, "off_target") for group in pair.picture.scene.groups]
    assert not set(shown) & set(LIVING)
    assert all(pair.picture.scene.main.kind in LIVING for pair in of(pairs, "good"))


def test_pool_pairs__near_duplicates_retake_a_good_pair(pairs):
    good = {pair.picture.scene for pair in of(pairs, "good")}
    assert {pair.picture.scene for pair in of(pairs, "near_duplicate")} <= good
    assert all(pair.picture.retake_seed is not None for pair in of(pairs, "near_duplicate"))


def test_pool_pairs__text_images_show_their_caption(pairs):
    assert all(pair.picture.poster == pair.caption and pair.picture.scene is None for pair in of(pairs, "text_image"))


def test_training_pairs__no_scene_is_in_the_pool_the_target_or_held_out(pairs):
    training = {pair.picture.scene for pair in training_pairs(2000)} - {None}
    pool = {pair.picture.scene for pair in pairs} - {None}
    target = {picture.scene for picture in target_pictures(200)}
    clean = {pair.picture.scene for pair in clean_pairs(200)}
    sets = [training, pool, target, clean]
    assert sum(len(each) for each in sets) == len(set().union(*sets))


def test_draw_jpegs__in_order_and_as_drawn_here(pairs):
    pictures = [pair.picture for pair in pairs[:70]]
    jpegs = list(draw_jpegs(pictures, workers=2))
    assert len(jpegs) == 70
    assert [jpegs[0], jpegs[69]] == [to_jpeg(draw(pictures[0])), to_jpeg(draw(pictures[69]))]
    assert Image.open(BytesIO(jpegs[3])).size == draw(pictures[3]).size


def test_draw_jpegs__a_process_that_is_killed(pairs):
    pictures = [pair.picture for pair in pairs[:70]]
    ended = "found that its process ended by SIGKILL; see whether memory runs out, then start again"
    with pytest.raises(LostWorkerError, match=rf"^pictures of the demo: expected to be drawn, {ended}$"):
        list(draw_jpegs([*pictures, Doomed()], workers=2))


def test_training_pairs__a_picture_comes_with_several_captions_of_one_fault():
    pairs = training_pairs(300, captions=3)
    assert len(pairs) == 900
    for start in range(0, 900, 3):
        pictures, faults = ({getattr(pair, name) for pair in pairs[start : start + 3]} for name in ("picture", "fault"))
        assert len(pictures) == len(faults) == 1
    assert len({pair.caption for pair in pairs}) > 600
