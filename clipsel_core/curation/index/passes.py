"""How does a loop over every pair run? In parts, any number of them side by side, and compiled where that pays.

numpy goes over the pairs in several sweeps; a compiled loop is one sweep, which lets go of the interpreter.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from clipsel_core.tasks import allowed_cores, in_threads

T = TypeVar("T")

_PART = 1 << 20
_GATHERED = 1 << 16
_threads = ThreadPoolExecutor(allowed_cores(), "pass")
_guard = threading.Lock()


def on_all_cores(work: Callable[..., T], *items: Iterable) -> list[T]:
    """What some work returns for each item, or each pair of items and so on."""
    return in_threads(_threads, work, *items)


def in_parts(work: Callable[[int, int], T], pairs: int, *, most: int | None = None) -> list[T]:
    """What some work returns for each part of the pairs, whole bytes of their bitmaps; large ones run in threads.

    most: of how many parts, where putting their answers together takes long.
    """
    size = _PART if most is None else _PART * max(1, -(-pairs // (_PART * most)))
    starts = range(0, pairs, size)
    stops = [min(start + size, pairs) for start in starts]
    return list(map(work, starts, stops)) if len(stops) < 2 else on_all_cores(work, starts, stops)


def gathered(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The array's entries at some rows, (M,) integers: many are fetched by threads, for most of it waits."""
    if len(rows) <= _GATHERED:
        return array[rows]
    parts = [rows[start : start + _GATHERED] for start in range(0, len(rows), _GATHERED)]
    return np.concatenate(on_all_cores(lambda part: np.take(array, part), parts))


def read_only(array: np.ndarray) -> np.ndarray:
    """The same numbers as a plain array that cannot be written to: one kind of array, compiled for once."""
    view = np.asarray(array).view()
    view.setflags(write=False)
    return view


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled at its first call, and kept on disk for the next process where that is possible.

    numba is imported then, too: it takes as long as selecting from a million pairs, which does without. So a compiled
    function cannot be called by another.
    """
    machine_code: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal machine_code
        if machine_code is None:
            with _guard:
                machine_code = machine_code or _machine_code(function)
        return machine_code(*arguments)

    return call


def _machine_code(function: Callable[..., Any]) -> Callable[..., Any]:
    import numba

    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # No folder to keep it in: compiled once a process.
        return numba.njit(nogil=True)(function)
