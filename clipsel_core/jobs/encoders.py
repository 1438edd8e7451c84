"""Who embeds a text or a picture while somebody waits? A process a teacher, loaded once and shared by all who ask.

It starts when it is first needed and answers one question after the other (pool/making/query_server.py). It ends when
nobody has asked for ten minutes or when this process ends, however it does, and is started again after a crash. At most
two teachers are held at once: a model may take gigabytes.
"""

from __future__ import annotations

import atexit
import base64
import json
import subprocess
import tempfile
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import IO, Any

import numpy as np

from clipsel_core import errors
from clipsel_core.errors import ClipselError, TeacherError
from clipsel_core.processes import child_environment, ending, module_command

_MODULE = "clipsel_core.pool.making.query_server"
_IDLE_S = 600.0
_LONGEST_TO_LOAD_S, _LONGEST_TO_ANSWER_S = 600.0, 120.0
_MOST = 2
# Models that are not on this machine are not fetched while somebody waits for an answer. The few that open_clip fetches
# from plain addresses know no such switch; they meet a proxy that is not there.
_NOWHERE = "http://127.0.0.1:9"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "http_proxy": _NOWHERE, "https_proxy": _NOWHERE}

Answer = Future[np.ndarray]


@dataclass(frozen=True)
class TeacherName:
    """Which teacher: model, pretrained and weights as layout.find_teacher says, and the width of its embeddings."""

    model: str
    pretrained: str | None
    weights: str
    width: int


class Encoder:
    """One teacher's process and the questions that wait for it; for any number of threads."""

    def __init__(self, name: TeacherName) -> None:
        self._name = name
        self._questions: SimpleQueue[tuple[dict[str, str], Answer] | None] = SimpleQueue()
        self._waited_for: set[Answer] = set()
        self._warming: Answer | None = None
        self._child: _Child | None = None
        self._failed = False
        threading.Thread(target=self._serve, name="encoder", daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether the teacher is loaded."""
        return self._child is not None and self._child.ready and self._child.alive

    def warm(self) -> None:
        """Has the teacher loaded before anybody asks. Not again where that failed: who asks will be told why."""
        at_it = self._waited_for or (self._warming and not self._warming.done())
        if not (self.ready or self._failed or at_it):
            self._warming = Future()
            self._questions.put(({}, self._warming))

    def text(self, text: str) -> Answer:
        """Asks for a text's embedding: (D,) float32. The answer raises ClipselError where there is none."""
        return self._put({"text": text})

    def image(self, data: bytes) -> Answer:
        """Asks for an encoded picture's embedding: (D,) float32. The answer raises ClipselError where there is none."""
        return self._put({"image": base64.b64encode(data).decode()})

    def stop(self, answer: Answer) -> None:
        """Nobody waits for this answer any more. Where nobody waits for another one either, the process ends."""
        if answer.done():
            return
        answer.cancel()
        if self._waited_for <= {answer} and self._child:
            self._child.end("stopped on request")

    def close(self) -> None:
        """Ends the process after the questions that were asked already."""
        self._questions.put(None)

    def end(self) -> None:
        """Ends the process at once."""
        if self._child:
            self._child.end("the teacher is no more needed")

    def _put(self, question: dict[str, str]) -> Answer:
        answer: Answer = Future()
        self._waited_for.add(answer)
        answer.add_done_callback(self._waited_for.discard)
        self._questions.put((question, answer))
        return answer

    def _serve(self) -> None:
        while (asked := self._questions.get()) is not None:
            question, answer = asked
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                answer.set_result(self._answer(question))
            except ClipselError as error:
                answer.set_exception(error)
            except Exception as error:
                # Whatever it was, others wait for this thread.
                expected, found = "the teacher to be asked", f"{type(error).__name__}: {error}"
                answer.set_exception(TeacherError(self._name.model, expected=expected, found=found))
            self._failed = not self.ready
        self.end()

    def _answer(self, question: dict[str, str]) -> np.ndarray:
        """Asks the process; one that has ended meanwhile is started again, once."""
        if self._child and self._child.alive:
            try:
                return self._child.answer(question)
            except _Gone as gone:
                if gone.why:
                    raise self._child.complaint(gone) from gone
        self._child = _Child(self._name)
        try:
            return self._child.answer(question)
        except _Gone as gone:
            raise self._child.complaint(gone) from gone


def encoder_of(name: TeacherName) -> Encoder:
    """The encoder of a teacher, the same for everybody in this process. The one used longest ago makes room."""
    with _lock:
        found = _encoders.get(name)
        if found is None:
            found = _encoders[name] = Encoder(name)
        _encoders.move_to_end(name)
        while len(_encoders) > _MOST:
            _encoders.popitem(last=False)[1].close()
        return found


def end_all() -> None:
    """Ends all of them; whoever asks next starts anew."""
    with _lock:
        for encoder in _encoders.values():
            encoder.end()
            encoder.close()
        _encoders.clear()


class _Gone(Exception):
    """The process ended without an answer. why: known where we ended it ourselves."""

    def __init__(self, why: str) -> None:
        self.why = why


class _Child:
    """A process that was started, its questions and answers."""

    def __init__(self, name: TeacherName) -> None:
        self._name, self._ended_for, self.ready = name, "", False
        words = [name.model, name.pretrained or "", name.weights, str(name.width), str(_IDLE_S)]
        # Closed with this object; a pipe that nobody reads would fill up.
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - until end()
        self._process = subprocess.Popen(
            module_command(_MODULE, *words),
            env={**child_environment(), **_OFFLINE},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            # Not ended by the keyboard along with the server, but by the end of its input.
            start_new_session=True,
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def answer(self, question: dict[str, str]) -> np.ndarray:
        """Raises _Gone where the process ends instead, ClipselError where it says why there is no answer."""
        if not self.ready:
            self._exchange(None, _LONGEST_TO_LOAD_S)
            self.ready = True
        if not question:
            return np.empty(0, np.float32)
        return np.array(self._exchange(question, _LONGEST_TO_ANSWER_S)["vector"], np.float32)

    def end(self, why: str) -> None:
        self._ended_for = why
        self._process.kill()

    def complaint(self, gone: _Gone) -> TeacherError:
        """What the process said last, as an error."""
        self._complaints.seek(0)
        said = self._complaints.read().decode(errors="replace").strip().split("\n")[-1]
        ended = f"that its process ended {ending(self._process.returncode)}" + (f": {said}" if said else "")
        return TeacherError(self._name.model, expected="the teacher to answer", found=gone.why or ended)

    def _exchange(self, question: dict[str, str] | None, longest_s: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(longest_s, self.end, (f"no answer within {longest_s:.0f} s",))
        timer.start()
        try:
            if question is not None:
                self._process.stdin.write(json.dumps(question).encode() + b"\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        finally:
            timer.cancel()
        if not line.endswith(b"\n"):
            self._process.wait()
            raise _Gone(self._ended_for)
        said = json.loads(line)
        if "error" in said:
            raise errors.from_parts(said["error"])
        return said


_encoders: OrderedDict[TeacherName, Encoder] = OrderedDict()
_lock = threading.Lock()
atexit.register(end_all)
