"""What is a job, how is it started, so that it outlives the page, the browser and the server, and how is it stopped?

A job is one of our own commands, started from the dashboard; a folder remembers it.

JOBS/<id>/job.json     what was started, when, and as which process
JOBS/<id>/status.json  how far it is: the command writes it
JOBS/<id>/log          what the command printed
JOBS/<id>/begun        there since its turn came; before, it waits
JOBS/<id>/cancelled    there where somebody asked it to stop
JOBS/<id>/opened       there where somebody has looked at what it made

Jobs that would fight for the same cores and memory run one after the other, in order. There are two lanes: a search
reads the pool once and is over soon, so that it waits for other searches only; all else waits for all else. Each job is
a process from the start. While it waits it runs this module, looking at the jobs folder five times a second; when its
turn comes, the command takes its place in the same process. So nothing but the folder holds the queue: it needs no
server, and whoever dies, by whatever means, is no longer before anybody.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from clipsel_core import reach
from clipsel_core.errors import ClipselError, JobError
from clipsel_core.files import write_json
from clipsel_core.processes import birth_of, child_environment, ending, module_command
from clipsel_core.status import Status, read_status

COMMANDS = ("add-column", "add-target", "doctor", "embed", "inspect", "project", "score", "search")
# Those that go on where they stopped; the others begin anew.
RESUMES = ("add-target", "embed", "score")
_PACKAGE = "clipsel_core"
QUICK = ("search",)
_PAUSE_S = 0.2
_GRACE_S = 2.0

# The dashboard stays quick while jobs compute.
_NICENESS = 5
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
# A column that is computed, or read from an absolute path or an address.
_COLUMN = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_\-]*(=(/|{ADDRESS.pattern}).*)?", re.DOTALL)
_SECONDS_TO_WAIT = 60
# Children have to be asked how they ended, or they stay as zombies; those of an earlier server are the system's.
_children: list[subprocess.Popen[bytes]] = []

Value = str | int | float | os.PathLike[str]
Option = Value | bool | Sequence[Value] | None
JobState = Literal["waiting", "running", "stopping", "done", "failed", "cancelled", "lost"]

BEGUN = "begun"
_OPENED = "opened"

_TAIL_BYTES, _TAIL_LINES = 8192, 12
_SECONDS_TO_START = 10.0


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
    def state(self) -> JobState:
        """How it is.

        waiting: others are before it. failed: the command said why. cancelled: on request. lost: its process is gone
        without a word, because it was killed from outside or the machine was restarted.
        """
        return self.state_at(self.status)

    def state_at(self, status: Status) -> JobState:
        """The state, where the status has been read already."""
        if status.state == "done":
            return "done"
        asked_to_stop = (self.folder / "cancelled").exists()
        if self._alive():
            return "stopping" if asked_to_stop else "running" if self.begun else "waiting"
        if status.state not in ("done", "failed"):
            status = self.status  # it may have ended since that was read
            if status.state == "done":
                return "done"
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


def start(
    jobs: Path,
    command: str,
    paths: Sequence[str | os.PathLike[str]],
    options: Mapping[str, Option] | None = None,
    *,
    title: str,
    about: str | os.PathLike[str],
    may_read: Sequence[str | Path] = (),
) -> Job:
    """Starts one of our own commands as a process of its own session, when its turn comes; no shell reads any of it.

    jobs: the folder that remembers jobs. command: one of COMMANDS. paths: its arguments: absolute, or
        texts that are addresses, names or NAME=PATH.
    options: by name, "batch-size": 64; True is a flag, several values repeat the option, None leaves it out.
    title: what people read. about: the folder that the job works on. may_read: places outside of which its sources name
        nothing that is read; see reach.
    Returns: the job; the one that waits or is at work already where the very same was started before.
    Raises: JobError on what is no command of ours, a path that is not absolute, or where no process can be started.
    """
    return _start(jobs, title, _words(command, paths, options or {}), str(about), may_read)


def check_arguments(
    command: str,
    paths: Sequence[str | os.PathLike[str]],
    options: Mapping[str, Option] | None = None,
    *,
    may_read: Sequence[str | Path] = (),
) -> str:
    """Has a command look at its arguments and at what was begun before, and write nothing; waits for it.

    may_read: as in start.
    Returns: what the command finds wrong, in its own line; "" where it finds nothing, or still looks after a minute: it
    looks again when it is started.
    """
    return look(command, paths, {**(options or {}), "check": True}, may_read=may_read)[1]


def look(
    command: str,
    paths: Sequence[str | os.PathLike[str]],
    options: Mapping[str, Option],
    *,
    may_read: Sequence[str | Path] = (),
) -> tuple[str, str]:
    """What a command prints that only looks, and what it finds wrong, "" for nothing; both "" after a minute."""
    try:
        done = _wait(command, paths, options, may_read)
    except subprocess.TimeoutExpired:
        return "", ""
    if done.returncode == 0:
        return done.stdout.strip(), ""
    wrong = _ended(done)
    return "", wrong if done.returncode > 0 else str(JobError(command, expected="it to look", found=wrong))


def ask(command: str, options: Mapping[str, Option]) -> str:
    """What a quick command prints; waits for it. Raises JobError where that takes over a minute, or is nothing."""
    expected, remedy = f"an answer within {_SECONDS_TO_WAIT} s", "try it on the command line"
    try:
        done = _wait(command, (), options, ())
    except subprocess.TimeoutExpired as error:
        raise JobError(command, expected=expected, found="none", remedy=remedy) from error
    if not done.stdout:
        raise JobError(command, expected=expected, found=_ended(done), remedy=remedy)
    return done.stdout


def again(jobs: Path, job: Job, *, may_read: Sequence[str | Path] = ()) -> Job:
    """Starts a job's command once more: our commands go on where they stopped. Raises JobError as `start` does."""
    return _start(jobs, job.info.title, job.info.words, job.info.about, may_read)


