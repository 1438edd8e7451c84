"""How does one worker get through groups of shards? The next is read and the last written while one is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.files import write_atomically
from clipsel_core.pool.layout import Shard
from clipsel_core.runs.groups import Group
from clipsel_core.runs.score_group import Embeddings, GroupScorer
from clipsel_core.runs.store import score_file

_Item = TypeVar("_Item")
_Read = TypeVar("_Read")
_Done = TypeVar("_Done")


class Listener(Protocol):
    """Who is told how far the work is; from more than one thread."""

    def advance(self, group: Group, share: float) -> None:
        """A share, in [0, 1], of a group's work is done."""

    def finish(self, shard: Shard) -> None:
        """A shard's scores are on the disk."""


def work_through(root: Path, scorer: GroupScorer, groups: Iterable[Group], listener: Listener) -> None:
    """Scores the groups in turn, as `in_turn` does.

    Raises: what reading, scoring or writing raises; the groups before it are finished first.
    """

    def compute(group: Group, pairs: Embeddings) -> dict[str, pa.Table]:
        return scorer.score(pairs, partial(listener.advance, group))

    in_turn(groups, scorer.read, compute, lambda group, tables: _write(root, group, tables, listener))


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
) -> Iterable[tuple[_Item, _Read]]:
    """Each item and what is read of it, the next being read while the caller works on one."""
    ahead: tuple[_Item, Future[_Read]] | None = None
    for item in items:
        following = (item, reader.submit(read, item))
        if ahead:
            yield ahead[0], ahead[1].result()
        ahead = following
    if ahead:
        yield ahead[0], ahead[1].result()


def _write(root: Path, group: Group, tables: dict[str, pa.Table], listener: Listener) -> None:
    for shard in group.left:
        write_atomically(score_file(root, shard.name), partial(pq.write_table, tables[shard.name]))
        listener.finish(shard)
