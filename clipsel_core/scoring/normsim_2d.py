"""In which order do pairs fall out of a set that is its own target, when the least similar ones are dropped in rounds?

Exact, and nearly all products are left out. From one round to the next x^T M x of a row x falls by at most |x|^2 times
the largest eigenvalue of the change of M. So a pair's last value, less the sum of these falls since then, is a lower
bound of its value now. A round computes the pairs with the lowest bounds, until the lowest of all are values of this
round. All products are float64, so the order is that of any other float64 computation, but for values that are closer
to each other than its rounding, about 1e-15.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from clipsel_core.errors import ScoringError
from clipsel_core.scoring.checks import check_count, check_finite, check_rows, usable_device
from clipsel_core.scoring.normsim import second_moment
from clipsel_core.scoring.threads import for_each
from clipsel_core.tasks import Report, silent

_BLOCK = 256  # rows of a product: always so many, so that a row's value does not depend on where it stands
_LARGE_BLOCK = 32 * _BLOCK  # on other devices than the CPU
FEW = 16 * _BLOCK  # rows, at most, whose values are computed here rather than by others
_BATCH = 2 * _BLOCK  # values are computed in multiples of so many
_PARTS = 4  # of what is subtracted from a moment, each summed by one thread
# More than float64 rounds off values and eigenvalues, in proportion to the trace of M.
_ROUNDING = 1e-12
_FRONT = 16  # times the pairs that a round drops: those whose bounds are looked at in most rounds
_EXACT_IN_FLOAT32 = 1 << 24


def normsim_2d(
    image: Tensor,
    pool_moment: Tensor,
    *,
    keep: int,
    rounds: int,
    order: Tensor | None = None,
    device: str | torch.device = "cpu",
    report: Report = silent,
) -> Tensor:
    """NormSim_2-D: how many pairs fall out before each pair does. Higher is better.

    Each round drops the c = ceil((N - keep) / rounds) pairs with the lowest x^T M x, the last round so many that `keep`
    remain. M is the pool's second moment in the first round, and that of the pairs that are left in all others.
    image: (N, D), unit rows of the pairs to start from, float16, bfloat16 or float32.
    pool_moment: (D, D) float64, second_moment of the whole pool, times any factor.
    keep: how many pairs remain, 0 to N. rounds: how many rounds, at least 1; where c is rounded up they may be fewer.
    order: (N,) whole numbers; of equal values the pair with the larger number falls out first. None: the row.
    device: where to compute. report: told how many of the N - keep pairs have fallen out.
    Returns: (N,) int64 on the CPU: 0 for the pair that falls out first; N - keep for all that remain.
    Raises: ScoringError where an argument does not fit or a row is not finite.
    Reference: arXiv 2405.19547, NormSim_2-D; M is that of all pairs here, not of a sample of them.
    """
    check_rows("image", image)
    check_finite("image", image)
    own_moment = second_moment(image, device=device)
    return falling_order(
        lambda rows: image[torch.from_numpy(rows)],
        pool_moment,
        own_moment,
        count=len(image),
        keep=keep,
        rounds=rounds,
        order=order,
        device=device,
        report=report,
    )


def falling_order(
    read: Callable[[np.ndarray], Tensor],
    pool_moment: Tensor,
    own_moment: Tensor,
    *,
    count: int,
    keep: int,
    rounds: int,
    order: Tensor | None = None,
    device: str | torch.device = "cpu",
    others: Callable[[np.ndarray, Tensor], tuple[np.ndarray, float]] | None = None,
    report: Report = silent,
) -> Tensor:
    """normsim_2d of images that are read as they are needed: all of them once, then a few times c in a round.

    read: the images of ascending row numbers, (n,) int64 to (n, D); called from several threads, for 256 rows at most
        on the CPU and 8,192 on other devices.
    own_moment: (D, D) float64, second_moment of all `count` images. others: have what `Values.of` computes of many rows
        by a moment on the CPU computed elsewhere; gives it and the largest |x|^2. Everything else: as for normsim_2d.
    Memory: 30 bytes a pair, and 25 at times, besides what `read` holds.
    """
    fits = pool_moment.shape == own_moment.shape and pool_moment.dtype == torch.float64
    if not fits or not pool_moment.isfinite().all() or not pool_moment.trace() > 0:
        kind = str(pool_moment.dtype).removeprefix("torch.")
        found = f"{tuple(pool_moment.shape)} {kind}, trace {float(pool_moment.trace()):g}"
        raise ScoringError("pool_moment", expected=f"{tuple(own_moment.shape)} float64, trace above 0", found=found)
    check_count("rounds", rounds)
    check_keep(keep, count)
    if order is not None and order.shape != (count,):
        found = f"shape {tuple(order.shape)}"
        raise ScoringError("order", expected=f"a number for each of {count:,} rows", found=found)
    place = np.full(count, count - keep)
    if keep == count:
        return torch.from_numpy(place)
    device = usable_device(device)
    bounds = _Bounds(Values(read, device, others), count, np.arange(count) if order is None else order.numpy())
    moment, left, fallen = (pool_moment / pool_moment.trace()).to(device), own_moment.to(device, copy=True), 0
    while True:
        lowest = bounds.lowest(min(_per_round(count, keep, rounds), count - keep - fallen), moment)
        place[lowest] = np.arange(fallen, fallen + len(lowest))
        fallen += len(lowest)
        report(fallen, count - keep, "pairs")
        if fallen == count - keep:
            return torch.from_numpy(place)
        bounds.remove(lowest)
        moment = _moment_without(np.sort(lowest), left, count - fallen, read)


def round_shares(place: Tensor, *, keep: int, rounds: int) -> Tensor:
    """The column of normsim_2d: the round in which a pair fell out, divided by all rounds. Higher is better.

    place: (N,) int64, of normsim_2d with these `keep` and `rounds`.
    Returns: (N,) float32: place / (c rounds), which is (r + j / c) / rounds for the pair that was the j-th to fall out
    in round r, both counted from 0; 1 for those that remain, and for no others. While c rounds is at most 2^24 =
    16,777,216 no two pairs that fell out have the same number, so a threshold cuts at any place. Beyond that some
    c rounds / 2^24 pairs that fell out one after the other may share one.
    Raises: ScoringError as normsim_2d.
    """
    check_count("rounds", rounds)
    check_keep(keep, len(place))
    if keep == len(place):
        return torch.ones(len(place))
    share = (place.double() / (_per_round(len(place), keep, rounds) * rounds)).float()
    share.clamp_(max=1 - 1 / _EXACT_IN_FLOAT32)
    share[place == len(place) - keep] = 1
    return share


def check_keep(keep: int, count: int) -> None:
    """Raises ScoringError unless `keep` of `count` pairs can remain."""
    if not 0 <= keep <= count:
        expected, found = f"0 to {count:,} pairs, as many as there are to start from", f"{keep:,}"
        raise ScoringError("keep", expected=expected, found=found, remedy="keep fewer, or start from more")


def _per_round(count: int, keep: int, rounds: int) -> int:
    return -(-(count - keep) // rounds)


def _moment_without(rows: np.ndarray, total: Tensor, count: int, read: Callable[[np.ndarray], Tensor]) -> Tensor:
    """The mean of x x^T over the `count` pairs that remain without these rows; total: the sum, changed in place."""
    block = _block(total.device)
    parts = torch.empty((_PARTS, *total.shape), dtype=torch.float64, device=total.device)
    mean, size = torch.empty_like(total), -(-len(rows) // _PARTS)

    def add(i: int, scratch: Tensor) -> None:
        mine = rows[i * size : (i + 1) * size]
        parts[i].zero_()
        for start in range(0, len(mine), block):
            x = read(mine[start : start + block]).to(total.device).double()
            parts[i].addmm_(x.T, x)

    def subtract(_: int, scratch: Tensor) -> None:
        for part in parts:
            total.sub_(part)
        torch.div(total, count, out=mean)

    for_each(add, _PARTS, device=total.device)
    for_each(subtract, 1, device=total.device)  # torch's own threads wait long for each other on a busy machine
    return mean


def _block(device: torch.device) -> int:
    return _BLOCK if device.type == "cpu" else _LARGE_BLOCK


class Values:
    """x^T M x of rows, in float64. longest: the largest |x|^2 of those that were computed.

    read, others: see `falling_order`. A row's value is the same among whichever others it is computed.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], Tensor],
        device: torch.device,
        others: Callable[[np.ndarray, Tensor], tuple[np.ndarray, float]] | None = None,
    ) -> None:
        self._read, self._device, self._others = read, device, others
        self.longest = 0.0

    def of(self, rows: np.ndarray, moment: Tensor, beside: Callable[[], object] | None = None) -> np.ndarray:
        """The values of ascending row numbers, (n,) float64. beside: computed in the meantime, on one core."""
        if self._others and len(rows) > FEW:
            if beside is not None:
                beside()
            elsewhere, longest = self._others(rows, moment.cpu())
            self.longest = max(self.longest, longest)
            return elsewhere
        block, width = _block(self._device), len(moment)
        blocks = -(-len(rows) // block)
        found, lengths = np.empty(len(rows)), np.zeros(blocks)
        first = int(beside is not None)

        def compute(i: int, scratch: Tensor) -> None:
            if beside is not None and i == 0:
                beside()
                return
            place = slice((i - first) * block, min((i - first + 1) * block, len(rows)))
            x = torch.zeros((block, width), dtype=torch.float64, device=self._device)
            x[: place.stop - place.start] = self._read(rows[place]).to(self._device)
            value = (x @ moment).mul_(x).sum(1)
            found[place] = value[: place.stop - place.start].cpu().numpy()
            lengths[i - first] = float(x.square_().sum(1).amax())

        for_each(compute, blocks + first, device=self._device)
        self.longest = max(self.longest, float(lengths.max()))
        return found


class _Bounds:
    """A lower bound of each pair's value in this round, and which pairs have the lowest values.

    A bound is kept with the falls of all rounds so far added to it. So it need not be touched in the rounds in which
    its pair is not computed, and the order of the bounds is what counts.
    """

    def __init__(self, values: Values, count: int, order: np.ndarray) -> None:
        self._values, self._order = values, order
        self._bound = np.zeros(count)
        self._computed = np.zeros(count, np.int32)  # the round whose value a bound is
        self._round, self._falls = 0, 0.0
        self._moment: Tensor | None = None
        # The pairs whose bounds are at most `edge`, ascending: many rounds need not look at the others.
        self._front, self._edge = np.empty(0, np.int64), -math.inf

    def lowest(self, count: int, moment: Tensor) -> np.ndarray:
        """The rows with the lowest values by this moment, (count,), in the order in which they fall out.

        moment: (D, D) float64 of the next round. count: at most as many as are left.
        """
        self._round += 1
        before, self._moment = self._moment, moment
        if before is None:
            self._compute(np.arange(len(self._bound)), None)
            self._check_finite()
        else:
            self._compute(self._stale(count), before)
        while True:
            below = self._below(count)
            stale = int(np.count_nonzero(self._computed[below] != self._round))
            if not stale:
                return below[np.lexsort((-self._order[below], self._bound[below]))][:count]
            self._compute(self._stale(stale), None)

    def remove(self, rows: np.ndarray) -> None:
        """Takes rows out."""
        self._bound[rows] = math.inf

    def _compute(self, rows: np.ndarray, before: Tensor | None) -> None:
        """Computes the values of ascending rows; before: the last round's moment where the fall since is not known."""
        assert self._moment is not None
        if before is None:
            values = self._values.of(rows, self._moment)
        else:
            moment, found = self._moment, np.zeros(1)

            def bound_fall() -> None:
                largest = float(torch.linalg.eigvalsh((before - moment).cpu())[-1])
                found[0] = max(largest, 0.0) + _ROUNDING * float(moment.trace())

            values = self._values.of(rows, self._moment, bound_fall)
            self._falls += float(found[0]) * self._values.longest
        self._bound[rows] = values + self._falls
        self._computed[rows] = self._round

    def _below(self, count: int) -> np.ndarray:
        """The rows, ascending, with the `count` lowest bounds, and all whose bounds equal the largest of these."""
        while True:
            bound = self._bound[self._front]
            threshold = np.partition(bound, count - 1)[count - 1] if count <= len(bound) else math.inf
            if threshold <= self._edge:
                return self._front[bound <= threshold]
            self._look_at_all(count)

    def _stale(self, count: int) -> np.ndarray:
        """The `count` rows with the lowest bounds that are no values of this round, and more that cost little."""
        self._below(count)
        stale = self._front[(self._computed[self._front] != self._round) & np.isfinite(self._bound[self._front])]
        count = -(-count // _BATCH) * _BATCH
        if len(stale) <= count:
            return stale
        return np.sort(stale[np.argpartition(self._bound[stale], count - 1)[:count]])

    def _look_at_all(self, count: int) -> None:
        """Fills the front anew: with many times `count` rows."""
        most = min(max(_FRONT * count, _FRONT * _BATCH), len(self._bound))
        self._edge = np.partition(self._bound, most - 1)[most - 1]
        self._front = np.flatnonzero(self._bound <= self._edge)

    def _check_finite(self) -> None:
        """Raises ScoringError naming the first row without a value."""
        if not np.isfinite(self._bound).all():
            where = f"image, row {int(np.argmin(np.isfinite(self._bound)))}"
            raise ScoringError(where, expected="finite numbers", found="NaN or inf", remedy="leave the row out")
