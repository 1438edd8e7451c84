"""How is the log-sum-exp over X Y^T computed faster, and a little less exactly, by a CPU that multiplies bfloat16?

As in `tiled`, but rows and products are rounded to bfloat16; sums are not. One more dimension subtracts a constant from
every product before it is rounded, so that the products which make up the sums are small and lose little. Strips, tiles
and the order of sums are those of `tiled`: bitwise the same on any number of cores.
"""

from __future__ import annotations

import functools
import statistics
import time

import torch
from torch import Tensor

from clipsel_core.errors import ScoringError
from clipsel_core.scoring import tiled
from clipsel_core.scoring.tiled import Tiling
from clipsel_core.scoring.workers import float32_products, for_each

PRECISIONS = ("exact", "bf16")
_CENTRE = 0.25  # a cosine that is usual among the largest of a row
_ALIGNED = 32
_WORTH_IT = 1.25
_PROBE = (1024, 1024, 768)
_CPU = torch.device("cpu")


def check_precision(precision: str, device: str | torch.device) -> None:
    """Raises ScoringError unless the precision is a known one, and of use on this device and machine."""
    if precision not in PRECISIONS:
        raise ScoringError("precision", expected=f"one of {', '.join(PRECISIONS)}", found=repr(precision))
    if precision == "exact":
        return
    if torch.device(device).type != "cpu":
        expected = "a CPU; a GPU multiplies float16 exactly and as fast"
        raise ScoringError("precision bf16", expected=expected, found=f"{device}", remedy="use exact")
    if speed_up() < _WORTH_IT:
        found = f"products {speed_up():.2f} times as fast as float32's"
        expected = "a CPU that multiplies bfloat16 natively (AVX-512 BF16 or AMX)"
        raise ScoringError("precision bf16", expected=expected, found=found, remedy="use exact")


def log_sum_exp(x: Tensor, y: Tensor, *, temperature: float, tiling: Tiling | None = None) -> tuple[Tensor, Tensor]:
    """As reductions.log_sum_exp, of checked arguments on the CPU, rounded."""
    scale, shift = tiled.scale_and_shift(temperature)
    shift = float(torch.tensor(max(shift, _CENTRE * scale)).bfloat16())
    cut = tiling or tiled.tiling_for(len(x), x.device)
    row, column = _sum_exp2(x, y, scale, shift, cut)
    return tiled.finish(row, x, y, scale, shift, cut), tiled.finish(column, y, x, scale, shift, cut)


def _sum_exp2(x: Tensor, y: Tensor, scale: float, shift: float, cut: Tiling) -> tuple[Tensor, Tensor]:
    """Sums of 2^(scale x_i . y_j - shift), of each row and of each column, float64; shift is a bfloat16 number."""
    strips = -(-len(x) // cut.strip)
    height, width = min(cut.strip, len(x)), min(cut.tile, len(y))
    row, column = (torch.zeros(len(rows), dtype=torch.float64) for rows in (x, y))
    column_parts = torch.empty((strips, len(y)), dtype=torch.float32)
    right = _widened(y, 1.0)

    def sweep_strip(i: int, scratch: Tensor) -> None:
        rows = slice(i * cut.strip, min((i + 1) * cut.strip, len(x)))
        strip = _widened(x[rows].float() * scale, -shift)
        rounded = scratch[height * width :].view(torch.bfloat16)
        for start in range(0, len(y), cut.tile):
            columns = slice(start, min(start + cut.tile, len(y)))
            shape = len(strip), columns.stop - columns.start
            products, e = (buffer[: shape[0] * shape[1]].view(shape) for buffer in (rounded, scratch))
            torch.mm(strip, right[columns].T, out=products)
            e.copy_(products).exp2_()
            row[rows] += e.sum(1)
            torch.sum(e, 0, out=column_parts[i, columns])

    scratch = height * width + -(-height * width // 2)
    for_each(sweep_strip, strips, device=_CPU, scratch=scratch, workers=cut.workers)
    for part in column_parts:
        column += part
    return row, column


def _widened(rows: Tensor, last: float) -> Tensor:
    """The rows in bfloat16 with one more dimension, which holds `last`, and zeros up to a multiple of _ALIGNED."""
    width = rows.shape[1]
    out = torch.zeros((len(rows), (width // _ALIGNED + 1) * _ALIGNED), dtype=torch.bfloat16)
    out[:, :width] = rows
    out[:, width] = last
    return out


@functools.cache
def speed_up() -> float:
    """How many times as fast one thread multiplies bfloat16 as float32: the median of paired products, tried once.

    Measured in the thread's own CPU time, so that other load on the machine does not decide.
    """
    n, m, width = _PROBE
    ratios: list[float] = []

    def seconds(x: Tensor, y: Tensor, out: Tensor) -> float:
        start = time.thread_time()
        torch.mm(x, y.T, out=out)
        return time.thread_time() - start

    def probe(i: int, scratch: Tensor) -> None:
        full = torch.ones(n, width), torch.ones(m, width), torch.empty(n, m)
        half = tuple(tensor.bfloat16() for tensor in full)
        pairs = [(seconds(*full), seconds(*half)) for _ in range(6)]
        ratios.extend(a / b for a, b in pairs[1:])

    with float32_products(_CPU):
        for_each(probe, 1, device=_CPU, workers=1)
    return statistics.median(ratios)
