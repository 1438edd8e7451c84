"""How does somebody who must not import torch ask a teacher? A process that loads it once and answers line by line.

    python -m clipsel_core.pool.making.encoder MODEL PRETRAINED WEIGHTS WIDTH IDLE_S

One line of JSON a question on stdin, {"text": "..."} or {"image": "base64"}, and one an answer on stdout: {"vector":
[...]} or {"error": its parts}. The first line says that the teacher is loaded, {"ready": true},
or why not. The process ends with its input, or when nobody has asked for IDLE_S seconds.
"""

from __future__ import annotations

import base64
import json
import os
import select
import sys
from typing import Any, TextIO

import torch

from clipsel_core.errors import ClipselError, parts
from clipsel_core.pool.making.queries import QueryTeacher


def serve(model: str, pretrained: str, weights: str, width: str, idle_s: str) -> None:
    """Answers until there are no more questions."""
    answers = _own_stdout()
    try:
        teacher = QueryTeacher.load(model, pretrained or None, weights, int(width))
    except ClipselError as error:
        _say(answers, {"error": parts(error)})
        return
    if teacher.small:
        torch.set_num_threads(1)
    _say(answers, {"ready": True})
    # One question waits at a time, so that none lies unseen in the buffer behind the one that was read.
    while select.select([sys.stdin], [], [], float(idle_s))[0] and (line := sys.stdin.readline()):
        _say(answers, _answer(teacher, json.loads(line)))


def _own_stdout() -> TextIO:
    """The answers' way out; what libraries print goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _answer(teacher: QueryTeacher, question: dict[str, str]) -> dict[str, Any]:
    try:
        if "text" in question:
            return {"vector": teacher.of_text(question["text"]).tolist()}
        return {"vector": teacher.of_image(base64.b64decode(question["image"])).tolist()}
    except ClipselError as error:
        return {"error": parts(error)}


def _say(answers: TextIO, said: dict[str, Any]) -> None:
    answers.write(json.dumps(said) + "\n")
    answers.flush()


if __name__ == "__main__":
    serve(*sys.argv[1:])
