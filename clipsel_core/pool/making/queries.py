"""What does the pool's own teacher make of a text, or of a picture? Its embedding, to search the pool with.

Who must not import torch asks the process that query_server.py is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from clipsel_core.errors import PoolFormatError, TeacherError
from clipsel_core.pool.layout import expect_teacher
from clipsel_core.pool.making.decode import Unusable, decode_with_size, quiet_pillow
from clipsel_core.pool.making.embed import (
    Teacher,
    embed_captions,
    embed_images,
    embed_pixels,
    framing_of,
    load_teacher,
    weights_digest,
)


@dataclass(frozen=True)
class QueryTeacher:
    """A teacher at hand, made sure to be the one that embedded the pool. width: of its embeddings, D."""

    teacher: Teacher
    width: int

    @classmethod
    def load(cls, model: str, pretrained: str | None, weights: str, width: int) -> Self:
        """Loads it. model, pretrained, weights: as find_teacher says.

        Raises: TeacherError where it cannot be loaded, or is not the one it was.
        """
        teacher = load_teacher(model, pretrained=pretrained)
        if weights and weights_digest(teacher) != weights:
            where = " ".join(filter(None, (model, pretrained)))
            expected, remedy = "the weights that embedded the pool", "bring them back"
            raise TeacherError(where, expected=expected, found="others", remedy=remedy)
        return cls(teacher, width)

    @classmethod
    def of_pool(cls, pool: str | os.PathLike[str], arch: str, width: int) -> Self:
        """Loads the teacher of a pool's embeddings. arch: its name in the pool.

        Raises: TeacherError where the pool does not say which model it is, and as `load`.
        """
        remedy = "pools that `embed` made remember it; for others search by a pair, or give --vector"
        return cls.load(*expect_teacher(pool, arch, remedy), width)

    def of_text(self, text: str) -> np.ndarray:
        """A text as the teacher embeds captions: (D,) float32, unit length. Raises TeacherError on another width."""
        return self._checked(embed_captions(self.teacher, [text]))

    def of_image(self, data: bytes, where: object = "the picture") -> np.ndarray:
        """An encoded picture as `embed` embeds it: (D,) float32, unit length. where: what an error calls it.

        Raises: PoolFormatError on bytes that are none, or broken, or huge; TeacherError on another width.
        """
        framing = framing_of(self.teacher)
        try:
            with quiet_pillow():
                decoded = decode_with_size(data, enough=framing.enough if framing else None)
                pixels = torch.from_numpy(framing(decoded.picture, decoded.box))[None] if framing else None
        except Unusable as error:
            raise PoolFormatError(where, expected="a picture", found=str(error)) from error
        found = embed_images(self.teacher, [decoded.picture]) if pixels is None else embed_pixels(self.teacher, pixels)
        return self._checked(found)

    def _checked(self, rows: np.ndarray) -> np.ndarray:
        (row,) = rows
        if row.shape != (self.width,):
            expected = f"embeddings of width {self.width}, as the pool's"
            raise TeacherError("the teacher", expected=expected, found=f"{len(row)}")
        return row.astype(np.float32)
