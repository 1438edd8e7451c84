"""Does a description always draw the same image, and a different one a different image?"""

from __future__ import annotations

from io import BytesIO
from random import Random

import numpy as np
import pytest
from PIL import Image

from clipsel_core.demo.scenes import (
    ALL_KINDS,
    BACKDROPS,
    SIDE,
    Scene,
    ThingGroup,
    draw_poster,
    draw_scene,
    random_scene,
    retake,
    to_jpeg,
)
from clipsel_core.demo.things import COLOURS, LIVING, MADE, draw_thing, tones


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.int16)


def test_draw_scene__same_description_same_jpeg():
    scene = random_scene(Random(1))
    assert to_jpeg(draw_scene(scene)) == to_jpeg(draw_scene(scene))


def test_draw_scene__is_rgb_of_the_promised_size():
    image = Image.open(BytesIO(to_jpeg(draw_scene(random_scene(Random(2))))))
    assert (image.mode, image.size, image.format) == ("RGB", (SIDE, SIDE), "JPEG")
    assert SIDE >= 96


@pytest.mark.parametrize("change", [{"colour": "blue"}, {"count": 3}, {"size": "big"}, {"kind": "car"}])
def test_draw_scene__every_property_shows(change):
    usual = {"kind": "cat", "colour": "red", "count": 1, "size": ""}
    before, after = (
        draw_scene(Scene("meadow", (ThingGroup(**facts),), seed=7)) for facts in (usual, {**usual, **change})
    )
    assert (np.abs(pixels(before) - pixels(after)).max(axis=2) > 40).sum() > 100


@pytest.mark.parametrize("name", BACKDROPS)
def test_draw_scene__every_backdrop_differs_from_the_others(name):
    group = ThingGroup("cup", "red", 1, "")
    own = pixels(draw_scene(Scene(name, (group,), seed=3)))
    others = (pixels(draw_scene(Scene(other, (group,), seed=3))) for other in BACKDROPS if other != name)
    assert all(np.abs(own - other).mean() > 1.5 for other in others)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_draw_thing__shows_its_colour(kind):
    for colour in ("red", "blue"):
        tone = tones(colour, Random(0))
        image = np.asarray(draw_thing(kind, tone, 90))
        assert (image[..., :3] == tone.base).all(axis=2).sum() > 250
        assert image[0, 0, 3] == 0


def test_tones__stay_nearer_to_their_own_colour_than_to_any_other():
    rng = Random(4)
    for name in COLOURS:
        for _ in range(50):
            base = np.array(tones(name, rng).base)
            distance = {other: np.abs(base - COLOURS[other]).sum() for other in COLOURS}
            assert min(distance, key=distance.__getitem__) == name


def test_random_scene__no_kind_twice_and_the_main_one_as_asked():
    rng = Random(5)
    for _ in range(200):
        scene = random_scene(rng, MADE, beside=MADE)
        kinds = [group.kind for group in scene.groups]
        assert len(set(kinds)) == len(kinds)
        assert not set(kinds) & set(LIVING)


def test_draw_poster__is_mostly_paper_with_letters_in_it():
    image = pixels(draw_poster("two red birds at sunset in a room with striped wallpaper", seed=1))
    dark = (image.max(axis=2) < 120).mean()
    assert 0.02 < dark < 0.3
    assert not np.array_equal(image, pixels(draw_poster("two red cats", seed=1)))


def test_retake__is_near_but_not_the_same():
    image = draw_scene(random_scene(Random(6)))
    again = retake(image, seed=1)
    assert again.size == image.size
    assert 0.5 < np.abs(pixels(image) - pixels(again)).mean() < 30
