"""Which pairs does the demo world hold, and what is wrong with each?

Faults (the `fault` column of the pool; for evaluation only, no metric sees it):

- good: a true caption of a scene about a living thing
- off_target: a true caption of a scene that shows no living thing, which the target task has no use for
- near_duplicate: a good pair once more, cropped a little and otherwise lit, often with other words
- mismatched: the caption of another image
- partly_wrong: the right kind of thing, but the wrong colour or number
- generic: a caption that says nothing ("image", "photo for sale", "IMG_2034.jpg")
- text_image: the image is mostly text, and the text is the caption
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from PIL import Image

from clipsel_core.demo.captions import describe_scene, describe_wrongly, junk, poster_text
from clipsel_core.demo.scenes import ALL_KINDS, Scene, draw_poster, draw_scene, random_scene, retake, to_jpeg
from clipsel_core.demo.things import LIVING, MADE
from clipsel_core.processes import Crew
from clipsel_core.tasks import in_batches, in_order

POOL_SHARES: dict[str, float] = {
    "good": 0.38,
    "off_target": 0.16,
    "near_duplicate": 0.08,
    "mismatched": 0.14,
    "partly_wrong": 0.10,
    "generic": 0.09,
    "text_image": 0.05,
}
TRAINING_SHARES: dict[str, float] = {"good": 0.88, "mismatched": 0.04, "generic": 0.03, "text_image": 0.05}

CAPTION_FAULTS = ("mismatched", "partly_wrong", "generic", "text_image")
"""The faults that a caption shows: it does not say what is in the picture."""


@dataclass(frozen=True)
class Picture:
    """What an image shows: a scene, perhaps retaken, or a poster with text."""

    scene: Scene | None = None
    retake_seed: int | None = None
    poster: str = ""
    poster_seed: int = 0


@dataclass(frozen=True)
class Pair:
    """One image and its caption. uid: 32 hex digits."""

    uid: str
    picture: Picture
    caption: str
    fault: str


def pool_pairs(count: int) -> list[Pair]:
    """A pool of this many pairs in random order, each fault with its exact share."""
    rng = Random("clipsel demo pool")
    faults = _faults_of(count, POOL_SHARES)
    made = [(fault, *_make(fault, rng, wild=True)) for fault in faults if fault != "near_duplicate"]
    originals = [(picture, caption) for fault, picture, caption in made if fault == "good"]
    for _ in range(faults.count("near_duplicate")):
        # Retaken, half of the time with a new true caption.
        original, caption = rng.choice(originals)
        retaken = replace(original, retake_seed=rng.getrandbits(32))
        if original.scene is not None and rng.random() >= 0.5:
            caption = describe_scene(original.scene, rng, wild=True)
        made.append(("near_duplicate", retaken, caption))
    rng.shuffle(made)
    uids = (hashlib.sha256(f"clipsel demo pair {number}".encode()).hexdigest()[:32] for number in range(count))
    return [Pair(uid, picture, caption, fault) for uid, (fault, picture, caption) in zip(uids, made, strict=True)]


def training_pairs(pictures: int, *, captions: int = 4) -> list[Pair]:
    """Pairs for the teacher, with the faults of its own, tamer web; no scene of them is in the pool.

    Each picture comes with several captions, all with the same fault: it is drawn once and learned in many words.
    """
    rng = Random("clipsel demo training")
    faults = _faults_of(pictures, TRAINING_SHARES)
    rng.shuffle(faults)
    pairs = []
    for fault in faults:
        picture, caption = _make(fault, rng, wild=False, kinds=ALL_KINDS)
        pairs.append(Pair("", picture, caption, fault))
        for _ in range(captions - 1):
            # Another caption with the same fault; a poster has only the one that it shows.
            if fault == "generic":
                caption = junk(rng, wild=False)
            elif picture.scene is not None:
                shown = random_scene(rng) if fault == "mismatched" else picture.scene
                caption = describe_scene(shown, rng, wild=False)
            pairs.append(Pair("", picture, caption, fault))
    return pairs


def target_pictures(count: int) -> list[Picture]:
    """Held-out scenes of living things and nothing else: what the target task asks for."""
    rng = Random("clipsel demo target")
    return [Picture(random_scene(rng, LIVING, beside=LIVING)) for _ in range(count)]


def draw(picture: Picture) -> Image.Image:
    """The picture as an RGB image."""
    if picture.scene is None:
        return draw_poster(picture.poster, picture.poster_seed)
    image = draw_scene(picture.scene)
    return image if picture.retake_seed is None else retake(image, picture.retake_seed)


def draw_jpegs(pictures: Iterable[Picture], *, workers: int = 4) -> Iterator[bytes]:
    """The pictures as JPEG bytes, in order, drawn by several processes."""
    with Crew(workers, "to be drawn", preload=[__name__]) as crew:
        where = "pictures of the demo"
        for _, jpegs in in_order(in_batches(pictures, 64), partial(crew.submit, where, _draw_jpegs), 2 * workers):
            yield from jpegs


def _draw_jpegs(pictures: list[Picture]) -> list[bytes]:
    return [to_jpeg(draw(picture)) for picture in pictures]


def _faults_of(count: int, shares: dict[str, float]) -> list[str]:
    """Each fault as often as its share of `count` says; what rounding leaves over is good."""
    faults = [fault for fault, share in shares.items() if fault != "good" for _ in range(round(share * count))]
    return ["good"] * (count - len(faults)) + faults


def _make(fault: str, rng: Random, *, wild: bool, kinds: tuple[str, ...] = ()) -> tuple[Picture, str]:
    """A picture and its caption with this fault.

    kinds: what scenes are about; without them living things, and made things for off_target and some faulty pairs.
    """
    scene = _scene(fault, kinds, rng)
    if fault == "text_image":
        caption = poster_text(scene, rng)
        return Picture(poster=caption, poster_seed=rng.getrandbits(32)), caption
    if fault == "mismatched":
        return Picture(scene), describe_scene(_scene(fault, kinds, rng), rng, wild=wild)
    if fault == "partly_wrong":
        return Picture(scene), describe_wrongly(scene, rng)
    if fault == "generic":
        return Picture(scene), junk(rng, wild=wild)
    return Picture(scene), describe_scene(scene, rng, wild=wild)


def _scene(fault: str, kinds: tuple[str, ...], rng: Random) -> Scene:
    """A scene for a pair with this fault; a caption's fault strikes scenes on and off the target alike."""
    if kinds:
        return random_scene(rng, kinds)
    off_target = fault == "off_target" or (fault in CAPTION_FAULTS and rng.random() < 0.25)
    return random_scene(rng, MADE, beside=MADE) if off_target else random_scene(rng, LIVING)
