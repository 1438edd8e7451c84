"""How is work spread over the cores, each core computing alone?

One-thread workers that take whole strips of a product beat one product spread over all cores: no core waits for
another between operations, and a strip's tile stays in its core's cache. The results do not depend on how many
workers there are, because a strip is always computed by one thread.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from clipsel_core.tasks import allowed_cores, carried, check

_PROBE_SHAPE = (512, 768)
_FLOAT32_ERROR = 2e-6


def thread_count() -> int:
    """Cores that this process may use, or torch's threads where OMP_NUM_THREADS or the caller set these lower."""
    return max(1, min(allowed_cores(), _CALLERS_THREADS.count()))


def for_each(
    work: Callable[[int, Tensor], None],
    count: int,
    *,
    device: torch.device,
    scratch: int = 0,
    workers: int | None = None,
) -> None:
    """Calls work(i, buffer) for each i below count: on the CPU side by side, on another device one after the other.

    device: where work computes. scratch: float32 elements of the buffer there, which a worker keeps from call to call.
    workers: threads on the CPU; None for as many as there are usable cores. Every torch operation inside work runs on
    one thread, and the caller's thread count is restored. The first exception of a worker stops the others after their
    current call and is raised here; so is tasks.Stopped, where this task is asked to stop.
    """
    if device.type == "cpu":
        _for_each_on_threads(work, count, scratch, workers or thread_count())
        return
    buffer = torch.empty(scratch, dtype=torch.float32, device=device)
    for i in range(count):
        check()
        work(i, buffer)


def _for_each_on_threads(work: Callable[[int, Tensor], None], count: int, scratch: int, workers: int) -> None:
    remaining, guard = iter(range(count)), threading.Lock()
    failures: list[BaseException] = []
    check_here = carried(check)

    def take() -> int | None:
        with guard:
            return None if failures else next(remaining, None)

    def worker() -> None:
        try:
            torch.set_num_threads(1)
            buffer = torch.empty(scratch, dtype=torch.float32)
            with torch.no_grad():
                while (i := take()) is not None:
                    check_here()
                    work(i, buffer)
        except BaseException as error:
            failures.append(error)

    with _CALLERS_THREADS.restored():
        threads = [threading.Thread(target=worker, daemon=True) for _ in range(min(workers, count))]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
    if failures:
        raise failures[0]


class _CallersThreads:
    """torch's thread count as it is outside of for_each.

    Setting it to one in a worker also changes what threads created later start with, so calls that overlap remember
    together what it was before the first of them.
    """

    def __init__(self) -> None:
        self._guard, self._holders, self._before = threading.Lock(), 0, 0

    def count(self) -> int:
        with self._guard:
            return self._before if self._holders else torch.get_num_threads()

    @contextmanager
    def restored(self) -> Iterator[None]:
        with self._guard:
            if self._holders == 0:
                self._before = torch.get_num_threads()
            self._holders += 1
        try:
            yield
        finally:
            with self._guard:
                self._holders -= 1
                torch.set_num_threads(self._before)


_CALLERS_THREADS = _CallersThreads()


class _SharedSetting:
    """A process-wide torch setting that overlapping computations hold together: the last one out restores it."""

    def __init__(self, backend) -> None:
        self._backend, self._guard, self._holders, self._before = backend, threading.Lock(), 0, ""

    @contextmanager
    def held_at(self, value: str) -> Iterator[None]:
        with self._guard:
            if self._holders == 0:
                self._before = self._backend.fp32_precision
                self._backend.fp32_precision = value
            self._holders += 1
        try:
            yield
        finally:
            with self._guard:
                self._holders -= 1
                if self._holders == 0:
                    self._backend.fp32_precision = self._before


_CPU_BACKEND = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
_CPU_PRODUCTS = _SharedSetting(_CPU_BACKEND)
_CUDA_PRODUCTS = _SharedSetting(torch.backends.cuda.matmul)


@contextmanager
def float32_products(device: torch.device) -> Iterator[None]:
    """Within it, matrix products on the device have float32 accuracy and are as fast as that allows."""
    if device.type == "cpu":
        with _CPU_PRODUCTS.held_at(fastest_cpu_precision()):
            yield
    else:
        with _CUDA_PRODUCTS.held_at("ieee"):
            yield


@functools.cache
def fastest_cpu_precision() -> str:
    """oneDNN's precision mode for float32 products on this CPU: "bf16" where that keeps float32 accuracy, else "ieee".

    The mode that permits bfloat16 chooses oneDNN over MKL, which is up to 1.5 times faster, and rounds to bfloat16
    only where the CPU multiplies that natively (AMX). Tried once per process, on one product.
    """
    numbers = torch.Generator().manual_seed(0)
    x, y = (torch.nn.functional.normalize(torch.randn(_PROBE_SHAPE, generator=numbers) + 0.5) for _ in range(2))
    with _SharedSetting(_CPU_BACKEND).held_at("bf16"):
        fast = torch.mm(x, y.T)
    error = (fast.double() - x.double() @ y.double().T).abs().max()
    return "bf16" if float(error) <= _FLOAT32_ERROR else "ieee"
