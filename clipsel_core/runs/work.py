"""How does one worker get through groups of shards? The next is read and the last written while one is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.files import write_atomically
from clipsel_core.pool.layout import Shard
from clipsel_core.runs.groups import Group
from clipsel_core.runs.score_group import Embeddings, GroupScorer
from clipsel_core.runs.store import score_file


class Listener(Protocol):
    """Who is told how far the work is; from more than one thread."""

    def advance(self, group: Group, share: float) -> None:
        """A share, in [0, 1], of a group's work is done."""

    def finish(self, shard: Shard) -> None:
        """A shard's scores are on the disk."""


def work_through(root: Path, scorer: GroupScorer, groups: Iterable[Group], listener: Listener) -> None:
    """Scores the groups in turn. One more than is being computed is asked for, and held in memory, at any time.

    Raises: what reading, scoring or writing raises; the groups before it are finished first.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        try:
            for pairs in _read_ahead(reader, scorer.read, groups):
                tables = scorer.score(pairs, partial(listener.advance, pairs.group))
                if written:
                    written.result()
                written = writer.submit(_write, root, pairs.group, tables, listener)
                del pairs, tables
        finally:
            if written:
                written.result()


def _read_ahead(
    reader: ThreadPoolExecutor, read: Callable[[Group], Embeddings], groups: Iterable[Group]
) -> Iterable[Embeddings]:
    """What is read of each group, the next being read while the caller works on one."""
    ahead: Future[Embeddings] | None = None
    for group in groups:
        following = reader.submit(read, group)
        if ahead:
            yield ahead.result()
        ahead = following
    if ahead:
        yield ahead.result()


def _write(root: Path, group: Group, tables: dict[str, pa.Table], listener: Listener) -> None:
    for shard in group.left:
        write_atomically(score_file(root, shard.name), partial(pq.write_table, tables[shard.name]))
        listener.finish(shard)
