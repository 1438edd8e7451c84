"""Which columns of a finished run compare each pair with the rest of its pool? NormSim_2-D, and the rank among
neighbours.

NormSim_2-D is the order in which the pairs fall out when their own images are the target. The pool's files are read
once as a whole. Of the rows that later rounds ask for, those that are stored uncompressed are read from the files each
time, which costs little while the system keeps the files in memory.

The neighbours are the pairs nearest to a target's images, as in DataComp's image-based filter without its clusters. For
each image of the target the pairs with the largest cosines are kept while the pool is read once, block by block.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipsel_core import uids
from clipsel_core.errors import ScoringError
from clipsel_core.npy import read_array
from clipsel_core.places import Place
from clipsel_core.pool.embeddings import ImageBlocks, at_unit_length, find_member
from clipsel_core.pool.layout import Arch, Pool, Shard
from clipsel_core.runs.added import scored_pool
from clipsel_core.runs.plan import resolve_devices
from clipsel_core.runs.store import UID_HALVES, Run, SealedFiles, as_array
from clipsel_core.scoring.checks import check_count, telling_of_memory
from clipsel_core.scoring.normsim import prepare_target, second_moment
from clipsel_core.scoring.normsim_2d import FEW, Values, check_keep, falling_order, round_shares
from clipsel_core.scoring.threads import for_each
from clipsel_core.tasks import Report, check, part_of, silent
from clipsel_core.workers import Do, Machines, Workers, check_asked, results

_BLOCK = 1 << 15
# Reading the pool once takes about this share of the products.
_FIRST_PASS = 0.2
# Images of the pool, and of the target, whose cosines are looked at together.
_READ_AT_ONCE, _TILE = 8192, 1024


def normsim_2d_of_run(
    run: Run,
    start: np.ndarray,
    *,
    keep: int | float | Decimal | Fraction,
    rounds: int = 500,
    device: str | None = None,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
    report: Report = silent,
) -> np.ndarray:
    """NormSim_2-D of a finished run's pairs: the round in which each falls out, divided by all. Higher is better.

    start: A_0, (N,) bool or the row numbers of some pairs; a row number is a pair's place in the run.
    keep: how many pairs remain: a whole number, or a share of all N pairs from 0 to 1, rounded down; decimals count as
        they are written.
    rounds: as scoring.normsim_2d. device: None for the run's. report: told which share is done.
    cluster, cpus_per_worker: see `Machines`; second moments and values are computed there then, and summed and compared
        here.
    Returns: (N,) float32: `round_shares` of the pairs that started, 1 for those that remain; NaN for all others. Of
    pairs with equal values the one with the larger uid falls out first.
    Memory: 70 bytes a pair that starts, 7 a pair of the run, and where the pool's files are compressed the images of
    the pairs that start.
    Raises: ScoringError where start, keep or rounds do not fit; RunError where the run is unfinished or its pool has
    changed; PoolFormatError where the pool cannot be read.
    """
    rows, count = _rows(start, run.config.pairs), _count(keep, run.config.pairs)
    check_keep(count, len(rows))
    check_count("rounds", rounds)
    check_asked(device or "auto", cluster, cpus_per_worker)
    (chosen, *_) = resolve_devices(device or run.config.device)
    machines = Machines((chosen,), cluster, cpus_per_worker)
    pool, arch = scored_pool(run)
    usable, names = _pairs(run, rows)
    images = _Images(pool, arch)
    units = max(len(pool.shards), len(rows) // FEW)
    with telling_of_memory(chosen), machines.workers(_OverPool(run.root.absolute(), pool, arch), units) as workers:
        inside, others = _moments(images, rows, usable, workers, part_of(report, 0, _FIRST_PASS))

        def values_of(places: np.ndarray, moment: Tensor) -> tuple[np.ndarray, float]:
            parts = np.array_split(rows[places], min(-(-len(places) // FEW), 4 * workers.at_once))
            with results(workers, [_Rows(part, moment) for part in parts]) as each:
                found = list(each)
            return np.concatenate([values for values, _ in found]), max(longest for _, longest in found)

        order = np.empty(len(rows), np.int64)
        order[uids.argsort(names)] = np.arange(len(rows))
        del names
        place = falling_order(
            lambda places: images.at(rows[places]),
            inside + others,
            inside,
            count=len(rows),
            keep=count,
            rounds=rounds,
            order=torch.from_numpy(order),
            device=chosen,
            # Others would unpack compressed files for each round.
            others=values_of if cluster and not images.held else None,
            report=part_of(report, _FIRST_PASS, 1),
        )
    column = np.full(len(usable), np.nan, np.float32)
    column[rows] = round_shares(place, keep=count, rounds=rounds).numpy()
    return column


def neighbour_ranks(
    run: Run, target: Tensor, *, most: int = 100, device: str | None = None, report: Report = silent
) -> np.ndarray:
    """Each pair's best place among the nearest pairs of a target's images; 1 is the nearest. Lower is better.

    rank_i = min_m place of x_i . t_m among the x_j . t_m of all scored pairs j, in descending order; ties in any order.
    target: (M, D) unit rows, float16 or float32. most: how many neighbours of an image count, at least 1.
    device: None for the run's. report: told how many pairs of the pool were read.
    Returns: (N,) float32 from 1 to `most`; NaN for pairs that no image has among so many, and that were set aside.
    Memory: 12 bytes for each of M x `most`, and a block of the pool.
    Raises: ScoringError where `most` does not fit; TargetError where the target does not; RunError where the run is
        unfinished or its pool has changed; PoolFormatError where the pool cannot be read.
    """
    check_count("neighbours", most)
    (chosen, *_) = resolve_devices(device or run.config.device)
    on = torch.device(chosen)
    pool, arch = scored_pool(run)
    target = prepare_target(target, name="target", width=arch.width)[0].to(on, torch.float32)
    files = SealedFiles(run.root, run.config)
    best = torch.full((len(target), most), -torch.inf, device=on)
    rows = torch.full((len(target), most), -1, dtype=torch.int64, device=on)
    first = 0
    with telling_of_memory(chosen):
        for shard in pool.shards:
            scored = ~np.isnan(as_array(files.read(shard.name, ["clip_score"])["clip_score"].combine_chunks()))
            with ImageBlocks(shard, arch) as blocks:
                for start in range(0, blocks.rows, _READ_AT_ONCE):
                    check()
                    stop = min(start + _READ_AT_ONCE, blocks.rows)
                    inside = np.flatnonzero(scored[start:stop])
                    image = at_unit_length(blocks.read(slice(start, stop))[inside])
                    if len(image):
                        numbers = torch.from_numpy(inside + first + start).to(on)
                        _keep_nearest(best, rows, target, torch.from_numpy(image).to(on, torch.float32), numbers)
                    report(first + stop, run.config.pairs, "pairs")
            first += blocks.rows
    found = torch.full((first + 1,), torch.nan, device=on)  # the last for places that no pair took
    for place in range(most, 0, -1):
        found[rows[:, place - 1]] = place
    return found[:-1].cpu().numpy()


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


@dataclass(frozen=True, eq=False)
class _Part:
    """A shard whose second moments are asked for: of the pairs that start, and of all others. Both: (N,) bool."""

    shard: Shard
    start: np.ndarray
    others: np.ndarray

    def __str__(self) -> str:
        return self.shard.name


@dataclass(frozen=True, eq=False)
class _Rows:
    """Ascending row numbers of the run whose values by a moment, (D, D) float64, are asked for."""

    rows: np.ndarray
    moment: Tensor

    def __str__(self) -> str:
        return f"rows {self.rows[0]:,} to {self.rows[-1]:,}"


@dataclass(frozen=True)
class _OverPool:
    """The work that needs a pool's images. root: the run's folder."""

    root: Place
    pool: Pool
    arch: Arch
    gives: str = "sums and values"
    folder: None = None

    @property
    def description(self) -> Place:
        return self.root / "run.json"

    def begin(self, device: str) -> Do:
        images, room, computing = _Images(self.pool, self.arch), threading.Semaphore(2), threading.Lock()

        def do(unit: _Part | _Rows, report: Report) -> Any:
            with room:
                if isinstance(unit, _Part):
                    return images.moments(unit, device, computing)
                with computing:
                    values = Values(images.at, torch.device(device))
                    return values.of(unit.rows, unit.moment.to(device)), values.longest

        return do


def _moments(
    images: _Images, rows: np.ndarray, usable: np.ndarray, workers: Workers, report: Report
) -> tuple[Tensor, Tensor]:
    """The second moments of the rows, and of all others that are usable: (D, D) float64 each.

    Block after block is added, whoever computed them: the sums are the same on any number of workers.
    """
    inside, others = torch.zeros((2, images.width, images.width), dtype=torch.float64)
    start = np.zeros(len(usable), bool)
    start[rows] = True
    parts = [_Part(shard, start[here], usable[here] & ~start[here]) for shard, here in images.places]
    with results(workers, parts) as found:
        for index, (blocks, unpacked) in enumerate(found):
            _, here = images.places[index]
            for both in blocks:
                for total, moment in zip((inside, others), both, strict=True):
                    if moment is not None:
                        total += moment
            if unpacked is not None:
                images.held[index] = here.start + np.flatnonzero(start[here]), unpacked
            report(here.stop, len(usable), "pairs")
    return inside, others


class _Images:
    """A pool's images, of unit length, to be read in any order, from any thread.

    places: the shards, and each one's row numbers. held: of shards that would have to be read as a whole, by their
    places, some row numbers and their images.
    """

    def __init__(self, pool: Pool, arch: Arch) -> None:
        self._arch, self.width = arch, arch.width
        self._first = np.cumsum([0, *(shard.rows for shard in pool.shards)])
        self.places = [(s, slice(a, a + s.rows)) for s, a in zip(pool.shards, self._first.tolist(), strict=False)]
        self._member = functools.cache(lambda index: find_member(pool.shards[index], arch.image_member))
        self.held: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def moments(
        self, part: _Part, device: str, computing: threading.Lock
    ) -> tuple[list[list[Tensor | None]], np.ndarray | None]:
        """Both second moments of each block of a shard, (D, D) float64, None of none.

        And the images of the pairs that start, where the shard's file has to be read as a whole. computing: held
        while it computes, and not while it reads.
        """
        blocks, unpacked = list[list[Tensor | None]](), list[np.ndarray]()
        npz, member = find_member(part.shard, self._arch.image_member)
        with ImageBlocks(part.shard, self._arch) as reader:
            for first in range(0, reader.rows, _BLOCK):
                check()
                here = slice(first, min(first + _BLOCK, reader.rows))
                image = reader.read(here)
                chosen = [image[which[here]] for which in (part.start, part.others)]
                if member.offset is None or npz.remote:
                    unpacked.append(chosen[0])
                with computing:
                    some = [torch.from_numpy(at_unit_length(rows)) if len(rows) else None for rows in chosen]
                    blocks.append([None if rows is None else second_moment(rows, device=device) for rows in some])
        return blocks, np.concatenate(unpacked) if unpacked else None

    def at(self, rows: np.ndarray) -> Tensor:
        """The images of ascending row numbers: (n, D) float16 or float32."""
        cuts = np.searchsorted(rows, self._first)
        shards = np.flatnonzero(np.diff(cuts)).tolist()
        return torch.from_numpy(np.concatenate([self._in_shard(i, rows[cuts[i] : cuts[i + 1]]) for i in shards]))

    def _in_shard(self, index: int, rows: np.ndarray) -> np.ndarray:
        if index in self.held:
            known, held = self.held[index]
            image = held[np.searchsorted(known, rows)]
        else:
            image = read_array(*self._member(index))[rows - self._first[index]]
        return at_unit_length(image.astype(np.float16 if image.dtype.itemsize == 2 else np.float32, copy=False))


def _keep_nearest(best: Tensor, rows: Tensor, target: Tensor, image: Tensor, numbers: Tensor) -> None:
    """Takes some images of the pool among those that are nearest to each of the target.

    best, rows: (M, K), the largest cosines so far, descending, and whose they are. image: (n, D). numbers: (n,) int64.
    """
    most = best.shape[1]

    def look(tile: int, scratch: Tensor) -> None:
        here = slice(tile * _TILE, (tile + 1) * _TILE)
        rows_here = target[here]
        cosines = scratch[: len(rows_here) * len(image)].view(len(rows_here), len(image))
        torch.mm(rows_here, image.T, out=cosines)
        # Before long hardly any image of the target has a nearer one in a block.
        moved = torch.nonzero(cosines.amax(1) > best[here, -1]).squeeze(1)
        near, places = cosines[moved].topk(min(most, len(image)), dim=1)
        moved += here.start
        both = torch.cat([best[moved], near], 1)
        best[moved], order = both.topk(most, dim=1)
        rows[moved] = torch.cat([rows[moved], numbers[places]], 1).gather(1, order)

    for_each(look, -(-len(target) // _TILE), device=target.device, scratch=_TILE * _READ_AT_ONCE)
