"""In which order do a finished run's pairs fall out when their own images are the target? NormSim_2-D of a run.

The pool's files are read once as a whole. Of the rows that later rounds ask for, those that are stored uncompressed are
read from the files each time, which costs little while the system keeps the files in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch

from clipsel_core import uids
from clipsel_core.errors import ScoringError
from clipsel_core.npy import read_array
from clipsel_core.pool.embeddings import ImageBlocks, at_unit_length, find_member
from clipsel_core.pool.layout import Arch, Pool
from clipsel_core.runs.added import scored_pool
from clipsel_core.runs.plan import resolve_devices
from clipsel_core.runs.store import UID_HALVES, Run, SealedFiles, as_array
from clipsel_core.scoring.checks import check_count, telling_of_memory
from clipsel_core.scoring.normsim import second_moment
from clipsel_core.scoring.normsim_2d import check_keep, falling_order, round_shares
from clipsel_core.tasks import Report, check, part_of, silent

_BLOCK = 1 << 15
# Reading the pool once takes about this share of the products.
_FIRST_PASS = 0.2


def normsim_2d(
    run: Run,
    start: np.ndarray,
    *,
    keep: int | float | Decimal | Fraction,
    rounds: int = 500,
    device: str | None = None,
    report: Report = silent,
) -> np.ndarray:
    """NormSim_2-D of a finished run's pairs: the round in which each falls out, divided by all. Higher is better.

    start: A_0, (N,) bool or the row numbers of some pairs; a row number is a pair's place in the run.
    keep: how many pairs remain: a whole number, or a share of all N pairs from 0 to 1, rounded down; decimals count as
        they are written.
    rounds: as scoring.normsim_2d. device: None for the run's. report: told which share is done.
    Returns: (N,) float32: `round_shares` of the pairs that started, 1 for those that remain; NaN for all others. Of
    pairs with equal values the one with the larger uid falls out first.
    Memory: 70 bytes a pair that starts, 6 a pair of the run, and where the pool's files are compressed the images of
    the pairs that start.
    Raises: ScoringError where start, keep or rounds do not fit; RunError where the run is unfinished or its pool has
    changed; PoolFormatError where the pool cannot be read.
    """
    rows, count = _rows(start, run.config.pairs), _count(keep, run.config.pairs)
    check_keep(count, len(rows))
    check_count("rounds", rounds)
    (chosen, *_) = resolve_devices(device or run.config.device)
    pool, arch = scored_pool(run)
    usable, names = _pairs(run, rows)
    images = _Images(pool, arch, rows)
    with telling_of_memory(chosen):
        inside, others = images.moments(usable, chosen, part_of(report, 0, _FIRST_PASS))
        order = np.empty(len(rows), np.int64)
        order[uids.argsort(names)] = np.arange(len(rows))
        del names
        place = falling_order(
            images.at,
            inside + others,
            inside,
            count=len(rows),
            keep=count,
            rounds=rounds,
            order=torch.from_numpy(order),
            device=chosen,
            report=part_of(report, _FIRST_PASS, 1),
        )
    column = np.full(len(usable), np.nan, np.float32)
    column[rows] = round_shares(place, keep=count, rounds=rounds).numpy()
    return column


def _rows(start: np.ndarray, pairs: int) -> np.ndarray:
    """The ascending row numbers of the pairs to start from. Raises ScoringError where they are none of the run."""
    start = np.asarray(start)
    if start.dtype == bool and start.shape == (pairs,):
        rows = np.flatnonzero(start)
    elif start.ndim == 1 and start.dtype.kind in "iu":
        rows = np.unique(start).astype(np.int64)
    else:
        expected, found = f"a mask of {pairs:,} pairs, or row numbers", f"shape {start.shape}, {start.dtype}"
        raise ScoringError("start", expected=expected, found=found)
    if not len(rows):
        raise ScoringError("start", expected="at least one pair", found="none", remedy="keep more in the first step")
    if rows[0] < 0 or rows[-1] >= pairs:
        found = f"{rows[0] if rows[0] < 0 else rows[-1]:,}"
        raise ScoringError("start", expected=f"row numbers from 0 to {pairs - 1:,}", found=found)
    return rows


def _pairs(run: Run, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each pair of a run was scored, (N,) bool, and the uids of these rows, (n,) UID_DTYPE.

    Raises: ScoringError where one of the rows was set aside.
    """
    files, usable, names = SealedFiles(run.root, run.config), np.empty(run.config.pairs, bool), []
    first = 0
    for shard in run.config.shards:
        check()
        table = files.read(shard.name, [*UID_HALVES, "clip_score"])
        high, low, score = (as_array(table[name].combine_chunks()) for name in (*UID_HALVES, "clip_score"))
        usable[first : first + shard.rows] = ~np.isnan(score)
        within = rows[slice(*np.searchsorted(rows, [first, first + shard.rows]))] - first
        names.append(uids.from_halves(high[within], low[within]))
        first += shard.rows
    if aside := int(np.count_nonzero(~usable[rows])):
        remedy = "start from pairs that have scores"
        raise ScoringError("start", expected="scored pairs", found=f"{aside:,} that were set aside", remedy=remedy)
    return usable, np.concatenate(names)


