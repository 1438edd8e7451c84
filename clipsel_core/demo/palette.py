"""Which colours does the demo world have, and what do their lighter and darker tones look like?"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from random import Random

Rgb = tuple[int, int, int]

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
