"""How is the normalizer of a batch computed faster, and a little less exactly, by a CPU that multiplies bfloat16?

A batch's mean image x' and mean caption y' are taken out before rows are rounded; what they add is added in float32:
x_i . y_j = x' . y_j + (x_i - x') . y' + (x_i - x') . (y_j - y'), of which only the last product is rounded. It is the
smaller part, since embeddings lie in narrow cones. A pair's own cosine, usually the largest of its sum, is exact.
Products accumulate in float32 and are reduced where they are computed, by the C of rounded.c. Strips and the order
of sums are fixed: bitwise the same on any number of cores.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from clipsel_core.errors import ScoringError
from clipsel_core.scoring import native, tiled
from clipsel_core.scoring.workers import for_each

PRECISIONS = ("exact", "bf16")
ROWS, SIDE = 6, 64  # of a block of products, as in rounded.c
_BLOCK = 1024
_CENTRE_ROWS = 1024
_TOLERANCE = 1e-3
_CPU = torch.device("cpu")


def check_precision(precision: str, device: str | torch.device) -> None:
    """Raises ScoringError unless the precision is a known one that this device and machine have."""
    if precision not in PRECISIONS:
        raise ScoringError("precision", expected=f"one of {', '.join(PRECISIONS)}", found=repr(precision))
    if precision == "exact":
        return
    if torch.device(device).type != "cpu":
        expected = "a CPU; a GPU multiplies float16 exactly and as fast"
        raise ScoringError("precision bf16", expected=expected, found=f"{device}", remedy="use exact")
    native.sum_exp2()
    if not (error := _largest_error()) <= _TOLERANCE:
        found, remedy = f"an error of {error:.1e}", "use exact, and please report the CPU and the compiler"
        raise ScoringError("precision bf16", expected="sums near the exact ones", found=found, remedy=remedy)


def log_sum_exp(
    image: Tensor, text: Tensor, *, temperature: float, workers: int | None = None
) -> tuple[Tensor, Tensor]:
    """As reductions.log_sum_exp, of a batch of pairs on the CPU, rounded; checked arguments, precision included.

    image, text: (B, D), row i of both is a pair. workers: threads; None for as many as there are usable cores.
    At temperatures that the constant shift does not suit, it is the exact one.
    """
    if not tiled.constant_shift_suits(temperature):
        return tiled.log_sum_exp(image, text, temperature=temperature)
    scale, shift = tiled.scale_and_shift(temperature)
    row, column = _sum_exp2(image, text, scale, shift, workers)
    cut = tiled.tiling_for(len(image), _CPU)
    return tiled.finish(row, image, text, scale, shift, cut), tiled.finish(column, text, image, scale, shift, cut)


def _sum_exp2(image: Tensor, text: Tensor, scale: float, shift: float, workers: int | None) -> tuple[Tensor, Tensor]:
    """Sums of 2^(scale x_i . y_j - shift), of each row and of each column, float64."""
    function, n = native.sum_exp2(), len(image)
    x_mean, y_mean = _means(image, text)
    right, column_term = _right(text, x_mean, y_mean, scale, workers)
    strip = tiled.tiling_for(n, _CPU).strip // ROWS * ROWS
    strips = -(-n // strip)
    row, own = (torch.zeros(n, dtype=torch.float64) for _ in range(2))
    column_parts = torch.empty((strips, n), dtype=torch.float32)

    def sweep_strip(i: int, scratch: Tensor) -> None:
        rows = slice(i * strip, min((i + 1) * strip, n))
        centred = image[rows].float() - x_mean
        row_term = (centred @ y_mean).mul_(scale).sub_(shift)
        left = _packed(centred, ROWS)
        pointers = (tensor.data_ptr() for tensor in (row_term, column_term, row[rows], column_parts[i]))
        sizes = (len(centred), n, left.shape[1], rows.start)
        function(left.data_ptr(), right.data_ptr(), *sizes, scale, *pointers)
        own[rows] = (image[rows].double() * text[rows].double()).sum(1).mul_(scale).sub_(shift).exp2_()

    for_each(sweep_strip, strips, device=_CPU, workers=workers)
    column = own.clone()
    for part in column_parts:
        column += part
    return row.add_(own), column


def _means(image: Tensor, text: Tensor) -> Tensor:
    """About the mean of each side, (2, D) float32. Any vector would do, the same on any number of cores."""
    out = torch.empty((2, image.shape[1]), dtype=torch.float32)

    def mean(i: int, scratch: Tensor) -> None:
        rows = (image, text)[i]
        out[i] = rows[:: -(-len(rows) // _CENTRE_ROWS)].float().mean(0)

    for_each(mean, 2, device=_CPU)
    return out


def _right(text: Tensor, x_mean: Tensor, y_mean: Tensor, scale: float, workers: int | None) -> tuple[Tensor, Tensor]:
    """The captions, packed, and scale x' . y_j of each: what the mean image adds to its column."""
    n, depth = len(text), -(-text.shape[1] // 2)
    packed = torch.empty((-(-n // SIDE), depth, SIDE), dtype=torch.int32)
    term = torch.empty(n, dtype=torch.float32)

    def pack(i: int, scratch: Tensor) -> None:
        rows = text[i * _BLOCK : (i + 1) * _BLOCK].float()
        torch.mv(rows, x_mean, out=term[i * _BLOCK : (i + 1) * _BLOCK]).mul_(scale)
        panels = _packed(rows - y_mean, SIDE)
        packed[i * _BLOCK // SIDE :][: len(panels)] = panels

    for_each(pack, -(-n // _BLOCK), device=_CPU, workers=workers)
    return packed, term


def _packed(rows: Tensor, side: int) -> Tensor:
    """The rows in bfloat16, `side` together: (blocks, depth, side) int32 of two dimensions each; zeros past the end."""
    n, width = rows.shape
    depth = -(-width // 2)
    out = torch.zeros((-(-n // side) * side, 2 * depth), dtype=torch.bfloat16)
    out[:n, :width] = rows
    return out.view(torch.int32).view(-1, side, depth).transpose(1, 2).contiguous()


@functools.cache
def _largest_error() -> float:
    """How far the compiled function is from exact on a small batch that fits no block, in units of r; tried once."""
    numbers = torch.Generator().manual_seed(0)
    drawn = (torch.randn(135, 71, generator=numbers) + 0.5 for _ in range(2))
    x, y = (torch.nn.functional.normalize(rows) for rows in drawn)
    pairs = zip(log_sum_exp(x, y, temperature=0.01), tiled.log_sum_exp(x, y, temperature=0.01), strict=True)
    return max(float((found - exact).abs().max()) * 0.005 for found, exact in pairs)
