"""Is a process that was started earlier still the same one? A pid alone does not say: the system uses it again."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

_GRACE_S = 2.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def birth_of(pid: int) -> str | None:
    """When a process began, in words that no other process of this machine ever shares with this pid.

    None where there is no such process, or it has ended and only waits to be asked how.
    """
    if _BOOT.exists():
        try:
            # The name in brackets may hold anything; what follows it is state, ..., and the ticks at the 20th place.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else f"{_BOOT.read_text().strip()} {fields[19]}"
    asked = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    state, _, began = subprocess.run(asked, capture_output=True, text=True).stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else " ".join(began.split())


def is_alive(pid: int, birth: str) -> bool:
    """Whether the process of this pid is the one that was born then, and lives."""
    return birth_of(pid) == birth


def end(pid: int, birth: str) -> None:
    """Asks the process and those that it started to end, and makes them where they do not within 2 seconds.

    pid: of the leader of a process group. Nothing happens to a process that merely has the same pid.
    """
    if _signal(pid, birth, signal.SIGTERM):
        timer = threading.Timer(_GRACE_S, _signal, (pid, birth, signal.SIGKILL))
        timer.daemon = True
        timer.start()


def _signal(pid: int, birth: str, number: signal.Signals) -> bool:
    if not is_alive(pid, birth):
        return False
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    return True
