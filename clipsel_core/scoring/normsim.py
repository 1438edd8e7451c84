"""How similar is an image to the images of a target task, and which embeddings can serve as a target?

Of a target of a handful of exemplars the products cost less than reading the images from memory twice: each block is
read, converted, multiplied and reduced for every norm while it is in a core's cache. The images may lie anywhere;
nothing of their size is ever held. MKL, rather than the product that suits large matrices, because it is faster where
one side has few rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from clipsel_core.errors import ScoringError, TargetError
from clipsel_core.scoring.checks import DTYPES, check_finite, check_rows, check_width, usable_device
from clipsel_core.scoring.reductions import max_abs, p_norm
from clipsel_core.scoring.threads import float32_products, for_each
from clipsel_core.tasks import Report, silent

_BLOCK = 2048
_LARGE_BLOCK = 16 * _BLOCK
_MOMENT_PARTS = 8
_FEW = 64
_FEW_BLOCK = 1024
_FEW_STRIP = 4 * _FEW_BLOCK  # images that are reduced together: fewer calls, which hold Python's lock
_CPU = torch.device("cpu")
# float32 products are off by less than 2e-7. Of cosines whose root mean square is this large that is below 1e-6.
_SAFE_COSINE = 0.25
_ROUNDING = 1e-3  # a unit row rounded to float16 has a length this close to 1


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
    coarse = torch.nonzero(~(found >= _SAFE_COSINE * moment.trace().sqrt()))[:, 0]
    found[coarse] = _two_norm(x[coarse], moment)
    return found


def are_few(target: Tensor, device: str | torch.device) -> bool:
    """Whether a target, (M, D), is so small that one pass over the images is the quickest, for p = 2 as well."""
    return torch.device(device).type == "cpu" and len(target) <= _FEW


def normsims_to_few(
    read: Callable[[slice, Tensor], object], n: int, target: Tensor, norms: Sequence[float]
) -> list[Tensor]:
    """NormSim_p of n images to a target of a few rows, for each p. Checked arguments.

    read: puts the images of a place, start and stop given, into a (stop - start, D) float32 tensor; called from
        several threads, now and then twice for a place.
    target: (M, D) on the CPU. norms: p, at least 1 each; inf is the maximum.
    Returns: (n,) float32 for each p, bitwise the same on any number of cores.
    """
    target, width = target.float(), target.shape[1]
    found = [torch.empty(n, dtype=torch.float32) for _ in norms]

    def compare(i: int, scratch: Tensor) -> None:
        strip = slice(i * _FEW_STRIP, min((i + 1) * _FEW_STRIP, n))
        size = torch.empty((len(target), strip.stop - strip.start), dtype=torch.float32)
        for place in _blocks(strip):
            rows = scratch[: (place.stop - place.start) * width].view(-1, width)
            read(place, rows)
            torch.mm(target, rows.T, out=size[:, place.start - strip.start : place.stop - strip.start])
        size.abs_()
        for p, out in zip(norms, found, strict=True):
            out[strip] = _norm(size, p)
            if p == 2:
                _mend(out, strip, read, target)

    with torch.no_grad():
        for_each(compare, -(-n // _FEW_STRIP), device=_CPU, scratch=_FEW_BLOCK * width)
    return found


def _blocks(strip: slice) -> Iterator[slice]:
    return (slice(start, min(start + _FEW_BLOCK, strip.stop)) for start in range(strip.start, strip.stop, _FEW_BLOCK))


def _norm(size: Tensor, p: float) -> Tensor:
    """The p-norm of each column of absolute values: (M, n) float32 to (n,)."""
    if p == 2:
        return size.square().sum(0, dtype=torch.float64).sqrt_()
    top = size.amax(0)
    if p == math.inf:
        return top
    top.clamp_(min=torch.finfo(torch.float32).tiny)  # the scale that keeps powers from underflowing
    total = (size / top).pow_(p).sum(0, dtype=torch.float64)
    return (total.pow_(1.0 / p) * top).float()


def _mend(norms: Tensor, strip: slice, read: Callable[[slice, Tensor], object], target: Tensor) -> None:
    """Computes anew, in float64, those of a strip's 2-norms for which float32 products may be too coarse."""
    least = _SAFE_COSINE * math.sqrt(len(target))
    for place in _blocks(strip) if float(norms[strip].amin()) < least else ():
        small = torch.nonzero(norms[place] < least)[:, 0]
        rows = torch.empty((place.stop - place.start, target.shape[1]), dtype=torch.float32)
        read(place, rows)
        products = torch.mm(target.double(), rows[small].double().T)
        norms[place][small] = products.square_().sum(0).sqrt_().float()


def prepare_target(
    rows: Tensor, *, name: str, width: int, where: Callable[[int], str] | None = None
) -> tuple[Tensor, int]:
    """The image embeddings of a target, checked and of unit length.

    rows: (M, D) of any floating dtype; float64 is rounded to float32. name: of the target, for messages.
    width: D of the pool's embeddings. where: what a message calls a row by its number; None for the number.
    Returns: (M, D), float16, bfloat16 or float32: rows itself where all lengths are 1 to float16's rounding, else a
        float32 copy divided by the lengths; and how many lengths were others.
    Raises: TargetError where the shape or dtype does not fit, or a row is not finite or all zeros.
    """
    target = f"target {name}"
    if rows.ndim != 2 or len(rows) == 0:
        raise TargetError(target, expected=f"a shape (M, {width}) with at least one row", found=f"{tuple(rows.shape)}")
    if rows.shape[1] != width:
        remedy = "embed the target with the pool's teacher"
        raise TargetError(target, expected=f"width {width}, as the pool's", found=f"{rows.shape[1]}", remedy=remedy)
    if rows.dtype == torch.float64:
        rows = rows.float()
    if rows.dtype not in DTYPES:
        raise TargetError(target, expected="floating numbers", found=str(rows.dtype).removeprefix("torch."))
    length = torch.cat([block.double().norm(dim=1) for block in rows.split(_LARGE_BLOCK)])
    bad = ~(length.isfinite() & (length.float() > 0))
    if bad.any():
        row, remedy = int(torch.argmax(bad.to(torch.uint8))), "remove zero and broken rows"
        found = f"{float(length[row]):.4g}"
        named = where(row) if where else f"{target}, row {row}"
        raise TargetError(named, expected="a row with a length", found=found, remedy=remedy)
    off = (length - 1).abs() > _ROUNDING
    return (rows.float() / length.float()[:, None] if off.any() else rows), int(off.sum())


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
