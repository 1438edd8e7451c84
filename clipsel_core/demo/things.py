"""What does each kind of thing look like? One drawing a kind, in a unit square with y pointing down."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]
Point = tuple[float, float]

COLOURS: dict[str, Rgb] = {
    "red": (219, 62, 60),
    "orange": (240, 139, 48),
    "yellow": (247, 205, 70),
    "green": (92, 168, 90),
    "blue": (66, 122, 204),
    "purple": (136, 92, 182),
    "pink": (240, 138, 172),
    "brown": (142, 98, 68),
    "white": (244, 241, 234),
    "grey": (132, 138, 148),
}
LIVING = ("bird", "butterfly", "cat", "fish", "flower", "mushroom", "snail", "tree", "turtle")
MADE = ("balloon", "boat", "car", "cup", "house", "kite", "lamp", "rocket", "umbrella")
INK: Rgb = (52, 48, 62)
WOOD: Rgb = (128, 90, 64)
CREAM: Rgb = (250, 240, 220)
LEAF: Rgb = (96, 156, 88)
SKIN: Rgb = (222, 190, 148)
_STEPS = 10


@dataclass(frozen=True)
class Tones:
    """One colour as a drawing uses it: the colour itself, a lighter and a darker tone, and one to set it off."""

    base: Rgb
    light: Rgb
    dark: Rgb
    contrast: Rgb


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """Blend two colours; `share` in [0, 1] is how much of the second goes in.

    >>> mix((0, 0, 0), (200, 100, 50), 0.5)
    (100, 50, 25)
    """
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def tones(colour: str, rng: Random) -> Tones:
    """The tones of a named colour, each time a little different in hue, saturation and brightness."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in COLOURS[colour]))
    hue = (hue + rng.uniform(-0.006, 0.006)) % 1
    saturation = min(1.0, saturation * rng.uniform(0.94, 1.06))
    value = min(1.0, value * rng.uniform(0.94, 1.05))
    red, green, blue = (round(channel * 255) for channel in colorsys.hsv_to_rgb(hue, saturation, value))
    base = (red, green, blue)
    contrast = (250, 245, 235) if colour != "white" else (214, 120, 104)
    shade = (38, 34, 66) if colour != "white" else (120, 124, 150)
    return Tones(base, mix(base, (255, 255, 255), 0.42), mix(base, shade, 0.32), contrast)


class Pen:
    """Draws shapes given in unit coordinates on a square image."""

    def __init__(self, image: Image.Image) -> None:
        self.image, self.size = image, image.width
        self._draw = ImageDraw.Draw(image)

    def ellipse(self, x: float, y: float, width: float, height: float, fill: Rgb) -> None:
        """A filled ellipse with its centre at (x, y) and these half-axes."""
        s = self.size
        self._draw.ellipse(((x - width) * s, (y - height) * s, (x + width) * s, (y + height) * s), fill=fill)

    def disc(self, x: float, y: float, radius: float, fill: Rgb) -> None:
        """A filled circle."""
        self.ellipse(x, y, radius, radius, fill)

    def polygon(self, points: Sequence[Point], fill: Rgb | int) -> None:
        """A filled polygon with straight sides."""
        self._draw.polygon([(x * self.size, y * self.size) for x, y in points], fill=fill)

    def blob(self, points: Sequence[Point], fill: Rgb) -> None:
        """A filled shape whose outline runs smoothly through the points."""
        self.polygon(_smooth(points, closed=True), fill)

    def line(self, points: Sequence[Point], width: float, fill: Rgb) -> None:
        """A line of this width that runs smoothly through the points, with round ends."""
        path = _smooth(points, closed=False) if len(points) > 2 else list(points)
        scaled = [(x * self.size, y * self.size) for x, y in path]
        self._draw.line(scaled, fill=fill, width=max(1, round(width * self.size)), joint="curve")
        for x, y in (points[0], points[-1]):
            self.disc(x, y, width / 2, fill)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Rgb, radius: float = 0.0) -> None:
        """A filled rectangle with rounded corners."""
        corners = (left * self.size, top * self.size, right * self.size, bottom * self.size)
        self._draw.rounded_rectangle(corners, radius=radius * self.size, fill=fill)

    def pie(self, x: float, y: float, width: float, height: float, start: float, end: float, fill: Rgb) -> None:
        """A sector of an ellipse between two angles in degrees, clockwise from three o'clock."""
        s = self.size
        self._draw.pieslice(
            ((x - width) * s, (y - height) * s, (x + width) * s, (y + height) * s), start, end, fill=fill
        )

    def eye(self, x: float, y: float, radius: float = 0.028) -> None:
        """A dark eye with a light in it."""
        self.disc(x, y, radius, INK)
        self.disc(x + radius * 0.35, y - radius * 0.35, radius * 0.35, (255, 255, 255))

    def gradient(self, top: Rgb, bottom: Rgb, mask: Image.Image | None = None) -> None:
        """Fill the image, or what the mask leaves of it, from the top colour to the bottom colour."""
        ramp = Image.linear_gradient("L").resize(self.image.size)
        above, below = (Image.new("RGB", ramp.size, colour) for colour in (top, bottom))
        self.image.paste(Image.composite(below, above, ramp), mask=mask)


