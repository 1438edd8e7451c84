"""How is a finished shard written while the next is embedded? By a thread of its own, one shard after the other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Self


class Behind(AbstractContextManager):
    """Does one piece of work at a time while whoever gave it goes on. What fails in it is raised by the next call."""

    def __init__(self) -> None:
        self._thread, self._last = ThreadPoolExecutor(1), Future[object]()
        self._last.set_result(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def do(self, work: Callable[[], object]) -> None:
        """Begins with this when the piece before is done, so that no more than one waits in memory."""
        self.wait()
        self._last = self._thread.submit(work)

    def check(self) -> None:
        """Raises what went wrong, if anything did by now."""
        if self._last.done():
            self.wait()

    def wait(self) -> None:
        """Until all is done."""
        self._last.result()
