"""How does an encoded image become what a teacher takes: decoded and framed? Or why is it none?

Imports no torch unless it is needed, so that a worker starts in a fraction of a second.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

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
# Pillow's filters that torch has, too.
_TORCH_FILTERS: dict[int, str] = {Image.Resampling.BICUBIC: "bicubic", Image.Resampling.BILINEAR: "bilinear"}
# Characters of a caption that are tokenized, for each token that the teacher takes. Of a word of 100 kB the tokenizer
# would otherwise join letters for hours, to keep 77 tokens of it.
_CHARACTERS_A_TOKEN = 32

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
            return _upright(picture, (width, height), drafted[1] if drafted else (0, 0, width, height))
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


@dataclass(frozen=True)
class Framing:
    """How a teacher wants a picture cut and scaled. width, height: in pixels.

    squash: scale both sides to it, whatever their ratio; else the shorter side is scaled and the middle cut out.
    resample: Pillow's filter. The same pixels as torchvision's Resize and CenterCrop on a Pillow image.
    quick: scale with torch's vector instructions, in a quarter of Pillow's time and within two levels of 255. For
        workers that feed a GPU: importing torch takes seconds, which does not pay next to a teacher on the same cores.
    """

    width: int
    height: int
    squash: bool
    resample: int
    quick: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a picture's pixels."""
        return self.height, self.width, 3

    @property
    def enough(self) -> int:
        """Pixels of the shorter side above which a JPEG may be decoded at less than its own size.

        Two and a half times the teacher's. Scaled from there, pictures look the same to it: over 334 photographs of 500
        pixels, the cosine with the embedding of the whole picture was 0.99984 or more, with a trained teacher.
        """
        return 5 * max(self.width, self.height) // 2

    def __call__(self, picture: Image.Image, box: Box | None = None) -> np.ndarray:
        """The picture as (height, width, 3) uint8. picture: RGB. box: what of it is to be seen, all where None."""
        whole = (0, 0, *picture.size)
        left, top, right, bottom = box = box or whole
        width, height = right - left, bottom - top
        if self.squash:
            size = self.width, self.height
        elif width <= height:
            size = self.width, int(self.width * height / width)
        else:
            size = int(self.height * width / height), self.height
        if box == whole == (0, 0, *size):
            pixels = np.array(picture)
        elif self.quick and box == whole and self.resample in _TORCH_FILTERS:
            import torch

            whole_picture = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
            small = torch.nn.functional.interpolate(
                whole_picture, (size[1], size[0]), mode=_TORCH_FILTERS[self.resample], antialias=True
            )
            pixels = small[0].permute(1, 2, 0).contiguous().numpy()
        else:
            pixels = np.array(picture.resize(size, Image.Resampling(self.resample), box=box))
        left, top = round((size[0] - self.width) / 2.0), round((size[1] - self.height) / 2.0)
        return np.ascontiguousarray(pixels[top : top + self.height, left : left + self.width])


@dataclass(frozen=True)
class Tokens:
    """A teacher's tokenizer, which captions of any length can be given."""

    tokenizer: Callable[[Sequence[str]], Any]

    def cut(self, caption: str) -> str:
        """As much of a caption as the teacher can see anything of."""
        return caption[: _CHARACTERS_A_TOKEN * getattr(self.tokenizer, "context_length", 77)]

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """(N, L) int32, L the teacher's context."""
        return np.asarray(self.tokenizer([self.cut(caption) for caption in captions])).astype(np.int32)

    @property
    def travels(self) -> bool:
        """Whether it can be handed to a process."""
        try:
            return bool(ForkingPickler.dumps(self.tokenizer))
        except Exception:
            # Whatever cannot be sent, such as a function made within another, says so in a way of its own.
            return False


def _upright(picture: Image.Image, size: tuple[int, int], box: Box) -> Decoded:
    """A picture turned as EXIF says. size: in full. box: what of its pixels shows it."""
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        # Broken EXIF says nothing of the picture, which is whole.
        turn = None
    if turn is None:
        return Decoded(_rgb(picture), size, box)
    swap, across, down = turn
    left, top, right, bottom = (box[1], box[0], box[3], box[2]) if swap else box
    width, height = picture.size[::-1] if swap else picture.size
    left, right = (width - right, width - left) if across else (left, right)
    top, bottom = (height - bottom, height - top) if down else (top, bottom)
    turned = _rgb(ImageOps.exif_transpose(picture))
    return Decoded(turned, size[::-1] if swap else size, (left, top, right, bottom))


def _rgb(picture: Image.Image) -> Image.Image:
    """Grey levels of 16 bits or more become 8; floating ones are stretched from their least to their greatest."""
    if picture.mode.startswith("F"):
        values = np.nan_to_num(np.asarray(picture).astype(np.float64))
        span = values.max() - values.min()
        return Image.fromarray(np.uint8((values - values.min()) * (255 / span if span else 0))).convert("RGB")
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        top = 8 if picture.mode.startswith("I;16") or values.max() > 255 else 0
        return Image.fromarray(np.uint8(np.clip(values.astype(np.int64) >> top, 0, 255))).convert("RGB")
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, _WHITE), opaque).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")
