"""One process a teacher: loaded once, asked by many, started again when it ended, and gone with whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

from clipsel_core.errors import ClipselError, PoolFormatError, TeacherError
from clipsel_core.jobs import encoders
from clipsel_core.jobs.control import birth_of
from clipsel_core.jobs.encoders import Encoder, TeacherName, encoder_of
from tests.waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
DEMO = TeacherName(f"local-dir:{ROOT / 'data' / 'demo' / 'teacher'}", None, "", 64)
NAME = TeacherName("a teacher", None, "", 2)

# Speaks as pool/making/query_server.py does, and misbehaves on request; notes each start in a file.
_STAND_IN = """
import json, os, select, sys, time
from clipsel_core.errors import TeacherError, PoolFormatError, parts
folder, idle = os.path.dirname(__file__), float(sys.argv[5])
with open(folder + "/starts", "a") as file:
    file.write(f"{os.getpid()}\\n")
if sys.argv[1] == "none":
    said = TeacherError(sys.argv[1], expected="a teacher", found="none", remedy="look")
    print(json.dumps({"error": parts(said)}), flush=True)
    sys.exit()
if sys.argv[1] == "slow":
    time.sleep(600)
print(json.dumps({"ready": True}), flush=True)
longest = None  # The first question may be late on a busy machine.
while select.select([sys.stdin], [], [], longest)[0] and (line := sys.stdin.readline()):
    longest = idle
    text = json.loads(line).get("text", "image")
    if text == "crash" or (text == "crash once" and not os.path.exists(folder + "/crashed")):
        open(folder + "/crashed", "w")
        print("Segmentation fault", file=sys.stderr)
        os._exit(3)
    if text == "hang":
        time.sleep(600)
    bad = PoolFormatError("picture", expected="one", found="none")
    answer = {"error": parts(bad)} if text == "bad" else {"vector": [len(text), 1]}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def starts(tmp_path, monkeypatch):
    """Has a stand-in serve; gives the pids of the processes started so far."""
    (tmp_path / "speaker.py").write_text(_STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(encoders, "_MODULE", "speaker")
    (tmp_path / "starts").touch()
    yield lambda: [int(line) for line in (tmp_path / "starts").read_text().split()]
    encoders.end_all()


def test_encoder__loads_once_for_all_who_ask(starts):
    answers = [encoder_of(NAME).text("x" * length) for length in range(5)]
    answers.append(encoder_of(NAME).image(b"bytes"))
    assert [answer.result(PATIENCE_S).tolist() for answer in answers] == [[n, 1] for n in (0, 1, 2, 3, 4, 5)]
    assert len(starts()) == 1


def test_encoder__warm_loads_before_anybody_asks(starts):
    encoder = encoder_of(NAME)
    assert not encoder.ready
    for _ in range(3):
        encoder.warm()
    until(lambda: encoder.ready)
    encoder.warm()
    assert encoder.text("abc").result(PATIENCE_S)[0] == 3
    assert len(starts()) == 1


def test_encoder__says_why_there_is_no_answer_and_goes_on(starts):
    encoder = encoder_of(NAME)
    with pytest.raises(PoolFormatError, match="picture: expected one, found none"):
        encoder.text("bad").result(PATIENCE_S)
    assert encoder.text("abc").result(PATIENCE_S)[0] == 3
    assert len(starts()) == 1


def test_encoder__is_not_loaded_again_and_again_where_that_fails(starts):
    encoder = encoder_of(TeacherName("none", None, "", 2))
    with pytest.raises(TeacherError, match="none: expected a teacher, found none; look"):
        encoder.text("abc").result(PATIENCE_S)
    until(lambda: not encoder.ready)
    for _ in range(3):
        encoder.warm()
    with pytest.raises(ClipselError):
        encoder.text("abc").result(PATIENCE_S)
    assert len(starts()) == 2


def test_encoder__starts_again_after_a_crash(starts):
    encoder = encoder_of(NAME)
    assert encoder.text("abc").result(PATIENCE_S)[0] == 3
    os.kill(starts()[0], signal.SIGKILL)
    assert encoder.text("abcd").result(PATIENCE_S)[0] == 4
    assert encoder.text("crash once").result(PATIENCE_S)[0] == 10
    assert len(starts()) == 3
    ended = "the teacher to answer, found that its process ended with exit status 3: Segmentation fault"
    with pytest.raises(TeacherError, match=ended):
        encoder.text("crash").result(PATIENCE_S)
    assert len(starts()) == 4
    assert encoder.text("abc").result(PATIENCE_S)[0] == 3


def test_encoder__ends_when_nobody_asks(starts, monkeypatch):
    monkeypatch.setattr(encoders, "_IDLE_S", 0.1)
    encoder = encoder_of(NAME)
    assert encoder.text("abc").result(PATIENCE_S)[0] == 3
    until(lambda: birth_of(starts()[0]) is None)
    assert not encoder.ready
    assert encoder.text("abc").result(PATIENCE_S)[0] == 3
    assert len(starts()) == 2


@pytest.mark.parametrize("limit", ["_LONGEST_TO_ANSWER_S", "_LONGEST_TO_LOAD_S"])
def test_encoder__does_not_wait_forever(starts, monkeypatch, limit):
    monkeypatch.setattr(encoders, limit, 0.5)
    encoder = encoder_of(TeacherName("slow", None, "", 2) if "LOAD" in limit else NAME)
    with pytest.raises(ClipselError, match="no answer within"):
        encoder.text("hang").result(PATIENCE_S)
    until(lambda: all(birth_of(pid) is None for pid in starts()), "the process is gone")


def test_stop__ends_a_process_that_nobody_else_waits_for(starts):
    encoder = encoder_of(TeacherName("slow", None, "", 2))
    mine, yours = encoder.text("abc"), encoder.text("abc")
    until(lambda: len(starts()) == 1)
    encoder.stop(yours)
    with pytest.raises(CancelledError):
        yours.result(PATIENCE_S)
    assert not mine.done()
    encoder.stop(mine)
    with pytest.raises(ClipselError, match="stopped on request"):
        mine.result(PATIENCE_S)
    assert birth_of(starts()[0]) is None


def test_stop__an_answer_that_came_ends_nothing(starts):
    encoder = encoder_of(NAME)
    answer = encoder.text("abc")
    answer.result(PATIENCE_S)
    encoder.stop(answer)
    assert encoder.ready


def test_encoder_of__holds_two_teachers_at_most(starts):
    for name in ("one", "two", "three"):
        assert encoder_of(TeacherName(name, None, "", 2)).text("abc").result(PATIENCE_S)[0] == 3
    until(lambda: birth_of(starts()[0]) is None)
    assert all(birth_of(pid) for pid in starts()[1:])


def test_encoder__ends_with_its_server_however_that_ends(starts):
    code = (
        "import time; from clipsel_core.jobs import encoders\n"
        "encoders._MODULE = 'speaker'\n"
        "print(encoders.encoder_of(encoders.TeacherName('t', None, '', 2)).text('abc').result(), flush=True)\n"
        "time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{ROOT}"}
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert server.stdout.readline()
    (pid,) = starts()
    assert birth_of(pid)
    server.kill()
    server.communicate(timeout=PATIENCE_S)
    until(lambda: birth_of(pid) is None)


def test_encoder__of_the_demos_own_teacher():
    """The real thing: another width is refused, a text and a picture are embedded."""
    with pytest.raises(ClipselError, match="embeddings of width 7"):
        encoder_of(TeacherName(DEMO.model, None, "", 7)).text("two red birds").result(PATIENCE_S)
    encoder = Encoder(DEMO)
    try:
        first = encoder.text("two red birds").result(PATIENCE_S)
        again = encoder.text("two red birds").result(PATIENCE_S)
        assert first.tolist() == again.tolist()
        assert np.linalg.norm(first) == pytest.approx(1, abs=1e-3)
        with pytest.raises(ClipselError, match="the picture: expected a picture, found not an image"):
            encoder.image(b"no picture").result(PATIENCE_S)
    finally:
        encoder.end()
        encoder.close()
        encoders.end_all()
