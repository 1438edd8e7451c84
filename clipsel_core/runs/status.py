"""How far a run is: status.json, replaced whole at every step, for whoever watches."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field, NonNegativeInt, ValidationError

from clipsel_core.errors import RunError, reason_of
from clipsel_core.files import write_json
from clipsel_core.pool.layout import Shard
from clipsel_core.runs.config import RunConfig
from clipsel_core.runs.groups import Group

State = Literal["running", "done", "failed", "stopped"]
_SECONDS_BETWEEN_WRITES = 0.5


@dataclass(frozen=True)
class Status:
    """A run's progress. pairs_done counts the pairs of shards in work by the share of their work that is done.

    elapsed_s and pairs_per_s are of this start alone; eta_s is None until there is something to judge by.
    """

    state: State
    pairs_done: int
    pairs_total: int
    shards_done: int
    shards_total: int
    started_at: str
    updated_at: str
    elapsed_s: float
    pairs_per_s: float
    eta_s: float | None
    pid: int
    message: str = ""


class Said(BaseModel):
    """What a page needs of a status.json, each of it as far as it is there; see Status."""

    state: State | None = None
    pairs_done: NonNegativeInt | None = None
    pairs_total: NonNegativeInt | None = None
    pairs_per_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    updated_at: AwareDatetime | None = None
    message: str = ""


def read_status(root: Path) -> Said:
    """What a run's status.json says; nothing where there is none. Raises RunError where it cannot be understood."""
    path = root / "status.json"
    try:
        return Said.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Said()
    except (OSError, ValidationError) as error:
        found = reason_of(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_context=False)[0]
            found = f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}"
        remedy = "delete it: it says how far the scoring was, and holds no scores"
        raise RunError(path, expected="how far the run is", found=found, remedy=remedy) from error


class StatusWriter:
    """Keeps status.json true while a run goes on, and tells a listener the same; any thread may tell it.

    listener: called with each Status; what it raises stops the run.
    """

    def __init__(
        self, root: Path, config: RunConfig, done: list[Shard], listener: Callable[[Status], None] | None
    ) -> None:
        self._path, self._listener = root / "status.json", listener
        self._start, self._written = time.monotonic(), 0.0
        self._pairs, self._pairs_before = (sum(shard.rows for shard in done),) * 2
        self._in_work: dict[str, int] = {}
        self._guard = threading.RLock()
        self._status = Status(
            state="running",
            pairs_done=self._pairs,
            pairs_total=config.pairs,
            shards_done=len(done),
            shards_total=len(config.shards),
            started_at=_now(),
            updated_at=_now(),
            elapsed_s=0.0,
            pairs_per_s=0.0,
            eta_s=None,
            pid=os.getpid(),
        )
        self._tell(force=True)

    def advance(self, group: Group, share: float) -> None:
        """Notes that a share, in [0, 1], of a group's work is done."""
        with self._guard:
            self._in_work |= {shard.name: int(share * shard.rows) for shard in group.left}
            self._status = replace(self._status, pairs_done=self._pairs_done())
            self._tell()

    def finish(self, shard: Shard) -> None:
        """Notes that a shard's scores are kept."""
        with self._guard:
            self._in_work.pop(shard.name, None)
            self._pairs += shard.rows
            done = self._status.shards_done + 1
            self._status = replace(self._status, pairs_done=self._pairs_done(), shards_done=done)
            self._tell(force=True)

    def set_back(self, group: Group) -> None:
        """Notes that a group's work was lost with its worker."""
        with self._guard:
            for shard in group.left:
                self._in_work.pop(shard.name, None)

    def close(self, state: State, message: str = "") -> None:
        """Notes how the run ended."""
        with self._guard:
            self._status = replace(self._status, state=state, message=message)
            self._tell(force=True)

    def _pairs_done(self) -> int:
        return self._pairs + sum(self._in_work.values())

    def _tell(self, *, force: bool = False) -> None:
        clock = time.monotonic()
        if not force and clock - self._written < _SECONDS_BETWEEN_WRITES:
            return
        self._written = clock
        elapsed = clock - self._start
        here = self._status.pairs_done - self._pairs_before
        rate = here / elapsed if elapsed > 0 else 0.0
        left = self._status.pairs_total - self._status.pairs_done
        eta = round(left / rate, 1) if rate > 0 else None
        self._status = replace(
            self._status, updated_at=_now(), elapsed_s=round(elapsed, 3), pairs_per_s=round(rate, 1), eta_s=eta
        )
        write_json(self._path, asdict(self._status))
        if self._listener:
            self._listener(self._status)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
