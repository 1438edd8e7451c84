"""Does a store fail in passing, or for good? The one is asked again, a little later each time."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep
from typing import TypeVar

PATIENT = 4
"""Tries of whoever would rather wait than do without."""

_FIRST_WAIT_S, _TIMES = 0.5, 4
_IN_PASSING = {408, 425, 429}
_FOR_GOOD = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)

Answer = TypeVar("Answer")


def ask_again(question: Callable[[], Answer], tries: int) -> Answer:
    """The answer to a question that may raise OSError; asked up to `tries` times, 0.5, 2, 8, ... seconds apart."""
    wait = _FIRST_WAIT_S
    for _ in range(tries - 1):
        try:
            return question()
        except OSError as error:
            if not in_passing(error):
                raise
        sleep(wait)
        wait *= _TIMES
    return question()


def in_passing(error: BaseException) -> bool:
    """Whether what failed may succeed a little later: not where a thing is absent, or a web server says it is at fault.

    >>> in_passing(ConnectionResetError()), in_passing(FileNotFoundError())
    (True, False)
    """
    status = _status(error)
    if status is not None:
        return not 400 <= status < 500 or status in _IN_PASSING
    return not isinstance(error, _FOR_GOOD)


def stands_for(error: Exception) -> BaseException:
    """What really failed: fsspec says of the web that a file is not there, whatever it was that went wrong."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or cause is None:
        return error
    status = _status(cause)
    lost = status is None and (isinstance(cause, TimeoutError) or type(cause).__module__.startswith("aiohttp"))
    return cause if lost or status not in (None, 404, 410) else error


def _status(error: BaseException) -> int | None:
    """The number that a web server gave for its answer, in whichever attribute the store's package keeps it."""
    for told in (error, error.__cause__):
        for name in ("status", "code", "status_code"):
            value = getattr(told, name, None)
            if isinstance(value, int) and 100 <= value < 600:
                return value
    return None
