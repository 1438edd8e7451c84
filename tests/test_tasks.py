"""Long work reports, stops between its parts, leaves nothing half done, goes on, and hands its errors over.

It takes the cores that a process may use: by its affinity, by the quotas of its control groups, by torch's own count.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from clipsel_core import tasks
from clipsel_core.curation.index import bitmaps
from clipsel_core.errors import RunError
from clipsel_core.tasks import Task, part_of
from tests.waiting import PATIENCE_S

PERIOD = "cpu/x/cpu.cfs_period_us"
MANY = float(1 << 20)


def test_task__reports_and_ends():
    said = []

    def do(report):
        report(1, 2, "pairs", "half")
        said.append(work.share)

    work = Task(do)
    assert not work.active
    work.start()
    work.wait(PATIENCE_S)
    assert (said, work.note, work.finished, work.stopped, work.active) == ([0.5], "half", True, False, False)
    work.start()
    assert not work.active


def test_task__stops_at_its_next_report_and_goes_on():
    done, gate, begun = [], threading.Event(), threading.Event()

    def do(report):
        for step in range(len(done), 3):
            report(step, 3, "", str(step))
            begun.set()
            gate.wait(PATIENCE_S)
            done.append(step)

    work = Task(do)
    work.start()
    assert begun.wait(PATIENCE_S)
    work.stop()
    gate.set()
    work.wait(PATIENCE_S)
    assert (done, work.stopped, work.finished) == ([0], True, False)
    work.start()
    work.wait(PATIENCE_S)
    assert (done, work.stopped, work.finished) == ([0, 1, 2], False, True)


def test_task__stops_between_two_parts_of_all_pairs():
    begun, gate = threading.Event(), threading.Event()

    def part(start, stop):
        begun.set()
        return gate.wait(PATIENCE_S)

    work = Task(lambda report: bitmaps.in_parts(part, 400 * bitmaps._PART))
    work.start()
    assert begun.wait(PATIENCE_S)
    work.stop()
    gate.set()
    work.wait(PATIENCE_S)
    assert (work.active, work.stopped, work.finished, work.error) == (False, True, False, None)


def test_task__started_while_it_is_stopping_does_not_run_twice():
    running, most, gate = [], [], threading.Event()

    def do(report):
        running.append(1)
        most.append(len(running))
        gate.wait(PATIENCE_S)
        try:
            report(1, 1)
        finally:
            running.pop()

    work = Task(do)
    work.start()
    work.stop()
    gate.set()
    work.start()
    work.wait(PATIENCE_S)
    assert max(most) == 1
    assert work.finished


def test_task__its_error_is_kept():
    def do(report):
        raise RunError("here", expected="a", found="b")

    work = Task(do)
    work.start()
    work.wait(PATIENCE_S)
    assert isinstance(work.error, RunError)
    assert not work.finished


def test_task__hands_over_what_nobody_expected():
    def do(report):
        raise MemoryError("no room")

    work = Task(do)
    work.begin()
    work.wait(PATIENCE_S)
    assert isinstance(work.error, MemoryError)
    assert not work.active
    assert not work.finished


def test_task__keeps_what_the_work_returns():
    work = Task(lambda report: 7)
    work.begin()
    work.wait(PATIENCE_S)
    assert (work.value, work.error) == (7, None)


def test_part_of__goes_from_first_to_last():
    told = []
    report = part_of(lambda done, total, unit, note: told.append((done / total, note)), 0.2, 0.6, "reading")
    report(0, 4, "pairs")
    report(1, 4, "pairs", "on")
    report(4, 4, "pairs")
    assert told == [(0.2, "reading"), (0.3, "on"), (0.6, "reading")]


def test_check__raises_no_error_that_a_handler_would_swallow():
    with tasks.stoppable(lambda: True), pytest.raises(tasks.Stopped) as raised:
        tasks.check()
    assert not isinstance(raised.value, Exception)


class _Enough(Exception):
    pass


def until(asked: int):
    """A question that says no when it is asked for the last of so many times."""
    times = iter(range(1, asked + 1))

    def question() -> None:
        if next(times) == asked:
            raise _Enough

    return question


def test_in_threads__answers_in_order():
    with ThreadPoolExecutor(3) as threads:
        assert tasks.in_threads(threads, divmod, range(50), [7] * 50) == [divmod(n, 7) for n in range(50)]


def test_in_threads__leaves_what_was_not_begun_and_waits_for_what_was():
    begun, ended, left = [], [], threading.Event()

    class Noting(ThreadPoolExecutor):
        """Notes when the first part is left."""

        def submit(self, *asked):
            part = super().submit(*asked)
            part.add_done_callback(lambda part: part.cancelled() and left.set())
            return part

    def work(part: int) -> None:
        begun.append(part)
        assert part < 2 or left.wait(PATIENCE_S)
        ended.append(part)

    with Noting(2) as threads, tasks.stoppable(until(2)):
        with pytest.raises(_Enough):
            tasks.in_threads(threads, work, range(20))
        assert len(begun) < 20
        assert sorted(ended) == sorted(begun)


def test_in_threads__stops_those_at_work_after_one_that_failed():
    def work(part: int) -> None:
        if part == 1:
            raise ValueError(part)
        while part:
            tasks.check()

    with ThreadPoolExecutor(3) as threads, pytest.raises(ValueError, match="1"):
        tasks.in_threads(threads, work, range(3))


def test_result_of__ends_with_the_task():
    assert tasks.result_of(ThreadPoolExecutor(1).submit(int, "7")) == 7
    with tasks.stoppable(lambda: True), pytest.raises(tasks.Stopped):
        tasks.result_of(Future())


def test_in_threads__an_interrupted_part_is_what_it_ends_with():
    """Another part may fail because of it before it is asked for its value."""
    interrupted = threading.Event()

    def work(part):
        if part:
            interrupted.set()
            raise KeyboardInterrupt
        assert interrupted.wait(PATIENCE_S)
        raise RuntimeError("its process is gone")

    with ThreadPoolExecutor(2) as threads, pytest.raises(KeyboardInterrupt):
        tasks.in_threads(threads, work, range(2))


def test_in_threads__hands_over_what_the_work_raises():
    def fail(part: int) -> None:
        raise ValueError(part)

    with ThreadPoolExecutor(2) as threads, pytest.raises(ValueError, match="0"):
        tasks.in_threads(threads, fail, range(9))


def test_stoppable__holds_for_one_thread_and_one_block():
    pairs = 3 * bitmaps._PART
    with tasks.stoppable(until(2)):
        with pytest.raises(_Enough):
            bitmaps.in_parts(lambda start, stop: None, pairs)
        with ThreadPoolExecutor(1) as threads:
            assert len(threads.submit(bitmaps.in_parts, lambda start, stop: start, pairs).result(PATIENCE_S)) == 3
    assert len(bitmaps.in_parts(lambda start, stop: start, pairs)) == 3


def quota(tmp_path: Path, membership: str, files: dict[str, str]) -> float:
    """The least quota found where a process is a member of groups that say this."""
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / name).write_text(text)
    return tasks._quota(tmp_path / "cgroup", tmp_path / "sys")


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, MANY),
        ("0::/a/b\n", {"cpu.max": "max 100000", "a/cpu.max": "150000 50000", "a/b/cpu.max": "max 50000"}, 3.0),
        ("0::/of/the/host\n", {"cpu.max": "400000 100000"}, 4.0),
        ("3:cpu,cpuacct:/x\n1:memory:/x\n", {"cpu/x/cpu.cfs_quota_us": "50000", PERIOD: "100000"}, 0.5),
        ("3:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", PERIOD: "100000"}, MANY),
        ("3:cpuset:/x\n", {"cpu/x/cpu.cfs_quota_us": "50000", PERIOD: "100000"}, MANY),
        ("0::/\n", {}, MANY),
    ],
)
def test_quota__of_every_group_that_a_process_is_in(tmp_path, membership, files, expected):
    assert quota(tmp_path, membership, files) == expected


def test_quota__where_there_are_no_control_groups(tmp_path):
    assert tasks._quota(tmp_path / "absent", tmp_path) == MANY


@pytest.mark.parametrize(("share", "expected"), [(0.5, 1), (1.2, 2), (1e6, None)])
def test_allowed_cores__keeps_to_the_quota(monkeypatch, share, expected):
    monkeypatch.setattr(tasks, "_quota", lambda *_: share)
    assert tasks.allowed_cores() == min(expected or 10**6, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("environment", "bind", "expected"), [({"OMP_NUM_THREADS": "2"}, 3, 2), ({}, 1, 1)])
def test_thread_count__are_those_that_the_user_left(environment, bind, expected):
    if len(os.sched_getaffinity(0)) < bind:
        pytest.skip("this process has fewer cores")
    code = f"""
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{bind}])
from clipsel_core.scoring.threads import thread_count
from tests.waiting import PATIENCE_S
print(thread_count())
"""
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", code]
    root = Path(__file__).parent.parent
    options = {"cwd": root, "env": {**kept, **environment}, "timeout": PATIENCE_S}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    assert int(shown.stdout) == expected
