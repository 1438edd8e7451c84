"""Which embeddings can serve as a target?"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from clipsel_core.errors import TargetError
from clipsel_core.scoring.checks import DTYPES

_log = logging.getLogger(__name__)
_BLOCK = 8192
_ROUNDING = 1e-3  # a unit row rounded to float16 has a length this close to 1


def prepare_target(rows: Tensor, *, name: str, width: int) -> Tensor:
    """The image embeddings of a target, checked and of unit length.

    rows: (M, D) of any floating dtype; float64 is rounded to float32. name: of the target, for messages.
    width: D of the pool's embeddings.
    Returns: (M, D), float16, bfloat16 or float32: rows itself where all lengths are 1 to float16's rounding, else a
        float32 copy divided by the lengths, with one logged warning.
    Raises: TargetError where the shape or dtype does not fit, or a row is not finite or all zeros.
    """
    where = f"target {name}"
    if rows.ndim != 2 or len(rows) == 0:
        raise TargetError(where, expected=f"a shape (M, {width}) with at least one row", found=f"{tuple(rows.shape)}")
    if rows.shape[1] != width:
        remedy = "embed the target with the pool's teacher"
        raise TargetError(where, expected=f"width {width}, as the pool's", found=f"{rows.shape[1]}", remedy=remedy)
    if rows.dtype == torch.float64:
        rows = rows.float()
    if rows.dtype not in DTYPES:
        raise TargetError(where, expected="floating numbers", found=str(rows.dtype).removeprefix("torch."))
    length = _lengths(rows)
    bad = ~(length.isfinite() & (length.float() > 0))
    if bad.any():
        row, remedy = int(torch.argmax(bad.to(torch.uint8))), "remove zero and broken rows"
        found = f"{float(length[row]):.4g}"
        raise TargetError(f"{where}, row {row}", expected="a row with a length", found=found, remedy=remedy)
    off = (length - 1).abs() > _ROUNDING
    if not off.any():
        return rows
    _log.warning("%s: %d of %d rows are not of unit length; renormalised", where, int(off.sum()), len(rows))
    return rows.float() / length.float()[:, None]


def _lengths(rows: Tensor) -> Tensor:
    blocks = (rows[start : start + _BLOCK].double() for start in range(0, len(rows), _BLOCK))
    return torch.cat([block.norm(dim=1) for block in blocks])
