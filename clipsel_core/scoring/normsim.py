"""How similar is an image to the images of a target task?"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from clipsel_core.errors import ScoringError
from clipsel_core.scoring.checks import check_finite, check_rows, check_width, usable_device
from clipsel_core.scoring.few import SAFE_COSINE, are_few, normsims_to_few
from clipsel_core.scoring.reductions import max_abs, p_norm
from clipsel_core.scoring.workers import float32_products, for_each
from clipsel_core.tasks import Report, silent

_BLOCK = 2048
_LARGE_BLOCK = 16 * _BLOCK
_MOMENT_PARTS = 8


def normsim(
    image: Tensor,
    target: Tensor,
    *,
    p: float,
    device: str | torch.device = "cpu",
    report: Report = silent,
) -> Tensor:
    """NormSim_p: the p-norm of an image's cosines with all images of a target. Higher is better.

    normsim_i = (sum_m |x_i . t_m|^p)^(1/p); p = inf: max_m |x_i . t_m|; p = 2: sqrt(x_i^T S x_i), S = sum_m t_m t_m^T.
    image: (N, D), target: (M, D), unit rows, float16, bfloat16 or float32; on the CPU, or already on the device.
    p: at least 1; 2 and inf in the paper. For p = 2, many calls and more than a few targets, keep second_moment(target)
        and call normsim_2.
    device: where to compute.
    report: told now and then how many of the N pairs are done.
    Returns: (N,) float32 on the CPU, in [0, M^(1/p)], within 2e-6 of its value + 1e-7.
    Raises: ScoringError where an argument does not fit or a row is not finite.
    Reference: arXiv 2405.19547, section 3.2, equation 3.
    """
    check_rows("image", image)
    check_rows("target", target)
    check_width("image", image, "target", target)
    if math.isnan(p) or p < 1:
        raise ScoringError("p", expected="inf or a number of at least 1", found=f"{p}")
    device = usable_device(device)
    if are_few(target, device):
        (found,) = normsims_to_few(lambda place, out: out.copy_(image[place]), len(image), target, [p])
        report(len(image), len(image), "pairs")
        return _checked(found, image, target)
    if p == 2:
        return normsim_2(image, second_moment(target, device=device), device=device, report=report)
    target = target.to(device)
    out = torch.empty(len(image), dtype=torch.float32)
    for start in range(0, len(image), _LARGE_BLOCK):
        x = image[start : start + _LARGE_BLOCK].to(device)
        found = max_abs(x, target) if p == math.inf else p_norm(x, target, p=p)
        out[start : start + _LARGE_BLOCK] = found.cpu()
        report(start + len(x), len(image), "pairs")
    return _checked(out, image, target)


def second_moment(target: Tensor, *, device: str | torch.device = "cpu") -> Tensor:
    """S = sum_m t_m t_m^T of a target: all that NormSim_2 needs of it.

    target: (M, D), float16, bfloat16 or float32.
    Returns: (D, D) float64 on the CPU.
    Raises: ScoringError where a row is not finite.
    """
    check_rows("target", target)
    device = usable_device(device)
    parts = torch.zeros((_MOMENT_PARTS, target.shape[1], target.shape[1]), dtype=torch.float64, device=device)
    block = -(-len(target) // _MOMENT_PARTS)

    def add(i: int, scratch: Tensor) -> None:
        for start in range(i * block, min((i + 1) * block, len(target)), _BLOCK):
            rows = target[start : min(start + _BLOCK, (i + 1) * block)].to(device).double()
            parts[i].addmm_(rows.T, rows)

    for_each(add, _MOMENT_PARTS, device=device)
    moment = torch.zeros_like(parts[0])
    for part in parts:
        moment += part
    if not torch.isfinite(moment).all():
        check_finite("target", target)
    return moment.cpu()


def normsim_2(
    image: Tensor,
    moment: Tensor,
    *,
    device: str | torch.device = "cpu",
    report: Report = silent,
) -> Tensor:
    """NormSim_2 from the target's second moment, in time that does not depend on the target's size. Higher is better.

    normsim_i = sqrt(x_i^T S x_i)
    image: (N, D), unit rows. moment: (D, D) float64, of second_moment. report: as for normsim.
    Returns: (N,) float32 on the CPU, in [0, sqrt(M)], within 2e-6 of its value.
    Raises: ScoringError where the widths differ or a row is not finite.
    """
    check_rows("image", image)
    if moment.shape != (image.shape[1], image.shape[1]) or moment.dtype != torch.float64:
        found = f"{tuple(moment.shape)} {str(moment.dtype).removeprefix('torch.')}"
        raise ScoringError("moment", expected=f"({image.shape[1]}, {image.shape[1]}) float64", found=found)
    device = usable_device(device)
    moment = moment.to(device)
    out = torch.empty(len(image), dtype=torch.float32)
    on_cpu = device.type == "cpu"
    rows, compute = (_BLOCK, _two_norm) if on_cpu else (_LARGE_BLOCK, _two_norm_in_float32)

    def norm(i: int, scratch: Tensor) -> None:
        block = slice(i * rows, (i + 1) * rows)
        out[block] = compute(image[block].to(device), moment).cpu()

    for_each(norm, -(-len(image) // rows), device=device)
    report(len(image), len(image), "pairs")
    return _checked(out, image, None)


def _two_norm(x: Tensor, moment: Tensor) -> Tensor:
    """sqrt(x_i^T S x_i) in float64: (n, D) to (n,)."""
    x = x.double()
    return (x @ moment).mul_(x).sum(1).clamp_(min=0).sqrt_()


def _two_norm_in_float32(x: Tensor, moment: Tensor) -> Tensor:
    """The same for GPUs, few of which multiply float64 fast. What float32 may be too coarse for is done in float64.

    The trace of S is M, so that a root mean square cosine of c makes x^T S x = c^2 M, of which float32 misses about
    1e-7 M: for c of a quarter and more that is less than 1e-6 of the norm.
    """
    single = x.float()
    with float32_products(x.device):
        found = (single @ moment.float()).mul_(single).sum(1, dtype=torch.float64).clamp_(min=0).sqrt_()
    coarse = torch.nonzero(~(found >= SAFE_COSINE * moment.trace().sqrt()))[:, 0]
    found[coarse] = _two_norm(x[coarse], moment)
    return found


def parse_norm(text: str) -> float:
    """p of its name in options and files: "2", "inf", or a number of at least 1.

    >>> parse_norm("inf")
    inf
    """
    try:
        p = float(text)
    except ValueError:
        p = math.nan
    if math.isnan(p) or p < 1:
        raise ScoringError("norm", expected='"inf", "2" or a number of at least 1', found=repr(text))
    return p


def metric_name(p: float, target: str) -> str:
    """The column that holds NormSim_p to a target.

    >>> metric_name(float("inf"), "imagenet"), metric_name(2.0, "imagenet")
    ('normsim_inf_imagenet', 'normsim_2_imagenet')
    """
    return f"normsim_{p:g}_{target}"


def _checked(out: Tensor, image: Tensor, target: Tensor | None) -> Tensor:
    """out, unless a number in it shows that an input was not finite."""
    if not np.isfinite(out.numpy()).all():  # on one core: torch would wait for all of them, which may be at work
        check_finite("image", image)
        if target is not None:
            check_finite("target", target)
    return out
