"""What a shard's embeddings are: read from disk once, checked row by row, ready to be scored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clipsel_core.errors import PoolFormatError, counted
from clipsel_core.npy import Member, RowReader, fill_rows, read_array, read_members, will_need
from clipsel_core.places import Place
from clipsel_core.pool.layout import Arch, Shard

# Rounding a unit row to float16 moves its length by less than this: such rows are unit rows, used as they are.
ROUNDING = 1e-3
# Rows within this of unit length are scaled to it; rows farther off are bad.
UNIT_TOLERANCE = 1e-2

_BLOCK_ROWS = 256  # with their float32 copy they fit a core's cache
_FLOAT16_TO_FLOAT32 = np.float32(2.0**112)  # the ratio of the two formats' exponents


@dataclass(frozen=True)
class Pairs:
    """A shard's embeddings, checked, in memory of their own.

    image, text: (N, D) float16 or float32; every usable row has unit length.
    usable: (N,) bool; False for rows that were set aside.
    renormalised: how many rows were scaled to unit length.
    """

    image: np.ndarray
    text: np.ndarray
    usable: np.ndarray
    renormalised: int


def find_member(shard: Shard, name: str) -> tuple[Place, Member]:
    """A shard's npz and one of its arrays, such as `Arch.image_member`. Only headers are read.

    Raises: PoolFormatError on a missing npz or member, another number of rows than the parquet, or another dtype.
    """
    npz, (member,) = _find_members(shard, (name,))
    return npz, member


def find_sides(shard: Shard, arch: Arch) -> tuple[Place, tuple[Member, ...]]:
    """A shard's npz and a teacher's arrays of images and of captions, as find_member; of the width of the pool's."""
    return _find_members(shard, (arch.image_member, arch.text_member), arch.width)


def _find_members(shard: Shard, names: Sequence[str], width: int | None = None) -> tuple[Place, tuple[Member, ...]]:
    if shard.npz is None:
        npz = shard.parquet.parent / f"{shard.name}.npz"
        expected, remedy = f"the embeddings of {shard.parquet.name}", f"download {npz.name}"
        raise PoolFormatError(npz, expected=expected, found="no such file", remedy=remedy)
    members = shard.members or read_members(shard.npz)
    if shard.npz.remote:
        shard.members.update(members)
    return shard.npz, tuple(_checked(shard, name, members, width) for name in names)


def _checked(shard: Shard, name: str, members: Mapping[str, Member], width: int | None) -> Member:
    if name not in members:
        raise PoolFormatError(shard.npz, expected=f"an array {name}", found=", ".join(members) or "none")
    member = members[name]
    if len(member.shape) != 2 or member.dtype.kind != "f" or member.dtype.itemsize > 8:
        found = f"shape {member.shape}, {member.dtype}"
        raise PoolFormatError(f"shard {shard.name}", expected=f"{member.name} of shape (N, D), float16", found=found)
    if member.shape[0] != shard.rows:
        found = f"{counted(member.shape[0], 'rows')} in {member.name}"
        remedy = f"download {shard.name}.npz and {shard.name}.parquet again"
        expected = f"{counted(shard.rows, 'rows')}, as in the parquet"
        raise PoolFormatError(f"shard {shard.name}", expected=expected, found=found, remedy=remedy)
    if width not in (None, member.shape[1]):
        expected = f"{name} of width {width}, as in the pool's first npz"
        raise PoolFormatError(shard.npz, expected=expected, found=f"width {member.shape[1]}")
    return member


def read_embeddings(shard: Shard, member: str) -> np.ndarray:
    """One side of a shard's embeddings, as stored: (N, D) float16, float32 or float64, mapped where possible.

    Values are not checked. Raises: PoolFormatError as find_member.
    """
    return read_array(*find_member(shard, member))


