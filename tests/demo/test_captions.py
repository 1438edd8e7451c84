"""Do true captions say only true things, and wrong ones something wrong? Read with a parser of its own."""

from __future__ import annotations

import re
from random import Random

from clipsel_core.demo.captions import describe_scene, describe_wrongly, junk, poster_text
from clipsel_core.demo.scenes import ALL_KINDS, Scene, ThingGroup, random_scene
from clipsel_core.demo.things import COLOURS

COLOUR_WORDS = {colour: colour for colour in COLOURS} | {
    "crimson": "red",
    "tangerine": "orange",
    "golden": "yellow",
    "emerald": "green",
    "azure": "blue",
    "violet": "purple",
    "rosy": "pink",
    "chestnut": "brown",
    "ivory": "white",
    "silver": "grey",
}
OTHER_KINDS = {
    "songbird": "bird",
    "kitten": "cat",
    "blossom": "flower",
    "toadstool": "mushroom",
    "tortoise": "turtle",
    "sailboat": "boat",
    "automobile": "car",
    "mug": "cup",
    "cottage": "house",
    "spaceship": "rocket",
    "parasol": "umbrella",
}
KIND_WORDS = {kind: kind for kind in ALL_KINDS} | OTHER_KINDS
PLURALS = {"butterflies": "butterfly"} | {word + "s": kind for word, kind in KIND_WORDS.items() if word != "fish"}
NUMBERS = {"a": 1, "an": 1, "one": 1, "single": 1, "two": 2, "pair": 2, "three": 3, "four": 4}
SIZES = {"small": "small", "little": "small", "tiny": "small", "big": "big", "large": "big", "huge": "big"}
GLUE = {"of", "group", "row"}


def claims(caption: str) -> list[tuple[str, set[str], int | None, str | None]]:
    """Each thing that a caption names: kind, colours, number (None: not said), size word."""
    words = re.findall(r"[a-z]+", caption.lower())
    found = []
    for place, word in enumerate(words):
        kind = KIND_WORDS.get(word) or PLURALS.get(word)
        if kind is None:
            continue
        before = []
        for earlier in reversed(words[:place]):
            if earlier not in {*NUMBERS, *SIZES, *COLOUR_WORDS, *GLUE}:
                break
            before.append(earlier)
        colours = {COLOUR_WORDS[w] for w in before if w in COLOUR_WORDS}
        number = max((NUMBERS[w] for w in before if w in NUMBERS), default=None)
        size = next((SIZES[w] for w in before if w in SIZES), None)
        found.append((kind, colours, number, size))
    return found


def is_true(scene: Scene, claim: tuple[str, set[str], int | None, str | None]) -> bool:
    kind, colours, number, size = claim
    groups = {group.kind: group for group in scene.groups}
    if kind not in groups:
        return False
    group = groups[kind]
    return colours <= {group.colour} and number in (None, group.count) and size in (None, group.size)


def test_describe_scene__says_only_true_things():
    rng = Random(0)
    for wild in (True, False):
        for _ in range(2000):
            scene = random_scene(rng)
            caption = describe_scene(scene, rng, wild=wild)
            assert claims(caption), caption
            assert all(is_true(scene, claim) for claim in claims(caption)), (scene, caption)


def test_describe_scene__often_leaves_the_main_group_out():
    rng = Random(1)
    scene = Scene("sea", (ThingGroup("cat", "red", 1, ""), ThingGroup("boat", "blue", 2, "")), 0)
    kinds = [{claim[0] for claim in claims(describe_scene(scene, rng, wild=False))} for _ in range(500)]
    assert 50 < sum(kind == {"boat"} for kind in kinds) < 200


def test_describe_scene__has_thousands_of_captions():
    rng = Random(2)
    assert len({describe_scene(random_scene(rng), rng, wild=True) for _ in range(4000)}) > 3500


def test_describe_scene__words_that_the_teacher_never_saw_only_where_wild():
    rng = Random(3)
    scenes = [random_scene(rng) for _ in range(1000)]
    unseen = re.compile("|".join([*OTHER_KINDS, "crimson", "wallpaper hd", "shipping", "postcard"]))
    assert not any(unseen.search(describe_scene(scene, rng, wild=False).lower()) for scene in scenes)
    assert sum(bool(unseen.search(describe_scene(scene, rng, wild=True).lower())) for scene in scenes) > 100


def test_describe_wrongly__right_kind_and_something_false():
    rng = Random(4)
    for _ in range(2000):
        scene = random_scene(rng)
        caption = describe_wrongly(scene, rng)
        about_main = [claim for claim in claims(caption) if claim[0] == scene.main.kind]
        assert about_main, caption
        assert not all(is_true(scene, claim) for claim in about_main), (scene, caption)


def test_junk__names_nothing():
    rng = Random(5)
    assert not any(claims(junk(rng, wild=True)) for _ in range(500))


def test_poster_text__is_short_and_names_the_main_group():
    rng = Random(6)
    scene = random_scene(rng)
    for _ in range(50):
        text = poster_text(scene, rng)
        assert len(text) < 90
        assert claims(text)[0][0] == scene.main.kind
