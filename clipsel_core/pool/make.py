"""How do images and captions become a pool? Shard by shard, each finished whole, resumed where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError
from clipsel_core.files import write_json
from clipsel_core.pool.copy_shard import Copier
from clipsel_core.pool.decode import MOST_PIXELS
from clipsel_core.pool.embed import Teacher, weights_digest
from clipsel_core.pool.embed_shard import Embedder
from clipsel_core.pool.naming import name_records
from clipsel_core.pool.shard_files import (
    REJECTED,
    REPEATED,
    Report,
    ShardFiles,
    add_to_shard,
    write_parquet,
    write_shard,
)
from clipsel_core.pool.sources.record import Record, Source
from clipsel_core.pool.teachers import TeacherInfo, add_teacher

SHARD_SIZE = 100_000
BATCH_SIZE = 64

_ARCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}")


@dataclass(frozen=True)
class Made:
    """What a pool is made of now. reasons: how many records were rejected for each.

    embedded: pairs that this call embedded, in seconds.
    """

    shards: int
    read: int
    kept: int
    reasons: Counter[str]
    repeated: int
    embedded: int
    seconds: float


@dataclass(frozen=True)
class _Cursor:
    """Where in the source a shard begins: the part, and how many of its records come before."""

    part: int = 0
    before: int = 0


def make_pool(
    source: Source,
    root: str | Path,
    teacher: Teacher | None,
    *,
    arch: str,
    model: str = "",
    pretrained: str | None = None,
    shard_size: int = SHARD_SIZE,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    most_pixels: int = MOST_PIXELS,
    progress: Callable[[int, int], None] | None = None,
) -> Made:
    """Embeds a source into a pool in DataComp's layout, or goes on with what was begun there.

    teacher: None for a source that has its embeddings: they are taken as they are, scaled to unit length.

    A pool that is there already with other teachers gets this one's arrays and scores beside them. Killed and started
    again, it ends with the same bytes, on the same machine and with the same options.

    arch: the teacher's name in the pool. model, pretrained: what it is called elsewhere, for teachers.json.
    shard_size: records to a shard, the rejected among them. workers: threads that decode; None for as many as cores.
    progress: called with how far the source has been read, and how far it goes, in a unit of the source's own.
    Raises: PoolFormatError where the source is not the one that was begun with, or none of it can be used.
    """
    root = Path(root)
    if not _ARCH.fullmatch(arch):
        raise PoolFormatError("--arch", expected="letters, digits, _ and -", found=repr(arch))
    if (teacher is None) != source.embedded:
        expected, found = ("no --model", "one") if teacher else ("--model", "none")
        remedy = "its embeddings are there already" if teacher else "say which teacher embeds it"
        raise PoolFormatError(source.base, expected=expected, found=found, remedy=remedy)
    if min(shard_size, batch_size) < 1:
        found = f"{shard_size} and {batch_size}"
        raise PoolFormatError("--shard-size, --batch-size", expected="1 or more", found=found)
    settings = {
        "format": 1,
        "kind": source.kind,
        "signature": source.signature,
        "shard_size": shard_size,
        "most_pixels": most_pixels,
    }
    workers = workers or os.cpu_count() or 1
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _sole_worker(root), _quiet_pillow(), ThreadPoolExecutor(workers) as threads:
            _begin(root, settings)
            worker: Embedder | Copier = Copier()
            if teacher:
                add_teacher(root, arch, _info(teacher, model, pretrained))
                worker = Embedder(teacher, source.base, threads, workers, batch_size, most_pixels)
            return _make(source, root, worker, arch, shard_size, progress or (lambda done, total: None))
    except OSError as error:
        remedy = "make room or choose another folder, then start again: finished shards are kept"
        where, found = error.filename or root, str(error.strerror or error)
        raise PoolFormatError(where, expected="to write the pool", found=found, remedy=remedy) from error


def _info(teacher: Teacher, model: str, pretrained: str | None) -> TeacherInfo:
    temperature = float(f"{teacher.temperature:.6g}")
    return TeacherInfo(model=model, pretrained=pretrained, temperature=temperature, weights=weights_digest(teacher))


def _make(
    source: Source,
    root: Path,
    embedder: Embedder | Copier,
    arch: str,
    shard_size: int,
    progress: Callable[[int, int], None],
) -> Made:
    start, embedded, number = time.monotonic(), 0, 0
    taken, cursor, last = uids.from_hex([]), _Cursor(), False
    while not last:
        files = ShardFiles(root, f"{number:08d}")
        report = files.report()
        if report is None or (report.kept and not files.has(arch)):
            had, report = report, _embed_shard(source, files, embedder, arch, shard_size, cursor, taken, progress)
            embedded += report.kept
            if had and had != report:
                raise PoolFormatError(files.parquet, expected=f"{had.kept:,} pairs", found=f"{report.kept:,}")
        if report.kept:
            taken = uids.union(taken, uids.from_hex(pq.read_table(files.parquet, columns=["uid"])["uid"]))
        cursor, last, number = _Cursor(*report.following), report.last, number + 1
    progress(sum(source.sizes), sum(source.sizes))
    return _finish(root, number, embedded, time.monotonic() - start)


def _embed_shard(
    source: Source,
    files: ShardFiles,
    embedder: Embedder | Copier,
    arch: str,
    shard_size: int,
    cursor: _Cursor,
    taken: np.ndarray,
    progress: Callable[[int, int], None],
) -> Report:
    """Embeds the shard's records and writes what this teacher adds to it."""
    feed = _Feed(source, cursor)
    before, total = [sum(source.sizes[:part]) for part in range(len(source.parts))], sum(source.sizes)

    def told(record: Record) -> None:
        progress(before[feed.part] + min(record.position, source.sizes[feed.part]), total)

    rows = embedder.embed(islice(feed, shard_size), told)
    if len(rows.kept) + len(rows.rejected) != rows.read or len(rows.image) != len(rows.kept):
        found = f"{len(rows.kept):,} kept and {len(rows.rejected):,} rejected"
        raise PoolFormatError(f"shard {files.name}", expected=f"{rows.read:,} records accounted for", found=found)
    following = feed.following()
    if old := files.report():
        add_to_shard(files, rows, arch)
        return old.model_copy(update={"kept": len(rows.kept), "rejected": len(rows.rejected)})
    names = name_records([kept.record for kept in rows.kept], taken)
    report = Report(
        read=rows.read,
        kept=len(rows.kept),
        rejected=len(rows.rejected),
        repeated=len(names.repeated),
        following=(following.part, following.before),
        last=feed.exhausted(),
    )
    write_shard(files, source, rows, names, arch, report)
    return report