def _smooth(points: Sequence[Point], *, closed: bool) -> list[Point]:
    """Points of the Catmull-Rom curve through the given ones, _STEPS from each to the next."""
    count = len(points)
    at = (lambda i: points[i % count]) if closed else (lambda i: points[min(max(i, 0), count - 1)])
    path = []
    for i in range(count if closed else count - 1):
        before, start, end, after = at(i - 1), at(i), at(i + 1), at(i + 2)
        for step in range(_STEPS):
            t = step / _STEPS
            x, y = (
                b + 0.5 * ((c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - 3 * c + d - a) * t**3)
                for a, b, c, d in zip(before, start, end, after, strict=True)
            )
            path.append((x, y))
    return path if closed else [*path, points[-1]]


class _Things(Pen):
    """A drawing for each kind of thing."""

    def bird(self, tone: Tones) -> None:
        self.polygon([(0.06, 0.38), (0.32, 0.46), (0.26, 0.62), (0.04, 0.56)], tone.dark)
        for x in (0.46, 0.56):
            self.line([(x, 0.74), (x, 0.92)], 0.03, (226, 148, 62))
            self.line([(x - 0.04, 0.92), (x + 0.06, 0.92)], 0.03, (226, 148, 62))
        self.blob([(0.2, 0.52), (0.42, 0.34), (0.7, 0.42), (0.78, 0.62), (0.58, 0.8), (0.32, 0.74)], tone.base)
        self.ellipse(0.71, 0.32, 0.185, 0.18, tone.base)
        self.blob([(0.56, 0.62), (0.7, 0.56), (0.74, 0.66), (0.6, 0.78), (0.48, 0.76)], tone.light)
        self.blob([(0.2, 0.48), (0.44, 0.44), (0.56, 0.54), (0.42, 0.68), (0.24, 0.62)], tone.dark)
        self.polygon([(0.87, 0.27), (0.99, 0.35), (0.86, 0.4)], (240, 160, 60))
        self.eye(0.76, 0.29, 0.035)

    def butterfly(self, tone: Tones) -> None:
        for side in (-1, 1):
            across = [
                (0.5 + side * x, y) for x, y in ((0.03, 0.46), (0.2, 0.12), (0.42, 0.14), (0.44, 0.38), (0.22, 0.54))
            ]
            below = [
                (0.5 + side * x, y) for x, y in ((0.03, 0.5), (0.28, 0.54), (0.36, 0.72), (0.24, 0.88), (0.1, 0.76))
            ]
            self.blob(below, tone.dark)
            self.blob(across, tone.base)
            self.ellipse(0.5 + side * 0.3, 0.28, 0.075, 0.085, tone.light)
            self.ellipse(0.5 + side * 0.22, 0.7, 0.055, 0.06, tone.light)
            self.line([(0.5, 0.3), (0.5 + side * 0.06, 0.18), (0.5 + side * 0.13, 0.1)], 0.02, INK)
        self.ellipse(0.5, 0.53, 0.038, 0.25, INK)
        self.disc(0.5, 0.28, 0.05, INK)

    def cat(self, tone: Tones) -> None:
        self.line([(0.66, 0.86), (0.9, 0.82), (0.9, 0.58), (0.8, 0.5)], 0.085, tone.dark)
        self.blob([(0.3, 0.94), (0.28, 0.66), (0.42, 0.46), (0.6, 0.48), (0.74, 0.7), (0.74, 0.94)], tone.base)
        self.ellipse(0.46, 0.78, 0.1, 0.16, tone.light)
        for side in (-1, 1):
            x = 0.44 + side * 0.14
            self.polygon([(x - 0.1, 0.3), (x + side * 0.08, 0.06), (x + 0.1, 0.28)], tone.base)
            self.polygon([(x - 0.05, 0.27), (x + side * 0.06, 0.13), (x + 0.06, 0.26)], tone.dark)
        self.ellipse(0.44, 0.38, 0.24, 0.2, tone.base)
        for side in (-1, 1):
            self.eye(0.44 + side * 0.095, 0.36, 0.036)
            for tilt in (-0.03, 0.03):
                self.line([(0.44 + side * 0.08, 0.45), (0.44 + side * 0.3, 0.45 + tilt)], 0.01, INK)
        self.polygon([(0.41, 0.43), (0.47, 0.43), (0.44, 0.47)], (214, 112, 122))
        for x in (0.38, 0.52):
            self.ellipse(x, 0.93, 0.07, 0.045, tone.light)

    def fish(self, tone: Tones) -> None:
        self.blob([(0.26, 0.5), (0.04, 0.24), (0.1, 0.5), (0.04, 0.76)], tone.dark)
        self.blob([(0.42, 0.3), (0.52, 0.12), (0.68, 0.2), (0.66, 0.34)], tone.dark)
        self.blob([(0.48, 0.7), (0.5, 0.86), (0.62, 0.72)], tone.dark)
        self.blob([(0.2, 0.5), (0.4, 0.29), (0.7, 0.27), (0.95, 0.5), (0.7, 0.73), (0.4, 0.71)], tone.base)
        self.blob([(0.36, 0.64), (0.62, 0.62), (0.86, 0.58), (0.7, 0.71), (0.44, 0.71)], tone.light)
        for x in (0.4, 0.54):
            self.line([(x, 0.33), (x + 0.05, 0.5), (x, 0.67)], 0.045, tone.contrast)
        self.disc(0.8, 0.44, 0.06, (255, 255, 255))
        self.eye(0.81, 0.44, 0.035)

    def flower(self, tone: Tones) -> None:
        self.line([(0.5, 0.4), (0.53, 0.7), (0.5, 0.97)], 0.05, LEAF)
        self.blob([(0.51, 0.84), (0.64, 0.64), (0.84, 0.62), (0.72, 0.8)], LEAF)
        self.blob([(0.51, 0.9), (0.38, 0.72), (0.18, 0.7), (0.3, 0.86)], mix(LEAF, INK, 0.15))
        for petal in range(8):
            angle = math.tau * petal / 8
            fill = tone.base if petal % 2 else tone.dark
            self.ellipse(0.5 + 0.2 * math.cos(angle), 0.33 + 0.2 * math.sin(angle), 0.125, 0.125, fill)
        self.disc(0.5, 0.33, 0.2, tone.base)
        self.disc(0.5, 0.33, 0.12, (250, 208, 84) if tone.base[2] > 110 else (120, 78, 52))

    def mushroom(self, tone: Tones) -> None:
        self.blob([(0.38, 0.5), (0.62, 0.5), (0.64, 0.76), (0.7, 0.93), (0.3, 0.93), (0.36, 0.76)], CREAM)
        self.ellipse(0.5, 0.56, 0.3, 0.07, mix(CREAM, INK, 0.22))
        self.blob(
            [(0.08, 0.54), (0.14, 0.28), (0.38, 0.1), (0.62, 0.1), (0.86, 0.28), (0.92, 0.54), (0.5, 0.6)], tone.base
        )
        self.blob([(0.08, 0.54), (0.3, 0.54), (0.7, 0.54), (0.92, 0.54), (0.5, 0.61)], tone.dark)
        for x, y, radius in ((0.3, 0.36, 0.07), (0.52, 0.22, 0.08), (0.72, 0.38, 0.065), (0.5, 0.44, 0.045)):
            self.ellipse(x, y, radius, radius * 0.85, tone.contrast)

    def snail(self, tone: Tones) -> None:
        self.blob([(0.04, 0.88), (0.3, 0.74), (0.66, 0.74), (0.78, 0.5), (0.94, 0.5), (0.94, 0.68), (0.8, 0.9)], SKIN)
        for x in (0.84, 0.93):
            self.line([(x - 0.02, 0.52), (x + 0.02, 0.34)], 0.028, SKIN)
            self.disc(x + 0.02, 0.33, 0.028, INK)
        self.ellipse(0.42, 0.5, 0.33, 0.32, tone.base)
        spiral = [
            (0.42 + 0.26 * (1 - t) * math.cos(12 * t), 0.5 + 0.25 * (1 - t) * math.sin(12 * t))
            for t in (i / 14 for i in range(14))
        ]
        self.line(spiral, 0.05, tone.dark)
        self.ellipse(0.32, 0.33, 0.07, 0.05, tone.light)

    def tree(self, tone: Tones) -> None:
        self.polygon([(0.44, 0.55), (0.56, 0.55), (0.6, 0.96), (0.4, 0.96)], WOOD)
        self.line([(0.5, 0.7), (0.62, 0.56)], 0.04, WOOD)
        for x, y, radius in ((0.3, 0.5, 0.2), (0.7, 0.5, 0.2), (0.5, 0.56, 0.2)):
            self.ellipse(x, y, radius, radius * 0.9, tone.dark)
        for x, y, radius in ((0.34, 0.36, 0.2), (0.66, 0.36, 0.2), (0.5, 0.24, 0.21), (0.5, 0.44, 0.2)):
            self.ellipse(x, y, radius, radius * 0.9, tone.base)
        for x, y, radius in ((0.42, 0.2, 0.08), (0.3, 0.34, 0.06), (0.6, 0.34, 0.07)):
            self.ellipse(x, y, radius, radius * 0.75, tone.light)

    def turtle(self, tone: Tones) -> None:
        body = (146, 176, 110)
        for x in (0.26, 0.62):
            self.blob([(x - 0.09, 0.7), (x + 0.1, 0.7), (x + 0.08, 0.92), (x - 0.1, 0.92)], mix(body, INK, 0.15))
        self.polygon([(0.04, 0.76), (0.2, 0.62), (0.22, 0.76)], body)
        self.blob([(0.7, 0.66), (0.8, 0.42), (0.94, 0.42), (0.97, 0.56), (0.84, 0.76)], body)
        self.eye(0.88, 0.5, 0.03)
        self.blob([(0.12, 0.72), (0.2, 0.42), (0.44, 0.26), (0.66, 0.42), (0.76, 0.72), (0.44, 0.78)], tone.base)
        self.blob([(0.12, 0.7), (0.44, 0.71), (0.76, 0.7), (0.7, 0.78), (0.2, 0.78)], tone.dark)
        for x, y in ((0.3, 0.52), (0.45, 0.4), (0.46, 0.6), (0.6, 0.54)):
            self.ellipse(x, y, 0.068, 0.06, tone.light)

    def balloon(self, tone: Tones) -> None:
        self.line([(0.5, 0.7), (0.45, 0.8), (0.54, 0.88), (0.48, 0.98)], 0.018, INK)
        self.polygon([(0.5, 0.66), (0.57, 0.75), (0.43, 0.75)], tone.dark)
        self.blob([(0.5, 0.03), (0.78, 0.16), (0.8, 0.42), (0.5, 0.71), (0.2, 0.42), (0.22, 0.16)], tone.base)
        self.blob([(0.74, 0.22), (0.76, 0.42), (0.52, 0.66), (0.62, 0.48)], tone.dark)
        self.blob([(0.33, 0.16), (0.43, 0.12), (0.38, 0.26), (0.29, 0.34)], tone.light)

    def boat(self, tone: Tones) -> None:
        self.line([(0.48, 0.06), (0.48, 0.66)], 0.035, WOOD)
        self.blob([(0.53, 0.08), (0.74, 0.3), (0.86, 0.56), (0.53, 0.58)], tone.contrast)
        self.blob([(0.43, 0.16), (0.43, 0.58), (0.18, 0.58), (0.3, 0.34)], tone.light)
        self.polygon([(0.48, 0.04), (0.64, 0.08), (0.48, 0.14)], tone.base)
        self.polygon([(0.04, 0.64), (0.96, 0.64), (0.8, 0.88), (0.2, 0.88)], tone.base)
        self.polygon([(0.04, 0.64), (0.96, 0.64), (0.92, 0.71), (0.08, 0.71)], tone.dark)
        for x in (0.34, 0.5, 0.66):
            self.disc(x, 0.79, 0.032, tone.contrast)

    def car(self, tone: Tones) -> None:
        self.blob([(0.2, 0.52), (0.3, 0.28), (0.5, 0.23), (0.68, 0.3), (0.8, 0.52)], tone.base)
        self.polygon([(0.29, 0.5), (0.35, 0.33), (0.47, 0.3), (0.47, 0.5)], (206, 230, 240))
        self.polygon([(0.52, 0.5), (0.52, 0.3), (0.64, 0.34), (0.71, 0.5)], (186, 216, 232))
        self.box(0.04, 0.48, 0.96, 0.76, tone.base, 0.1)
        self.box(0.04, 0.64, 0.96, 0.76, tone.dark, 0.06)
        self.ellipse(0.92, 0.57, 0.035, 0.045, (255, 240, 170))
        self.line([(0.5, 0.55), (0.56, 0.55)], 0.02, tone.dark)
        for x in (0.25, 0.75):
            self.disc(x, 0.76, 0.125, INK)
            self.disc(x, 0.76, 0.06, (206, 208, 214))

    def cup(self, tone: Tones) -> None:
        self.ellipse(0.74, 0.56, 0.19, 0.17, tone.dark)
        self.ellipse(0.74, 0.56, 0.11, 0.09, (246, 240, 232))
        self.ellipse(0.46, 0.88, 0.4, 0.06, mix(tone.dark, INK, 0.2))
        self.blob([(0.14, 0.4), (0.78, 0.4), (0.72, 0.74), (0.58, 0.88), (0.34, 0.88), (0.2, 0.74)], tone.base)
        self.ellipse(0.46, 0.4, 0.33, 0.085, tone.light)
        self.ellipse(0.46, 0.41, 0.27, 0.06, (104, 66, 46))
        self.box(0.2, 0.58, 0.72, 0.66, tone.contrast, 0.03)
        for x in (0.36, 0.54):
            self.line([(x, 0.28), (x + 0.05, 0.2), (x - 0.02, 0.13), (x + 0.03, 0.05)], 0.035, (226, 228, 232))

    def house(self, tone: Tones) -> None:
        self.box(0.68, 0.1, 0.79, 0.36, mix(tone.dark, INK, 0.3))
        self.box(0.16, 0.42, 0.84, 0.94, tone.base, 0.02)
        self.polygon([(0.04, 0.46), (0.5, 0.08), (0.96, 0.46)], tone.dark)
        self.box(0.43, 0.64, 0.6, 0.94, WOOD, 0.03)
        self.disc(0.565, 0.8, 0.018, (250, 214, 110))
        for x in (0.23, 0.66):
            self.box(x, 0.56, x + 0.13, 0.72, CREAM, 0.015)
            self.box(x + 0.02, 0.58, x + 0.11, 0.7, (150, 198, 222), 0.01)
        self.disc(0.5, 0.31, 0.065, CREAM)
        self.disc(0.5, 0.31, 0.045, (150, 198, 222))

    def kite(self, tone: Tones) -> None:
        self.line([(0.42, 0.62), (0.5, 0.74), (0.38, 0.84), (0.5, 0.97)], 0.02, INK)
        for x, y in ((0.49, 0.74), (0.4, 0.85)):
            self.polygon([(x, y), (x - 0.09, y - 0.05), (x - 0.08, y + 0.06)], tone.light)
            self.polygon([(x, y), (x + 0.09, y - 0.05), (x + 0.08, y + 0.06)], tone.dark)
        top, right, bottom, left, centre = (0.56, 0.03), (0.88, 0.3), (0.42, 0.66), (0.16, 0.2), (0.52, 0.25)
        self.polygon([top, right, centre], tone.base)
        self.polygon([right, bottom, centre], tone.dark)
        self.polygon([bottom, left, centre], tone.base)
        self.polygon([left, top, centre], tone.light)
        self.line([top, bottom], 0.014, tone.contrast)
        self.line([left, right], 0.014, tone.contrast)

    def lamp(self, tone: Tones) -> None:
        self.line([(0.5, 0.5), (0.5, 0.88)], 0.055, (186, 150, 96))
        self.ellipse(0.5, 0.91, 0.22, 0.055, (156, 120, 78))
        self.ellipse(0.5, 0.54, 0.26, 0.07, (255, 236, 160))
        self.polygon([(0.34, 0.1), (0.66, 0.1), (0.86, 0.54), (0.14, 0.54)], tone.base)
        self.polygon([(0.44, 0.1), (0.56, 0.1), (0.62, 0.54), (0.38, 0.54)], tone.light)
        self.polygon([(0.155, 0.5), (0.845, 0.5), (0.865, 0.56), (0.135, 0.56)], tone.dark)
        self.line([(0.72, 0.56), (0.72, 0.7)], 0.014, INK)
        self.disc(0.72, 0.71, 0.025, INK)

    def rocket(self, tone: Tones) -> None:
        self.blob([(0.42, 0.78), (0.58, 0.78), (0.6, 0.88), (0.5, 1.0), (0.4, 0.88)], (246, 158, 60))
        self.blob([(0.46, 0.78), (0.54, 0.78), (0.55, 0.85), (0.5, 0.93), (0.45, 0.85)], (255, 226, 120))
        for side in (-1, 1):
            fin = [(0.5 + side * x, y) for x, y in ((0.12, 0.52), (0.33, 0.72), (0.33, 0.88), (0.12, 0.76))]
            self.polygon(fin, tone.dark)
        self.blob(
            [(0.5, 0.02), (0.66, 0.24), (0.68, 0.54), (0.62, 0.79), (0.38, 0.79), (0.32, 0.54), (0.34, 0.24)], tone.base
        )
        self.blob([(0.5, 0.02), (0.61, 0.15), (0.645, 0.23), (0.5, 0.26), (0.355, 0.23), (0.39, 0.15)], tone.dark)
        self.disc(0.5, 0.42, 0.105, tone.contrast)
        self.disc(0.5, 0.42, 0.075, (128, 186, 216))
        self.disc(0.475, 0.395, 0.025, (230, 244, 250))

    def umbrella(self, tone: Tones) -> None:
        self.line([(0.5, 0.2), (0.5, 0.8), (0.54, 0.92), (0.63, 0.92), (0.67, 0.82)], 0.045, WOOD)
        self.line([(0.5, 0.04), (0.5, 0.14)], 0.035, WOOD)
        self.pie(0.5, 0.56, 0.46, 0.46, 180, 360, tone.base)
        self.pie(0.5, 0.56, 0.31, 0.46, 180, 360, tone.light)
        self.pie(0.5, 0.56, 0.16, 0.46, 180, 360, tone.base)
        for x, fill in ((0.115, tone.dark), (0.27, tone.dark), (0.42, tone.dark), (0.58, tone.dark), (0.73, tone.dark)):
            self.pie(x, 0.56, 0.077, 0.05, 180, 360, fill)
        self.pie(0.885, 0.56, 0.077, 0.05, 180, 360, tone.dark)


def draw_thing(kind: str, tone: Tones, size: int) -> Image.Image:
    """One thing of this kind on a transparent square of `size` pixels, not anti-aliased (draw larger and shrink)."""
    things = _Things(Image.new("RGBA", (size, size), (0, 0, 0, 0)))
    getattr(things, kind)(tone)
    return things.image
