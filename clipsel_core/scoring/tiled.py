"""How are the reductions over X Y^T computed with torch alone, tile by tile, on any device?

X is cut into strips and Y into tiles; a strip is swept over all tiles by one worker, which holds one tile of products
at a time. On the CPU there are as many one-thread workers as cores, elsewhere one. The cut depends on the sizes only
and partial sums are added in its order, so results are bitwise the same on any number of cores.

The log-sum-exp takes e = 2^(s log2(e)/tau - shift) with one constant shift for all pairs. The row sums and the column
sums then come from the same exponential and simply add. The shift follows from tau alone: no tile sum overflows while
cosines stay below 1.02. What is lost at the other end are terms below 2^-126, set to zero: in a sum of n terms that is
at least 2^-90 they change tau/2 log(sum) by no more than tau/2 n 2^-36, and there is a shift only for tau < 0.014; that
is below 2e-8 at n = 2^17. Rows and columns whose sum lies outside [2^-90, inf) are swept again with a running maximum,
which holds for any product.

Below tau = 0.0066 the range of the constant shift would leave out usual cosines. There every sum is kept relative to
its own largest term from the start: two exponentials a product instead of one, still in one sweep.

A CPU that multiplies bfloat16 computes the log-sum-exp of a batch of pairs faster, and a little less exactly. The
batch's mean image x' and mean caption y' are taken out before rows are rounded; what they add is added in float32: x_i
. y_j = x' . y_j + (x_i - x') . y' + (x_i - x') . (y_j - y'). torch's bfloat16 product computes the last one alone, and
rounds it. It is the smaller part, since embeddings lie in narrow cones. A pair's own cosine, usually the largest of its
sum, is exact.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from clipsel_core.scoring.threads import float32_products, for_each, thread_count

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_LARGEST_COSINE = 1.02
_LARGEST_EXPONENT = 112.0  # 2^112 a term leaves room for 2^15 terms in a float32 tile sum
_SMALLEST_SUM = 2.0**-90
_LOW_COSINE = 0.1  # few rows of a batch have no cosine above it
_SMALLEST_TILE = 64
_CENTRED_AT_ONCE, _MEAN_OF = 1024, 1024
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Tiling:
    """Rows of X in a strip, rows of Y in a tile, and the workers that share the strips."""

    strip: int
    tile: int
    workers: int


def tiling_for(n: int, device: torch.device) -> Tiling:
    """The cut for n rows of X: strips of equal cost, enough of them to keep the cores busy to the end."""
    if device.type != "cpu":
        return Tiling(strip=4096, tile=4096, workers=1)
    strip = min(1024, max(128, -(-n // 16 // 64) * 64))
    return Tiling(strip=strip, tile=1024, workers=thread_count())


def log_sum_exp(x: Tensor, y: Tensor, *, temperature: float, tiling: Tiling | None = None) -> tuple[Tensor, Tensor]:
    """As reductions.log_sum_exp, of checked arguments."""
    scale, shift = scale_and_shift(temperature)

    def sweep(cut: Tiling) -> tuple[Tensor, Tensor]:
        if not constant_shift_suits(temperature):
            row, column = _log2_sums(x, y, scale, cut)
            return row.mul_(math.log(2.0)), column.mul_(math.log(2.0))
        row, column = _sum_exp2(x, y, scale, shift, cut)
        return finish(row, x, y, scale, shift, cut), finish(column, y, x, scale, shift, cut)

    return with_smaller_tiles(sweep, tiling or tiling_for(len(x), x.device), x.device)


def rounded_log_sum_exp(
    image: Tensor, text: Tensor, *, temperature: float, workers: int | None = None
) -> tuple[Tensor, Tensor]:
    """As reductions.log_sum_exp, of a batch of pairs on the CPU, rounded; checked arguments, precision included.

    image, text: (B, D), row i of both is a pair. workers: threads; None for as many as there are usable cores.
    At temperatures that the constant shift does not suit, it is the exact one.
    """
    if not constant_shift_suits(temperature):
        return log_sum_exp(image, text, temperature=temperature)
    scale, shift = scale_and_shift(temperature)
    with torch.no_grad():
        row, column = _rounded_sum_exp2(image, text, scale, shift, workers)
    cut = tiling_for(len(image), _CPU)
    return finish(row, image, text, scale, shift, cut), finish(column, text, image, scale, shift, cut)


def max_abs(x: Tensor, t: Tensor, *, tiling: Tiling | None = None) -> Tensor:
    """As reductions.max_abs, of checked arguments."""

    def sweep(cut: Tiling) -> Tensor:
        out = torch.zeros(len(x), dtype=torch.float32, device=x.device)

        def reduce(rows: slice, products: Tensor, columns: slice) -> None:
            largest = torch.maximum(products.amax(1), products.amin(1).neg_())
            torch.maximum(out[rows], largest, out=out[rows])

        _sweep(x, t, 1.0, cut, reduce)
        return out

    return with_smaller_tiles(sweep, tiling or tiling_for(len(x), x.device), x.device)


def p_norm(x: Tensor, t: Tensor, *, p: float, tiling: Tiling | None = None) -> Tensor:
    """As reductions.p_norm, of checked arguments."""

    def sweep(cut: Tiling) -> Tensor:
        top = torch.full((len(x),), torch.finfo(torch.float32).tiny, dtype=torch.float32, device=x.device)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)

        def reduce(rows: slice, products: Tensor, columns: slice) -> None:
            size = products.abs_()
            new_top = torch.maximum(top[rows], size.amax(1))
            total[rows] *= (top[rows].double() / new_top.double()).pow_(p)
            total[rows] += size.div_(new_top[:, None]).pow_(p).sum(1, dtype=torch.float64)
            top[rows] = new_top

        _sweep(x, t, 1.0, cut, reduce)
        return (total.pow_(1.0 / p) * top).float()

    return with_smaller_tiles(sweep, tiling or tiling_for(len(x), x.device), x.device)


def scale_and_shift(temperature: float) -> tuple[float, float]:
    """What turns a cosine s into the exponent of 2 that is summed: scale s - shift."""
    scale = math.log2(math.e) / temperature
    return scale, max(0.0, _LARGEST_COSINE * scale - _LARGEST_EXPONENT)


def constant_shift_suits(temperature: float) -> bool:
    """Whether the range of the constant shift holds sums with no cosine above a low one."""
    scale, shift = scale_and_shift(temperature)
    return _LOW_COSINE * scale - shift >= math.log2(_SMALLEST_SUM)


def finish(sums: Tensor, x: Tensor, y: Tensor, scale: float, shift: float, cut: Tiling) -> Tensor:
    """Natural logarithms of the sums over y of x's rows, those out of range computed anew.

    sums: (N,) float64, of 2^(scale x_i . y_j - shift). Returns: (N,) float64.
    """
    log2 = sums.log2().add_(shift)
    again = torch.nonzero(~((sums >= _SMALLEST_SUM) & (sums < math.inf)))[:, 0]
    if len(again):
        log2[again] = _running_log2_sum(x[again], y, scale, cut)
    return log2.mul_(math.log(2.0))


def with_smaller_tiles(sweep: Callable[[Tiling], _Result], cut: Tiling, device: torch.device) -> _Result:
    """sweep(cut), with strips and tiles halved as often as the device runs out of memory; logged once."""
    while True:
        try:
            return sweep(cut)
        except torch.OutOfMemoryError:
            if cut.strip <= _SMALLEST_TILE:
                raise
        cut = replace(cut, strip=cut.strip // 2, tile=max(_SMALLEST_TILE, cut.tile // 2))
        _warn_of_smaller_tiles(str(device))


def _sum_exp2(x: Tensor, y: Tensor, scale: float, shift: float, cut: Tiling) -> tuple[Tensor, Tensor]:
    """Sums of 2^(scale x_i . y_j - shift), of each row and of each column, float64."""
    strips = -(-len(x) // cut.strip)
    row = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    column_parts = torch.empty((strips, len(y)), dtype=torch.float32, device=x.device)

    def reduce(rows: slice, products: Tensor, columns: slice) -> None:
        e = (products.sub_(shift) if shift else products).exp2_()
        row[rows] += e.sum(1)
        torch.sum(e, 0, out=column_parts[rows.start // cut.strip, columns])

    _sweep(x, y, scale, cut, reduce)
    column = torch.zeros(len(y), dtype=torch.float64, device=x.device)
    for part in column_parts:
        column += part
    return row, column


def _rounded_sum_exp2(
    image: Tensor, text: Tensor, scale: float, shift: float, workers: int | None
) -> tuple[Tensor, Tensor]:
    """Sums of 2^(scale x_i . y_j - shift), of each row and of each column, float64."""
    n = len(image)
    # About the means. Any vectors would do that are the same on any number of cores.
    x_mean, y_mean = torch.empty((2, image.shape[1]), dtype=torch.float32)

    def average(i: int, scratch: Tensor) -> None:
        rows = (image, text)[i]
        (x_mean, y_mean)[i].copy_(rows[:: -(-n // _MEAN_OF)].float().mean(0))

    for_each(average, 2, device=_CPU)
    right, column_term = torch.empty(text.shape, dtype=torch.bfloat16), torch.empty(n, dtype=torch.float32)

    def centre(i: int, scratch: Tensor) -> None:
        block = slice(i * _CENTRED_AT_ONCE, (i + 1) * _CENTRED_AT_ONCE)
        rows = text[block].float()
        torch.mv(rows, x_mean, out=column_term[block]).mul_(scale)
        right[block] = rows - y_mean

    for_each(centre, -(-n // _CENTRED_AT_ONCE), device=_CPU, workers=workers)
    cut = tiling_for(n, _CPU)
    strips = -(-n // cut.strip)
    row, own = (torch.zeros(n, dtype=torch.float64) for _ in range(2))
    column_parts = torch.empty((strips, n), dtype=torch.float32)

    def sweep_strip(i: int, scratch: Tensor) -> None:
        rows = slice(i * cut.strip, min((i + 1) * cut.strip, n))
        centred = image[rows].float() - x_mean
        row_term = (centred @ y_mean).mul_(scale).sub_(shift)[:, None]
        left = centred.mul_(scale).bfloat16()
        own[rows] = (image[rows].double() * text[rows].double()).sum(1).mul_(scale).sub_(shift).exp2_()
        for start in range(0, n, cut.tile):
            columns = slice(start, min(start + cut.tile, n))
            products = torch.mm(left, right[columns].T)
            e = scratch[: products.numel()].view(products.shape).copy_(products)
            e.add_(row_term).add_(column_term[columns]).exp2_()
            e.diagonal(rows.start - start).zero_()  # the pairs' own products, which `own` has exactly
            row[rows] += e.sum(1)
            torch.sum(e, 0, out=column_parts[i, columns])

    for_each(sweep_strip, strips, device=_CPU, scratch=cut.strip * cut.tile, workers=workers)
    column = own.clone()
    for part in column_parts:
        column += part
    return row.add_(own), column


def _log2_sums(x: Tensor, y: Tensor, scale: float, cut: Tiling) -> tuple[Tensor, Tensor]:
    """log2 of the sums of 2^(scale x_i . y_j), of each row and of each column, float64, for products of any size."""
    strips = -(-len(x) // cut.strip)
    tiles = -(-len(y) // cut.tile)
    row_top, row_sum = (torch.empty((tiles, len(x)), dtype=torch.float32, device=x.device) for _ in range(2))
    column_top, column_sum = (torch.empty((strips, len(y)), dtype=torch.float32, device=x.device) for _ in range(2))

    def reduce(rows: slice, products: Tensor, columns: slice) -> None:
        strip, tile = rows.start // cut.strip, columns.start // cut.tile
        down = torch.amax(products, 0, out=column_top[strip, columns])
        torch.sum((products - down).exp2_(), 0, out=column_sum[strip, columns])
        across = torch.amax(products, 1, out=row_top[tile, rows])
        torch.sum(products.sub_(across[:, None]).exp2_(), 1, out=row_sum[tile, rows])

    _sweep(x, y, scale, cut, reduce)
    return add_relative(row_top, row_sum), add_relative(column_top, column_sum)


def add_relative(tops: Tensor, sums: Tensor) -> Tensor:
    """log2 sum_k sums[k] 2^tops[k], added in order: (parts, N) float32 twice to (N,) float64."""
    top = tops.amax(0)
    total = torch.zeros(tops.shape[1], dtype=torch.float64, device=tops.device)
    # One at a time keeps the order on any number of cores; a GPU would spend its time on starting that many.
    step = 1 if tops.device.type == "cpu" else 32
    for part_tops, parts in zip(tops.split(step), sums.split(step), strict=True):
        total += (parts * (part_tops - top).double().exp2_()).sum(0)
    return total.log2_().add_(top)


def _running_log2_sum(x: Tensor, y: Tensor, scale: float, cut: Tiling) -> Tensor:
    """log2 sum_j 2^(scale x_i . y_j) of each row, for products of any size: the sum is kept relative to its maximum."""
    top = torch.full((len(x),), -math.inf, dtype=torch.float32, device=x.device)
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)

    def reduce(rows: slice, products: Tensor, columns: slice) -> None:
        new_top = torch.maximum(top[rows], products.amax(1))
        total[rows] *= (top[rows] - new_top).double().exp2_()
        total[rows] += products.sub_(new_top[:, None]).exp2_().sum(1)
        top[rows] = new_top

    _sweep(x, y, scale, cut, reduce)
    return total.log2_().add_(top)


def _sweep(x: Tensor, y: Tensor, scale: float, cut: Tiling, reduce: Callable[[slice, Tensor, slice], None]) -> None:
    """Calls reduce(rows, scale * x[rows] @ y[columns].T, columns) for every tile, a strip's tiles in order.

    The products are float32, contiguous, and reduce's to overwrite. Strips run side by side.
    """
    height, width = min(cut.strip, len(x)), min(cut.tile, len(y))
    convert = y.dtype != torch.float32

    def sweep_strip(i: int, scratch: Tensor) -> None:
        rows = slice(i * cut.strip, min((i + 1) * cut.strip, len(x)))
        strip = x[rows].to(torch.float32, copy=True).mul_(scale)
        for start in range(0, len(y), cut.tile):
            columns = slice(start, min(start + cut.tile, len(y)))
            tile = y[columns]
            if convert:
                tile = scratch[height * width :][: tile.numel()].view(tile.shape).copy_(tile)
            products = scratch[: len(strip) * len(tile)].view(len(strip), len(tile))
            torch.mm(strip, tile.T, out=products)
            reduce(rows, products, columns)

    strips = -(-len(x) // cut.strip)
    scratch = height * width + (width * y.shape[1] if convert else 0)
    with torch.no_grad(), float32_products(x.device):
        for_each(sweep_strip, strips, device=x.device, scratch=scratch, workers=cut.workers)


@functools.cache
def _warn_of_smaller_tiles(device: str) -> None:
    _log.warning("%s is out of memory: going on with smaller tiles; sums may differ in the last digit", device)
