"""Which columns does a run have, and what are their values? Scores, what was added, what the pool's table holds, mixes.

The run's own columns come first; then those of the pool's table, where the pool is at hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from clipsel_core.curation.index import bitmaps
from clipsel_core.errors import ClipselError, RunError, counted, quoted
from clipsel_core.runs.columns import IN_POOLS, Column, Kind, Mix, Negated, Noise, parse_derived

if TYPE_CHECKING:
    from clipsel_core.curation.index.score_table import ScoreTable
    from clipsel_core.pool.layout import Pool

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("string", "large_string", "string_view"), "text"),
    **dict.fromkeys((f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "number"),
    **dict.fromkeys(("halffloat", "float", "double"), "number"),
    "bool": "flag",
}
# Texts as pandas writes categories, and exact numbers.
_TYPES = re.compile(r"dictionary<values=(?P<of>\w*string\w*), .*|decimal\d+\(.*")
_BLOCK = 1 << 15
_SIDES = ("original_width", "original_height")
# The finalizer of splitmix64: every bit of a uid and the seed decides every bit of the number.
_GOLDEN, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def kind_in_pool(stored: str) -> Kind | None:
    """What a column of a pool's table holds; None where no filter takes it. stored: its type as Arrow writes it.

    >>> [kind_in_pool(stored) for stored in ("decimal128(9, 2)", "dictionary<values=string, indices=int8, ordered=0>")]
    ['number', 'text']
    """
    if found := _TYPES.fullmatch(stored):
        stored = found["of"] or "double"
    return _KINDS.get(stored)


class Columns(Mapping[str, Column]):
    """The columns of a run by name, in the order in which they are shown. Looks at the pool only where it must."""

    def __init__(self, table: ScoreTable) -> None:
        self._own = table.run.columns
        self._table = table
        self._found: dict[str, Column] | None = None

    def __getitem__(self, name: str) -> Column:
        return self._own[name] if name in self._own else self._of_pool[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._of_pool

    def __iter__(self) -> Iterator[str]:
        return iter({**self._own, **self._of_pool})

    def __len__(self) -> int:
        return len({**self._own, **self._of_pool})

    @property
    def _of_pool(self) -> dict[str, Column]:
        """What the pool's table holds beside the uids; nothing where it is not as it was scored, or not at hand yet."""
        if self._found is None:
            try:
                pool = self._table.metadata.pool
            except ClipselError:
                self._found = {}
            else:
                if pool is None:
                    return {}
                self._found = self._of(pool)
        return self._found

    def _of(self, pool: Pool) -> dict[str, Column]:
        found = {
            name: IN_POOLS.get(name) or Column(name=name, kind=kind, measures="From the pool's table.", origin="pool")
            for name, stored in pool.columns.items()
            if (kind := kind_in_pool(stored)) and name != pool.uid_column and not name.startswith("{")
        }
        if all(name in found for name in _SIDES):
            found.setdefault("aspect_ratio", IN_POOLS["aspect_ratio"])
        return {name: column for name, column in found.items() if name not in self._own}


def values_of(table: ScoreTable, name: str) -> np.ndarray:
    """The values of a column that the run does not keep: a derived one, or one of the pool's table: (N,) float32.

    Raises: RunError where there is no such column, or it holds no numbers; see ScoreTable.column.
    """
    match parse_derived(name):
        case Mix() as mix:
            return _mixed(table, mix)
        case Negated() as negated:
            return -table.column(negated.column)
        case Noise() as noise:
            return _noise(table.uids(), noise.seed)
    column = table.columns.get(name)
    if column is None:
        raise RunError(table.run.root, expected=f"one of the columns {', '.join(table.columns)}", found=quoted(name))
    if column.kind == "text":
        remedy = "use in, contains or known with it"
        raise RunError(f"column {name}", expected="numbers", found="texts", remedy=remedy)
    if name == "aspect_ratio" and column.origin == "pool":
        width, height = (table.column(side) for side in _SIDES)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.maximum(width, height) / np.minimum(width, height)
        return np.where(np.isfinite(found), found, np.float32(np.nan))
    return table.metadata.numbers(name)


