"""What is behind the things of a scene?"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from clipsel_core.demo.palette import Rgb, mix

WALL_COLOURS: tuple[Rgb, ...] = (
    (244, 222, 204),
    (214, 228, 222),
    (222, 214, 232),
    (250, 236, 200),
    (206, 222, 238),
    (236, 208, 208),
)


class _Canvas:
    """An image three times as large as wanted, so that shrinking it smooths the edges."""

    def __init__(self, size: int) -> None:
        self.side = 3 * size
        self.image = Image.new("RGB", (self.side, self.side))
        self.draw = ImageDraw.Draw(self.image)

    def gradient(self, top: Rgb, bottom: Rgb, mask: Image.Image | None = None) -> None:
        """Fill the image, or what the mask leaves of it, from the top colour to the bottom colour."""
        ramp = Image.linear_gradient("L").resize((self.side, self.side))
        above, below = (Image.new("RGB", ramp.size, colour) for colour in (top, bottom))
        self.image.paste(Image.composite(below, above, ramp), mask=mask)

    def ground(self, horizon: float, swell: float, phase: float, near: Rgb, far: Rgb) -> None:
        """Everything below a gently waving line at `horizon` (0 top, 1 bottom), from `far` down to `near`."""
        mask = Image.new("L", self.image.size)
        line = [(x / 24, horizon + swell * math.sin(phase + 5 * x / 24)) for x in range(25)]
        corners = [(1.0, 1.0), (0.0, 1.0)]
        ImageDraw.Draw(mask).polygon([(x * self.side, y * self.side) for x, y in line + corners], fill=255)
        self.gradient(far, near, mask)

    def disc(self, x: float, y: float, radius: float, fill: Rgb) -> None:
        """A filled circle."""
        s = self.side
        self.draw.ellipse(((x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s), fill=fill)

    def cloud(self, x: float, y: float, width: float, fill: Rgb) -> None:
        """Three discs on a flat foot."""
        for offset, rise, radius in ((-0.3, 0.0, 0.2), (0.0, 0.1, 0.28), (0.32, 0.0, 0.18)):
            self.disc(x + offset * width, y - rise * width, radius * width, fill)
        s = self.side
        box = ((x - 0.48 * width) * s, (y - 0.02 * width) * s, (x + 0.5 * width) * s, (y + 0.2 * width) * s)
        self.draw.rounded_rectangle(box, radius=0.1 * width * s, fill=fill)


def _clouds(canvas: _Canvas, rng: Random, fill: Rgb, highest: float = 0.08, lowest: float = 0.3) -> None:
    for _ in range(rng.randint(0, 3)):
        canvas.cloud(rng.random(), rng.uniform(highest, lowest), rng.uniform(0.14, 0.28), fill)


def _meadow(canvas: _Canvas, rng: Random) -> None:
    canvas.gradient((186, 222, 242), (236, 246, 240))
    _clouds(canvas, rng, (252, 252, 250))
    canvas.ground(0.6, 0.04, rng.uniform(0, 6), (150, 196, 122), (186, 218, 150))
    canvas.ground(0.74, 0.03, rng.uniform(0, 6), (122, 176, 102), (158, 204, 124))
    for _ in range(rng.randint(4, 14)):
        fill = rng.choice(((250, 240, 200), (244, 206, 216), (236, 240, 250)))
        canvas.disc(rng.random(), rng.uniform(0.76, 0.98), 0.011, fill)


def _sea(canvas: _Canvas, rng: Random) -> None:
    canvas.gradient((198, 228, 244), (240, 246, 244))
    _clouds(canvas, rng, (252, 252, 252))
    for step in range(3):
        shade = mix((128, 194, 214), (54, 124, 168), step / 2.5)
        canvas.ground(0.56 + 0.14 * step, 0.015, rng.uniform(0, 6), shade, mix(shade, (255, 255, 255), 0.2))


def _night(canvas: _Canvas, rng: Random) -> None:
    canvas.gradient((34, 40, 82), (84, 84, 138))
    for _ in range(rng.randint(8, 22)):
        canvas.disc(rng.random(), rng.uniform(0.02, 0.62), rng.uniform(0.004, 0.009), (244, 238, 208))
    if rng.random() < 0.7:
        x, y = rng.choice((rng.uniform(0.1, 0.25), rng.uniform(0.75, 0.9))), rng.uniform(0.1, 0.2)
        canvas.disc(x, y, 0.07, (248, 240, 208))
    canvas.ground(0.74, 0.03, rng.uniform(0, 6), (40, 48, 84), (58, 66, 104))


def _beach(canvas: _Canvas, rng: Random) -> None:
    canvas.gradient((176, 218, 240), (232, 244, 244))
    canvas.disc(rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.18), 0.06, (255, 240, 184))
    _clouds(canvas, rng, (252, 252, 252))
    canvas.ground(0.5, 0.004, 0, (120, 194, 206), (150, 210, 218))
    canvas.ground(0.64, 0.015, rng.uniform(0, 6), (250, 250, 244), (250, 250, 244))
    canvas.ground(0.66, 0.015, rng.uniform(0, 6), (232, 204, 152), (246, 226, 184))


def _snow(canvas: _Canvas, rng: Random) -> None:
    canvas.gradient((176, 196, 220), (222, 232, 242))
    canvas.ground(0.58, 0.05, rng.uniform(0, 6), (214, 226, 238), (232, 240, 248))
    canvas.ground(0.72, 0.03, rng.uniform(0, 6), (228, 236, 246), (250, 252, 255))
    for _ in range(rng.randint(10, 26)):
        canvas.disc(rng.random(), rng.random(), rng.uniform(0.006, 0.012), (255, 255, 255))


def _sunset(canvas: _Canvas, rng: Random) -> None:
    canvas.gradient((122, 104, 160), (252, 196, 146))
    canvas.disc(rng.uniform(0.2, 0.8), rng.uniform(0.5, 0.62), 0.13, (255, 226, 164))
    _clouds(canvas, rng, (236, 160, 152), 0.1, 0.36)
    canvas.ground(0.68, 0.03, rng.uniform(0, 6), (104, 76, 108), (150, 104, 122))


def _desert(canvas: _Canvas, rng: Random) -> None:
    canvas.gradient((250, 226, 190), (252, 240, 214))
    canvas.disc(rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.22), 0.07, (255, 250, 226))
    canvas.ground(0.58, 0.06, rng.uniform(0, 6), (226, 176, 124), (238, 196, 146))
    canvas.ground(0.74, 0.04, rng.uniform(0, 6), (210, 154, 104), (230, 180, 128))


def _forest(canvas: _Canvas, rng: Random) -> None:
    canvas.gradient((196, 220, 206), (224, 236, 216))
    for row, fill in ((0.62, (156, 192, 172)), (0.72, (116, 162, 140))):
        for _ in range(7):
            x, width, height = rng.random(), rng.uniform(0.07, 0.12), rng.uniform(0.26, 0.44)
            corners = [(x - width, row), (x, row - height), (x + width, row)]
            canvas.draw.polygon([(a * canvas.side, b * canvas.side) for a, b in corners], fill=fill)
        canvas.ground(row - 0.02, 0.01, rng.uniform(0, 6), mix(fill, (70, 110, 90), 0.3), fill)


def _floor(canvas: _Canvas, rng: Random) -> None:
    if rng.random() < 0.7:
        canvas.ground(0.76, 0, 0, (188, 150, 120), (212, 178, 146))


def _dots(canvas: _Canvas, rng: Random) -> None:
    wall = rng.choice(WALL_COLOURS)
    canvas.gradient(mix(wall, (255, 255, 255), 0.25), wall)
    fill = mix(wall, rng.choice(((255, 255, 255), (150, 120, 130))), 0.45)
    for row in range(9):
        for column in range(9):
            canvas.disc((column + 0.5 * (row % 2)) / 8, row / 8, 0.024, fill)
    _floor(canvas, rng)


def _stripes(canvas: _Canvas, rng: Random) -> None:
    wall = rng.choice(WALL_COLOURS)
    canvas.gradient(mix(wall, (255, 255, 255), 0.25), wall)
    fill, s = mix(wall, rng.choice(((255, 255, 255), (160, 130, 140))), 0.4), canvas.side
    for column in range(7):
        canvas.draw.rectangle((column / 7 * s, 0, (column + 0.5) / 7 * s, s), fill=fill)
    _floor(canvas, rng)


def _checks(canvas: _Canvas, rng: Random) -> None:
    wall = rng.choice(WALL_COLOURS)
    canvas.gradient(wall, wall)
    pale, deep, s = mix(wall, (255, 255, 255), 0.4), mix(wall, (160, 130, 140), 0.25), canvas.side
    for row in range(6):
        for column in range(6):
            if (row + column) % 2:
                box = (column / 6 * s, row / 6 * s, (column + 1) / 6 * s, (row + 1) / 6 * s)
                canvas.draw.rectangle(box, fill=pale if row % 2 else deep)
    _floor(canvas, rng)


def _plain(canvas: _Canvas, rng: Random) -> None:
    wall = rng.choice((*WALL_COLOURS, (240, 240, 238)))
    canvas.gradient(mix(wall, (255, 255, 255), 0.6), wall)


BACKDROPS: dict[str, Callable[[_Canvas, Random], None]] = {
    "meadow": _meadow,
    "sea": _sea,
    "night": _night,
    "beach": _beach,
    "snow": _snow,
    "sunset": _sunset,
    "desert": _desert,
    "forest": _forest,
    "dots": _dots,
    "stripes": _stripes,
    "checks": _checks,
    "plain": _plain,
}


def draw_backdrop(name: str, size: int, rng: Random) -> Image.Image:
    """The backdrop of this name, each time a little different, as an RGB square of `size` pixels."""
    canvas = _Canvas(size)
    BACKDROPS[name](canvas, rng)
    return canvas.image.reduce(3)


def draw_wash(top: Rgb, bottom: Rgb, size: int) -> Image.Image:
    """A square of `size` pixels that runs from one colour to another."""
    canvas = _Canvas(size)
    canvas.gradient(top, bottom)
    return canvas.image.reduce(3)
