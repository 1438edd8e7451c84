"""What processes are asked to do in tests. Apart: a process starts without anything heavy."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from clipsel_core.errors import PoolFormatError

_settled: list[int] = []


def settle(value: int) -> None:
    _settled.append(value)


def times_settled(value: int) -> int:
    return _settled[0] * value


def end(number: int) -> int:
    """Gives the number; 2 is killed, 3 exits."""
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 3:
        os._exit(5)
    return number


class Doomed:
    """Kills the process that it is handed to. shape: as of whatever takes pictures."""

    shape = (2, 2, 3)

    def __reduce__(self) -> tuple[object, ...]:
        return end, (2,)


def refuse() -> None:
    raise PoolFormatError("a", expected="b", found="c", remedy="d")


def unsendable() -> object:
    return lambda: None


def sleep_in(file: Path) -> None:
    """Writes down which process it is, and stays."""
    file.with_suffix(".aside").write_text(str(os.getpid()))
    file.with_suffix(".aside").rename(file)
    time.sleep(60)
