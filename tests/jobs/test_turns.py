"""Jobs wait for their turn in order, searches for searches only, and the dead are before nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clipsel_core.jobs import control
from clipsel_core.jobs.control import BEGUN, listing, write_info
from clipsel_core.processes import module_command
from tests.jobs.stand_in import ended
from tests.waiting import PATIENCE_S, until


@pytest.fixture
def start(jobs):
    """Starts jobs that are each about a folder of their own, and ends those left at the end."""
    started = []

    def one(command):
        paths = [Path(f"/{len(started)}")]
        started.append(control.start(jobs, command, paths, title=command, about=Path("/run")))
        return started[-1]

    yield one
    for job in reversed(started):
        control.cancel(job)
    for job in started:
        ended(job)


def before(job) -> int:
    return control.jobs_before(job, listing(job.folder.parent))


def test_jobs__run_one_after_the_other_in_order(start):
    long = start("wait")
    until(lambda: long.state == "running", "the first job runs")
    briefs = [start("brief") for _ in range(3)]
    assert [job.state for job in briefs] == ["waiting"] * 3
    assert [before(job) for job in briefs] == [1, 2, 3]
    control.cancel(long)
    assert [ended(job) for job in briefs] == ["done"] * 3
    # Each begins after the last is over; where the clock of files ticks slowly, in the same tick.
    stamps = [(job.folder / name).stat().st_mtime_ns for job in briefs for name in (BEGUN, "status.json")]
    assert stamps == sorted(stamps)


def test_jobs__a_search_does_not_wait_for_an_hour_of_scoring(start):
    long = start("wait")
    until(lambda: long.state == "running")
    search = start("search")
    until(lambda: search.state == "running")
    second = start("search")
    assert (second.state, before(second)) == ("waiting", 1)


def test_cancel__while_it_waits_lets_the_next_one_move_up(start):
    first, second, third = start("wait"), start("wait"), start("finish")
    until(lambda: first.state == "running")
    assert before(third) == 2
    control.cancel(second)
    assert ended(second) == "cancelled"
    assert not second.begun
    assert before(third) == 1
    control.cancel(first)
    assert ended(third) == "done"


@pytest.mark.parametrize("begun", [True, False])
def test_jobs__who_was_killed_is_before_nobody(start, begun):
    first = start("wait")
    until(lambda: first.state == "running")
    second, third = start("wait"), start("finish")
    victim = first if begun else second
    os.killpg(victim.info.pid, signal.SIGKILL)
    assert ended(victim) == "lost"
    if not begun:
        assert before(third) == 1
        control.cancel(first)
    else:
        until(lambda: second.state == "running")
        control.cancel(second)
    assert ended(third) == "done"


def test_jobs__the_queue_needs_no_server(jobs, start):
    """Jobs started by a server that is gone wait for those of another, and begin without either."""
    first = start("wait")
    until(lambda: first.state == "running")
    code = (
        "import sys; from pathlib import Path; from clipsel_core.jobs import control\n"
        "control._PACKAGE, control.COMMANDS = 'stand_in', ('finish',)\n"
        "control.start(Path(sys.argv[1]), 'finish', [], title='A job', about=Path('/run'))"
    )
    subprocess.run([sys.executable, "-c", code, str(jobs)], check=True, timeout=PATIENCE_S)
    waits = listing(jobs)[0]
    assert (waits.state, before(waits)) == ("waiting", 1)
    os.killpg(first.info.pid, signal.SIGKILL)
    assert ended(waits) == "done"


def test_jobs__one_that_began_counts_whatever_the_clock_said(jobs, start):
    """A clock that was set back gives a later job an earlier name."""
    first = start("wait")
    until(lambda: first.state == "running")
    (jobs / "20000101-000000-000000-aaaa").mkdir()
    assert before(write_info(jobs / "20000101-000000-000000-aaaa", first.info)) == 1


def test_jobs__a_process_that_the_folder_does_not_know_runs_nothing(jobs, start):
    """Its server was killed before it could write down which process it had started."""
    job = start("finish")
    ended(job)
    command = module_command("clipsel_core.jobs.control", job.folder, *[sys.executable, "-c", "print('ran')"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.stdout, done.returncode) == ("", 0)


def test_seconds__count_from_the_turn(start):
    first = start("wait")
    until(lambda: first.state == "running")
    os.utime(first.folder / BEGUN, (1e9, 1e9))
    assert first.seconds > 1e8
    second = start("wait")
    assert second.seconds < 1e6
