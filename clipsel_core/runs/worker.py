"""One of several workers of a run: `python -m clipsel_core.runs.worker RUN DEVICE THREADS CHECKS`, its own process.

It speaks lines of JSON on its standard output: {"asks": true} for a group, answered by [[shards], [those left]] or
null; {"share": 0.5, "of": SHARD} and {"finished": SHARD} as it goes; {"failed": the parts of an error} where no worker
can do it, {"broken": what went wrong} where another may.
It ends at once when its standard input does, that is, when whoever started it is gone.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from clipsel_core.errors import ClipselError, parts
from clipsel_core.pool.layout import Shard
from clipsel_core.runs.groups import Group
from clipsel_core.runs.plan import begun_plan
from clipsel_core.runs.score_group import GroupScorer
from clipsel_core.runs.work import work_through

_SECONDS_BETWEEN_WORDS = 0.3


class _Line:
    """The line to whoever started this worker; the work tells it how far it is."""

    def __init__(self) -> None:
        self._guard, self._said = threading.Lock(), 0.0
        # What libraries print must not get between the words.
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def groups(self, shards: Iterable[Shard]) -> Iterator[Group]:
        """The groups of the pool's shards that this worker is given."""
        known = {shard.name: shard for shard in shards}
        while True:
            self.say({"asks": True})
            names = self._answers.get()
            if names is None:
                return
            together, left = (tuple(known[name] for name in part) for part in names)
            yield Group(together, left)

    def advance(self, group: Group, share: float) -> None:
        if time.monotonic() - self._said > _SECONDS_BETWEEN_WORDS:
            self._said = time.monotonic()
            self.say({"share": share, "of": group.left[0].name})

    def finish(self, shard: Shard) -> None:
        self.say({"finished": shard.name})

    def say(self, word: dict[str, Any]) -> None:
        with self._guard:
            self._out.write(json.dumps(word) + "\n")

    def _listen(self) -> None:
        for line in sys.stdin:
            self._answers.put(json.loads(line))
        os._exit(1)


def main(root: Path, device: str, threads: int, check_similarity: bool) -> None:
    """Scores what it is given until there is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it decides
    torch.set_num_threads(threads)
    line = _Line()
    try:
        plan = begun_plan(root, device, check_similarity=check_similarity)
        work_through(root, GroupScorer(plan, device), line.groups(plan.pool.shards), line)
    except (ClipselError, OSError) as error:
        line.say({"failed": parts(error)})
    except Exception as error:
        line.say({"broken": f"{type(error).__name__}: {error}".split("\n")[0]})
        if os.environ.get("CLIPSEL_DEBUG"):
            raise
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), bool(int(sys.argv[4])))
