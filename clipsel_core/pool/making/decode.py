"""What picture do these bytes show, as a model should see it? Or why is it none?"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from clipsel_core.pool.conventions import MEDIA_TYPES

FORMATS = tuple(MEDIA_TYPES)
"""What to open pictures with: no other format of Pillow's is tried on somebody's bytes."""
MOST_PIXELS = 64_000_000
_LONGEST_TO_SHORTEST = 200
# What turning a picture upright does to it, by what EXIF says: its sides are exchanged, then left and right, top and
# bottom.
_TURNS = {
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
_WHITE = (255, 255, 255, 255)

Box = tuple[float, float, float, float]


class Decoded(NamedTuple):
    """A picture upright in RGB. size: the (width, height) it has upright in full.

    box: left, top, right, bottom of what of the pixels shows it. Decoded at a part of its size, a picture ends within
    the last column and row.
    """

    picture: Image.Image
    size: tuple[int, int]
    box: Box


class Unusable(Exception):
    """A picture that cannot be embedded; its text says why, for people."""


def decode(data: bytes, *, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """The picture upright, in RGB, transparency over white; the first frame of an animation, the top 8 bits of 16.

    Raises: Unusable, as decode_with_size.
    """
    return decode_with_size(data, most_pixels=most_pixels).picture


def decode_with_size(data: bytes, *, most_pixels: int = MOST_PIXELS, enough: int | None = None) -> Decoded:
    """The picture as `decode` gives it, the size it has upright, and where the decoded pixels show it.

    enough: pixels that both of its sides should keep at least; a JPEG much larger is decoded at a half, a quarter or an
    eighth of its size, which takes a fraction of the time. None for all there are.
    Raises: Unusable on bytes that are none, or broken, or that would unpack to more than `most_pixels`.
    """
    if not data:
        raise Unusable("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > most_pixels:
                raise Unusable(f"more than {most_pixels:,} pixels")
            if max(width, height) > _LONGEST_TO_SHORTEST * max(1, min(width, height)):
                # A model scales the shorter side to its own: a strip of 30,000 x 1 would grow to gigabytes.
                raise Unusable(f"more than {_LONGEST_TO_SHORTEST} times as long as wide")
            drafted = picture.draft(None, (enough, enough)) if enough else None
            picture.load()
            turn = _TURNS.get(_orientation(picture))
            box = _turned(drafted[1] if drafted else (0, 0, width, height), picture.size, turn)
            upright = ImageOps.exif_transpose(picture) if turn else picture
            return Decoded(_rgb(upright), (height, width) if turn and turn[0] else (width, height), box)
    except Unusable:
        raise
    except UnidentifiedImageError:
        raise Unusable(f"not an image: none of {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise Unusable(f"more than {most_pixels:,} pixels") from None
    except MemoryError:
        raise Unusable("too large for this machine's memory") from None
    except Exception as error:
        # Decoders of broken files raise whatever they like; one picture must not end a run over millions.
        raise Unusable(f"broken image: {str(error) or type(error).__name__}"[:200]) from None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Broken pictures are listed; Pillow need not also warn of each."""
    with warnings.catch_warnings():
        hush_pillow()
        yield


def hush_pillow() -> None:
    """The same for as long as the process lives."""
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")


def _orientation(picture: Image.Image) -> int:
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Broken EXIF says nothing of the picture, which is whole.
        return 1


def _turned(box: Box, size: tuple[int, int], turn: tuple[bool, bool, bool] | None) -> Box:
    """Where a part of a picture comes to lie when the picture is turned. size: of the picture as it was."""
    if turn is None:
        return box
    swap, across, down = turn
    left, top, right, bottom = (box[1], box[0], box[3], box[2]) if swap else box
    width, height = size[::-1] if swap else size
    left, right = (width - right, width - left) if across else (left, right)
    top, bottom = (height - bottom, height - top) if down else (top, bottom)
    return left, top, right, bottom


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        return _eight_bits(picture).convert("RGB")
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, _WHITE), opaque).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey levels of 16 bits or more in 8; floating ones stretched from their least to their greatest."""
    values = np.asarray(picture)
    if picture.mode.startswith("F"):
        values = np.nan_to_num(values.astype(np.float64))
        span = values.max() - values.min()
        return Image.fromarray(np.uint8((values - values.min()) * (255 / span if span else 0)))
    top = 8 if picture.mode.startswith("I;16") or values.max() > 255 else 0
    return Image.fromarray(np.uint8(np.clip(values.astype(np.int64) >> top, 0, 255)))
