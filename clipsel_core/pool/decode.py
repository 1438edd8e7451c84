"""What picture do these bytes show, as a model should see it? Or why is it none?"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MOST_PIXELS = 64_000_000
_LONGEST_TO_SHORTEST = 200
_WHITE = (255, 255, 255, 255)


class Unusable(Exception):
    """A picture that cannot be embedded; its text says why, for people."""


def decode(data: bytes, *, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """The picture upright, in RGB, transparency over white; the first frame of an animation, the top 8 bits of 16.

    Raises: Unusable on bytes that are none, or broken, or that would unpack to more than `most_pixels`.
    """
    if not data:
        raise Unusable("empty file")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            _check_size(picture, most_pixels)
            picture.load()
            return _rgb(_upright(picture))
    except Unusable:
        raise
    except UnidentifiedImageError:
        raise Unusable("not an image") from None
    except Image.DecompressionBombError:
        raise Unusable(f"more than {most_pixels:,} pixels") from None
    except MemoryError:
        raise Unusable("too large for this machine's memory") from None
    except Exception as error:
        # Decoders of broken files raise whatever they like; one picture must not end a run over millions.
        raise Unusable(f"broken image: {str(error) or type(error).__name__}"[:200]) from None


def _check_size(picture: Image.Image, most_pixels: int) -> None:
    width, height = picture.size
    if width * height > most_pixels:
        raise Unusable(f"more than {most_pixels:,} pixels")
    if max(width, height) > _LONGEST_TO_SHORTEST * max(1, min(width, height)):
        # A model scales the shorter side to its own: a strip of 30,000 x 1 would grow to gigabytes.
        raise Unusable(f"more than {_LONGEST_TO_SHORTEST} times as long as wide")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        # Broken EXIF says nothing of the picture, which is whole.
        return picture


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        return _eight_bits(picture).convert("RGB")
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, _WHITE), opaque).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey levels of 16 bits or more in 8; floating ones stretched from their least to their greatest."""
    values = np.asarray(picture)
    if picture.mode.startswith("F"):
        values = np.nan_to_num(values.astype(np.float64))
        span = values.max() - values.min()
        return Image.fromarray(np.uint8((values - values.min()) * (255 / span if span else 0)))
    top = 8 if picture.mode.startswith("I;16") or values.max() > 255 else 0
    return Image.fromarray(np.uint8(np.clip(values.astype(np.int64) >> top, 0, 255)))
