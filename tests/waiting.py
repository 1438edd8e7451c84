"""How does a test wait? Until something holds, with an end that no busy machine reaches, and a failure that says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Thread

# No test depends on how long something takes: this is only where a wait that would never end is given up.
PATIENCE_S = 300


def until(holds: Callable[[], object], what: str = "", patience_s: float = PATIENCE_S) -> None:
    """Waits until something holds; fails where it does not within the patience. what: it in words, for the failure."""
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, f"waited {patience_s:.0f} s in vain{f' until {what}' if what else ''}"
        time.sleep(0.01)


def join(threads: Iterable[Thread]) -> None:
    """Waits for the end of some threads; fails where one goes on."""
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), f"{thread.name} goes on after {PATIENCE_S} s"
