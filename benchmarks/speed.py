"""How fast are the reductions, against the materialising code and against this machine's best float32 product?

All contenders take turns within each round, and figures are medians of the ratios of a round: other load on the
machine then slows both sides of a ratio.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import materialising
from benchmarks.pools import clip_like_pairs
from benchmarks.table import Row, at_least
from benchmarks.turns import median_ratio, take_turns
from clipsel_core.errors import ScoringError
from clipsel_core.scoring import tiled
from clipsel_core.scoring.checks import check_precision
from clipsel_core.scoring.reductions import log_sum_exp, max_abs
from clipsel_core.scoring.threads import float32_products, for_each

WIDTH, TEMPERATURE = 768, 0.01
_GEMM_SIZE = 8192
_CPU = torch.device("cpu")


def normalizer_rows(batch_size: int, rounds: int, *, ratio_to_hold: float) -> list[Row]:
    """Rows for one sweep over a batch of float16 pairs."""
    half = tuple(torch.from_numpy(rows) for rows in clip_like_pairs(batch_size, width=WIDTH, seed=1))
    full = tuple(rows.float() for rows in half)
    contenders = {
        "ours": lambda: log_sum_exp(*half, temperature=TEMPERATURE),
        "materialising": lambda: materialising.step_by_step(*full, TEMPERATURE),
        "in place": lambda: materialising.in_place(*full, TEMPERATURE),
        **_products(),
    }
    if _has_bf16():
        contenders["bf16"] = lambda: tiled.rounded_log_sum_exp(*half, temperature=TEMPERATURE)
    times = take_turns(contenders, rounds)
    ratios = {name: median_ratio(times[name], times["ours"]) for name in ("materialising", "in place")}
    flops = 2 * batch_size**2 * WIDTH
    share, best = _share_of_product(times, flops)
    name = f"normalizer, B = {batch_size}"
    seconds = statistics.median(times["ours"])
    return [
        at_least(f"{name}, against materialising", ratios["materialising"], ratio_to_hold, "x"),
        Row(f"{name}, against materialising in place", f"{ratios['in place']:.2f}x"),
        at_least(f"{name}, share of the float32 product ({best})", share, 0.85),
        Row(f"{name}, one sweep", f"{seconds:.2f} s, {flops / seconds / 1e9:.0f} GFLOP/s"),
        *(_rounded_rows(name, times) if "bf16" in times else []),
    ]


def _rounded_rows(name: str, times: dict[str, list[float]]) -> list[Row]:
    against = {other: median_ratio(times[other], times["bf16"]) for other in ("materialising", "ours")}
    return [
        Row(f"{name}, bf16, against materialising", f"{against['materialising']:.2f}x"),
        at_least(f"{name}, bf16, against exact", against["ours"], 1.5, "x"),
    ]


def _has_bf16() -> bool:
    try:
        check_precision("bf16", "cpu")
    except ScoringError:
        return False
    return True


def normsim_rows(images: int, targets: int, rounds: int) -> list[Row]:
    """Rows for NormSim_inf of a block of images to a target."""
    x, t = (torch.from_numpy(clip_like_pairs(n, width=WIDTH, seed=seed)[0]) for seed, n in enumerate((images, targets)))
    times = take_turns({"ours": lambda: max_abs(x, t), **_products()}, rounds)
    share, best = _share_of_product(times, 2 * images * targets * WIDTH)
    return [at_least(f"NormSim_inf, {images} x {targets}, share of the float32 product ({best})", share, 0.80)]


def _products() -> dict[str, Callable[[], object]]:
    """Ways to multiply float32 matrices on all cores; the best one is the machine's peak."""
    x, y = (torch.randn(_GEMM_SIZE, WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    out = torch.empty(_GEMM_SIZE, _GEMM_SIZE)
    side = 1024

    def default() -> None:
        torch.mm(x, y.T, out=out)

    def onednn() -> None:
        with float32_products(_CPU):
            torch.mm(x, y.T, out=out)

    def block(i: int, scratch: Tensor) -> None:
        tile, strip = scratch.view(side, side), x[i * side : (i + 1) * side]
        for start in range(0, _GEMM_SIZE, side):
            torch.mm(strip, y[start : start + side].T, out=tile)

    def tiles() -> None:
        with float32_products(_CPU):
            for_each(block, _GEMM_SIZE // side, device=_CPU, scratch=side * side)

    return {"product, default": default, "product, oneDNN": onednn, "product, one-thread tiles": tiles}


def _share_of_product(times: dict[str, list[float]], flops: int) -> tuple[float, str]:
    """The share that "ours" reaches of the best product's rate, and that product's name."""
    products = {name: seconds for name, seconds in times.items() if name.startswith("product")}
    best = min(products, key=lambda name: statistics.median(products[name]))
    scale = flops / (2 * _GEMM_SIZE**2 * WIDTH)
    return scale * median_ratio(products[best], times["ours"]), best.removeprefix("product, ")
