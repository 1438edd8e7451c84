"""What a shard's embeddings are: mapped from disk, checked row by row, ready to be scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.layout import Arch, Pool, Shard
from clipsel_core.pool.npz import Member, read_array, read_members

# Rounding a unit row to float16 moves its length by less than this: such rows are unit rows, used as they are.
ROUNDING = 1e-3
# Rows within this of unit length are scaled to it; rows farther off are bad.
UNIT_TOLERANCE = 1e-2

_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Pairs:
    """A shard's embeddings, checked.

    image, text: (N, D) float16 or float32; every usable row has unit length.
    usable: (N,) bool; False for rows that were set aside.
    renormalised: how many rows were scaled to unit length.
    """

    image: np.ndarray
    text: np.ndarray
    usable: np.ndarray
    renormalised: int


def read_embeddings(shard: Shard, member: str) -> np.ndarray:
    """One side of a shard's embeddings, as stored: (N, D) float16, float32 or float64, mapped where possible.

    member: its name in the npz, such as `Arch.image_member`. Values are not checked.
    Raises: PoolFormatError on a missing npz or member, another number of rows than the parquet, or another dtype.
    """
    if shard.npz is None:
        npz = shard.parquet.with_suffix(".npz")
        expected, remedy = f"the embeddings of {shard.parquet.name}", f"download {npz.name}"
        raise PoolFormatError(npz, expected=expected, found="no such file", remedy=remedy)
    members = read_members(shard.npz)
    if member not in members:
        raise PoolFormatError(shard.npz, expected=f"an array {member}", found=", ".join(members) or "none")
    _check_header(shard, members[member])
    return read_array(shard.npz, members[member])


def read_pairs(pool: Pool, shard: Shard, arch: Arch, *, on_bad_rows: Literal["error", "skip"] = "error") -> Pairs:
    """Both sides of a shard's embeddings, every row checked for finite values and unit length.

    on_bad_rows: "error" raises PoolFormatError at the first row that is zero, NaN, infinite or far from unit length;
        "skip" marks such rows as not usable.
    """
    image, image_scale = _unit_rows(shard, arch, arch.image_member)
    text, text_scale = _unit_rows(shard, arch, arch.text_member)
    usable = np.isfinite(image_scale) & np.isfinite(text_scale)
    if on_bad_rows == "error" and not usable.all():
        row = int(np.argmin(usable))
        member, side = (arch.image_member, image) if not np.isfinite(image_scale[row]) else (arch.text_member, text)
        found, remedy = describe_row(side[row]), "set such rows aside with --on-bad-rows skip"
        raise PoolFormatError(
            f"shard {shard.name}, row {row}", expected=f"a unit row in {member}", found=found, remedy=remedy
        )
    scaled = usable & ((image_scale != 1) | (text_scale != 1))
    return Pairs(_rescale(image, image_scale), _rescale(text, text_scale), usable, int(scaled.sum()))


def describe_row(row: np.ndarray) -> str:
    """What is wrong with an embedding that cannot be used, in a few words."""
    if np.isnan(row).any():
        return "NaN"
    if np.isinf(row).any():
        return "infinite values"
    length = float(np.linalg.norm(row.astype(np.float64)))
    return "only zeros" if length == 0 else f"length {length:.4g}"


def row_scale(rows: np.ndarray) -> np.ndarray:
    """The factor that gives each row unit length: 1 where rounding explains the difference, NaN where the row is bad.

    rows: (N, D) floats. Returns: (N,) float32.
    """
    squared = np.empty(len(rows), np.float32)
    block = np.empty((min(_BLOCK_ROWS, len(rows)), rows.shape[1]), np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        part = block[: len(rows) - start]
        with np.errstate(over="ignore"):
            part[:] = rows[start : start + _BLOCK_ROWS]
            np.einsum("nd,nd->n", part, part, out=squared[start : start + len(part)])
    length = np.sqrt(squared)
    off = np.abs(length - 1)
    scale = np.full(len(rows), np.nan, np.float32)
    scale[off <= ROUNDING] = 1
    near = (off > ROUNDING) & (off <= UNIT_TOLERANCE)
    scale[near] = 1 / length[near]
    return scale


def _unit_rows(shard: Shard, arch: Arch, member: str) -> tuple[np.ndarray, np.ndarray]:
    rows = read_embeddings(shard, member)
    if rows.shape[1] != arch.width:
        expected = f"{member} of width {arch.width}, as in the pool's first npz"
        raise PoolFormatError(shard.npz, expected=expected, found=f"width {rows.shape[1]}")
    return rows, row_scale(rows)


def _rescale(rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    if rows.dtype == np.float64 or np.any(scale[np.isfinite(scale)] != 1):
        return (rows * np.nan_to_num(scale)[:, None]).astype(np.float32)
    return rows


def _check_header(shard: Shard, member: Member) -> None:
    if len(member.shape) != 2 or member.dtype.kind != "f" or member.dtype.itemsize > 8:
        found = f"shape {member.shape}, {member.dtype}"
        raise PoolFormatError(f"shard {shard.name}", expected=f"{member.name} of shape (N, D), float16", found=found)
    if member.shape[0] != shard.rows:
        found = f"{member.shape[0]:,} rows in {member.name}"
        remedy = f"download {shard.name}.npz and {shard.name}.parquet again"
        expected = f"{shard.rows:,} rows, as in the parquet"
        raise PoolFormatError(f"shard {shard.name}", expected=expected, found=found, remedy=remedy)
