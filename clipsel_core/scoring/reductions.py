"""How are the products of all rows of two sets reduced without forming their matrix?

Three reductions over X Y^T: log-sum-exp per row and per column in one sweep, the largest absolute value per row, and
the p-norm per row. Each has one signature and several implementations; `impl` forces one, otherwise the device and the
dtypes of the tensors choose: "triton" for float16 or bfloat16 on an NVIDIA GPU where its kernels pass a check against
float64, "tiled" for everything else. The check is there because compilers and drivers have been wrong before, and wrong
scores look like scores. An implementation is a module with these three functions, which may assume checked arguments.
"""

from __future__ import annotations

import functools
import importlib
import logging
import math
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clipsel_core.errors import ScoringError
from clipsel_core.scoring import tiled
from clipsel_core.scoring.checks import check_rows, check_temperature, check_width

if TYPE_CHECKING:
    from clipsel_core.scoring.tile_sizes import TileSizes

IMPLEMENTATIONS = ("tiled", "triton")
_HALF = (torch.float16, torch.bfloat16)
_log = logging.getLogger(__name__)
# Of r_image + r_text, and relative of NormSim_inf. Tensor cores cut off, rather than round, each time they add to a
# product, which comes to about 1e-6 at width 768 for a cosine of 1, and more in wider rows.
_LARGEST_ERROR, _AT_WIDTH = 2e-6, 768
_TEMPERATURES = (0.01, 0.004)  # with the constant shift, and with sums relative to their largest terms


def log_sum_exp(x: Tensor, y: Tensor, *, temperature: float, impl: str | None = None) -> tuple[Tensor, Tensor]:
    """log sum_j exp(x_i . y_j / temperature) of every row i, and log sum_i of the same of every column j.

    x: (N, D), y: (M, D), float16, bfloat16 or float32, finite, on one device.
    temperature: 0.001 to 10.
    impl: "tiled", "triton" (float16 or bfloat16 on both sides, on an NVIDIA GPU), or None to choose.
    Returns: (N,) and (M,), float64, natural logarithms. Rows of any length are right; unit rows are fast. Bitwise the
        same on any number of cores, and in every run with the same tile sizes on the same GPU.
    Raises: ScoringError where the arguments do not fit together.
    """
    _check_both("y", x, y)
    check_temperature(temperature)
    return _choose(impl, x, y).log_sum_exp(x, y, temperature=float(temperature))


def max_abs(x: Tensor, t: Tensor, *, impl: str | None = None) -> Tensor:
    """max_m |x_i . t_m| of every row i: (N,) float32.

    x: (N, D), t: (M, D), float16, bfloat16 or float32, finite, on one device. impl: as for log_sum_exp.
    Raises: ScoringError where the arguments do not fit together.
    """
    _check_both("t", x, t)
    return _choose(impl, x, t).max_abs(x, t)


def p_norm(x: Tensor, t: Tensor, *, p: float, impl: str | None = None) -> Tensor:
    """(sum_m |x_i . t_m|^p)^(1/p) of every row i: (N,) float32.

    x: (N, D), t: (M, D), float16, bfloat16 or float32, finite, on one device. p: finite, at least 1. The sum is scaled
    by the row's largest term, so that no power underflows. impl: as for log_sum_exp.
    Raises: ScoringError where the arguments do not fit together.
    """
    _check_both("t", x, t)
    if not (math.isfinite(p) and p >= 1):
        raise ScoringError("p", expected="a finite number of at least 1", found=f"{p}", remedy="max_abs is p = inf")
    return _choose(impl, x, t).p_norm(x, t, p=float(p))


def tile_sizes(device: str | torch.device, width: int) -> dict[str, int] | None:
    """The tile sizes of the Triton kernels for rows of this width on this device; None where "tiled" computes.

    With the device they decide the order in which sums are added, so a run records them. The first call for a device
    and width times the candidates, a few seconds; then a file in the user's cache folder knows.
    """
    device = torch.device(device)
    return _kernels().sizes_for(device, width).as_dict() if _are_kernels_right(device, width) else None


