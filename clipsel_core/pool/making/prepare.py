"""How does a pair become what a teacher takes: pixels and tokens? This is what the workers do.

Imports no torch unless it is needed, so that a worker starts in a fraction of a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from clipsel_core.pool.making.decode import Box, Unusable, decode_with_size
from clipsel_core.pool.places import Place

# Pillow's filters that torch has, too.
_TORCH_FILTERS = {Image.Resampling.BICUBIC: "bicubic", Image.Resampling.BILINEAR: "bilinear"}
# Characters of a caption that are tokenized, for each token that the teacher takes. Of a word of 100 kB the tokenizer
# would otherwise join letters for hours, to keep 77 tokens of it.
_CHARACTERS_A_TOKEN = 32


class Wanted(NamedTuple):
    """What a worker needs of a record. caption: where it is to be tokenized.

    slot: where its pixels go. lent: bytes of its encoded image that lie there, -1 where it does not.
    """

    file: str
    offset: int
    length: int | None
    data: bytes | None
    caption: str = ""
    slot: int = -1
    lent: int = -1


class Ready(NamedTuple):
    """What a worker found. size: bytes of the encoded image. width, height: in full. data: the encoded image, if asked.

    pixels: (H, W, 3) uint8, or (3, H, W) float32 of a teacher's own preprocessing; None where they lie in a slot.
    tokens: of the caption, (L,) int32 as bytes, where it was given.
    """

    size: int
    width: int
    height: int
    sha256: str
    data: bytes | None
    pixels: np.ndarray | None
    tokens: bytes | None = None


@dataclass(frozen=True)
class Preparer:
    """Reads, decodes and frames images.

    frame: gives the pixels of the part of an RGB picture that is to be seen. enough: see Framing.
    keep: hand the encoded images on.
    """

    base: Place
    frame: Callable[[Image.Image, Box], np.ndarray]
    enough: int | None
    most_pixels: int
    keep: bool = False

    def __call__(self, wanted: Wanted, slot: np.ndarray | None = None) -> Ready | str:
        """An image as the teacher takes it, its pixels in the slot where one is given; or why it is rejected."""
        data = wanted.data
        try:
            if data is None:
                data = (self.base / wanted.file).read(wanted.offset, wanted.length)
            picture, (width, height), box = decode_with_size(data, most_pixels=self.most_pixels, enough=self.enough)
            pixels = self.frame(picture, box)
        except Unusable as error:
            return str(error)
        except OSError as error:
            return why_unread(error)
        if slot is not None:
            slot[...] = pixels
        sha256 = hashlib.sha256(data).hexdigest()
        return Ready(len(data), width, height, sha256, data if self.keep else None, pixels if slot is None else None)


def why_unread(error: OSError) -> str:
    """Why an image cannot be read, for people."""
    return "no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read: {error.strerror or error}"


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
            pixels = _scaled_by_torch(picture, size, _TORCH_FILTERS[Image.Resampling(self.resample)])
        else:
            pixels = np.array(picture.resize(size, Image.Resampling(self.resample), box=box))
        left, top = round((size[0] - self.width) / 2.0), round((size[1] - self.height) / 2.0)
        return np.ascontiguousarray(pixels[top : top + self.height, left : left + self.width])


def _scaled_by_torch(picture: Image.Image, size: tuple[int, int], mode: str) -> np.ndarray:
    """An RGB picture at another size, (width, height), as (height, width, 3) uint8; in whole numbers, as Pillow."""
    import torch

    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(pixels, (size[1], size[0]), mode=mode, antialias=True)
    return small[0].permute(1, 2, 0).contiguous().numpy()


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
