"""What does the pool's own teacher make of a text, or of a picture? Its embedding, to search the pool with.

Who must not import torch asks a process, which loads the teacher once and answers line by line:

    python -m clipsel_core.pool.making.queries MODEL PRETRAINED WEIGHTS WIDTH IDLE_S

One line of JSON a question on stdin, {"text": "..."} or {"image": "base64"}, and one an answer on stdout: {"vector":
[...]} or {"error": its parts}. The first line says that the teacher is loaded, {"ready": true}, or why not. The process
ends with its input, or when nobody has asked for IDLE_S seconds.
"""

from __future__ import annotations

import base64
import json
import os
import select
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from clipsel_core.errors import ClipselError, PoolFormatError, TeacherError, parts
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
from clipsel_core.pool.teachers import find_teacher

# A model of fewer weights embeds one text or picture no sooner with more threads, which wait for one another for as
# long as others keep the cores busy.
_MOST_WEIGHTS_A_THREAD = 200_000_000


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
    def of_pool(cls, pool: Path, arch: str, width: int) -> Self:
        """Loads the teacher of a pool's embeddings. arch: its name in the pool.

        Raises: TeacherError where the pool does not say which model it is, and as `load`.
        """
        found = find_teacher(pool, arch)
        if found is None:
            remedy = "pools that `embed` made remember it; for others search by a pair, or give --vector"
            raise TeacherError(pool, expected=f"to know which model {arch} is", found="no teachers.json", remedy=remedy)
        return cls.load(*found, width)

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


def serve(model: str, pretrained: str, weights: str, width: str, idle_s: str) -> None:
    """Answers on stdout until there are no more questions; what libraries print there goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**said: object) -> None:
        answers.write(json.dumps(said) + "\n")
        answers.flush()

    try:
        teacher = QueryTeacher.load(model, pretrained or None, weights, int(width))
    except ClipselError as error:
        say(error=parts(error))
        return
    if sum(value.numel() for value in teacher.teacher.model.parameters()) < _MOST_WEIGHTS_A_THREAD:
        torch.set_num_threads(1)
    say(ready=True)
    # One question waits at a time, so that none lies unseen in the buffer behind the one that was read.
    while select.select([sys.stdin], [], [], float(idle_s))[0] and (line := sys.stdin.readline()):
        question: dict[str, str] = json.loads(line)
        try:
            if "text" in question:
                vector = teacher.of_text(question["text"])
            else:
                vector = teacher.of_image(base64.b64decode(question["image"]))
            say(vector=vector.tolist())
        except ClipselError as error:
            say(error=parts(error))


if __name__ == "__main__":
    serve(*sys.argv[1:])
