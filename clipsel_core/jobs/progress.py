"""How far is a command, for whoever watches from outside? One small JSON file, replaced whole twice a second.

The command writes it (`clipsel --status FILE ...`); who watches needs nothing but the file.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, TypeAdapter, ValidationError

from clipsel_core.files import write_json

State = Literal["running", "done", "failed", "stopped"]
_Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_SECONDS_BETWEEN_WRITES = 0.4
# Sooner than this nobody can say how long the rest will take.
_SECONDS_TO_JUDGE = 1.0


@dataclass(frozen=True)
class Progress:
    """How far a command is.

    state: "stopped" where somebody ended it from outside. what: "scoring". stage: what of it goes on now, may be "".
    done, total: counted in `unit`; total is 0 until it is known, and unit "" where they are but a share.
    per_s: units a second, left_s: seconds left, both of the stage that goes on and None until it can be judged.
    counted: of what is worth counting where done and total are but a share, in `counts`; counted_per_s: likewise.
    message: the error of a command that failed; of one that is done what came out, a line each, where it says so.
    """

    state: State
    what: str = ""
    stage: str = ""
    done: NonNegativeInt = 0
    total: NonNegativeInt = 0
    unit: str = ""
    per_s: _Number | None = None
    left_s: _Number | None = None
    counts: str = ""
    counted: NonNegativeInt = 0
    counted_per_s: _Number | None = None
    message: str = ""


class Pace:
    """How many a second, from the first count on: what was there before counts for no speed."""

    def __init__(self) -> None:
        self._since, self._before = 0.0, -1

    def per_s(self, count: int) -> float | None:
        """None until it can be judged."""
        clock = time.monotonic()
        if self._before < 0:
            self._since, self._before = clock, count
        seconds, here = clock - self._since, count - self._before
        return here / seconds if here > 0 and seconds > _SECONDS_TO_JUDGE else None


class ProgressFile:
    """Keeps the file true while the command goes on."""

    def __init__(self, path: Path) -> None:
        self._path, self._written = path, 0.0
        self._progress = Progress("running")
        self._pace, self._counting = Pace(), Pace()
        self._tell(force=True)

    def begin(self, what: str, unit: str, counts: str = "") -> None:
        """Notes what the command is about to do."""
        self._progress = Progress("running", what=what, unit=unit, counts=counts)
        self._pace, self._counting = Pace(), Pace()
        self._tell(force=True)

    def update(self, done: int, total: int, stage: str = "", counted: int = 0) -> None:
        """Notes that `done` of `total` is done; what was done before the first call counts for no speed."""
        new_stage = stage != self._progress.stage
        if new_stage:
            self._pace = Pace()
        per_s = self._pace.per_s(done)
        left_s = (total - done) / per_s if per_s else None
        counted_per_s = _short(self._counting.per_s(counted))
        progress = replace(self._progress, done=done, total=total, stage=stage, counted=counted)
        self._progress = replace(progress, per_s=_short(per_s), left_s=_short(left_s), counted_per_s=counted_per_s)
        self._tell(force=new_stage)

    def close(self, state: State, message: str = "") -> None:
        """Notes how the command ended."""
        self._progress = replace(self._progress, state=state, message=message, left_s=None)
        self._tell(force=True)

    def _tell(self, *, force: bool) -> None:
        clock = time.monotonic()
        if force or clock - self._written >= _SECONDS_BETWEEN_WRITES:
            self._written = clock
            # A full disk must not end a command because it cannot say how far it is, nor hide why it failed.
            with suppress(OSError):
                write_json(self._path, _ADAPTER.dump_python(self._progress))


def read_progress(path: Path) -> Progress | None:
    """What a command last said, None where it has not said a word that can be understood."""
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _short(number: float | None) -> float | None:
    return None if number is None else round(number, 3)


_ADAPTER = TypeAdapter(Progress)
