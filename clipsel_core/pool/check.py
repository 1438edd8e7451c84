"""What is wrong with a pool: uids that are malformed or repeated, shards that do not fit together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from clipsel_core import uids
from clipsel_core.counts import counted
from clipsel_core.errors import PoolFormatError, UidError
from clipsel_core.pool.embeddings import describe_row, read_embeddings, remedy_for, stored_scale
from clipsel_core.pool.layout import Arch, Pool, Shard, read_uid_column

# Uids held at once while looking for repeats: 1 GiB. A larger pool is read several times, each time another part of it.
_UIDS_AT_ONCE = 1 << 26
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Problem:
    """Something wrong with a pool, in one line. stops: whether scoring stops at it, or mends it."""

    text: str
    stops: bool = True


def read_uids(pool: Pool, shard: Shard) -> np.ndarray:
    """A shard's uids in row order, (N,) UID_DTYPE. Raises PoolFormatError naming shard and row of a malformed one."""
    column = read_uid_column(shard)
    try:
        return uids.from_hex(column)
    except UidError as error:
        where = f"{shard.parquet}, {error.where}"
        raise PoolFormatError(where, expected=error.expected, found=error.found) from error


def check_uids(pool: Pool) -> None:
    """Makes sure that every uid of the pool is well formed and stands on one row only. Memory is bounded.

    Raises: PoolFormatError naming both places of a repeated uid.
    """
    turns = -(-pool.rows // _UIDS_AT_ONCE)
    for turn in range(turns):
        parts = []
        for shard in pool.shards:
            here = read_uids(pool, shard)
            parts.append(here[_turn_of(here, turns) == turn] if turns > 1 else here)
        ordered = uids.sort(np.concatenate(parts))
        del parts
        same = uids.repeats(ordered)
        if same.any():
            _refuse_repeat(pool, ordered[same][:1])


def shard_problems(shard: Shard, pool: Pool, archs: list[Arch], *, values: bool = True) -> Iterator[Problem]:
    """Everything that keeps a shard from being scored, and what scoring will mend.

    values: also read every embedding, to find rows that are zero, NaN, infinite or not of unit length.
    """
    if shard.uid_column is None:
        yield Problem(f"shard {shard.name}: no column uid")
    for arch in archs:
        for member in (arch.image_member, arch.text_member):
            try:
                rows = read_embeddings(shard, member)
            except PoolFormatError as error:
                yield Problem(str(error))
                continue
            if rows.shape[1] != arch.width:
                found = f"{member} has width {rows.shape[1]}, in the pool's first npz {arch.width}"
                yield Problem(f"shard {shard.name}: {found}")
            elif values:
                try:
                    yield from _value_problems(shard, member, rows)
                except PoolFormatError as error:
                    yield Problem(str(error))


def _value_problems(shard: Shard, member: str, rows: np.ndarray) -> Iterator[Problem]:
    scale = stored_scale(shard, member)
    bad = np.flatnonzero(np.isnan(scale))
    if len(bad):
        first = int(bad[0])
        found = f"the first is row {first}: {describe_row(rows[first])}; {remedy_for(rows[first])}"
        yield Problem(f"shard {shard.name}: {counted(len(bad), 'bad rows')} in {member}, {found}")
    if off := int((scale[np.isfinite(scale)] != 1).sum()):
        found = f"{counted(off, 'rows')} in {member} a little off unit length; scoring scales them"
        yield Problem(f"shard {shard.name}: {found}", stops=False)


def _turn_of(keys: np.ndarray, turns: int) -> np.ndarray:
    mixed = (keys["f0"] * _MIX) ^ (keys["f1"] * _MIX)
    return (mixed >> np.uint64(40)) % np.uint64(turns)


def _refuse_repeat(pool: Pool, repeated: np.ndarray) -> NoReturn:
    places = []
    for shard in pool.shards:
        rows = np.flatnonzero(read_uids(pool, shard) == repeated[0])
        places += [f"{shard.parquet.name} row {row}" for row in rows]
        if len(places) > 1:
            break
    found = f"{uids.to_hex(repeated)[0].as_py()} at {places[0]} and {places[1]}"
    raise PoolFormatError(pool.root, expected="each uid on one row", found=found, remedy="remove one of the two rows")
