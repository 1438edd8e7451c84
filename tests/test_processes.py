"""Do processes start wherever we are, and does one that fails say so in one line, however it fails?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipsel_core import processes
from clipsel_core.errors import LostWorkerError, PoolFormatError, WorkerError
from clipsel_core.jobs import control, encoders
from clipsel_core.jobs.encoders import TeacherName, encoder_of
from clipsel_core.pool import tar_index
from clipsel_core.pool.tar_index import index_tars
from clipsel_core.processes import Crew, as_worker_error, child_environment, module_command
from clipsel_core.runs.local import score
from tests import tasks
from tests.jobs.stand_in import ended
from tests.pool.pictures import write_tars, write_teacher
from tests.runs.test_score import OPTIONS
from tests.waiting import until

ROOT = Path(__file__).parents[1]
NONE = "nowhere/metadata: expected *.parquet, found no such folder"


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Makes a folder the current one that holds files called as modules; only sys.path leads to our package."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in ("clipsel_core", "json", "queue", "selectors", "signal", "threading"):
        (folder / f"{name}.py").write_text("raise SystemExit(f'{__file__} was imported')\n")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return folder


@pytest.mark.usefixtures("hostile")
def test_module_command__is_needed_there():
    """The usual way to start a module fails in this folder: else the tests below would say nothing."""
    done = subprocess.run([sys.executable, "-m", "json.tool"], capture_output=True, text=True)
    assert "json.py was imported" in done.stderr


def test_module_command__jobs_and_checks(hostile, tmp_path):
    assert NONE in control.check_arguments("score", [hostile / "nowhere", tmp_path / "run"])
    paths = [hostile / "nowhere", tmp_path / "run"]
    job = control.start(tmp_path / "jobs", "score", paths, title="A job", about=tmp_path)
    assert ended(job) == "failed", job.log_tail
    assert NONE in job.status.message


@pytest.mark.usefixtures("hostile")
def test_module_command__tars_by_relative_paths(tmp_path, monkeypatch):
    write_tars(tmp_path / "hostile" / "in", uid="7")
    monkeypatch.setattr(tar_index, "_LEAST_BYTES", 1)
    monkeypatch.setattr(tar_index, "allowed_cores", lambda: 2)
    monkeypatch.setattr(tar_index, "_index_tar", lambda _: pytest.fail("it was done here"))
    found = list(index_tars([Path("in/00000.tar"), Path("in/00001.tar")]))
    assert [(str(tar), len(table)) for tar, table, _ in found] == [("in/00000.tar", 5), ("in/00001.tar", 4)]


@pytest.mark.usefixtures("hostile")
def test_module_command__two_workers_of_a_run(pool):
    assert score(pool, "run", device="cpu,cpu", **OPTIONS).finished


@pytest.mark.usefixtures("hostile")
def test_module_command__a_teacher(monkeypatch):
    monkeypatch.setattr(encoders, "_encoders", type(encoders._encoders)())
    teacher = TeacherName(f"local-dir:{ROOT / 'data' / 'demo' / 'teacher'}", None, "", 64)
    assert np.linalg.norm(encoder_of(teacher).text("two red birds").result(120)) == pytest.approx(1, abs=1e-3)
    encoders.end_all()


def test_server_context__embed_as_installed(hostile, tmp_path):
    """The installed command is a script elsewhere, whose Python looks into the current folder for nothing."""
    (tmp_path / "clipsel").write_text("from clipsel_core.cli import run\nif __name__ == '__main__':\n    run()\n")
    source, teacher = write_tars(tmp_path / "in"), write_teacher(tmp_path / "teacher", 0)
    words = [sys.executable, tmp_path / "clipsel", "embed", source, "pool", "--model", f"local-dir:{teacher}"]
    done = subprocess.run([*words, "--arch", "a"], env=child_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "9 of 9 pairs" in done.stdout
    assert (hostile / "pool" / "rejected.parquet").exists()


def test_server_context__leaves_the_environment_as_it_is(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    before = dict(os.environ)
    processes.server_context(["json"])
    assert dict(os.environ) == before


def test_child_environment__names_our_folder_only_where_it_has_to(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/a:/b")
    assert child_environment()["PYTHONPATH"] == f"{ROOT}:/a:/b"
    monkeypatch.delenv("PYTHONPATH")
    assert child_environment() == {**os.environ, "PYTHONPATH": str(ROOT)}
    for installed in ({"PYTHONPATH": f"/a:{ROOT}"}, {}):
        monkeypatch.setattr(
            processes.site, "getsitepackages", lambda installed=installed: [] if installed else [str(ROOT)]
        )
        monkeypatch.setattr(os, "environ", {"A": "b", **installed})
        assert child_environment() == os.environ
    assert module_command("a.b", 1, Path("c")) == [sys.executable, "-P", "-m", "a.b", "1", "c"]


def test_crew__does_what_it_is_asked():
    with Crew(2, "to be doubled", settle=tasks.settle, given=(3,)) as crew:
        answers = [crew.submit(number, tasks.times_settled, number) for number in range(20)]
        assert [answer.result() for answer in answers] == [3 * number for number in range(20)]
    with pytest.raises(RuntimeError):
        crew.submit(0, int)


def test_crew__one_that_ends_costs_its_own_work_alone():
    with Crew(2, "to be done") as crew:
        answers = {number: crew.submit(f"task {number}", tasks.end, number) for number in range(8)}
        lines = {number: str(answer.exception()) for number, answer in answers.items() if answer.exception()}
        assert {number: answers[number].result() for number in answers.keys() - lines} == {
            n: n for n in (0, 1, 4, 5, 6, 7)
        }
    remedy = "see whether memory runs out, then start again"
    assert lines == {
        2: f"task 2: expected to be done, found that its process ended by SIGKILL; {remedy}",
        3: f"task 3: expected to be done, found that its process ended with exit status 5; {remedy}",
    }
    assert all(isinstance(answers[number].exception(), LostWorkerError) for number in lines)


def test_crew__errors_travel():
    with Crew(1, "to be done") as crew:
        with pytest.raises(PoolFormatError, match=r"^a: expected b, found c; d$"):
            crew.submit("x", tasks.refuse).result()
        with pytest.raises(FileNotFoundError, match="/no/such/file"):
            crew.submit("x", open, "/no/such/file").result()
        with pytest.raises(WorkerError, match=r"^x: expected to be done, found ZeroDivisionError: ") as raised:
            crew.submit("x", divmod, 1, 0).result()
        assert "Traceback" in raised.value.__notes__[0]
        assert "Traceback" not in str(raised.value)
        with pytest.raises(WorkerError, match=r"^x: expected to be done, found .*(pickle|local object)"):
            crew.submit("x", tasks.unsendable).result()
        assert crew.submit("x", int, "7").result() == 7


def test_crew__whoever_is_at_work_is_ended_with_it(tmp_path):
    with Crew(1, "to be done") as crew:
        crew.submit("x", tasks.sleep_in, tmp_path / "pid")
        until((tmp_path / "pid").exists)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_ending__signals_by_their_names():
    assert processes.ending(-signal.SIGSEGV) == "by SIGSEGV"
    assert processes.ending(-40) == "by signal 40"
    assert processes.ending(0) == "with exit status 0"


def test_as_worker_error__leaves_our_own_errors_alone():
    for error in (PoolFormatError("a", expected="b", found="c"), OSError(28, "full")):
        with pytest.raises(type(error)) as raised, as_worker_error("x", "y"):
            raise error
        assert raised.value is error
    with pytest.raises(WorkerError, match=r"^x: expected y, found MemoryError; "), as_worker_error("x", "y"):
        raise MemoryError
