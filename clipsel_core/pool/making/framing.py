"""How does a teacher want a picture cut and scaled? In Pillow and numpy alone, so that workers start quickly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from clipsel_core.pool.making.decode import Box


@dataclass(frozen=True)
class Framing:
    """A picture of one size. width, height: in pixels. squash: scale both sides to it, whatever their ratio.

    Else the shorter side is scaled and the middle cut out. resample: Pillow's filter. The same pixels as torchvision's
    Resize and CenterCrop on a Pillow image; with `quick` within two levels of 255, see quick.py.
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
        left, top, right, bottom = box = box or (0, 0, *picture.size)
        size = (self.width, self.height) if self.squash else self._covering(right - left, bottom - top)
        if (0, 0, *size) != box or picture.size != size:
            if self.quick and (0, 0, *picture.size) == box and (pixels := self._quickly(picture, size)) is not None:
                return self._middle(pixels)
            picture = picture.resize(size, Image.Resampling(self.resample), box=box)
        return self._middle(np.array(picture))

    def _quickly(self, picture: Image.Image, size: tuple[int, int]) -> np.ndarray | None:
        from clipsel_core.pool.making import quick

        return quick.scaled(picture, size, self.resample) if quick.scales(self.resample) else None

    def _covering(self, width: float, height: float) -> tuple[int, int]:
        if width <= height:
            return self.width, int(self.width * height / width)
        return int(self.height * width / height), self.height

    def _middle(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        left, top = round((width - self.width) / 2.0), round((height - self.height) / 2.0)
        return np.ascontiguousarray(pixels[top : top + self.height, left : left + self.width])
