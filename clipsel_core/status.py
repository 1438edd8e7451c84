"""How far is work that another process does? One small JSON file says it, replaced whole twice a second.

A command writes it (`clipsel --status FILE ...`), and a run has one of its scoring. Who watches needs nothing else.
"""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator

from clipsel_core.errors import ClipselError, counted, reason_of
from clipsel_core.places import Place
from clipsel_core.tasks import Report, silent

State = Literal["running", "done", "failed", "stopped"]
INTERRUPTED = "interrupted; start it again to go on"
_Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_SECONDS_BETWEEN_WRITES, _IN_A_STORE_S = 0.4, 15.0
# Sooner than this nobody can say how long the rest will take.
_SECONDS_TO_JUDGE = 1.0
# What earlier versions called the fields: a run's, and a job's.
_EARLIER = {"pairs_done": "done", "pairs_total": "total", "pairs_per_s": "per_s", "eta_s": "left_s", "stage": "note"}


class Status(BaseModel):
    """How far work is, each of it as far as it is known.

    state: "stopped" where somebody ended it from outside. what: "scoring". note: what of it goes on now.
    done, total: counted in `unit`, "" where they are but a share.
    per_s: units a second; left_s: seconds left; of what goes on now, None until they can be judged.
    message: the error of work that failed; of work that is done what came out, a line each, where it says so.
    """

    model_config = ConfigDict(frozen=True)

    state: State | None = None
    what: str = ""
    note: str = ""
    done: NonNegativeInt | None = None
    total: NonNegativeInt | None = None
    unit: str = ""
    per_s: _Rate | None = None
    left_s: _Rate | None = None
    started_at: AwareDatetime | None = None
    updated_at: AwareDatetime | None = None
    pid: int | None = None
    message: str = ""

    @property
    def share(self) -> float:
        """The share that is done, 0 to 1; 0 where it is not known."""
        return min(1.0, (self.done or 0) / self.total) if self.total else 0.0

    @model_validator(mode="before")
    @classmethod
    def _from_earlier(cls, said: Any) -> Any:
        if not isinstance(said, dict):
            return said
        now = {_EARLIER.get(name, name): value for name, value in said.items()}
        if "pairs_total" in said:
            now["unit"] = "pairs"
        if said.get("counts") and isinstance(said.get("counted"), int):
            now["note"] = counted(said["counted"], said["counts"])
        return now


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
        return round(here / seconds, 3) if here > 0 and seconds > _SECONDS_TO_JUDGE else None


class StatusFile:
    """Keeps the file true while the work goes on; any thread may tell it.

    As a context it also says how the work within it ended. beside: a Report that is told the same. A store is written
    to a few times a minute.
    """

    def __init__(self, path: str | os.PathLike[str], what: str = "", beside: Report = silent) -> None:
        path = Place.of_named(path)
        if path.remote:  # the work does not wait for a store that is away
            path = path.patient(1)
        self._rest_s = _IN_A_STORE_S if path.remote else _SECONDS_BETWEEN_WRITES
        self._path, self._beside, self._written, self._guard = path, beside, 0.0, threading.RLock()
        self._status, self._pace = Status(state="running", started_at=_now(), pid=os.getpid()), Pace()
        self.begin(what)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if error is None:
            self.close("done")
        elif isinstance(error, KeyboardInterrupt):
            self.close("stopped", INTERRUPTED)
        elif isinstance(error, ClipselError | OSError):
            self.close("failed", str(error))

    def begin(self, what: str) -> None:
        """Notes what is about to be done."""
        with self._guard:
            begun = {"what": what, "note": "", "done": 0, "total": 0, "unit": "", "per_s": None, "left_s": None}
            self._status, self._pace = self._status.model_copy(update=begun), Pace()
            self._write()

    def report(self, done: int, total: int, unit: str = "", note: str = "", /) -> None:
        """As tasks.Report. A note that differs in more than its numbers begins a stage, whose speed is its own."""
        with self._guard:
            is_new_stage = _without_numbers(note) != _without_numbers(self._status.note)
            if is_new_stage:
                self._pace = Pace()
            per_s = self._pace.per_s(done)
            left_s = round((total - done) / per_s, 3) if per_s else None
            told = {"done": done, "total": total, "unit": unit, "note": note, "per_s": per_s, "left_s": left_s}
            self._status = self._status.model_copy(update=told)
            waited_s = time.monotonic() - self._written
            if waited_s >= self._rest_s or (is_new_stage and not self._path.remote):
                self._write()
        self._beside(done, total, unit, note)

    def close(self, state: State, message: str = "") -> None:
        """Notes how the work ended."""
        with self._guard:
            self._status = self._status.model_copy(update={"state": state, "message": message, "left_s": None})
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        self._status = self._status.model_copy(update={"updated_at": _now()})
        # A full disk must not end the work because it cannot say how far it is, nor hide why it failed.
        with suppress(OSError):
            self._path.write_json(self._status.model_dump(mode="json"))


def read_status(path: str | os.PathLike[str]) -> Status:
    """What was last said; nothing where there is no file. Raises ClipselError where it cannot be understood."""
    try:
        return Status.model_validate_json(Place.of_named(path).read())
    except FileNotFoundError:
        return Status()
    except (OSError, ValidationError) as error:
        found = reason_of(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_context=False)[0]
            found = f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}"
        remedy = "delete it: it says how far the scoring was, and holds no scores"
        raise ClipselError(path, expected="how far the run is", found=found, remedy=remedy) from error


def _without_numbers(note: str) -> str:
    return re.sub(r"[\d.,]", "", note)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