def read_pairs(
    shard: Shard,
    arch: Arch,
    *,
    on_bad_rows: Literal["error", "skip", "scale"] = "error",
    room: Callable[[tuple[int, ...], np.dtype], np.ndarray] = np.empty,
) -> Pairs:
    """Both sides of a shard's embeddings, every row checked for finite values and unit length.

    The two sides are read side by side; each block of rows is checked while it is still in the cache.
    on_bad_rows: "error" raises PoolFormatError at the first row that is zero, NaN, infinite or far from unit length;
        "skip" marks such rows as not usable; "scale" gives those of another length unit length, and marks the others.
    room: gives the memory for an array of this shape and dtype that is then filled; called from several threads.
    """
    npz, members = find_sides(shard, arch)
    with ThreadPoolExecutor(2) as threads:
        scaling = on_bad_rows == "scale"
        sides = [threads.submit(_read_side, npz, member, room, any_length=scaling) for member in members]
        (image, image_scale), (text, text_scale) = (side.result() for side in sides)
    usable = np.isfinite(image_scale) & np.isfinite(text_scale)
    if on_bad_rows == "error" and not usable.all():
        row = int(np.argmin(usable))
        member, side = (arch.image_member, image) if not np.isfinite(image_scale[row]) else (arch.text_member, text)
        where, expected, found = f"shard {shard.name}, row {row}", f"a unit row in {member}", describe_row(side[row])
        raise PoolFormatError(where, expected=expected, found=found, remedy=remedy_for(side[row]))
    scaled = usable & ((image_scale != 1) | (text_scale != 1))
    return Pairs(_rescale(image, image_scale), _rescale(text, text_scale), usable, int(scaled.sum()))


def read_images(shard: Shard, arch: Arch) -> np.ndarray:
    """The image side alone, (N, D) float16 or float32, for shards whose rows are all known to be usable.

    Raises: PoolFormatError at the first row that is not.
    """
    npz, (image,) = _find_members(shard, (arch.image_member,), arch.width)
    rows, scale = _read_side(npz, image, np.empty)
    if not np.isfinite(scale).all():
        row = int(np.argmin(np.isfinite(scale)))
        where, expected = f"shard {shard.name}, row {row}", f"a unit row in {arch.image_member}"
        raise PoolFormatError(where, expected=expected, found=describe_row(rows[row]))
    return _rescale(rows, scale)


def stored_scale(npz: Place, member: Member) -> np.ndarray:
    """`row_scale` of one side as it is stored, (N,) float32, without its rows being held; their CRC is compared.

    npz, member: as find_member gives them. Raises: PoolFormatError where the values are not those that were written.
    """
    scale = np.empty(member.shape[0], np.float32)
    room = np.empty((min(_BLOCK_ROWS, len(scale)), member.shape[1]), member.dtype)
    with RowReader(npz, member, member.dtype) as reader:
        for start in range(0, len(scale), _BLOCK_ROWS):
            place = slice(start, min(start + _BLOCK_ROWS, len(scale)))
            block = room[: place.stop - start]
            reader.read(place, block)
            reader.check(place, block)
            scale[place] = _scale_of(block)
    return scale


def expect_images(shard: Shard, arch: Arch) -> None:
    """Has the system begin to read a shard's images from the disk, where it can: they are wanted soon."""
    npz, (image,) = _find_members(shard, (arch.image_member,), arch.width)
    will_need(npz, image)


class ImageBlocks:
    """A shard's images, a block of rows at a time, from any thread: for one pass that holds nothing of their size.

    A context manager, since it holds the file open. rows: how many there are. Rows are not checked; see `row_scale`.
    Raises: PoolFormatError where the shard's images cannot be found or read.
    """

    def __init__(self, shard: Shard, arch: Arch) -> None:
        npz, (member,) = _find_members(shard, (arch.image_member,), arch.width)
        self.rows = shard.rows
        self._width, self._dtype = arch.width, _dtype_in_memory(member)
        self._reader = RowReader(npz, member, self._dtype)
        self._own = threading.local()

    def __enter__(self) -> ImageBlocks:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__()

    def read(self, place: slice) -> np.ndarray:
        """The rows of a place, float16 or float32. The calling thread's next block is read into the same memory."""
        count = place.stop - place.start
        kept = getattr(self._own, "block", None)
        if kept is None or len(kept) < count:
            kept = self._own.block = np.empty((count, self._width), self._dtype)
        self._reader.read(place, kept[:count])
        self._reader.check(place, kept[:count])
        return kept[:count]


