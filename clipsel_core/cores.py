"""How many cores may this process use? Its affinity and its control groups say so; the machine may have more."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS, _MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def allowed_cores() -> int:
    """Cores that this process may compute on at a time, at least 1.

    The cores it is bound to (taskset, cpusets), and no more than its control groups have time for, as containers set
    it (`docker --cpus 2.5` is 3 here). The quota is read once per process.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(bound, math.ceil(_quota())))


@functools.cache
def _quota() -> float:
    """The least time, in cores, that a control group of this process or one above it allows; many where none does."""
    return min(_quotas(_MEMBERSHIP, _GROUPS), default=float(1 << 20))


def _quotas(membership: Path, groups: Path) -> Iterator[float]:
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux, or nothing to see
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = groups / "cpu" if controllers else groups
        for folder in (base / path.lstrip("/"), *(base / path.lstrip("/")).parents):
            if folder.is_relative_to(base):
                yield from _version_1(folder) if controllers else _version_2(folder)


def _version_2(folder: Path) -> Iterator[float]:
    found = _words(folder / "cpu.max")
    if len(found) == 2 and found[0] != "max":
        yield int(found[0]) / int(found[1])


def _version_1(folder: Path) -> Iterator[float]:
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        yield int(quota[0]) / int(period[0])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:
        return []