def use_tile_sizes(device: str | torch.device, width: int, sizes: Mapping[str, int]) -> None:
    """Takes these tile sizes from now on in this process, so that a run goes on as it was begun.

    Raises: ScoringError on sizes that are not of this version.
    """
    device = torch.device(device)
    if _has_tensor_cores(device):
        _are_kernels_right.cache_clear()
        _kernels().use_sizes(device, width, sizes)


def why_wrong(
    implementation: ModuleType, device: torch.device, width: int, dtype: torch.dtype, *, sizes: TileSizes
) -> str:
    """What is wrong with the implementation for rows of this width and dtype there; "" where nothing is.

    sizes: of its block of products; the batch has about nine by two of them, and every edge that fits no block:
    planted cosines of 1 and -1, rows that fit nothing.
    """
    bound = _LARGEST_ERROR * max(1.0, width / _AT_WIDTH)
    n, m = 9 * sizes.rows + 3, 2 * sizes.columns - 5
    numbers = torch.Generator().manual_seed(0)
    drawn = (torch.randn(count, width, generator=numbers) + 0.3 for count in (n, m))
    x, y = (torch.nn.functional.normalize(rows) for rows in drawn)
    x[:20], x[20:25], x[-1] = y[:20], -y[20:25], y[-1]
    x[30] = -y.mean(0) / y.mean(0).norm()
    x, y = (rows.to(device=device, dtype=dtype) for rows in (x, y))
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


def _largest(errors: Tensor) -> float:
    return float(errors.abs().max())


def _check_both(name: str, x: Tensor, other: Tensor) -> None:
    check_rows("x", x)
    check_rows(name, other)
    check_width("x", x, name, other)
    if x.device != other.device:
        raise ScoringError(f"x and {name}", expected="the same device", found=f"{x.device} and {other.device}")


def _choose(impl: str | None, x: Tensor, other: Tensor) -> ModuleType:
    if impl is None:
        suits = x.dtype == other.dtype and x.dtype in _HALF and _are_kernels_right(x.device, x.shape[1])
        return _kernels() if suits else tiled
    if impl not in IMPLEMENTATIONS:
        raise ScoringError("impl", expected=f"one of {', '.join(IMPLEMENTATIONS)}", found=f"{impl!r} on {x.device}")
    if impl == "tiled":
        return tiled
    kernels = _kernels()
    kernels.check_operands(x, other)
    return kernels


@functools.cache
def _has_tensor_cores(device: torch.device) -> bool:
    """Whether the Triton kernels run there. A GPU on which they do not is slow, so that is logged, once."""
    if device.type != "cuda":
        return False
    try:
        reason = _kernels().why_not(device)
    except ScoringError as error:
        reason = str(error)
    if reason is not None:
        _log.warning("%s: computing without tensor cores: %s", device, reason)
    return reason is None


@functools.cache
def _are_kernels_right(device: torch.device, width: int) -> bool:
    """Whether the Triton kernels run there and pass their check, which the tile sizes' file remembers."""
    if not _has_tensor_cores(device):
        return False
    kernels = _kernels()
    try:
        sizes = kernels.sizes_for(device, width)
    except ScoringError as error:
        _log.warning("%s: computing without tensor cores: %s", device, error)
        return False

    def find_out() -> str:
        found = (why_wrong(kernels, device, width, dtype, sizes=sizes) for dtype in kernels.DTYPES)
        return next(filter(None, found), "")

    wrong = kernels.tiles.remembered(kernels.check_key(device, width), find_out)
    if wrong:
        file = kernels.tiles.cache_file()
        remedy = f"computing without tensor cores; after an update of the driver or Triton, delete {file}"
        _log.warning("%s: the Triton kernels are not right: %s; %s", device, wrong, remedy)
    return not wrong


def _kernels() -> ModuleType:
    """The Triton implementation, imported only where it is used: on a CPU nobody needs Triton."""
    try:
        return importlib.import_module("clipsel_core.scoring.kernels")
    except ImportError as error:
        remedy = "pip install triton, or use impl 'tiled'"
        raise ScoringError("impl 'triton'", expected="Triton installed", found=f"{error}", remedy=remedy) from error
