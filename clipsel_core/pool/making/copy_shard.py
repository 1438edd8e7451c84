"""How do embeddings that somebody else made become rows? Checked, scaled to unit length, rounded to float16."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from clipsel_core.pool.embeddings import describe_row
from clipsel_core.pool.images import NOWHERE, WHOLE_FILE
from clipsel_core.pool.making.rows import Kept, Rows
from clipsel_core.pool.sources.record import Record

_SIDES = ("image", "text")


class Copier:
    """Takes records' own embeddings in place of a teacher's."""

    def embed(
        self, records: Iterable[Record], progress: Callable[[Record, int], object], took: Callable[[Kept, None], object]
    ) -> Rows:
        """The records' embeddings as rows of unit length, in order; those that have none are rejected.

        progress: called after each record. took: with each pair that is kept.
        """
        rows, sides = Rows(), []
        for record in records:
            rows.read += 1
            fault = record.fault or _fault(record.embeddings)
            if fault:
                rows.rejected.append((record.file, record.key, fault))
            else:
                assert record.embeddings is not None
                sides.append(_unit(record.embeddings))
                rows.kept.append(_kept(record))
                took(rows.kept[-1], None)
            progress(record, rows.read)
        if sides:
            rows.image, rows.text = np.stack(sides, axis=1)
        return rows


def _fault(embeddings: np.ndarray | None) -> str:
    if embeddings is None:
        return "no embeddings"
    for side, row in zip(_SIDES, embeddings, strict=True):
        if not np.isfinite(row).all() or not row.any():
            return f"its {side} embedding has {describe_row(row)}"
    return ""


def _unit(embeddings: np.ndarray) -> np.ndarray:
    exact = embeddings.astype(np.float64)
    return (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float16)


def _kept(record: Record) -> Kept:
    where = WHOLE_FILE if record.file else NOWHERE
    return Kept(replace(record, embeddings=None), record.file, 0, where, record.width, record.height, None)
