"""How is the normalizer of a batch computed faster, and a little less exactly, by a CPU that multiplies bfloat16?

A batch's mean image x' and mean caption y' are taken out before rows are rounded; what they add is added in float32:
x_i . y_j = x' . y_j + (x_i - x') . y' + (x_i - x') . (y_j - y'). torch's bfloat16 product computes the last one alone,
and rounds it. It is the smaller part, since embeddings lie in narrow cones. A pair's own cosine, usually the largest of
its sum, is exact. Strips and the order of sums are fixed: bitwise the same on any number of cores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clipsel_core.scoring import tiled
from clipsel_core.scoring.threads import for_each

_BLOCK = 1024
_CENTRE_ROWS = 1024
_CPU = torch.device("cpu")


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
    with torch.no_grad():
        row, column = _sum_exp2(image, text, scale, shift, workers)
    cut = tiled.tiling_for(len(image), _CPU)
    return tiled.finish(row, image, text, scale, shift, cut), tiled.finish(column, text, image, scale, shift, cut)


def _sum_exp2(image: Tensor, text: Tensor, scale: float, shift: float, workers: int | None) -> tuple[Tensor, Tensor]:
    """Sums of 2^(scale x_i . y_j - shift), of each row and of each column, float64."""
    n = len(image)
    # About the means. Any vectors would do that are the same on any number of cores.
    x_mean, y_mean = torch.empty((2, image.shape[1]), dtype=torch.float32)

    def average(i: int, scratch: Tensor) -> None:
        rows = (image, text)[i]
        (x_mean, y_mean)[i].copy_(rows[:: -(-n // _CENTRE_ROWS)].float().mean(0))

    for_each(average, 2, device=_CPU)
    right, column_term = torch.empty(text.shape, dtype=torch.bfloat16), torch.empty(n, dtype=torch.float32)

    def centre(i: int, scratch: Tensor) -> None:
        block = slice(i * _BLOCK, (i + 1) * _BLOCK)
        rows = text[block].float()
        torch.mv(rows, x_mean, out=column_term[block]).mul_(scale)
        right[block] = rows - y_mean

    for_each(centre, -(-n // _BLOCK), device=_CPU, workers=workers)
    cut = tiled.tiling_for(n, _CPU)
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
