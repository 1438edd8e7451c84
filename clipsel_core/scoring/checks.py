"""Which arguments do the scoring functions accept?

Shared by the public functions of this package; what passes here needs no further checks in the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from clipsel_core.errors import ScoringError
from clipsel_core.scoring.threads import for_each

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
TEMPERATURE_RANGE = (0.001, 10.0)
PRECISIONS = ("exact", "bf16")
_BLOCK = 1024


def check_rows(name: str, rows: Tensor) -> None:
    """Raises ScoringError unless rows is a floating (N, D) tensor with N and D at least 1."""
    if rows.ndim != 2 or 0 in rows.shape:
        raise ScoringError(name, expected="a shape (N, D) with at least one row", found=f"{tuple(rows.shape)}")
    if rows.dtype not in DTYPES:
        accepted = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise ScoringError(name, expected=f"one of {accepted}", found=str(rows.dtype).removeprefix("torch."))


def check_pairs(image: Tensor, text: Tensor) -> None:
    """Raises ScoringError unless image and text are rows of the same pairs: (N, D) each."""
    check_rows("image", image)
    check_rows("text", text)
    if image.shape != text.shape:
        found = f"image {tuple(image.shape)}, text {tuple(text.shape)}"
        raise ScoringError("image and text", expected="the same shape (N, D)", found=found)


def check_width(name: str, rows: Tensor, other_name: str, other: Tensor) -> None:
    """Raises ScoringError unless both tensors have rows of the same width."""
    if rows.shape[1] != other.shape[1]:
        found = f"{name}.shape[1] == {rows.shape[1]}, {other_name}.shape[1] == {other.shape[1]}"
        raise ScoringError(f"{name} and {other_name}", expected="the same width D", found=found)


def check_temperature(temperature: float) -> None:
    """Raises ScoringError unless the temperature is a number within TEMPERATURE_RANGE."""
    low, high = TEMPERATURE_RANGE
    if not (math.isfinite(temperature) and low <= temperature <= high):
        remedy = "OpenAI CLIP has 0.01, DFN-P 0.07"
        raise ScoringError("temperature", expected=f"{low:g} to {high:g}", found=f"{temperature}", remedy=remedy)


def check_count(name: str, value: int) -> None:
    """Raises ScoringError unless the value is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ScoringError(name, expected="a whole number of at least 1", found=repr(value))


def check_finite(name: str, rows: Tensor) -> None:
    """Raises ScoringError naming the first row of an (N, D) or (N,) tensor that holds NaN or inf."""
    found: list[int] = []

    def check(i: int, scratch: Tensor) -> None:
        block = rows[i * _BLOCK : (i + 1) * _BLOCK]
        zeros = (block.float() * 0).reshape(len(block), -1).sum(1)  # NaN where a number is NaN or infinite
        if zeros.any():
            found.append(i * _BLOCK + int(torch.argmax(zeros.ne(0).to(torch.uint8))))

    for_each(check, -(-len(rows) // _BLOCK), device=rows.device)
    if found:
        where, remedy = f"{name}, row {min(found)}", "leave the row out"
        raise ScoringError(where, expected="finite numbers", found="NaN or inf", remedy=remedy)


def check_precision(precision: str, device: str | torch.device) -> None:
    """Raises ScoringError unless the precision is a known one that this device and machine have."""
    if precision not in PRECISIONS:
        raise ScoringError("precision", expected=f"one of {', '.join(PRECISIONS)}", found=repr(precision))
    if precision == "exact":
        return
    if torch.device(device).type != "cpu":
        expected = "a CPU; a GPU multiplies float16 exactly and as fast"
        raise ScoringError("precision bf16", expected=expected, found=f"{device}", remedy="use exact")
    if not torch.cpu.get_capabilities().get("avx512_bf16"):
        expected = "a CPU that multiplies bfloat16 (AVX-512 BF16: Zen 4, Sapphire Rapids, or newer)"
        raise ScoringError("precision bf16", expected=expected, found="another", remedy="use exact")


def usable_device(device: str | torch.device) -> torch.device:
    """The device, tried once with a float64 number, as the accumulators need.

    Raises: ScoringError where this machine has no such device or the device has no float64.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, dtype=torch.float64, device=found)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ScoringError(
            f"device {device}", expected="a usable device with float64", found=reason, remedy="use cpu"
        ) from error
    return found


@contextmanager
def telling_of_memory(device: str | torch.device) -> Iterator[None]:
    """Within it, a device that has run out of memory, with the smallest tiles too, is a ScoringError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        remedy = "end what else runs there, mix fewer shards, or use --device cpu"
        found = "that it is out of memory"
        raise ScoringError(f"device {device}", expected="memory to score", found=found, remedy=remedy) from error