def cancel(job: Job) -> None:
    """Asks a job to stop, and makes it where it does not within 2 seconds; nothing where it has ended.

    Raises: JobError where it is another user's.
    """
    if job.info.pid is not None and job.info.birth is not None and job.active:
        try:
            try:
                (job.folder / "cancelled").touch()
            except PermissionError:
                raise
            except OSError:
                pass  # On a full disk it has to end all the same; it is shown as lost then.
            end(job.info.pid, job.info.birth)
        except PermissionError as error:
            remedy = "ask who started it"
            raise JobError(job.folder, expected="a job of yours", found="another user's", remedy=remedy) from error


def reap() -> None:
    """Lets go of the processes that have ended."""
    _children[:] = [child for child in _children if child.poll() is None]


def end(pid: int, birth: str) -> None:
    """Asks the process and those that it started to end, and makes them where they do not within 2 seconds.

    pid: of the leader of a process group. Nothing happens to a process that merely has the same pid.
    """
    if _signal(pid, birth, signal.SIGTERM):
        timer = threading.Timer(_GRACE_S, _signal, (pid, birth, signal.SIGKILL))
        timer.daemon = True
        timer.start()


def jobs_before(job: Job, among: Iterable[Job]) -> int:
    """How many jobs have to end before this one's turn comes: those of its lane that run, or have waited longer."""
    is_quick = job.command in QUICK
    return sum(
        other.id != job.id
        and (other.command in QUICK) == is_quick
        and (other.begun or other.id < job.id)
        and other.active
        for other in among
    )


@contextmanager
def alone(jobs: Path) -> Iterator[None]:
    """Holds a jobs folder for a moment, so that nobody else starts a job or takes a turn meanwhile.

    Reading the lock's file is enough to hold it: people who share the folder need not own it.
    """
    lock = os.open(jobs / ".lock", os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def listing(jobs: Path, about: str | os.PathLike[str] | None = None) -> list[Job]:
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


def _words(command: str, paths: Sequence[str | os.PathLike[str]], options: Mapping[str, Option]) -> tuple[str, ...]:
    if command not in COMMANDS:
        raise JobError(command, expected=f"one of {', '.join(COMMANDS)}", found=repr(command))
    for path in paths:
        named = ADDRESS.match(str(path)) or (isinstance(path, str) and _COLUMN.fullmatch(path))
        if not (named or Path(path).is_absolute()):
            raise JobError(path, expected="an absolute path or an address", found=repr(str(path)))
    words = [command, *map(str, paths)]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False:
            values = [value] if isinstance(value, str | int | float | os.PathLike) else value
            words += [f"--{name}={one}" for one in values]
    if any("\0" in word for word in words):
        raise JobError(command, expected="text", found="a zero byte")
    return tuple(words)


def _start(jobs: Path, title: str, words: tuple[str, ...], about: str, may_read: Sequence[str | Path]) -> Job:
    try:
        jobs.mkdir(parents=True, exist_ok=True)
        with alone(jobs):
            same = (job for job in listing(jobs) if job.info.words == words and job.active)
            # Dated while nobody else starts one: dates are the order of the queue.
            info = JobInfo(title=title, words=words, about=about, created=datetime.now(UTC))
            return next(same, None) or _launch(jobs, info, may_read)
    except OSError as error:
        found = str(error.strerror or error)
        remedy = "make room there, or allow writing to it"
        raise JobError(error.filename or jobs, expected="to start a job", found=found, remedy=remedy) from error


def _launch(jobs: Path, info: JobInfo, may_read: Sequence[str | Path]) -> Job:
    reap()
    folder = jobs / f"{info.created:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
    folder.mkdir()
    try:
        write_info(folder, info)
        command = module_command(_PACKAGE, "--status", folder / "status.json", *info.words)
        with open(folder / "log", "wb") as log:
            child = subprocess.Popen(
                module_command("clipsel_core.jobs.control", folder, *command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_environment(may_read),
            )
        _children.append(child)
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, child.pid, _NICENESS)
        return write_info(folder, info.model_copy(update={"pid": child.pid, "birth": birth_of(child.pid) or "gone"}))
    except OSError:
        # Nobody is to find half a job; a process that was started already ends, as no job names it.
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _wait(
    command: str, paths: Sequence[str | os.PathLike[str]], options: Mapping[str, Option], may_read: Sequence[str | Path]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        module_command(_PACKAGE, *_words(command, paths, options)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_SECONDS_TO_WAIT,
        env=_environment(may_read),
    )


def _ended(done: subprocess.CompletedProcess[str]) -> str:
    """What a command said last, where it ended by itself and said anything; else how it ended."""
    said = done.stderr.strip().splitlines()
    return said[-1] if said and done.returncode >= 0 else f"that it ended {ending(done.returncode)}"


def _environment(may_read: Sequence[str | Path]) -> dict[str, str]:
    return {**child_environment(), **reach.limiting_environment(may_read), "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}


def _signal(pid: int, birth: str, number: signal.Signals) -> bool:
    if birth_of(pid) != birth:
        return False
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    return True


def _wait_for_turn(folder: Path) -> bool:
    """Waits for the turn of the job of this process. False where nobody knows it (any more)."""
    while True:
        with alone(folder.parent):
            job = read_job(folder)
            if job is None or job.info.pid != os.getpid():
                return False
            if not jobs_before(job, listing(folder.parent)):
                (folder / BEGUN).touch()
                return True
        time.sleep(_PAUSE_S)


if __name__ == "__main__" and _wait_for_turn(Path(sys.argv[1])):
    os.execv(sys.argv[2], sys.argv[2:])
