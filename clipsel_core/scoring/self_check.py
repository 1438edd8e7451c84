"""Does an implementation of the reductions compute the right thing on this device?

Asked of the Triton kernels before they are first used: compilers and drivers have been wrong before, and wrong scores
look like scores. The batch has every edge that fits no block: planted cosines of 1 and -1, rows that fit nothing.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from clipsel_core.scoring.tile_sizes import TileSizes

# Of r_image + r_text, and relative of NormSim_inf. Tensor cores cut off, rather than round, each time they add to a
# product, which comes to about 1e-6 at width 768 for a cosine of 1, and more in wider rows.
_LARGEST_ERROR, _AT_WIDTH = 2e-6, 768
_TEMPERATURES = (0.01, 0.004)  # with the constant shift, and with sums relative to their largest terms


def why_wrong(
    implementation: ModuleType, device: torch.device, width: int, dtype: torch.dtype, *, sizes: TileSizes
) -> str:
    """What is wrong with the implementation for rows of this width and dtype there; "" where nothing is.

    sizes: of its block of products; the batch has about nine by two of them.
    """
    bound = _LARGEST_ERROR * max(1.0, width / _AT_WIDTH)
    n, m = 9 * sizes.rows + 3, 2 * sizes.columns - 5
    x, y = _drawn(n, m, width, dtype, device)
    products = x.double() @ y.double().T
    found = implementation.max_abs(x, y).double()
    worst = _largest((found - products.abs().amax(1)) / products.abs().amax(1))
    if not worst <= bound:
        return f"a relative error of {worst:.1e} in NormSim_inf, D = {width}, {dtype}"
    for temperature in _TEMPERATURES:
        halves = implementation.log_sum_exp(x, y, temperature=temperature)
        truth = ((products / temperature).logsumexp(axis) for axis in (1, 0))
        errors = (_largest(half - true) * temperature / 2 for half, true in zip(halves, truth, strict=True))
        worst = sum(errors)
        if not worst <= bound:
            return f"an error of {worst:.1e} in the normalizer at temperature {temperature:g}, D = {width}, {dtype}"
    return ""


def _drawn(n: int, m: int, width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    numbers = torch.Generator().manual_seed(0)
    drawn = (torch.randn(count, width, generator=numbers) + 0.3 for count in (n, m))
    x, y = (torch.nn.functional.normalize(rows) for rows in drawn)
    x[:20], x[20:25], x[-1] = y[:20], -y[20:25], y[-1]
    x[30] = -y.mean(0) / y.mean(0).norm()
    return x.to(device=device, dtype=dtype), y.to(device=device, dtype=dtype)


def _largest(errors: Tensor) -> float:
    return float(errors.abs().max())
