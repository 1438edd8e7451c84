"""Jobs start detached, say how they are whoever asks, and stop when told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipsel_core.errors import JobError
from clipsel_core.jobs import control
from clipsel_core.jobs.control import JobInfo, birth_of, forget, listing, write_info
from clipsel_core.status import Status
from tests import traps
from tests.jobs.stand_in import ended
from tests.waiting import PATIENCE_S, until

ABOUT = Path("/run")


def start(jobs, command, paths=(), options=None):
    return control.start(jobs, command, paths, options, title="A job", about=ABOUT)


@pytest.mark.parametrize(("command", "state"), [("finish", "done"), ("fail", "failed"), ("vanish", "lost")])
def test_state__says_how_it_ended(jobs, command, state):
    job = start(jobs, command)
    assert job.state in ("waiting", "running", state)
    assert ended(job) == state
    assert "at work []" in job.log_tail
    if state == "failed":
        assert job.status.message == "pool: expected shards, found none"


def test_start__hands_over_paths_and_options_as_they_are(jobs):
    job = start(
        jobs,
        "finish",
        [Path("/a; rm -rf b")],
        {"sample": 5, "name": "$(x)", "target": ["a=1", "b"], "on": True, "off": None},
    )
    ended(job)
    said = ["/a; rm -rf b", "--sample=5", "--name=$(x)", "--target=a=1", "--target=b", "--on"]
    assert f"at work {said}" in job.log_tail


@pytest.mark.parametrize(
    ("command", "paths", "options"),
    [("rm", [], {}), ("finish", [Path("-rf")], {}), ("finish", [], {"name": "a\0b"})],
)
def test_start__refuses_what_is_not_ours(jobs, command, paths, options):
    with pytest.raises(JobError):
        start(jobs, command, paths, options)
    assert not listing(jobs)


@pytest.mark.parametrize("times", [1, 2])
def test_start__on_a_full_disk_leaves_no_half_job(jobs, monkeypatch, times):
    """job.json is written before the process is started and after: each may fail."""
    written = []

    def fill(folder, info):
        written.append(folder)
        if len(written) == times:
            raise OSError(28, "No space left on device", str(folder / "job.json"))
        return write_info(folder, info)

    monkeypatch.setattr(control, "write_info", fill)
    with pytest.raises(JobError, match="No space left on device"):
        start(jobs, "wait")
    assert [path.name for path in jobs.iterdir() if path.is_dir()] == []
    for child in control._children:
        assert child.wait(PATIENCE_S) == 0


def test_start__the_same_twice_is_one_job(jobs):
    first = start(jobs, "wait")
    assert start(jobs, "wait").id == first.id
    other = start(jobs, "wait", [Path("/other")])
    assert other.id != first.id
    for job in (first, other):
        control.cancel(job)
        ended(job)
    assert start(jobs, "finish").id not in (first.id, other.id)


def test_cancel__is_seen_at_once_and_asking_is_enough(jobs, monkeypatch):
    monkeypatch.setattr(control, "_GRACE_S", 10 * PATIENCE_S)
    job = start(jobs, "wait")
    until(lambda: "at work" in job.log_tail)
    control.cancel(job)
    assert job.state in ("stopping", "cancelled")
    assert ended(job) == "cancelled"


def test_cancel__ends_even_what_does_not_listen(jobs, monkeypatch):
    job = start(jobs, "deaf")
    until(lambda: "at work" in job.log_tail)
    monkeypatch.setattr(control, "_GRACE_S", 10 * PATIENCE_S)
    control.cancel(job)
    assert job.state == "stopping"
    monkeypatch.setattr(control, "_GRACE_S", 0)
    control.cancel(job)
    assert ended(job) == "cancelled"


def test_cancel__leaves_a_process_alone_that_merely_has_the_pid(jobs):
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    info = start(jobs, "finish").info
    folder = jobs / "old"
    folder.mkdir()
    job = write_info(folder, JobInfo(**{**info.model_dump(), "pid": stranger.pid, "birth": "another boot 1"}))
    assert job.state == "lost"
    control.cancel(job)
    control.end(stranger.pid, "another boot 1")
    assert stranger.poll() is None
    assert birth_of(stranger.pid)
    stranger.communicate(timeout=PATIENCE_S)
    assert birth_of(stranger.pid) is None


def test_job__outlives_whoever_started_it(jobs):
    """Another server finds the job running, and can cancel it."""
    code = (
        "import sys; from pathlib import Path; from clipsel_core.jobs import control\n"
        "control._PACKAGE, control.COMMANDS = 'stand_in', ('wait',)\n"
        "control.start(Path(sys.argv[1]), 'wait', [], title='A job', about=Path('/run'))"
    )
    subprocess.run([sys.executable, "-c", code, str(jobs)], check=True, timeout=PATIENCE_S)
    (job,) = listing(jobs)
    until(lambda: job.state == "running")
    assert os.getsid(job.info.pid) == job.info.pid
    control.cancel(job)
    assert ended(job) == "cancelled"


def test_again__starts_what_was_lost(jobs):
    job = start(jobs, "vanish", [Path("/a")])
    ended(job)
    other = control.again(jobs, job)
    assert other.id > job.id
    assert other.info.words == job.info.words
    ended(other)


def test_reap__leaves_no_zombie(jobs):
    job = start(jobs, "finish")
    until(lambda: birth_of(job.info.pid) is None)
    control.reap()
    assert not Path(f"/proc/{job.info.pid}").exists()


def test_listing__latest_first_and_by_folder(jobs):
    first, second = start(jobs, "finish"), start(jobs, "fail")
    (jobs / "broken").mkdir()
    (jobs / "broken" / "job.json").write_text("{")
    assert [job.id for job in listing(jobs)] == [second.id, first.id]
    assert [job.id for job in listing(jobs, ABOUT)] == [second.id, first.id]
    assert listing(jobs, Path("/another")) == []
    ended(first)
    forget(first)
    assert [job.id for job in listing(jobs)] == [second.id]
    ended(second)


def test_forget__keeps_what_is_at_work(jobs):
    job = start(jobs, "wait")
    forget(job)
    assert job.folder.exists()
    control.cancel(job)
    ended(job)


def test_check__gives_the_commands_own_line(jobs, monkeypatch):
    assert control.check_arguments("finish", []) == ""
    monkeypatch.setenv("STAND_IN", "fail")
    assert control.check_arguments("finish", []) == "pool: expected shards, found none"
    assert not listing(jobs)


@pytest.mark.usefixtures("jobs")
def test_check_and_ask__a_command_that_is_killed(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.touch()
    for name, value in traps.setting(file, tmp_path / "hook").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "hook" / "opener.py").write_text(
        f"import sys\nprint('a warning', file=sys.stderr)\nopen({str(file)!r})"
    )
    monkeypatch.setattr(control, "_PACKAGE", "opener")
    assert control.check_arguments("finish", []) == "finish: expected it to look, found that it ended by SIGKILL"
    found = "finish: expected an answer within 60 s, found that it ended by SIGKILL; try it on the command line"
    with pytest.raises(JobError, match=f"^{found}$"):
        control.ask("finish", {})


@pytest.mark.parametrize(("command", "state"), [("finish", "done"), ("fail", "failed"), ("vanish", "lost")])
def test_state__of_a_job_that_ended_since_its_status_was_read(jobs, command, state):
    job = start(jobs, command)
    until(lambda: birth_of(job.info.pid) is None)
    assert job.state_at(Status(state="running")) == state