def _count(keep: int | float | Decimal | Fraction, pairs: int) -> int:
    if isinstance(keep, int):
        return keep
    share = Fraction(repr(keep)) if isinstance(keep, float) and np.isfinite(keep) else keep
    if not 0 <= share <= 1:
        raise ScoringError("keep", expected="a share from 0 to 1, or a whole number of pairs", found=f"{keep}")
    return int(Fraction(share) * pairs)


class _Images:
    """A pool's images, of unit length; those of some rows can be read in any order, from any thread."""

    def __init__(self, pool: Pool, arch: Arch, rows: np.ndarray) -> None:
        self._shards, self._arch, self._rows = pool.shards, arch, rows
        self._members = [find_member(shard, arch.image_member) for shard in pool.shards]
        self._first = np.cumsum([0, *(shard.rows for shard in pool.shards)])
        self._held: dict[int, np.ndarray] = {}  # rows of files that would have to be read as a whole

    def moments(self, usable: np.ndarray, device: str, report: Report) -> tuple[torch.Tensor, torch.Tensor]:
        """The second moments of the rows, and of all others that are usable: (D, D) float64 each."""
        inside, others = torch.zeros((2, self._arch.width, self._arch.width), dtype=torch.float64)
        chosen = np.zeros(len(usable), bool)
        chosen[self._rows] = True
        for index, first in enumerate(self._first[:-1].tolist()):
            for start, image in self._blocks(index):
                here = slice(first + start, first + start + len(image))
                for total, which in ((inside, chosen[here]), (others, usable[here] & ~chosen[here])):
                    if which.any():
                        total += second_moment(torch.from_numpy(at_unit_length(image[which])), device=device)
                if self._members[index][1].offset is None or self._members[index][0].remote:
                    held = [self._held[index]] if index in self._held else []
                    self._held[index] = np.concatenate([*held, image[chosen[here]]])
                report(here.stop, len(usable), "pairs")
        return inside, others

    def _blocks(self, index: int) -> Iterator[tuple[int, np.ndarray]]:
        """A shard's images as they are stored, a block at a time in the same memory, and where each block begins."""
        with ImageBlocks(self._shards[index], self._arch) as blocks:
            for start in range(0, blocks.rows, _BLOCK):
                yield start, blocks.read(slice(start, min(start + _BLOCK, blocks.rows)))

    def at(self, places: np.ndarray) -> torch.Tensor:
        """The images of some of the rows, given by ascending places among them: (n, D) float16 or float32."""
        rows = self._rows[places]
        cuts = np.searchsorted(rows, self._first)
        shards = np.flatnonzero(np.diff(cuts)).tolist()
        return torch.from_numpy(np.concatenate([self._in_shard(i, rows[cuts[i] : cuts[i + 1]]) for i in shards]))

    def _in_shard(self, index: int, rows: np.ndarray) -> np.ndarray:
        if index in self._held:
            first = int(np.searchsorted(self._rows, self._first[index]))
            image = self._held[index][np.searchsorted(self._rows, rows) - first]
        else:
            image = read_array(*self._members[index])[rows - self._first[index]]
        return at_unit_length(image.astype(np.float16 if image.dtype.itemsize == 2 else np.float32, copy=False))
