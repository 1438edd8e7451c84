"""How does the command line speak? Lines of the result, lines beside it, how far it is; what many commands take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from clipsel_core.errors import counted
from clipsel_core.places import Place
from clipsel_core.status import State, StatusFile

A_PLACE: dict[str, Any] = {"parser": Place.of_named, "show_default": False}
"""What makes a parameter a path of this machine or an address in a store."""

PoolArgument = Annotated[Place, typer.Argument(help="The pool's folder or address: metadata/, shards/.", **A_PLACE)]
RunArgument = Annotated[Place, typer.Argument(help="The run's folder or address.", **A_PLACE)]
ClusterOption = Annotated[
    str | None,
    typer.Option(help="Ray runs the workers. auto: the running cluster; local: one of this machine; or HOST:PORT."),
]
CpusOption = Annotated[
    int | None,
    typer.Option(min=1, help="Cores of a cluster's worker without a GPU.", show_default="the smallest node's"),
]

_out, _err = Console(), Console(stderr=True)
_watched: list[StatusFile] = []
_concluded: list[str] = []
_SECONDS_BETWEEN_LOOKS = 0.1


def say(line: str, style: str | None = None) -> None:
    """Prints a line of the result. style: a colour, for where there are colours."""
    _out.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """Prints a table of the result."""
    _out.print(table)


def conclude(line: str) -> None:
    """Prints a line of what came out in the end; whoever watches is told it, too."""
    say(line)
    _concluded.append(line)


def complain(line: str) -> None:
    """Prints a line beside the result, on stderr."""
    _err.print(line, highlight=False, markup=False, soft_wrap=True)


def report_to(status: Path) -> None:
    """Has every meter tell this file, too, how far the command is."""
    _watched.append(StatusFile(status))


def report_end(state: State, message: str = "") -> None:
    """Tells whoever watches how the command ended; what it concluded where there is no message."""
    for file in _watched:
        file.close(state, message or "\n".join(_concluded))
    _watched.clear()
    _concluded.clear()


class Meter:
    """Progress on stderr: a bar with the time left on a terminal, elsewhere a plain line at each tenth.

    `report` is the tasks.Report of what is done. Of several meters that are open, the one that was told last is what
    goes on.
    """

    _last: Meter | None = None

    def __init__(self, what: str) -> None:
        self._what, self._tenths_said, self._shown = what, 0, 0.0
        self._bar = _bar() if _err.is_terminal else None
        self._task: TaskID | None = None
        self._begin()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def report(self, done: int, total: int, unit: str = "", note: str = "", /) -> None:
        """As tasks.Report; where what is done has no unit, the note is shown beside it."""
        if Meter._last is not self:
            self._begin()
        for file in _watched:
            file.report(done, total, unit, note)
        if self._bar is None:
            # Of how many is not always known.
            tenths = 10 * done // total if total else 0
            if tenths > self._tenths_said:
                self._tenths_said = tenths
                count = f"{done:,} of {counted(total, unit)}" if unit else note
                complain(f"{self._what}: {10 * tenths} %" + (f" ({count})" if count else ""))
        elif self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=total, completed=done)
        elif done == total or time.monotonic() - self._shown > _SECONDS_BETWEEN_LOOKS:
            self._shown = time.monotonic()
            description = f"{self._what} {'' if unit else note}".strip()
            self._bar.update(self._task, completed=done, description=description)

    def _begin(self) -> None:
        Meter._last = self
        for file in _watched:
            file.begin(self._what)


def _bar() -> Progress:
    share = TextColumn("{task.percentage:3.0f} %")
    columns = (TextColumn("{task.description}"), BarColumn(), share, TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=_err, transient=True)
