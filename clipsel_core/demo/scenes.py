"""What is in a scene, and how does it become an image?

A scene is a few groups of equal things in front of a backdrop. Its description is complete: the same description
always draws the same image, and captions (captions.py) are written from the description, never from the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from random import Random

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from clipsel_core.demo.things import COLOURS, INK, LIVING, MADE, Pen, Rgb, draw_thing, mix, tones

SIDE = 112
ALL_KINDS = LIVING + MADE
JPEG_QUALITY = 64
SIZES = ("small", "", "big")
BACKDROPS = (
    *("meadow", "sea", "night", "beach", "snow", "sunset", "desert", "forest"),
    *("dots", "stripes", "checks", "plain"),
)
FLYING = frozenset({"bird", "butterfly", "balloon", "kite", "rocket"})

_SCALE = {"small": 0.66, "": 1.0, "big": 1.3}
_SIDE_OF_ONE = {1: 60, 2: 47, 3: 41, 4: 36, 5: 33}
_OVERSAMPLING, _MARGIN = 3, 4
WALL_COLOURS: tuple[Rgb, ...] = (
    (244, 222, 204),
    (214, 228, 222),
    (222, 214, 232),
    (250, 236, 200),
    (206, 222, 238),
    (236, 208, 208),
)


@dataclass(frozen=True)
class ThingGroup:
    """Some equal things: `count` of one kind, of one colour and size."""

    kind: str
    colour: str
    count: int
    size: str


@dataclass(frozen=True)
class Scene:
    """A backdrop, the groups in front of it (the main one first), and the seed of everything left to chance."""

    backdrop: str
    groups: tuple[ThingGroup, ...]
    seed: int

    @property
    def main(self) -> ThingGroup:
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
        ThingGroup(kind, rng.choice(tuple(COLOURS)), count, rng.choices(SIZES, weights=(25, 50, 25))[0])
        for kind, count in zip((main, *others), counts, strict=True)
    )
    return Scene(rng.choice(BACKDROPS), groups, rng.getrandbits(32))


def draw_scene(scene: Scene) -> Image.Image:
    """The scene as an RGB image of SIDE x SIDE pixels."""
    rng = Random(scene.seed)
    backdrops = _Backdrops(_large_canvas())
    getattr(backdrops, scene.backdrop)(rng)
    image = backdrops.image.reduce(_OVERSAMPLING)
    for sprite, x, y in sorted(_place(scene, rng), key=lambda placed: placed[2] + placed[0].height):
        # Its shadow, soft, below and to the right.
        alpha = Image.new("L", (sprite.width + 2 * _MARGIN, sprite.height + 2 * _MARGIN))
        alpha.paste(sprite.getchannel("A").point(lambda value: value * 0.38), (_MARGIN, _MARGIN))
        soft = alpha.filter(ImageFilter.GaussianBlur(1.8))
        image.paste((40, 38, 62), (x - _MARGIN + 1, y - _MARGIN + 3), soft)
        image.paste(sprite, (x, y), sprite)
    return image


def draw_poster(caption: str, seed: int) -> Image.Image:
    """An image that is mostly text: the caption in large letters, colour words in their own colour."""
    rng = Random(seed)
    paper = rng.choice((*WALL_COLOURS, (248, 246, 240)))
    pen = Pen(_large_canvas())
    pen.gradient(mix(paper, (255, 255, 255), 0.5), paper)
    image = pen.image.reduce(3).resize((3 * SIDE, 3 * SIDE))
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


def _large_canvas() -> Image.Image:
    """An image three times as large as wanted, so that shrinking it smooths the edges."""
    return Image.new("RGB", (_OVERSAMPLING * SIDE, _OVERSAMPLING * SIDE))


def _place(scene: Scene, rng: Random) -> list[tuple[Image.Image, int, int]]:
    """Each thing's sprite with its left and top pixel; a new place is the best of several throws."""
    usual = _SIDE_OF_ONE.get(sum(group.count for group in scene.groups), 30)
    centres: list[tuple[float, float, float]] = []
    placed = []
    for group in scene.groups:
        side = round(usual * _SCALE[group.size])
        tone = tones(group.colour, rng)
        flies, margin = group.kind in FLYING, side / 2 + 2
        # Flying kinds stay above, others stand on the ground.
        low, high = (margin, SIDE * 0.6) if flies else (SIDE * 0.5, SIDE - margin + 1)

        def clearance(throw: tuple[float, float], side: int = side) -> float:
            """How far a thing is from the nearest other one, in units of the distance at which they would touch."""
            x, y = throw
            return min((((x - a) ** 2 + (y - b) ** 2) ** 0.5 / (side + other) for a, b, other in centres), default=1.0)

        for _ in range(group.count):
            throws = [(rng.uniform(margin, SIDE - margin), rng.uniform(min(low, high), high)) for _ in range(40)]
            x, y = max(throws, key=clearance)
            centres.append((x, y, side))
            thing = draw_thing(group.kind, tone, side * _OVERSAMPLING)
            thing = thing.rotate(rng.uniform(-7, 7) if flies else rng.uniform(-2, 2), Image.Resampling.BILINEAR)
            if rng.random() < 0.5:
                thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            placed.append((thing.reduce(_OVERSAMPLING), round(x - side / 2), round(y - side / 2)))
    return placed


