"""What picture do these bytes show, as a model should see it? Or why is it none?"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MOST_PIXELS = 64_000_000
_LONGEST_TO_SHORTEST = 200
_ORIENTATION = 0x0112
_WHITE = (255, 255, 255, 255)


class Unusable(Exception):
    """A picture that cannot be embedded; its text says why, for people."""


def decode(data: bytes, *, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """The picture upright, in RGB, transparency over white; the first frame of an animation, the top 8 bits of 16.

    Raises: Unusable, as decode_with_size.
    """
    return decode_with_size(data, most_pixels=most_pixels)[0]


def decode_with_size(
    data: bytes, *, most_pixels: int = MOST_PIXELS, enough: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """The picture as `decode` gives it, and the size it has upright.

    enough: pixels that both of its sides should keep at least; a JPEG much larger is decoded at a half, a quarter or an
    eighth of its size, which takes a fraction of the time. None for all there are.
    Raises: Unusable on bytes that are none, or broken, or that would unpack to more than `most_pixels`.
    """
    if not data:
        raise Unusable("empty file")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            _check_size(picture, most_pixels)
            size = picture.size
            if enough:
                picture.draft(None, (enough, enough))
            picture.load()
            return _rgb(_upright(picture)), size[::-1] if _lies(picture) else size
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


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Broken pictures are listed; Pillow need not also warn of each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")
        yield


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


def _lies(picture: Image.Image) -> bool:
    """Whether EXIF says that its width is to be its height."""
    try:
        return picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception:
        return False


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
