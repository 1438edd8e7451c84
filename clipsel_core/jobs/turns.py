"""Whose turn is it? Jobs that would fight for the same cores and memory run one after the other, in order.

There are two lanes: a search reads the pool once and is over soon, so that it waits for other searches only; all else
waits for all else. Each job is a process from the start. While it waits it runs this module, looking at the jobs folder
five times a second; when its turn comes, the command takes its place in the same process. So nothing but the folder
holds the queue: it needs no server, and whoever dies, by whatever means, is no longer before anybody.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clipsel_core.jobs.store import BEGUN, Job, listing, read_job
from clipsel_core.processes import module_command

QUICK = ("search",)
_PAUSE_S = 0.2


def jobs_before(job: Job, among: Iterable[Job]) -> int:
    """How many jobs have to end before this one's turn comes: those of its lane that run, or have waited longer."""
    return sum(
        other.id != job.id and _lane(other) == _lane(job) and (other.begun or other.id < job.id) and other.active
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


def waiting_for_turn(folder: Path, command: Sequence[str]) -> list[str]:
    """The words that start a process which waits for a job's turn and then becomes the command."""
    return module_command("clipsel_core.jobs.turns", folder, *command)


def _lane(job: Job) -> bool:
    return job.command in QUICK


def _wait(folder: Path) -> bool:
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


if __name__ == "__main__" and _wait(Path(sys.argv[1])):
    os.execv(sys.argv[2], sys.argv[2:])