def _mixed(table: ScoreTable, mix: Mix) -> np.ndarray:
    """The weighted sum of columns, in float64 until it is rounded: (N,) float32. Added in the order of their names."""
    total = np.zeros(len(table))
    for name, weight in sorted(mix.weights):
        shift, scale, fill = 0.0, 1.0, 0.5
        if mix.standardise == "rank":
            values = _ranks(table, name)
        else:
            values = table.column_once(name)
            count, fill, deviation = _moments(values)
            if mix.standardise == "zscore":
                if not deviation > 0:
                    raise _no_spread(name, count)
                shift, scale = fill, deviation
        _add(total, values, float(weight), shift, scale, fill if mix.missing else np.nan)
    return total.astype(np.float32)


def _add(total: np.ndarray, values: np.ndarray, weight: float, shift: float, scale: float, fill: float) -> None:
    """Adds weight * (value - shift) / scale, in float64; fill takes the place of values that are not finite."""

    def add(start: int, stop: int) -> None:
        for first in range(start, stop, _BLOCK):
            here = slice(first, min(first + _BLOCK, stop))
            block = values[here].astype(np.float64)
            block[~np.isfinite(block)] = fill
            block -= shift
            block /= scale
            block *= weight
            total[here] += block

    bitmaps.in_parts(add, len(total))


def _no_spread(name: str, count: int) -> RunError:
    found = "no value" if not count else f"{counted(count, 'values')}, all alike" if count > 1 else "one value"
    return RunError(f"column {name}", expected="values that differ, to standardise them", found=found)


def _moments(values: np.ndarray) -> tuple[int, float, float]:
    """How many values are finite, their mean and population standard deviation, in float64."""

    def summed(start: int, stop: int) -> tuple[int, float]:
        parts = [(len(block), float(block.sum())) for block in _finite_blocks(values, start, stop)]
        return sum(number for number, _ in parts), math.fsum(part for _, part in parts)

    parts = bitmaps.in_parts(summed, len(values))
    count = sum(number for number, _ in parts)
    if not count:
        return 0, 0.0, 0.0
    mean = math.fsum(part for _, part in parts) / count

    def squared(start: int, stop: int) -> float:
        return math.fsum(float(np.square(block - mean).sum()) for block in _finite_blocks(values, start, stop))

    return count, mean, (math.fsum(bitmaps.in_parts(squared, len(values))) / count) ** 0.5


def _finite_blocks(values: np.ndarray, start: int, stop: int) -> Iterator[np.ndarray]:
    """The finite values among some, as float64, a part at a time that a core's cache holds."""
    for first in range(start, stop, _BLOCK):
        block = values[first : min(first + _BLOCK, stop)].astype(np.float64)
        finite = np.isfinite(block)
        yield block if finite.all() else block[finite]


def _ranks(table: ScoreTable, name: str) -> np.ndarray:
    """(average rank - 1/2) / n of each pair's value, equal values sharing their average rank: (N,) float32, 0 to 1."""
    ranking = table.ranking(name)
    out = np.full(len(ranking.values), np.nan, np.float32)
    finite = np.isfinite(ranking.values[ranking.order])
    rows = ranking.order[finite]
    ordered = ranking.values[rows]
    if not len(rows) or ordered[0] == ordered[-1]:
        raise _no_spread(name, len(rows))
    firsts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(np.append(firsts, len(rows)))
    out[rows] = np.repeat((firsts + (sizes + 1) / 2 - 0.5) / len(rows), sizes)
    return out


def _noise(uids: np.ndarray, seed: int) -> np.ndarray:
    """Numbers from 0 up to 1 that follow from a seed and each uid: (N,) float32, multiples of 2**-24."""
    out = np.empty(len(uids), np.float32)
    start_of = np.uint64((seed * int(_GOLDEN) + 1) % (1 << 64))

    def fill(start: int, stop: int) -> None:
        block = uids[start:stop]
        with np.errstate(over="ignore"):
            mixed = _scrambled(block["f0"] + start_of)
            mixed = _scrambled((mixed ^ block["f1"]) + _GOLDEN)
        out[start:stop] = (mixed >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)

    bitmaps.in_parts(fill, len(uids))
    return out


def _scrambled(numbers: np.ndarray) -> np.ndarray:
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _FIRST
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _SECOND
    return numbers ^ (numbers >> np.uint64(31))
