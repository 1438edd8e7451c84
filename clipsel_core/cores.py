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
    for line in _lines(membership):  # none where this is no Linux, or nothing can be seen
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 1 of control groups has a folder for each controller, version 2 one for all.
        base = groups / "cpu" if controllers else groups
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        for folder in (base / path.lstrip("/"), *(base / path.lstrip("/")).parents):
            if not folder.is_relative_to(base):
                continue
            words = [word for name in names for line in _lines(folder / name) for word in line.split()]
            if len(words) == 2 and words[0] != "max" and int(words[0]) > 0:
                yield int(words[0]) / int(words[1])


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
