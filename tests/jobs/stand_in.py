"""Jobs that behave as asked: a stand-in for `clipsel` that waits, fails or says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipsel_core.jobs import control
from clipsel_core.jobs.control import Job
from tests.waiting import until

_SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from clipsel_core.status import StatusFile

if sys.argv[-1] == "--check":
    sys.exit("pool: expected shards, found none" if os.environ["STAND_IN"] == "fail" else 0)
if sys.argv[1] == "inspect":
    sys.exit(print("9 embeddings of width 16"))
status, command, *rest = Path(sys.argv[2]), *sys.argv[3:]
command = os.environ["STAND_IN"] or command
file = StatusFile(status, "working")
if command == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
file.report(1, 4, "pairs")
print("at work", rest, flush=True)
if command in ("wait", "deaf", "search"):
    time.sleep(600)
elif command == "brief":
    time.sleep(0.3)
    file.close("done")
elif command == "fail":
    file.close("failed", "pool: expected shards, found none")
    sys.exit(1)
elif command == "finish":
    file.close("done", "pool: 8 of 9 pairs in 1 shard")
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str = "") -> None:
    """Puts the stand-in into our command line's place: the commands wait, deaf, brief, fail, finish and vanish;

    search waits too.

    behaviour: what every other command does.
    """
    (folder / "stand_in").mkdir(parents=True)
    (folder / "stand_in" / "__main__.py").write_text(_SCRIPT)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{Path(__file__).parents[2]}")
    monkeypatch.setenv("STAND_IN", behaviour)
    monkeypatch.setattr(control, "_PACKAGE", "stand_in")
    monkeypatch.setattr(control, "COMMANDS", (*control.COMMANDS, "wait", "deaf", "brief", "fail", "finish", "vanish"))


def ended(job: Job) -> str:
    """The state that a job ends in."""
    until(lambda: not job.active, "the job has ended")
    return job.state
