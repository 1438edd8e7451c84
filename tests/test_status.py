"""What a command says of its progress reads back whole, with a speed that counts only what it did itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clipsel_core import status
from clipsel_core.errors import ClipselError
from clipsel_core.status import Status, StatusFile, read_status
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[1]


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when told."""
    now = [100.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    return now


def test_report__speed_and_time_left_count_this_start_alone(tmp_path, clock):
    file = StatusFile(tmp_path / "status.json")
    file.begin("scoring")
    file.report(500, 1000, "pairs")
    clock[0] += 10
    file.report(600, 1000, "pairs")
    found = read_status(tmp_path / "status.json")
    assert (found.state, found.what, found.done, found.total, found.unit) == ("running", "scoring", 600, 1000, "pairs")
    assert (found.per_s, found.left_s) == (10.0, 40.0)


def test_report__a_new_stage_is_judged_by_itself(tmp_path, clock):
    file = StatusFile(tmp_path / "status.json")
    file.begin("projecting")
    file.report(0, 1000, "", "reading")
    clock[0] += 100
    file.report(400, 1000, "", "laying out")
    assert read_status(tmp_path / "status.json").left_s is None
    clock[0] += 2
    file.report(700, 1000, "", "laying out")
    assert read_status(tmp_path / "status.json").left_s == pytest.approx(2)


def test_report__is_written_a_few_times_a_second(tmp_path, clock):
    file, path, seen = StatusFile(tmp_path / "status.json"), tmp_path / "status.json", set()
    for step in range(1000):
        clock[0] += 0.01
        file.report(step, 1000)
        seen.add(path.read_bytes())
    assert 20 <= len(seen) <= 30


def test_close__keeps_how_far_it_was(tmp_path):
    file = StatusFile(tmp_path / "status.json")
    file.begin("scoring")
    file.report(3, 9, "pairs")
    file.close("failed", "no room")
    said = read_status(tmp_path / "status.json")
    assert (said.state, said.done, said.total, said.message) == ("failed", 3, 9, "no room")


def test_report__a_disk_that_is_full_ends_nothing(tmp_path):
    file = StatusFile(tmp_path / "folder" / "status.json")
    (tmp_path / "folder" / "status.json").unlink()
    (tmp_path / "folder").rmdir()
    (tmp_path / "folder").write_text("no folder, so nothing can be written")
    file.begin("scoring")
    file.close("failed", "no room")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("content", ["", "{", '{"state": "odd"}', "[]"])
def test_read_status__nothing_that_can_be_understood(tmp_path, content):
    (tmp_path / "status.json").write_text(content)
    with pytest.raises(ClipselError, match=r"expected how far the run is, found .*; delete it"):
        read_status(tmp_path / "status.json")
    assert read_status(tmp_path / "absent.json") == Status()


def test_read_status__what_earlier_versions_wrote(tmp_path):
    run, job = tmp_path / "run.json", tmp_path / "job.json"
    run.write_text(
        '{"state": "running", "pairs_done": 30, "pairs_total": 120, "shards_done": 1, "shards_total": 4, '
        '"started_at": "2026-11-22T20:48:24+00:00", "updated_at": "2026-11-22T20:48:25+00:00", "elapsed_s": 1.0, '
        '"pairs_per_s": 30.0, "eta_s": 3.0, "pid": 13981, "message": ""}'
    )
    found = read_status(run)
    assert (found.done, found.total, found.unit, found.per_s, found.left_s) == (30, 120, "pairs", 30.0, 3.0)
    job.write_text(
        '{"state": "done", "what": "embedding", "stage": "", "done": 5, "total": 5, "unit": "", "per_s": 1.0, '
        '"left_s": null, "counts": "pairs", "counted": 1200, "counted_per_s": 2.0, "message": "out"}'
    )
    found = read_status(job)
    assert (found.state, found.note, found.message, found.share) == ("done", "1,200 pairs", "out", 1.0)


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
    said = read_status(status)
    assert said.state == state
    assert message in said.message
    assert state == "failed" or (said.what, said.done) == ("inspecting", said.total)


def test_report__a_count_in_the_note_is_no_new_stage(tmp_path, clock):
    file = StatusFile(tmp_path / "status.json", "embedding")
    file.report(10_000, 90_000, "", "10 pairs")
    clock[0] += 10
    file.report(50_000, 90_000, "", "1,200 pairs")
    told = read_status(tmp_path / "status.json")
    assert (told.note, told.left_s) == ("1,200 pairs", 10.0)
