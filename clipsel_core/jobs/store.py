"""What is a job, and how is it? One of our own commands, started from the dashboard; a folder remembers it.

JOBS/<id>/job.json     what was started, when, and as which process
JOBS/<id>/status.json  how far it is: the command writes it
JOBS/<id>/log          what the command printed
JOBS/<id>/begun        there since its turn came; before, it waits (see control.py)
JOBS/<id>/cancelled    there where somebody asked it to stop
JOBS/<id>/opened       there where somebody has looked at what it made
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from clipsel_core.errors import ClipselError
from clipsel_core.files import write_json
from clipsel_core.status import Status, read_status

State = Literal["waiting", "running", "stopping", "done", "failed", "cancelled", "lost"]

BEGUN = "begun"
_OPENED = "opened"

_TAIL_BYTES, _TAIL_LINES = 8192, 12
_SECONDS_TO_START = 10.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class JobInfo(BaseModel):
    """What job.json says.

    title: what people read. words: the command line behind `clipsel`. about: the folder that the job
    works on. created: UTC, ISO 8601. pid and birth: the process, see birth_of; None while it is being started.
    """

    model_config = ConfigDict(frozen=True)

    title: str
    words: Annotated[tuple[str, ...], Field(min_length=1)]
    about: Annotated[str, Field(pattern=r"^[^\x00]*$")]
    created: AwareDatetime
    pid: int | None = None
    birth: str | None = None


@dataclass(frozen=True)
class Job:
    """A job's folder and what it says of what was started; how the job is, is read anew each time."""

    folder: Path
    info: JobInfo

    @property
    def id(self) -> str:
        """The folder's name; later jobs come later."""
        return self.folder.name

    @property
    def command(self) -> str:
        """Which command it is: "score"."""
        return self.info.words[0]

    @property
    def active(self) -> bool:
        """Whether its process is there: at work, or waiting for its turn."""
        return self.state in ("waiting", "running", "stopping")

    @property
    def begun(self) -> bool:
        """Whether its turn came, be it over or not."""
        return (self.folder / BEGUN).exists()

    @property
    def opened(self) -> bool:
        """Whether somebody has looked at what it made."""
        return (self.folder / _OPENED).exists()

    @property
    def status(self) -> Status:
        """How far it is, as it said last; nothing where that cannot be understood."""
        try:
            return read_status(self.folder / "status.json")
        except ClipselError:
            return Status()

    @property
    def state(self) -> State:
        """How it is.

        waiting: others are before it. failed: the command said why. cancelled: on request. lost: its process is gone
        without a word, because it was killed from outside or the machine was restarted.
        """
        return self.state_at(self.status)

    def state_at(self, status: Status) -> State:
        """The state, where the status has been read already."""
        if status.state == "done":
            return "done"
        asked_to_stop = (self.folder / "cancelled").exists()
        if self._alive():
            return "stopping" if asked_to_stop else "running" if self.begun else "waiting"
        if asked_to_stop:
            return "cancelled"
        return "failed" if status.state == "failed" else "lost"

    @property
    def seconds(self) -> float:
        """How long it has been at work, or was: until it last said something. While it waits: how long it has."""
        end = datetime.now(UTC).timestamp()
        if not self.active:
            files = [self.folder / name for name in ("status.json", "log", "cancelled", "job.json")]
            end = max((file.stat().st_mtime for file in files if file.exists()), default=0.0)
        begun = self.folder / BEGUN
        start = begun.stat().st_mtime if begun.exists() else self.info.created.timestamp()
        return max(0.0, end - start)

    @property
    def log_tail(self) -> str:
        """The last lines that it printed."""
        try:
            with open(self.folder / "log", "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                lines = file.read().decode("utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_TAIL_LINES:])

    def _alive(self) -> bool:
        if self.info.pid is None or self.info.birth is None:
            return (datetime.now(UTC) - self.info.created).total_seconds() < _SECONDS_TO_START
        return birth_of(self.info.pid) == self.info.birth


def listing(jobs: Path, about: Path | None = None) -> list[Job]:
    """The jobs there are, the latest first; only those about a folder where one is given."""
    found = filter(None, (read_job(file.parent) for file in jobs.glob("*/job.json")))
    chosen = (job for job in found if about is None or job.info.about == str(about))
    return sorted(chosen, key=lambda job: job.id, reverse=True)


def read_job(folder: Path) -> Job | None:
    """The job that a folder remembers; None where it is damaged, or just being forgotten by somebody else."""
    try:
        return Job(folder, JobInfo.model_validate_json((folder / "job.json").read_bytes()))
    except (OSError, ValidationError):
        return None


def write_info(folder: Path, info: JobInfo) -> Job:
    """Writes job.json, whole or not at all."""
    write_json(folder / "job.json", info.model_dump(mode="json"))
    return Job(folder, info)


def note_opened(job: Job) -> None:
    """Remembers that somebody has looked at what a job made; nothing where the job is just being forgotten."""
    with suppress(FileNotFoundError):
        (job.folder / _OPENED).touch()


def forget(job: Job) -> None:
    """Removes a job that has ended from the list; what it made stays."""
    if not job.active:
        shutil.rmtree(job.folder, ignore_errors=True)


def birth_of(pid: int) -> str | None:
    """When a process began, in words that no other process of this machine ever shares with this pid.

    None where there is no such process, or it has ended and only waits to be asked how.
    """
    if _BOOT.exists():
        try:
            # The name in brackets may hold anything; what follows it is state, ..., and the ticks at the 20th place.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else f"{_BOOT.read_text().strip()} {fields[19]}"
    asked = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    state, _, began = subprocess.run(asked, capture_output=True, text=True).stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else " ".join(began.split())