class _Feed:
    """The source's records from a cursor on, and where they have got to."""

    def __init__(self, source: Source, cursor: _Cursor) -> None:
        self.part, self._before = cursor.part, cursor.before
        self._source, self._ahead = source, list[Record]()
        self._records = self._from(cursor)

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        return self._ahead.pop() if self._ahead else next(self._records)

    def following(self) -> _Cursor:
        """Where the first record lies that has not been handed out."""
        return _Cursor(self.part, self._before)

    def exhausted(self) -> bool:
        """Whether there is no record left."""
        self._ahead += islice(self._records, 1)
        return not self._ahead

    def _from(self, cursor: _Cursor) -> Iterator[Record]:
        for part in range(cursor.part, len(self._source.parts)):
            skipped = cursor.before if part == cursor.part else 0
            self.part, self._before = part, skipped
            for record in islice(self._source.read(part), skipped, None):
                self._before += 1
                yield record


def _finish(root: Path, shards: int, embedded: int, seconds: float) -> Made:
    """Puts the shards' lists together and checks the counts against them."""
    reports = []
    names = [f"{number:08d}" for number in range(shards)]
    for name in names:
        report = ShardFiles(root, name).report()
        assert report is not None
        reports.append(report)
    rejected, repeated = (
        pa.concat_tables([schema.empty_table(), *(pq.read_table(ShardFiles(root, name).side(what)) for name in names)])
        for what, schema in (("rejected", REJECTED), ("repeated", REPEATED))
    )
    read, kept = sum(report.read for report in reports), sum(report.kept for report in reports)
    if read != kept + rejected.num_rows:
        found = f"{kept:,} kept and {rejected.num_rows:,} rejected"
        raise PoolFormatError(root, expected=f"{read:,} records accounted for", found=found)
    write_parquet(root / "rejected.parquet", rejected)
    if repeated.num_rows:
        write_parquet(root / "repeated.parquet", repeated)
    reasons = Counter(_kind_of(reason) for reason in rejected["reason"].to_pylist())
    if not kept:
        found = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(3)) or "none"
        raise PoolFormatError(root, expected="a pair that can be used", found=found, remedy="see rejected.parquet")
    written = sum(report.kept > 0 for report in reports)
    return Made(written, read, kept, reasons, repeated.num_rows, embedded, seconds)


def _kind_of(reason: str) -> str:
    """A reason without what differs from one picture to the next."""
    return re.sub(r" at byte [\d,]+", "", reason.partition(":")[0])


def _begin(root: Path, settings: dict[str, Any]) -> None:
    """Notes what decides which pair comes into which shard, or makes sure that it is as noted."""
    path = root / "embed" / "settings.json"
    if not path.exists():
        if next((root / "metadata").glob("*.parquet"), None):
            remedy = "choose a new folder"
            raise PoolFormatError(root, expected="no pool, or one of embed's", found="another pool", remedy=remedy)
        write_json(path, settings)
        return
    try:
        begun = json.loads(path.read_bytes())
        changed = [name for name in settings if begun.get(name) != settings[name]]
    except (ValueError, AttributeError) as error:
        raise PoolFormatError(path, expected="the settings of a pool", found=str(error)) from error
    if changed == ["signature"]:
        remedy = "give the same, or embed into another folder"
        raise PoolFormatError(root, expected="the source it was begun with", found="another", remedy=remedy)
    if changed:
        name = changed[0]
        remedy = "give it as before, or embed into another folder"
        expected = f"{name} {begun.get(name)}, as begun"
        raise PoolFormatError(root, expected=expected, found=str(settings[name]), remedy=remedy)


@contextmanager
def _sole_worker(root: Path) -> Iterator[None]:
    """Holds the folder for this process, and clears what a killed one was writing."""
    with open(root / ".embed.lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "wait for it, or embed into another folder"
            found = "another process at work"
            raise PoolFormatError(root, expected="a folder nobody embeds into", found=found, remedy=remedy) from None
        for folder in (root, *(root / name for name in ("metadata", "images", "embed"))):
            for leftover in folder.glob(".*.partial"):
                leftover.unlink()
        yield


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Broken pictures are listed; Pillow need not also warn of each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")
        yield
