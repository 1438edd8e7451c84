"""How are the products of all rows of two sets reduced without forming their matrix?

Three reductions over X Y^T: log-sum-exp per row and per column in one sweep, the largest absolute value per row, and
the p-norm per row. Each has one signature and several implementations; `impl` forces one, otherwise the device and the
dtypes of the tensors choose: "triton" for float16 or bfloat16 on an NVIDIA GPU where its kernels pass a check against
float64, "tiled" for everything else. An implementation is a module with these three functions, which may assume checked
arguments.
"""

from __future__ import annotations

import functools
import importlib
import logging
import math
from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor

from clipsel_core.errors import ScoringError
from clipsel_core.scoring import tiled
from clipsel_core.scoring.checks import check_rows, check_temperature, check_width
from clipsel_core.scoring.self_check import why_wrong
from clipsel_core.scoring.tile_sizes import cache_file, remembered

IMPLEMENTATIONS = ("tiled", "triton")
_HALF = (torch.float16, torch.bfloat16)
_log = logging.getLogger(__name__)


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
    kernels.check(x, other)
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

    wrong = remembered(kernels.check_key(device, width), find_out)
    if wrong:
        remedy = f"computing without tensor cores; after an update of the driver or Triton, delete {cache_file()}"
        _log.warning("%s: the Triton kernels are not right: %s; %s", device, wrong, remedy)
    return not wrong


def _kernels() -> ModuleType:
    """The Triton implementation, imported only where it is used: on a CPU nobody needs Triton."""
    try:
        return importlib.import_module("clipsel_core.scoring.kernels")
    except ImportError as error:
        remedy = "pip install triton, or use impl 'tiled'"
        raise ScoringError("impl 'triton'", expected="Triton installed", found=f"{error}", remedy=remedy) from error
