"""What is in a scene, and how does it become an image?

A scene is a few groups of equal things in front of a backdrop. Its description is complete: the same description
always draws the same image, and captions (captions.py) are written from the description, never from the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from random import Random

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from clipsel_core.demo.backdrops import BACKDROPS, WALL_COLOURS, draw_backdrop, draw_wash
from clipsel_core.demo.palette import COLOURS, mix, tones
from clipsel_core.demo.things import INK, LIVING, MADE, draw_thing

SIDE = 112
ALL_KINDS = LIVING + MADE
JPEG_QUALITY = 64
SIZES = ("small", "", "big")
FLYING = frozenset({"bird", "butterfly", "balloon", "kite", "rocket"})

_SCALE = {"small": 0.66, "": 1.0, "big": 1.3}
_SIDE_OF_ONE = {1: 60, 2: 47, 3: 41, 4: 36, 5: 33}
_OVERSAMPLING = 3


@dataclass(frozen=True)
class Group:
    """Some equal things: `count` of one kind, of one colour and size."""

    kind: str
    colour: str
    count: int
    size: str


@dataclass(frozen=True)
class Scene:
    """A backdrop, the groups in front of it (the main one first), and the seed of everything left to chance."""

    backdrop: str
    groups: tuple[Group, ...]
    seed: int

    @property
    def main(self) -> Group:
        """The group that the scene is about."""
        return self.groups[0]


def random_scene(
    rng: Random, kinds: tuple[str, ...] = LIVING + MADE, *, beside: tuple[str, ...] = LIVING + MADE
) -> Scene:
    """A scene about a thing of one of these kinds, often with others beside it, no kind twice."""
    main = rng.choice(kinds)
    more = rng.choices((0, 1, 2), weights=(38, 42, 20))[0]
    others = rng.sample([kind for kind in beside if kind != main], more)
    counts = [rng.choices((1, 2, 3), weights=(60, 25, 15))[0]]
    counts += [rng.choices((1, 2), weights=(80, 20))[0] for _ in others]
    groups = tuple(
        Group(kind, rng.choice(tuple(COLOURS)), count, rng.choices(SIZES, weights=(25, 50, 25))[0])
        for kind, count in zip((main, *others), counts, strict=True)
    )
    return Scene(rng.choice(tuple(BACKDROPS)), groups, rng.getrandbits(32))


def draw_scene(scene: Scene) -> Image.Image:
    """The scene as an RGB image of SIDE x SIDE pixels."""
    rng = Random(scene.seed)
    image = draw_backdrop(scene.backdrop, SIDE, rng)
    for sprite, x, y in sorted(_place(scene, rng), key=lambda placed: placed[2] + placed[0].height):
        _cast_shadow(image, sprite, x, y)
        image.paste(sprite, (x, y), sprite)
    return image


def draw_poster(caption: str, seed: int) -> Image.Image:
    """An image that is mostly text: the caption in large letters, colour words in their own colour."""
    rng = Random(seed)
    paper = rng.choice((*WALL_COLOURS, (248, 246, 240)))
    image = draw_wash(mix(paper, (255, 255, 255), 0.5), paper, SIDE).resize((3 * SIDE, 3 * SIDE))
    draw = ImageDraw.Draw(image)
    frame = mix(paper, INK, rng.uniform(0.15, 0.4))
    draw.rounded_rectangle((14, 14, 3 * SIDE - 15, 3 * SIDE - 15), radius=18, outline=frame, width=6)
    font, lines = _fit(caption.upper(), 3 * SIDE - 60)
    step = font.size * 1.18
    top = (3 * SIDE - step * len(lines)) / 2
    for number, line in enumerate(lines):
        x = (3 * SIDE - font.getlength(line)) / 2
        for word in line.split(" "):
            colour = COLOURS.get(word.lower(), INK)
            fill = colour if min(colour) < 200 else mix(colour, INK, 0.3)
            draw.text((x, top + number * step), word, font=font, fill=fill)
            x += font.getlength(word + " ")
    return image.reduce(3)


def retake(image: Image.Image, seed: int) -> Image.Image:
    """The same image as another site would show it: cropped a little, and a little brighter or duller."""
    rng = Random(seed)
    left, top = rng.randint(0, 6), rng.randint(0, 6)
    cropped = image.crop((left, top, left + SIDE - 6, top + SIDE - 6)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    brighter = ImageEnhance.Brightness(cropped).enhance(rng.uniform(0.88, 1.1))
    return ImageEnhance.Color(brighter).enhance(rng.uniform(0.8, 1.15))


def to_jpeg(image: Image.Image) -> bytes:
    """The image as JPEG bytes, the same for the same image on the same version of Pillow."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def _place(scene: Scene, rng: Random) -> list[tuple[Image.Image, int, int]]:
    """Each thing's sprite with its left and top pixel; a new place is the best of several throws."""
    total = sum(group.count for group in scene.groups)
    usual = _SIDE_OF_ONE.get(total, 30)
    centres: list[tuple[float, float, float]] = []
    placed = []
    for group in scene.groups:
        side = round(usual * _SCALE[group.size])
        tone = tones(group.colour, rng)
        for _ in range(group.count):
            throws = [_throw(group.kind, side, rng) for _ in range(40)]
            x, y = max(throws, key=lambda throw: _clearance(throw, side, centres))
            centres.append((x, y, side))
            thing = draw_thing(group.kind, tone, side * _OVERSAMPLING)
            tilt = rng.uniform(-7, 7) if group.kind in FLYING else rng.uniform(-2, 2)
            thing = thing.rotate(tilt, Image.Resampling.BILINEAR)
            if rng.random() < 0.5:
                thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            placed.append((thing.reduce(_OVERSAMPLING), round(x - side / 2), round(y - side / 2)))
    return placed


def _throw(kind: str, side: int, rng: Random) -> tuple[float, float]:
    """A place for a thing's centre: flying kinds stay above, others stand on the ground."""
    margin = side / 2 + 2
    low, high = (margin, SIDE * 0.6) if kind in FLYING else (SIDE * 0.5, SIDE - margin + 1)
    return rng.uniform(margin, SIDE - margin), rng.uniform(min(low, high), high)


def _clearance(throw: tuple[float, float], side: int, centres: list[tuple[float, float, float]]) -> float:
    """How far a thing is from the nearest other one, in units of the distance at which they would touch."""
    x, y = throw
    return min((((x - a) ** 2 + (y - b) ** 2) ** 0.5 / (side + other) for a, b, other in centres), default=1.0)


def _cast_shadow(image: Image.Image, sprite: Image.Image, x: int, y: int) -> None:
    """Darken the image softly, below and to the right of where the sprite will be."""
    margin = 4
    alpha = Image.new("L", (sprite.width + 2 * margin, sprite.height + 2 * margin))
    alpha.paste(sprite.getchannel("A").point(lambda value: value * 0.38), (margin, margin))
    soft = alpha.filter(ImageFilter.GaussianBlur(1.8))
    image.paste((40, 38, 62), (x - margin + 1, y - margin + 3), soft)


def _fit(text: str, width: int) -> tuple[ImageFont.FreeTypeFont, list[str]]:
    """The largest font in which the text fits a square of this width, and its lines."""
    for size in range(84, 16, -4):
        font = _font(size)
        lines = _wrap(text, font, width)
        if max(font.getlength(line) for line in lines) <= width and len(lines) * size * 1.18 <= width:
            break
    return font, lines


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, so that no font has to be installed."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("the demo's posters need a Pillow built with FreeType")
    return font


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines
