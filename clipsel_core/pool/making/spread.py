"""How do the workers of a cluster embed a pool's shards, each of its own?

They read the source and write the shards themselves. Where shards begin in the source, and which pair keeps a uid that
several have, is settled where it was started.
"""

from __future__ import annotations

import json
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

import torch

from clipsel_core import files, reach, uids
from clipsel_core.errors import PoolFormatError, TeacherError
from clipsel_core.places import Place
from clipsel_core.pool.layout import TeacherInfo
from clipsel_core.pool.making.decode import hush_pillow
from clipsel_core.pool.making.drafts import final_ones, settled, written
from clipsel_core.pool.making.embed import Teacher, load_teacher, weights_digest
from clipsel_core.pool.making.embedder import Embedder
from clipsel_core.pool.making.feed import Cursor, Feed
from clipsel_core.pool.making.maker import Maker
from clipsel_core.pool.making.settings import clear_pool, join_pool, pool_folders
from clipsel_core.pool.making.shard_files import ShardFiles, ShardReport, of_each
from clipsel_core.pool.sources.record import Source
from clipsel_core.tasks import Report, allowed_cores, check, silent
from clipsel_core.workers import Do, Machines, Workers, results

# Workers that may be of use while nobody knows how many shards there are.
_MANY = 1 << 16
_SECONDS_TO_BE_SEEN, _SECONDS_BETWEEN_LOOKS = 90.0, 0.5
_RECORDS_BETWEEN_WORDS = 1000


@dataclass(frozen=True)
class Embedding:
    """What a worker embeds with. root: the pool. info: the teacher, as the pool remembers it.

    batch_size, most_pixels: as make_pool has them. decoders: processes that decode; None for one a core.
    lease: the number by which a pool in a store is held, see leases.
    """

    source: Source
    root: Place
    info: TeacherInfo
    batch_size: int
    decoders: int | None
    most_pixels: int
    lease: Place | None = None

    def teacher(self, device: str) -> Teacher:
        """The teacher on a device. Raises: TeacherError where it cannot be loaded there, or is another one there."""
        info = self.info
        teacher = load_teacher(info.model, pretrained=info.pretrained, device=device, precision=info.precision)
        if weights_digest(teacher) != info.weights:
            where = " ".join(filter(None, (info.model, info.pretrained)))
            raise TeacherError(where, expected="the weights that it has where it was started", found="others")
        return teacher

    def embedder(self, teacher: Teacher, *, keep: bool = False) -> Embedder:
        """What embeds in this process. keep: hand the encoded images on."""
        workers = self.decoders or allowed_cores()
        options: dict[str, Any] = {"batch_size": self.batch_size, "most_pixels": self.most_pixels, "keep": keep}
        return Embedder(teacher, self.source, workers=workers, **options)

    def begin(self, device: str, *, keep: bool = False) -> Embedder:
        """The same in a worker of a cluster, which serves nothing else from now on."""
        join_pool(self.root, self.lease)
        for folder in pool_folders(self.root):
            files.leave_asides(folder)
        hush_pillow()
        decoders = self.decoders or torch.get_num_threads()
        return replace(self, decoders=decoders).embedder(self.teacher(device), keep=keep)


def check_spreadable(source: Source, root: Place) -> None:
    """Makes sure that every node can find a source and a pool by their paths. Raises: PoolFormatError."""
    if source.embedded:
        found = f"{source.kind}, which has its embeddings"
        raise PoolFormatError("--cluster", expected="a source to embed", found=found, remedy="leave it out")
    for place in (source.base, root):
        if not place.remote and not os.path.isabs(place):
            remedy = "give it from the root on, as all nodes see it"
            raise PoolFormatError(
                place, expected="an absolute path for a cluster", found="a relative one", remedy=remedy
            )


class Tally:
    """Counts what workers have done of a pool, and reports it; for any thread.

    rows: of all shards, by name. left: those that are not done.
    """

    def __init__(self, rows: Mapping[str, int], left: Iterable[str], report: Report) -> None:
        self._rows, self._left, self._report = rows, dict.fromkeys(left, 0), report
        self._guard, self._total = threading.Lock(), sum(rows.values())
        self._done = self._total - sum(rows[shard] for shard in self._left)
        self._tell()

    def of(self, unit: object) -> Report:
        """The Report of a shard that is in work, called as its unit; told how many of its pairs are done."""

        def tell(done: int, *_: object) -> None:
            with self._guard:
                self._left[str(unit)] = done
                self._tell()

        return tell

    def add(self, unit: object) -> None:
        """Counts a shard that is done."""
        with self._guard:
            self._left.pop(str(unit))
            self._done += self._rows[str(unit)]
            self._tell()

    def _tell(self) -> None:
        note = f"{len(self._rows) - len(self._left):,} of {len(self._rows):,} shards"
        self._report(self._done + sum(self._left.values()), self._total, "pairs", note)


def make_shards(maker: Maker, embedding: Embedding, machines: Machines, report: Report) -> tuple[int, int, int]:
    """Has a cluster make the shards of a pool that are not there yet, and makes them final, in order.

    Returns: the shards, how many pairs were embedded, and how many units were given to another worker.
    Raises: what the workers raise; PoolFormatError where the source is not read as it was counted.
    """
    try:
        return _make_shards(maker, _Drafting(maker, embedding), machines, report)
    except _Miscounted:
        # Now that nobody writes any more.
        for name in (folder := maker.root / "embed").names():
            if name.endswith(".draft.parquet"):
                (folder / name).remove()
        raise


class _Miscounted(PoolFormatError):
    """A source is not read as it was counted."""


def _make_shards(maker: Maker, work: _Drafting, machines: Machines, report: Report) -> tuple[int, int, int]:
    source, root = maker.source, maker.root
    with ExitStack() as open_:
        open_.callback(clear_pool, root)
        records, workers = _noted(source, root), list[Workers]()
        if records is None:
            workers.append(open_.enter_context(machines.workers(work, _MANY)))
            records = _counted(source, root, workers[0], report)
        units = [_Shard(*unit) for unit in enumerate(_starts(records, maker.shard_size))]
        there = of_each([unit.files(root) for unit in units], lambda shard: written(shard, maker.arch))
        left = [unit for unit, report in zip(units, there, strict=True) if not report]
        if left and not workers:
            workers.append(open_.enter_context(machines.workers(work, len(left))))
        rows = {str(unit): maker.shard_size for unit in units[:-1]}
        rows[str(units[-1])] = sum(records) - sum(rows.values())
        tally = Tally(rows, map(str, left), report)
        made = open_.enter_context(results(workers[0], left, tally.of)) if left else iter(())
        embedded = _settle_all(maker, units, set(left), made, tally)
        return len(units), embedded, workers[0].tried_again if workers else 0


class _Part(NamedTuple):
    """Counting the records of a part of the source."""

    number: int
    name: str

    def __str__(self) -> str:
        return self.name or "the source"


class _Shard(NamedTuple):
    """Making a shard. start: where it begins in the source."""

    number: int
    start: Cursor

    def __str__(self) -> str:
        return f"shard {self.number:08d}"

    def files(self, root: Place) -> ShardFiles:
        """Those of the shard in a pool."""
        return ShardFiles(root, f"{self.number:08d}")


def _settle_all(maker: Maker, units: Sequence[_Shard], left: set[_Shard], made: Iterator[Any], tally: Tally) -> int:
    """Makes shards final, in order, as soon as they are written. made: what workers give of those that are left.

    Returns: how many of their pairs were embedded.
    """
    taken, embedded = uids.Growing(), 0
    done = final_ones([unit.files(maker.root) for unit in units if unit not in left], maker.arch)
    for unit, after in zip(units, [*units[1:], None], strict=True):
        if unit in left:
            reach.remember_sources(next(made))
            tally.add(unit)
        shard = unit.files(maker.root)
        final = None if unit in left else next(done)
        found = final.report if final else _seen(shard, maker.arch)
        if found.last != (after is None) or (after and Cursor(*found.following) != after.start):
            forget_counts(maker.root)
            expected, remedy = "the records that were counted", "bring the source back as it was, then start it again"
            raise _Miscounted(unit, expected=expected, found="others", remedy=remedy)
        embedded += found.kept if unit in left else 0
        taken.add(final.uids if final else settled(shard, taken, packed=maker.pack))
    return embedded


def _seen(shard: ShardFiles, arch: str) -> ShardReport:
    """What is said of a shard that was written. On a shared folder another node's files may take a while to be seen.

    Raises: PoolFormatError where they are not.
    """
    end = time.monotonic() + _SECONDS_TO_BE_SEEN
    while True:
        check()
        if found := written(shard, arch):
            return found
        if time.monotonic() > end:
            remedy = "keep the pool in a folder that all nodes share"
            raise PoolFormatError(
                f"shard {shard.name}", expected="the files that a worker wrote", found="none", remedy=remedy
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)


@dataclass(frozen=True)
class _Drafting:
    """The work that counts a source's records, part by part, and makes shards.

    It gives how many records a part has, or the folders that a shard's images lie in.
    """

    maker: Maker
    embedding: Embedding
    gives: str = "embeddings"
    folder: Place | None = None

    @property
    def description(self) -> Place:
        return self.maker.root / "embed" / "settings.json"

    def begin(self, device: str) -> Do:
        embedder = self.embedding.begin(device, keep=self.maker.pack)
        maker, embedding_now = replace(self.maker, embed=embedder.embed), threading.Lock()

        def make(unit: _Shard, report: Report) -> set[str]:
            shard = unit.files(maker.root)
            with embedding_now:
                if written(shard, maker.arch):
                    return set()  # by a worker that was lost afterwards
                feed, none = Feed(maker.source, unit.start), uids.Growing()

                def tell(_: object, read: int) -> None:
                    report(read, maker.shard_size)

                made = maker.make(shard, shard.report(), feed, none, tell, is_draft=True)
            made.write()
            return made.sources

        def do(unit: _Part | _Shard, report: Report) -> int | set[str]:
            if isinstance(unit, _Part):
                return _length(maker.source, unit.number, report)
            return make(unit, report)

        return do


def _length(source: Source, part: int, report: Report = silent) -> int:
    """How many records a part has. report: told how many were counted."""
    count = 0
    for count, _ in enumerate((source.outline or source.read)(part), 1):
        if count % _RECORDS_BETWEEN_WORDS == 0:
            check()
            report(count, count)
    return count


def _starts(records: Sequence[int], size: int) -> list[Cursor]:
    """Where each shard begins, as Feed.following says it: after the record before it. records: of each part."""
    ends = list(accumulate(records))
    starts = [Cursor()]
    for last in range(size - 1, (ends or [0])[-1] - 1, size):
        part = bisect_right(ends, last)
        starts.append(Cursor(part, last + 1 - (ends[part] - records[part])))
    return starts


def _note(root: Place) -> Place:
    return root / "embed" / "parts.json"


def forget_counts(root: Place) -> None:
    """Takes away what is noted of the source for a run that goes on."""
    _note(root).remove()


def _noted(source: Source, root: Place) -> list[int] | None:
    """How many records each part has, where that is known, or was counted before."""
    if source.counts or len(source.parts) == 1:
        return list(source.counts or [_length(source, 0)])
    with suppress(OSError, ValueError, KeyError, TypeError):
        noted = json.loads(_note(root).read())
        if noted["signature"] == source.signature and len(noted["records"]) == len(source.parts):
            return [int(count) for count in noted["records"]]
    return None


def _counted(source: Source, root: Place, workers: Workers, report: Report) -> list[int]:
    """How many records each part has, as workers count them; noted for a run that goes on."""
    found: list[int] = []
    with results(workers, [_Part(*part) for part in enumerate(source.parts)]) as counts:
        for count in counts:
            found.append(count)
            report(len(found), len(source.parts), "", "counting what there is to embed")
    _note(root).write_json({"signature": source.signature, "records": found})
    return found
