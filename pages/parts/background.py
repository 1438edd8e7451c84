"""How is something long worked out while the page stays usable? By a thread of this server, which any page may watch.

The work is told apart by whoever starts it; it is shared by all sessions that look at the same, and goes on when they
leave. It can be stopped where it reports, between its steps, and between the parts of what it does with all pairs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from clipsel_core.curation.index import stopping

_AT_ONCE_S = 0.4


class Stopped(Exception):
    """Raised in the work's thread when somebody stopped it."""


Report = Callable[[float, str], None]


class Work:
    """Something to be done once. do: told how to report (the share done, 0 to 1, and what it is at), and does it.

    share, said: what was reported last. error: why it failed, if it did.
    """

    def __init__(self, do: Callable[[Report], None]) -> None:
        self.share, self.said = 0.0, ""
        self.error: Exception | None = None
        self.finished = False
        self._do = do
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def active(self) -> bool:
        """Whether it is being done now."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def stopped(self) -> bool:
        """Whether somebody stopped it before its end."""
        return self._stop.is_set() and not self.finished

    def begin(self) -> None:
        """Starts, the first time that somebody looks; what takes a moment only is done before this returns."""
        if self._thread is None:
            self.start()
            self.wait(_AT_ONCE_S)

    def start(self) -> None:
        """Begins, or goes on after a stop; nothing where it is at work or done."""
        with self._lock:
            if self.finished or (self.active and not self._stop.is_set()):
                return
            if self._thread is not None:
                self._thread.join()
            self._stop.clear()
            self.error = None
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends it at its next report, or the next part of all pairs."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Waits for its end, but no longer than this."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            with stopping.asking(self._go_on):
                self._do(self._report)
            self.finished = True
        except Stopped:
            pass  # `stopped` says so
        except Exception as error:  # Whatever it is, the page that waits has to hear of it.
            self.error = error

    def _report(self, share: float, said: str) -> None:
        self._go_on()
        self.share, self.said = share, said

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Stopped
