"""How are the products of all rows of two sets reduced without forming their matrix?

Three reductions over X Y^T: log-sum-exp per row and per column in one sweep, the largest absolute value per row, and
the p-norm per row. Each has one signature and several implementations; `impl` forces one, otherwise the device of the
tensors chooses. An implementation is a module with these three functions, which may assume checked arguments.
"""

from __future__ import annotations

import math
from types import ModuleType

from torch import Tensor

from clipsel_core.errors import ScoringError
from clipsel_core.scoring import tiled
from clipsel_core.scoring.checks import check_rows, check_temperature, check_width

IMPLEMENTATIONS: dict[str, ModuleType] = {"tiled": tiled}


def log_sum_exp(x: Tensor, y: Tensor, *, temperature: float, impl: str | None = None) -> tuple[Tensor, Tensor]:
    """log sum_j exp(x_i . y_j / temperature) of every row i, and log sum_i of the same of every column j.

    x: (N, D), y: (M, D), float16, bfloat16 or float32, finite, on one device.
    temperature: 0.001 to 10.
    impl: "tiled", or None to choose by device.
    Returns: (N,) and (M,), float64, natural logarithms. Rows of any length are right; unit rows are fast. Bitwise the
        same on any number of cores.
    Raises: ScoringError where the arguments do not fit together.
    """
    _check_both("y", x, y)
    check_temperature(temperature)
    return _choose(impl, x).log_sum_exp(x, y, temperature=float(temperature))


def max_abs(x: Tensor, t: Tensor, *, impl: str | None = None) -> Tensor:
    """max_m |x_i . t_m| of every row i: (N,) float32.

    x: (N, D), t: (M, D), float16, bfloat16 or float32, finite, on one device. impl: as for log_sum_exp.
    Raises: ScoringError where the arguments do not fit together.
    """
    _check_both("t", x, t)
    return _choose(impl, x).max_abs(x, t)


def p_norm(x: Tensor, t: Tensor, *, p: float, impl: str | None = None) -> Tensor:
    """(sum_m |x_i . t_m|^p)^(1/p) of every row i: (N,) float32.

    x: (N, D), t: (M, D), float16, bfloat16 or float32, finite, on one device. p: finite, at least 1. The sum is scaled
    by the row's largest term, so that no power underflows. impl: as for log_sum_exp.
    Raises: ScoringError where the arguments do not fit together.
    """
    _check_both("t", x, t)
    if not (math.isfinite(p) and p >= 1):
        raise ScoringError("p", expected="a finite number of at least 1", found=f"{p}", remedy="max_abs is p = inf")
    return _choose(impl, x).p_norm(x, t, p=float(p))


def _check_both(name: str, x: Tensor, other: Tensor) -> None:
    check_rows("x", x)
    check_rows(name, other)
    check_width("x", x, name, other)
    if x.device != other.device:
        raise ScoringError(f"x and {name}", expected="the same device", found=f"{x.device} and {other.device}")


def _choose(impl: str | None, x: Tensor) -> ModuleType:
    name = "tiled" if impl is None else impl
    if name not in IMPLEMENTATIONS:
        raise ScoringError("impl", expected=f"one of {', '.join(IMPLEMENTATIONS)}", found=f"{name!r} on {x.device}")
    return IMPLEMENTATIONS[name]