def describe_row(row: np.ndarray) -> str:
    """What is wrong with an embedding that cannot be used, in a few words."""
    if np.isnan(row).any():
        return "NaN"
    if np.isinf(row).any():
        return "infinite values"
    length = float(np.linalg.norm(row.astype(np.float64)))
    return "only zeros" if length == 0 else f"length {length:.4g}"


def has_length(row: np.ndarray) -> bool:
    """Whether an embedding can be scaled to unit length: it is finite, and not all zeros."""
    return bool(np.isfinite(_scale_of_any_length(row[None])[0]))


def remedy_for(row: np.ndarray) -> str:
    """What `score` can be asked to do with rows like this bad one."""
    if has_length(row):
        return "scale such rows to unit length with --on-bad-rows scale"
    return "set such rows aside with --on-bad-rows skip"


def row_scale(rows: np.ndarray, *, any_length: bool = False) -> np.ndarray:
    """The factor that gives each row unit length: 1 where rounding explains the difference, NaN where the row is bad.

    rows: (N, D) floats. any_length: whether only zeros, NaN and infinite values make a row bad. Returns: (N,) float32.
    """
    return _by_block(rows, lambda block: _scale_of(block, any_length=any_length))


def at_unit_length(rows: np.ndarray) -> np.ndarray:
    """Rows of any length scaled to unit length, (N, D) floats; bad ones become zeros or stay what they are."""
    return _rescale(rows, row_scale(rows, any_length=True))


def row_lengths(rows: np.ndarray) -> np.ndarray:
    """The length of each row as it is, NaN where the row is bad.

    rows: (N, D) floats. Returns: (N,) float32.
    """
    lengths = _by_block(rows, lambda block: np.sqrt(_squared_lengths(block)))
    lengths[~(np.abs(lengths - 1) <= UNIT_TOLERANCE)] = np.nan
    return lengths


def _by_block(rows: np.ndarray, measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A number for each row: (N,) float32."""
    parts = [measure(rows[start : start + _BLOCK_ROWS]) for start in range(0, len(rows), _BLOCK_ROWS)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _scale_of(block: np.ndarray, *, any_length: bool = False) -> np.ndarray:
    length = np.sqrt(_squared_lengths(block))
    off = np.abs(length - 1)
    scale = np.full(len(block), np.nan, np.float32)
    scale[off <= ROUNDING] = 1
    near = (off > ROUNDING) & (off <= UNIT_TOLERANCE)
    scale[near] = 1 / length[near]
    if any_length and (far := np.isnan(scale)).any():
        scale[far] = _scale_of_any_length(block[far])
    return scale


def _scale_of_any_length(block: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(block.astype(np.float64), axis=1)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        scale = (1 / length).astype(np.float32)
    return np.where(np.isfinite(scale) & (scale > 0), scale, np.float32(np.nan))


def _squared_lengths(block: np.ndarray) -> np.ndarray:
    """Of each row: (N,) float32. Infinite and NaN components of float16 rows count as 65,536 or more."""
    if block.dtype == np.float16:
        # numpy converts float16 number by number; shifting the bits into place and mending the exponent is three
        # times as fast, and as exact. The sign makes no difference to a square.
        bits = block.view(np.uint16) & np.uint32(0x7FFF)
        bits <<= np.uint32(13)
        values = bits.view(np.float32)
        values *= _FLOAT16_TO_FLOAT32
    else:
        with np.errstate(over="ignore"):
            values = block.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):
        return np.einsum("nd,nd->n", values, values)


def _read_side(
    npz: Place, member: Member, room: Callable[[tuple[int, ...], np.dtype], np.ndarray], *, any_length: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """One side's rows in memory, float16 or float32, and the factor that gives each unit length."""
    rows = room(member.shape, _dtype_in_memory(member))
    scale = np.empty(len(rows), np.float32)
    for place in fill_rows(npz, member, rows, block=_BLOCK_ROWS):
        scale[place] = _scale_of(rows[place], any_length=any_length)
    return rows, scale


def _dtype_in_memory(member: Member) -> np.dtype:
    return np.dtype(np.float16 if member.dtype.itemsize == 2 else np.float32)


def _rescale(rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    if not np.any(scale[np.isfinite(scale)] != 1):
        return rows
    with np.errstate(invalid="ignore"):
        return rows * np.nan_to_num(scale)[:, None]
