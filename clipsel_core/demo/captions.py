"""How is a scene put into words, truly or not?

The teacher learns from `describe_scene(..., wild=False)`. The pool's captions are wild: they also use phrases, words
and junk that the teacher never saw, as captions on the web do.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Literal

from clipsel_core.demo.scenes import Scene, ThingGroup
from clipsel_core.demo.things import COLOURS

Naming = Literal["colour", "count"]

PLACES: dict[str, tuple[str, ...]] = {
    "meadow": ("in a meadow", "on green hills", "in the grass"),
    "sea": ("by the sea", "on the ocean", "in front of the waves"),
    "night": ("at night", "under the stars", "in the dark"),
    "beach": ("on a beach", "on the sand by the water", "on the coast"),
    "snow": ("in the snow", "in winter", "on a snowy day"),
    "sunset": ("at sunset", "in the evening", "as the sun goes down"),
    "desert": ("in the desert", "among dunes", "in a dry land"),
    "forest": ("in a forest", "in the woods", "among pines"),
    "dots": ("in front of a dotted wall", "with polka dots behind", "in a room with dotted wallpaper"),
    "stripes": ("in front of a striped wall", "with stripes behind", "in a room with striped wallpaper"),
    "checks": ("in front of a checked wall", "with checks behind", "in a room with checked wallpaper"),
    "plain": ("on a plain background", "in a studio", "isolated"),
}

_NUMBERS = {
    1: ("one", "a single"),
    2: ("two", "a pair of"),
    3: ("three", "a group of three"),
    4: ("four", "a row of four"),
}
_SIZE_WORDS = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")}
_JOINS = ("and", "next to", "with", "beside", "near")

_KNOWN_FRAMES = (
    "{}",
    "a photo of {}",
    "a picture of {}",
    "an illustration of {}",
    "a drawing of {}",
    "there is {}",
    "here you see {}",
    "a scene with {}",
    "{}, flat design",
    "{}, picture book art",
)
_WILD_FRAMES = (
    "stock vector: {}",
    "{} | wall art print",
    "{} - free shipping",
    "vintage postcard showing {}",
    "{} (royalty free clip art)",
    "my kids love it!! {} #cute",
    "{} by the studio, limited edition",
    "handmade greeting card, {}",
    "{} wallpaper hd",
    "our latest work: {}",
    "{}, canvas, ready to hang",
    "nursery poster {} - download now",
    "hello spring: {}",
    "throwback to last summer: {}",
)
_WILD_COLOURS = {
    "red": "crimson",
    "orange": "tangerine",
    "yellow": "golden",
    "green": "emerald",
    "blue": "azure",
    "purple": "violet",
    "pink": "rosy",
    "brown": "chestnut",
    "white": "ivory",
    "grey": "silver",
}
_WILD_KINDS = {
    "bird": "songbird",
    "cat": "kitten",
    "flower": "blossom",
    "mushroom": "toadstool",
    "turtle": "tortoise",
    "boat": "sailboat",
    "car": "automobile",
    "cup": "mug",
    "house": "cottage",
    "rocket": "spaceship",
    "umbrella": "parasol",
}

_KNOWN_JUNK = ("image", "photo", "picture", "untitled", "a nice picture", "an illustration", "IMG_{n}.jpg")
_WILD_JUNK = (
    *_KNOWN_JUNK,
    "photo for sale",
    "DSC_{n}",
    "stock photo {n}",
    "click to enlarge",
    "no description available",
    "product image {n}",
    "new in the shop",
    "untitled-{n}.png",
    "thumbnail {n}",
    "free download",
    "best price guaranteed",
    "photo by admin",
    "see more like this",
    "colourful and fun",
    "a beautiful scene",
    "beautiful art for your home",
    "lovely drawing for kids",
    "screenshot {n}",
    "home page banner",
    "slide {n}",
)


def describe_scene(scene: Scene, rng: Random, *, wild: bool, naming: Naming | None = None) -> str:
    """A true caption of the scene, or of a part of it.

    wild: also use frames and words that the teacher never saw.
    naming: the caption has to state this property of the main group.
    """
    body = _body(scene, rng, wild, naming)
    frames = _WILD_FRAMES if wild and rng.random() < 0.4 else _KNOWN_FRAMES
    caption = rng.choice(frames).format(body)
    case = rng.random()
    if wild and case < 0.12:
        return caption.title()
    return caption[0].upper() + caption[1:] if case < 0.4 else caption


def describe_wrongly(scene: Scene, rng: Random) -> str:
    """A wild caption that names the right kind of thing with the wrong colour or the wrong number."""
    main = scene.main
    if rng.random() < 0.75:
        wrong = replace(main, colour=rng.choice([colour for colour in COLOURS if colour != main.colour]))
        return describe_scene(replace(scene, groups=(wrong, *scene.groups[1:])), rng, wild=True, naming="colour")
    wrong = replace(main, count=rng.choice([count for count in (2, 3, 4) if count != main.count]))
    return describe_scene(replace(scene, groups=(wrong, *scene.groups[1:])), rng, wild=True, naming="count")


def junk(rng: Random, *, wild: bool) -> str:
    """A caption that says nothing about its image and could stand under any."""
    return rng.choice(_WILD_JUNK if wild else _KNOWN_JUNK).format(n=rng.randint(1000, 9999))


def poster_text(scene: Scene, rng: Random) -> str:
    """A short caption for an image of text: what a scene shows, without a frame around it."""
    thing = _thing(scene.main, rng, wild=False, naming="colour")
    return f"{thing} {rng.choice(PLACES[scene.backdrop])}" if rng.random() < 0.4 else thing


def _body(scene: Scene, rng: Random, wild: bool, naming: Naming | None) -> str:
    """What the caption says: the main group alone or with others, or only another part of the scene."""
    groups = list(scene.groups)
    if naming is None and len(groups) > 1 and rng.random() < 0.2:
        groups = [rng.choice(groups[1:])]
    else:
        groups = groups[: rng.choices((1, 2, 3), weights=(45, 38, 17))[0]]
    if len(groups) == 1 and naming is None and rng.random() < 0.08:
        return ", ".join((groups[0].kind, groups[0].colour, rng.choice(PLACES[scene.backdrop])))
    parts = [_thing(group, rng, wild, naming if group == scene.main else None) for group in groups]
    rng.shuffle(parts)
    said = parts[0]
    for number, part in enumerate(parts[1:]):
        said += f" {rng.choice(_JOINS) if number == 0 else 'and'} {part}"
    return f"{said} {rng.choice(PLACES[scene.backdrop])}" if rng.random() < 0.5 else said


def _thing(group: ThingGroup, rng: Random, wild: bool, naming: Naming | None) -> str:
    """The group in words, for instance "two small red birds"."""
    words = []
    if group.size and rng.random() < 0.5:
        words.append(rng.choice(_SIZE_WORDS[group.size]))
    if naming == "colour" or rng.random() < 0.85:
        words.append(_word(group.colour, _WILD_COLOURS, rng, wild))
    kind = _word(group.kind, _WILD_KINDS, rng, wild)
    if group.count > 1 and kind != "fish":
        kind = kind[:-1] + "ies" if kind.endswith("y") else kind + ("es" if kind.endswith("sh") else "s")
    words.append(kind)
    said = " ".join(words)
    if naming == "count" or rng.random() < (0.8 if group.count > 1 else 0.1):
        return f"{rng.choice(_NUMBERS[group.count])} {said}"
    if group.count > 1:
        return said
    return f"{'an' if said[0] in 'aeiou' else 'a'} {said}"


def _word(known: str, others: dict[str, str], rng: Random, wild: bool) -> str:
    """The usual word for something, or in a wild caption sometimes another one."""
    return others.get(known, known) if wild and rng.random() < 0.1 else known
