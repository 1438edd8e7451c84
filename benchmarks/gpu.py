"""How exact and how fast are the kernels on this machine's GPUs? Everything in one go, nothing without a GPU.

Times are those of the GPU's own clock between two events; contenders take turns within each round, and figures are
medians of the ratios of a round. Accuracy is against float64 on the GPU, in strips, of the float16 values as stored.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks import materialising
from benchmarks.pools import clip_like_pairs
from benchmarks.table import Row, at_least, at_most
from clipsel_core.scoring.reductions import log_sum_exp, max_abs, tile_sizes
from clipsel_core.scoring.threads import float32_products

_WIDTH, _TEMPERATURE, _SMALL_TEMPERATURE = 768, 0.01, 0.004
_WIDTHS = (512, 640, 768, 1024, 1152, 1280, 507)
_GEMM_SIZE, _BATCH, _TARGETS = 8192, 32768, 65536
_STRIP = 1024


def measure(rounds: int) -> list[Row]:
    """Rows for accuracy, repeatability, memory and speed, for each GPU; one row that says so where there is none."""
    if not torch.cuda.is_available():
        return [Row("GPU: none that torch can use here, nothing was measured", "")]
    rows, count = [], torch.cuda.device_count()
    for index in range(count):
        # Events are recorded on the current device, whatever device the work is on.
        with torch.cuda.device(index):
            found = _measure_one(torch.device("cuda", index), rounds)
        rows += [replace(row, what=row.what.replace("GPU:", f"GPU {index}:")) if count > 1 else row for row in found]
    return rows


def _measure_one(device: torch.device, rounds: int) -> list[Row]:
    name = torch.cuda.get_device_name(device)
    sizes = tile_sizes(device, _WIDTH)
    if sizes is None:
        return [Row(f"GPU: {name}: the Triton kernels are not used there (the log says why), nothing was measured", "")]
    described = ", ".join(f"{key} {value}" for key, value in sizes.items())
    return [
        Row(f"GPU: {name}, tiles", described),
        *(_accuracy_row(width, device, _TEMPERATURE) for width in _WIDTHS),
        _accuracy_row(_WIDTH, device, _SMALL_TEMPERATURE),
        _normsim_accuracy_row(device),
        _repeat_row(device),
        _memory_row(device),
        *_normalizer_rows(rounds, device),
        _normsim_row(rounds, device),
    ]


def _drawn(n: int, seed: int, device: torch.device, width: int = _WIDTH) -> tuple[Tensor, Tensor]:
    image, text = (torch.from_numpy(rows).to(device) for rows in clip_like_pairs(n, width=width, seed=seed))
    return image, text


def _accuracy_row(width: int, device: torch.device, temperature: float) -> Row:
    """The largest error of r_image + r_text over a ragged batch with planted cosines of 1 and -1."""
    image, text = _drawn(10_007, 3, device, width)
    text[:50], text[50:60] = image[:50], -image[50:60]
    found, truth = log_sum_exp(image, text, temperature=temperature), _true_log_sums(image, text, temperature)
    error = sum((a - b) * (temperature / 2) for a, b in zip(found, truth, strict=True))
    what = f"GPU: largest error of r_image + r_text, D = {width}, tau = {temperature:g}"
    return at_most(what, float(torch.as_tensor(error).abs().max()), 2e-6)


def _true_log_sums(image: Tensor, text: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    def of_rows(x: Tensor, y: Tensor) -> Tensor:
        other = y.double().T
        return torch.cat([(strip.double() @ other / temperature).logsumexp(1) for strip in x.split(_STRIP)])

    return of_rows(image, text), of_rows(text, image)


def _normsim_accuracy_row(device: torch.device) -> Row:
    image, target = _drawn(10_007, 3, device)[0], _drawn(5_003, 4, device)[0]
    truth = torch.cat([(strip.double() @ target.double().T).abs().amax(1) for strip in image.split(_STRIP)])
    worst = float(((max_abs(image, target).double() - truth).abs() / truth).max())
    return at_most("GPU: largest relative error of NormSim_inf", worst, 2e-6)


def _repeat_row(device: torch.device) -> Row:
    image, text = _drawn(10_007, 5, device)

    def results() -> tuple[Tensor, ...]:
        return (*log_sum_exp(image, text, temperature=_TEMPERATURE), max_abs(image, text))

    first = results()
    same = all(torch.equal(a, b) for _ in range(10) for a, b in zip(first, results(), strict=True))
    return Row("GPU: the same bits in ten sweeps", "yes" if same else "no", "yes", same)


def _memory_row(device: torch.device) -> Row:
    image, text = _drawn(_BATCH, 1, device)
    log_sum_exp(image, text, temperature=_TEMPERATURE)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    log_sum_exp(image, text, temperature=_TEMPERATURE)
    extra = (torch.cuda.max_memory_allocated(device) - before) / 2**20
    return at_most(f"GPU: extra memory for a batch of {_BATCH}", extra, 64, " MiB")


def _normalizer_rows(rounds: int, device: torch.device) -> list[Row]:
    image, text = _drawn(_BATCH, 1, device)
    full = image[: _BATCH // 2].float(), text[: _BATCH // 2].float()
    half = image[: _BATCH // 2], text[: _BATCH // 2]
    times = _rounds(
        {
            "large": lambda: log_sum_exp(image, text, temperature=_TEMPERATURE),
            "large, small temperature": lambda: log_sum_exp(image, text, temperature=_SMALL_TEMPERATURE),
            "small": lambda: log_sum_exp(*half, temperature=_TEMPERATURE),
            "materialising": lambda: materialising.step_by_step(*full, _TEMPERATURE),
            "product": _product(device),
        },
        rounds,
    )
    share = _share(times["product"], times["large"], 2 * _BATCH**2 * _WIDTH)
    ratio = statistics.median(a / b for a, b in zip(times["materialising"], times["small"], strict=True))
    small = statistics.median(a / b for a, b in zip(times["large, small temperature"], times["large"], strict=True))
    product = statistics.median(times["product"])
    seconds = statistics.median(times["large"])
    return [
        Row(
            "GPU: float16 product of 8192 x 8192 x 768 (cuBLAS)",
            f"{2 * _GEMM_SIZE**2 * _WIDTH / product / 1e12:.0f} TFLOP/s",
        ),
        at_least(f"GPU: normalizer, B = {_BATCH}, share of the float16 product", share, 0.65),
        at_least(f"GPU: normalizer, B = {_BATCH // 2}, against materialising float32", ratio, 8, "x"),
        Row(f"GPU: normalizer, B = {_BATCH}, one sweep", f"{seconds * 1e3:.2f} ms"),
        Row(f"GPU: normalizer, B = {_BATCH}, time at tau = {_SMALL_TEMPERATURE:g} over tau = 0.01", f"{small:.2f}x"),
    ]


def _normsim_row(rounds: int, device: torch.device) -> Row:
    image, target = _drawn(_BATCH, 1, device)[0], _drawn(_TARGETS, 2, device)[0]
    times = _rounds({"ours": lambda: max_abs(image, target), "product": _product(device)}, rounds)
    share = _share(times["product"], times["ours"], 2 * _BATCH * _TARGETS * _WIDTH)
    return at_least(f"GPU: NormSim_inf, {_BATCH} x {_TARGETS}, share of the float16 product", share, 0.70)


def _product(device: torch.device) -> Callable[[], object]:
    x, y = _drawn(_GEMM_SIZE, 6, device)
    out = torch.empty(_GEMM_SIZE, _GEMM_SIZE, dtype=torch.float16, device=device)
    return lambda: torch.mm(x, y.T, out=out)


def _share(product: list[float], ours: list[float], flops: int) -> float:
    scale = flops / (2 * _GEMM_SIZE**2 * _WIDTH)
    return scale * statistics.median(a / b for a, b in zip(product, ours, strict=True))


def _rounds(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round, after two that do not count; TF32 stays off."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with float32_products(torch.device("cuda")):
        for number in range(rounds + 2):
            for name, run in contenders.items():
                seconds = _seconds(run)
                if number >= 2:
                    times[name].append(seconds)
    return times


def _seconds(run: Callable[[], object], repeats: int = 5) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats
