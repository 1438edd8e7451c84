"""What does one worker of a run do? It reads the next group of shards and writes the last while it computes one.

`python -m clipsel_core.runs.worker RUN DEVICE THREADS CHECKS` is one of several, a process of its own. It speaks lines
of JSON on its standard output: {"asks": true} for a group, answered by [[shards], [those left]] or null;
{"share": 0.5, "of": SHARD} and {"finished": SHARD} as it goes; {"failed": the parts of an error} where no worker can do
it, {"broken": what went wrong} where another may. It ends at once when its standard input does, that is, when whoever
started it is gone.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from clipsel_core.errors import ClipselError, parts
from clipsel_core.files import write_atomically
from clipsel_core.pool.layout import Shard
from clipsel_core.runs.plan import Group, begun_plan
from clipsel_core.runs.score_group import Embeddings, GroupScorer
from clipsel_core.runs.store import score_file

_SECONDS_BETWEEN_WORDS = 0.3
_Item = TypeVar("_Item")
_Read = TypeVar("_Read")
_Done = TypeVar("_Done")


class Listener(Protocol):
    """Who is told how far groups of shards are; from more than one thread."""

    def advance(self, group: Group, share: float) -> None:
        """A share, in [0, 1], of a group's work is done."""

    def finish(self, shard: Shard) -> None:
        """A shard's scores are on the disk."""


def work_through(root: Path, scorer: GroupScorer, groups: Iterable[Group], listener: Listener) -> None:
    """Scores the groups in turn, as `in_turn` does.

    Raises: what reading, scoring or writing raises; the groups before it are finished first.
    """

    def compute(group: Group, pairs: Embeddings) -> dict[str, pa.Table]:
        return scorer.score(pairs, lambda done, total, *_: listener.advance(group, done / total))

    def write(group: Group, tables: dict[str, pa.Table]) -> None:
        for shard in group.left:
            write_atomically(score_file(root, shard.name), partial(pq.write_table, tables[shard.name]))
            listener.finish(shard)

    in_turn(groups, scorer.read, compute, write)


def in_turn(
    items: Iterable[_Item],
    read: Callable[[_Item], _Read],
    compute: Callable[[_Item, _Read], _Done],
    write: Callable[[_Item, _Done], None],
) -> None:
    """Reads, computes and writes each item; the next is read and the last written while one is computed.

    One more than is being computed is asked for, and held in memory, at any time.
    Raises: what the three raise; the items before it are written first.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        try:
            for item, found in _read_ahead(reader, read, items):
                done = compute(item, found)
                if written:
                    written.result()
                written = writer.submit(write, item, done)
                del found, done
        finally:
            if written:
                written.result()


def _read_ahead(
    reader: ThreadPoolExecutor, read: Callable[[_Item], _Read], items: Iterable[_Item]
) -> Iterator[tuple[_Item, _Read]]:
    """Each item and what is read of it, the next being read while the caller works on one."""
    ahead: tuple[_Item, Future[_Read]] | None = None
    for item in items:
        following = (item, reader.submit(read, item))
        if ahead:
            yield ahead[0], ahead[1].result()
        ahead = following
    if ahead:
        yield ahead[0], ahead[1].result()


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
