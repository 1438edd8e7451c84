"""How similar are images to a handful of exemplars? One pass over the images, bound by reading them.

Of so few targets the products cost less than reading the images from memory twice: each block is read, converted,
multiplied and reduced for every norm while it is in a core's cache. The images may lie anywhere; nothing of their size
is ever held. MKL, rather than the product that suits large matrices, because it is faster where one side has few rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from clipsel_core.scoring.workers import for_each

_FEW = 64
_BLOCK = 1024
_STRIP = 4 * _BLOCK  # images that are reduced together: fewer calls, which hold Python's lock
_CPU = torch.device("cpu")
# float32 products are off by less than 2e-7. Of cosines whose root mean square is this large that is below 1e-6.
SAFE_COSINE = 0.25


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
        strip = slice(i * _STRIP, min((i + 1) * _STRIP, n))
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
        for_each(compare, -(-n // _STRIP), device=_CPU, scratch=_BLOCK * width)
    return found


def _blocks(strip: slice) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, strip.stop)) for start in range(strip.start, strip.stop, _BLOCK))


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
    least = SAFE_COSINE * math.sqrt(len(target))
    for place in _blocks(strip) if float(norms[strip].amin()) < least else ():
        small = torch.nonzero(norms[place] < least)[:, 0]
        rows = torch.empty((place.stop - place.start, target.shape[1]), dtype=torch.float32)
        read(place, rows)
        products = torch.mm(target.double(), rows[small].double().T)
        norms[place][small] = products.square_().sum(0).sqrt_().float()