def _fit(text: str, width: int) -> tuple[ImageFont.FreeTypeFont, list[str]]:
    """The largest font in which the text fits a square of this width, and its lines."""
    for size in range(84, 16, -4):
        font, lines = _font(size), list[str]()
        for word in text.split():
            if lines and font.getlength(f"{lines[-1]} {word}") <= width:
                lines[-1] = f"{lines[-1]} {word}"
            else:
                lines.append(word)
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


class _Backdrops(Pen):
    """What may lie behind the things of a scene."""

    def _ground(self, horizon: float, swell: float, phase: float, near: Rgb, far: Rgb) -> None:
        """Everything below a gently waving line at `horizon` (0 top, 1 bottom), from `far` down to `near`."""
        mask = Image.new("L", self.image.size)
        line = [(x / 24, horizon + swell * math.sin(phase + 5 * x / 24)) for x in range(25)]
        Pen(mask).polygon([*line, (1.0, 1.0), (0.0, 1.0)], 255)
        self.gradient(far, near, mask)

    def _clouds(self, rng: Random, fill: Rgb, highest: float = 0.08, lowest: float = 0.3) -> None:
        """Up to three clouds, each of three discs on a flat foot."""
        for _ in range(rng.randint(0, 3)):
            x, y, width = rng.random(), rng.uniform(highest, lowest), rng.uniform(0.14, 0.28)
            for offset, rise, radius in ((-0.3, 0.0, 0.2), (0.0, 0.1, 0.28), (0.32, 0.0, 0.18)):
                self.disc(x + offset * width, y - rise * width, radius * width, fill)
            self.box(x - 0.48 * width, y - 0.02 * width, x + 0.5 * width, y + 0.2 * width, fill, 0.1 * width)

    def meadow(self, rng: Random) -> None:
        self.gradient((186, 222, 242), (236, 246, 240))
        self._clouds(rng, (252, 252, 250))
        self._ground(0.6, 0.04, rng.uniform(0, 6), (150, 196, 122), (186, 218, 150))
        self._ground(0.74, 0.03, rng.uniform(0, 6), (122, 176, 102), (158, 204, 124))
        for _ in range(rng.randint(4, 14)):
            fill = rng.choice(((250, 240, 200), (244, 206, 216), (236, 240, 250)))
            self.disc(rng.random(), rng.uniform(0.76, 0.98), 0.011, fill)

    def sea(self, rng: Random) -> None:
        self.gradient((198, 228, 244), (240, 246, 244))
        self._clouds(rng, (252, 252, 252))
        for step in range(3):
            shade = mix((128, 194, 214), (54, 124, 168), step / 2.5)
            self._ground(0.56 + 0.14 * step, 0.015, rng.uniform(0, 6), shade, mix(shade, (255, 255, 255), 0.2))

    def night(self, rng: Random) -> None:
        self.gradient((34, 40, 82), (84, 84, 138))
        for _ in range(rng.randint(8, 22)):
            self.disc(rng.random(), rng.uniform(0.02, 0.62), rng.uniform(0.004, 0.009), (244, 238, 208))
        if rng.random() < 0.7:
            x, y = rng.choice((rng.uniform(0.1, 0.25), rng.uniform(0.75, 0.9))), rng.uniform(0.1, 0.2)
            self.disc(x, y, 0.07, (248, 240, 208))
        self._ground(0.74, 0.03, rng.uniform(0, 6), (40, 48, 84), (58, 66, 104))

    def beach(self, rng: Random) -> None:
        self.gradient((176, 218, 240), (232, 244, 244))
        self.disc(rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.18), 0.06, (255, 240, 184))
        self._clouds(rng, (252, 252, 252))
        self._ground(0.5, 0.004, 0, (120, 194, 206), (150, 210, 218))
        self._ground(0.64, 0.015, rng.uniform(0, 6), (250, 250, 244), (250, 250, 244))
        self._ground(0.66, 0.015, rng.uniform(0, 6), (232, 204, 152), (246, 226, 184))

    def snow(self, rng: Random) -> None:
        self.gradient((176, 196, 220), (222, 232, 242))
        self._ground(0.58, 0.05, rng.uniform(0, 6), (214, 226, 238), (232, 240, 248))
        self._ground(0.72, 0.03, rng.uniform(0, 6), (228, 236, 246), (250, 252, 255))
        for _ in range(rng.randint(10, 26)):
            self.disc(rng.random(), rng.random(), rng.uniform(0.006, 0.012), (255, 255, 255))

    def sunset(self, rng: Random) -> None:
        self.gradient((122, 104, 160), (252, 196, 146))
        self.disc(rng.uniform(0.2, 0.8), rng.uniform(0.5, 0.62), 0.13, (255, 226, 164))
        self._clouds(rng, (236, 160, 152), 0.1, 0.36)
        self._ground(0.68, 0.03, rng.uniform(0, 6), (104, 76, 108), (150, 104, 122))

    def desert(self, rng: Random) -> None:
        self.gradient((250, 226, 190), (252, 240, 214))
        self.disc(rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.22), 0.07, (255, 250, 226))
        self._ground(0.58, 0.06, rng.uniform(0, 6), (226, 176, 124), (238, 196, 146))
        self._ground(0.74, 0.04, rng.uniform(0, 6), (210, 154, 104), (230, 180, 128))

    def forest(self, rng: Random) -> None:
        self.gradient((196, 220, 206), (224, 236, 216))
        for row, fill in ((0.62, (156, 192, 172)), (0.72, (116, 162, 140))):
            for _ in range(7):
                x, width, height = rng.random(), rng.uniform(0.07, 0.12), rng.uniform(0.26, 0.44)
                self.polygon([(x - width, row), (x, row - height), (x + width, row)], fill)
            self._ground(row - 0.02, 0.01, rng.uniform(0, 6), mix(fill, (70, 110, 90), 0.3), fill)

    def _floor(self, rng: Random) -> None:
        if rng.random() < 0.7:
            self._ground(0.76, 0, 0, (188, 150, 120), (212, 178, 146))

    def dots(self, rng: Random) -> None:
        wall = rng.choice(WALL_COLOURS)
        self.gradient(mix(wall, (255, 255, 255), 0.25), wall)
        fill = mix(wall, rng.choice(((255, 255, 255), (150, 120, 130))), 0.45)
        for row in range(9):
            for column in range(9):
                self.disc((column + 0.5 * (row % 2)) / 8, row / 8, 0.024, fill)
        self._floor(rng)

    def stripes(self, rng: Random) -> None:
        wall = rng.choice(WALL_COLOURS)
        self.gradient(mix(wall, (255, 255, 255), 0.25), wall)
        fill = mix(wall, rng.choice(((255, 255, 255), (160, 130, 140))), 0.4)
        for column in range(7):
            self.box(column / 7, 0, (column + 0.5) / 7, 1, fill)
        self._floor(rng)

    def checks(self, rng: Random) -> None:
        wall = rng.choice(WALL_COLOURS)
        self.gradient(wall, wall)
        pale, deep = mix(wall, (255, 255, 255), 0.4), mix(wall, (160, 130, 140), 0.25)
        for row in range(6):
            for column in range(6):
                if (row + column) % 2:
                    fill = pale if row % 2 else deep
                    self.box(column / 6, row / 6, (column + 1) / 6, (row + 1) / 6, fill)
        self._floor(rng)

    def plain(self, rng: Random) -> None:
        wall = rng.choice((*WALL_COLOURS, (240, 240, 238)))
        self.gradient(mix(wall, (255, 255, 255), 0.6), wall)
