"""What a command says of its progress reads back whole, with a speed that counts only what it did itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clipsel_core.jobs import progress
from clipsel_core.jobs.progress import Progress, ProgressFile, read_progress
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when told."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_update__speed_and_time_left_count_this_start_alone(tmp_path, clock):
    file = ProgressFile(tmp_path / "status.json")
    file.begin("scoring", "pairs")
    file.update(500, 1000)
    clock[0] += 10
    file.update(600, 1000)
    expected = Progress("running", what="scoring", done=600, total=1000, unit="pairs", per_s=10.0, left_s=40.0)
    assert read_progress(tmp_path / "status.json") == expected


def test_update__a_new_stage_is_judged_by_itself(tmp_path, clock):
    file = ProgressFile(tmp_path / "status.json")
    file.begin("projecting", "")
    file.update(0, 1000, "reading")
    clock[0] += 100
    file.update(400, 1000, "laying out")
    assert read_progress(tmp_path / "status.json").left_s is None
    clock[0] += 2
    file.update(700, 1000, "laying out")
    assert read_progress(tmp_path / "status.json").left_s == pytest.approx(2)


def test_update__is_written_a_few_times_a_second(tmp_path, clock):
    file, path, seen = ProgressFile(tmp_path / "status.json"), tmp_path / "status.json", set()
    for step in range(1000):
        clock[0] += 0.01
        file.update(step, 1000)
        seen.add(path.read_bytes())
    assert 20 <= len(seen) <= 30


def test_close__keeps_how_far_it_was(tmp_path):
    file = ProgressFile(tmp_path / "status.json")
    file.begin("scoring", "pairs")
    file.update(3, 9)
    file.close("failed", "no room")
    said = read_progress(tmp_path / "status.json")
    assert (said.state, said.done, said.total, said.message) == ("failed", 3, 9, "no room")


def test_update__a_disk_that_is_full_ends_nothing(tmp_path):
    file = ProgressFile(tmp_path / "folder" / "status.json")
    (tmp_path / "folder" / "status.json").unlink()
    (tmp_path / "folder").rmdir()
    (tmp_path / "folder").write_text("no folder, so nothing can be written")
    file.begin("scoring", "pairs")
    file.close("failed", "no room")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("content", ["", "{", '{"state": "odd"}', "[]"])
def test_read_progress__nothing_that_can_be_understood(tmp_path, content):
    (tmp_path / "status.json").write_text(content)
    assert read_progress(tmp_path / "status.json") is None
    assert read_progress(tmp_path / "absent.json") is None


@pytest.mark.parametrize(
    ("words", "state", "message"),
    [
        (["inspect", "data/demo/pool", "--quick"], "done", ""),
        (["inspect", "data/nothing"], "failed", "data/nothing"),
        (["inspect", "data/demo/pool", "--odd"], "failed", "wrong usage"),
    ],
)
def test_status__every_command_says_how_it_ended(tmp_path, words, state, message):
    status = tmp_path / "status.json"
    command = [sys.executable, "-m", "clipsel_core", "--status", status, *words]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PATIENCE_S)
    said = read_progress(status)
    assert said.state == state
    assert message in said.message
    assert state == "failed" or (said.what, said.done) == ("inspecting", said.total)


def test_update__what_is_counted_besides_has_a_speed_of_its_own(tmp_path, clock):
    file = ProgressFile(tmp_path / "status.json")
    file.begin("embedding", "", "pairs")
    file.update(10_000, 90_000, counted=0)
    clock[0] += 10
    file.update(50_000, 90_000, counted=200)
    told = read_progress(tmp_path / "status.json")
    assert (told.counts, told.counted, told.counted_per_s, told.left_s) == ("pairs", 200, 20.0, 10.0)
