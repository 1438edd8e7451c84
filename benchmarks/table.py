"""How is a measurement shown: what was measured, beside what it has to hold?"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True)
class Row:
    """One line of the table. hold: the bound as text; kept: whether it was met, None where there is no bound."""

    what: str
    measured: str
    hold: str = ""
    kept: bool | None = None


def at_least(what: str, value: float, bound: float, unit: str = "", *, digits: int = 2) -> Row:
    """A row for a value that has to reach a bound."""
    return Row(what, f"{value:.{digits}f}{unit}", f">= {bound:g}{unit}", value >= bound)


def at_most(what: str, value: float, bound: float, unit: str = "") -> Row:
    """A row for a value that must not pass a bound."""
    return Row(what, f"{_three_digits(value)}{unit}", f"<= {_three_digits(bound)}{unit}", value <= bound)


def _three_digits(value: float) -> str:
    """Three digits that count, or all of a number of a thousand and more: 0.0123, 4.56, 2,990; 1.5e-08."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    verdict = {True: "yes", False: "**no**", None: ""}
    lines = ["| | measured | to hold | held |", "|---|---|---|---|"]
    lines += [f"| {row.what} | {row.measured} | {row.hold} | {verdict[row.kept]} |" for row in rows]
    return "\n".join(lines)


def machine() -> str:
    """The machine and the versions, in one line."""
    cores = torch.get_num_threads()
    return f"{_cpu()}, {cores} cores used, {_memory_gib():.0f} GiB; torch {torch.__version__}, numpy {np.__version__}"


def _cpu() -> str:
    try:
        described = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in described.splitlines() if ":" in line)
    flags = fields.get("Flags", "").split()
    notable = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    return " ".join([fields.get("Model name", "unknown CPU").strip(), f"({', '.join(notable)})"])


def _memory_gib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            return int(line.split()[1]) / 2**20
    return float("nan")
