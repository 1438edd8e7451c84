"""What does the pool's own teacher make of a text? Its embedding, to search the pool with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clipsel_core.errors import TeacherError
from clipsel_core.pool.embed import embed_captions, load_teacher, weights_digest
from clipsel_core.pool.teachers import find_teacher


def query_of_text(text: str, pool: Path, arch: str, width: int) -> np.ndarray:
    """A text as the teacher of a pool's embeddings embeds captions: (width,) float32, unit length.

    pool: the pool's folder, which says what model its teacher was. arch: the teacher's name in the pool.
    Raises: TeacherError where the pool does not say, the model cannot be loaded, or is not the one it was.
    """
    found = find_teacher(pool, arch)
    if found is None:
        remedy = "pools that `embed` made remember it; for others search by a pair, or give --vector"
        raise TeacherError(pool, expected=f"to know which model {arch} is", found="no teachers.json", remedy=remedy)
    model, pretrained, weights = found
    teacher = load_teacher(model, pretrained=pretrained)
    if weights and weights_digest(teacher) != weights:
        where = " ".join(filter(None, (model, pretrained)))
        raise TeacherError(
            where, expected="the weights that embedded the pool", found="others", remedy="bring them back"
        )
    (row,) = embed_captions(teacher, [text])
    if row.shape != (width,):
        raise TeacherError(model, expected=f"embeddings of width {width}, as the pool's", found=f"{len(row)}")
    return row.astype(np.float32)
