"""How does a process answer with a teacher's embeddings that is loaded once, line by line?

    python -m clipsel_core.pool.making.query_server MODEL PRETRAINED WEIGHTS WIDTH IDLE_S

One line of JSON a question on stdin, {"text": "..."} or {"image": "base64"}, and one an answer on stdout: {"vector":
[...]} or {"error": its parts}. The first line says that the teacher is loaded, {"ready": true}, or why not. The process
ends with its input, or when nobody has asked for IDLE_S seconds.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import select
import sys

from clipsel_core.errors import ClipselError, parts

# A model of fewer weights embeds one text or picture no sooner with more threads, which wait for one another for as
# long as others keep the cores busy.
_MOST_WEIGHTS_A_THREAD = 200_000_000


def serve(model: str, pretrained: str, weights: str, width: str, idle_s: str) -> None:
    """Answers on stdout until there are no more questions; what libraries print there goes to stderr instead."""
    # None of the thousands of modules is garbage: to look for some again and again takes a sixth of the time.
    gc.disable()
    import torch

    from clipsel_core.pool.making.queries import QueryTeacher

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**said: object) -> None:
        answers.write(json.dumps(said) + "\n")
        answers.flush()

    try:
        teacher = QueryTeacher.load(model, pretrained or None, weights, int(width))
    except ClipselError as error:
        say(error=parts(error))
        return
    if sum(value.numel() for value in teacher.teacher.model.parameters()) < _MOST_WEIGHTS_A_THREAD:
        torch.set_num_threads(1)
    gc.freeze()
    gc.enable()
    say(ready=True)
    # One question waits at a time, so that none lies unseen in the buffer behind the one that was read.
    while select.select([sys.stdin], [], [], float(idle_s))[0] and (line := sys.stdin.readline()):
        question: dict[str, str] = json.loads(line)
        try:
            if "text" in question:
                vector = teacher.of_text(question["text"])
            else:
                vector = teacher.of_image(base64.b64decode(question["image"]))
            say(vector=vector.tolist())
        except ClipselError as error:
            say(error=parts(error))


if __name__ == "__main__":
    serve(*sys.argv[1:])
