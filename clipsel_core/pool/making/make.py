"""How do images and captions become a pool? Shard by shard, each finished whole, resumed where it stopped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.cores import allowed_cores
from clipsel_core.counts import counted
from clipsel_core.errors import PoolFormatError
from clipsel_core.files import write_atomically
from clipsel_core.pool.making.behind import Behind
from clipsel_core.pool.making.claim import note, settings_to_make, writing
from clipsel_core.pool.making.copy_shard import Copier
from clipsel_core.pool.making.decode import quiet_pillow
from clipsel_core.pool.making.embed import Teacher, teacher_info
from clipsel_core.pool.making.embed_shard import BATCH_SIZE, Embedder, Took
from clipsel_core.pool.making.feed import Cursor, Feed
from clipsel_core.pool.making.naming import Namer
from clipsel_core.pool.making.packing import TarPacker, for_loaders, new_tar, write_stats
from clipsel_core.pool.making.rows import Kept, Rows, kind_of
from clipsel_core.pool.making.shard_files import (
    REJECTED,
    REPEATED,
    Images,
    Report,
    ShardFiles,
    add_to_shard,
    write_parquet,
    write_shard,
)
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.record import Record, Source, facts_in
from clipsel_core.pool.teachers import add_teacher


@dataclass(frozen=True)
class Made:
    """What a pool is made of now. reasons: how many records were rejected for each.

    derived: pairs whose source has a uid that is neither 32 hex digits nor a UUID with dashes.
    embedded: pairs that this call embedded, in seconds.
    """

    shards: int
    read: int
    kept: int
    reasons: Counter[str]
    repeated: int
    derived: int
    embedded: int
    seconds: float


def make_pool(
    source: Source,
    root: str | Path,
    teacher: Teacher | None,
    *,
    arch: str,
    model: str = "",
    pretrained: str | None = None,
    shard_size: int | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    most_pixels: int | None = None,
    pack: bool | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> Made:
    """Embeds a source into a pool in DataComp's layout, or goes on with what was begun there.

    teacher: None for a source that has its embeddings: they are taken as they are, scaled to unit length.

    A pool that is there already with other teachers gets this one's arrays and scores beside them. Killed and started
    again, it ends with the same bytes, on the same machine and with the same options.

    arch: the teacher's name in the pool. model, pretrained: what it is called elsewhere, for teachers.json.
    shard_size: records to a shard, the rejected among them. workers: processes that decode; None for as many as
        cores. pack: also write the pairs to shards/<shard>.tar, images as they are. shard_size, most_pixels, pack:
        None for as the pool was begun, else for 100,000, 64 million and no.
    progress: called with how far the source has been read, how far it goes, both in a unit of the source's own, and
        how many of its records this call has been through; the last time when all is written.
    Raises: PoolFormatError where the source is not the one that was begun with, or none of it can be used.
    """
    root = Path(root)
    settings = settings_to_make(
        source, root, arch, teacher=teacher is not None, shard_size=shard_size, most_pixels=most_pixels, pack=pack
    )
    if min(settings["shard_size"], batch_size) < 1:
        found = f"{settings['shard_size']} and {batch_size}"
        raise PoolFormatError("--shard-size, --batch-size", expected="1 or more", found=found)
    with writing(root), quiet_pillow(), ExitStack() as working:
        note(root / "embed" / "settings.json", settings)
        worker: Embedder | Copier = Copier()
        if teacher:
            add_teacher(root, arch, teacher_info(teacher, model, pretrained))
            worker = Embedder(
                teacher,
                source,
                workers=workers or allowed_cores(),
                batch_size=batch_size,
                most_pixels=settings["most_pixels"],
                keep=settings["pack"],
            )
            working.enter_context(worker)
        shards = {"shard_size": settings["shard_size"], "pack": settings["pack"]}
        progress = progress or (lambda done, total, records: None)
        behind = working.enter_context(Behind())
        return _Work(source, root, worker, arch, **shards, progress=progress, behind=behind).make()


class _Shard(NamedTuple):
    """A shard that is embedded and not written. uids: of its pairs, UID_DTYPE."""

    report: Report
    uids: np.ndarray
    write: Callable[[], object]


@dataclass(frozen=True)
class _Work:
    """Making a pool, with all that it takes."""

    source: Source
    root: Path
    worker: Embedder | Copier
    arch: str
    shard_size: int
    pack: bool
    progress: Callable[[int, int, int], None]
    behind: Behind

    def make(self) -> Made:
        """Goes through the shards; those that are there with this teacher are passed over."""
        start, embedded, number, gone_through = time.monotonic(), 0, 0, 0
        taken, cursor, last = uids.from_hex([]), Cursor(), False
        feed = Feed(self.source, cursor)
        while not last:
            files = ShardFiles(self.root, f"{number:08d}")
            report = files.report()
            if report is None or (report.kept and not files.has(self.arch)):
                feed = feed.continued(cursor)
                shard = self._embedded(files, report, feed, taken, gone_through)
                self.behind.do(shard.write)
                report, named = shard.report, shard.uids
                embedded += report.kept
                gone_through += report.read
            else:
                named = _uids_of(files, report)
            taken = uids.union(taken, named)
            cursor, last, number = Cursor(*report.following), report.last, number + 1
        self.behind.wait()
        self.progress(sum(self.source.sizes), sum(self.source.sizes), gone_through)
        return _finish(self.root, number, embedded, time.monotonic() - start)

    def _embedded(self, files: ShardFiles, old: Report | None, feed: Feed, taken: np.ndarray, before: int) -> _Shard:
        """Embeds a shard's records. old: the shard's report, if others embedded it. before: records gone through."""
        namer = Namer(taken)
        if self.pack and not old:
            rows = self._packed(files, feed, namer, before)
        else:
            rows = self._rows(feed, before, lambda kept, _: namer.name(kept.record))
        if len(rows.kept) + len(rows.rejected) != rows.read or len(rows.image) != len(rows.kept):
            found = f"{len(rows.kept):,} kept and {len(rows.rejected):,} rejected"
            expected = f"{counted(rows.read, 'records')} accounted for"
            raise PoolFormatError(f"shard {files.name}", expected=expected, found=found)
        following = feed.following()
        if old:
            return _Shard(old, _uids_of(files, old), partial(_add, files, old, rows, self.arch))
        names = namer.names()
        report = Report(
            read=rows.read,
            kept=len(rows.kept),
            rejected=len(rows.rejected),
            repeated=len(names.repeated),
            derived=sum(bool(item.record.source_uid and not item.record.uid) for item in rows.kept),
            following=(following.part, following.before),
            last=feed.exhausted(),
        )
        where = Images(Place.of(self.root), "") if self.pack else Images(self.source.base, self.source.image_column)
        write = partial(write_shard, files, where, rows, names, self.arch, report)
        return _Shard(report, names.uids, write)

    def _rows(self, feed: Feed, before: int, took: Took) -> Rows:
        total, earlier = sum(self.source.sizes), feed.handed_out

        def tell(last: Record, read: int) -> None:
            self.behind.check()
            self.progress(feed.reached(last, earlier + read), total, before + read)

        return self.worker.embed(islice(feed, self.shard_size), tell, took)

    def _packed(self, files: ShardFiles, feed: Feed, namer: Namer, before: int) -> Rows:
        """The rows, and their pairs in a tar, where the rows' images are then."""
        made: list[Rows] = []

        def fill(aside: Path) -> None:
            places: list[tuple[int, int]] = []
            with new_tar(aside) as packer:

                def took(kept: Kept, data: bytes | None) -> None:
                    assert data is not None
                    image = for_loaders(data)
                    places.append((_pack(packer, files.name, kept, namer.name(kept.record), image), len(image)))

                made.append(self._rows(feed, before, took))
            inner = files.tar.relative_to(files.root).as_posix()
            for row, (offset, length) in enumerate(places):
                made[0].kept[row] = replace(made[0].kept[row], file=inner, offset=offset, length=length)

        write_atomically(files.tar, fill)
        write_stats(files.tar, len(made[0].kept))
        return made[0]


def _uids_of(files: ShardFiles, report: Report) -> np.ndarray:
    """The uids of a shard that is written."""
    return uids.from_hex(pq.read_table(files.parquet, columns=["uid"])["uid"] if report.kept else [])


def _add(files: ShardFiles, old: Report, rows: Rows, arch: str) -> None:
    add_to_shard(files, rows, arch)
    if (len(rows.kept), len(rows.rejected)) != (old.kept, old.rejected):
        expected, found = (f"{count:,} rejected" for count in (old.rejected, len(rows.rejected)))
        raise PoolFormatError(files.parquet, expected=expected, found=found)


def _pack(packer: TarPacker, shard: str, kept: Kept, uid: str, data: bytes) -> int:
    record, key = kept.record, f"{shard}{packer.count:08d}"
    facts = {
        **facts_in(record.facts),
        "uid": uid,
        "key": key,
        "caption": record.caption,
        "url": record.url,
        "original_width": kept.width,
        "original_height": kept.height,
        "sha256": kept.sha256,
        "source_key": record.key,
    }
    if record.source_uid:
        facts["source_uid"] = record.source_uid
    return packer.add(key, data, record.caption, facts)


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
        raise PoolFormatError(root, expected=f"{counted(read, 'records')} accounted for", found=found)
    write_parquet(root / "rejected.parquet", rejected)
    if repeated.num_rows:
        write_parquet(root / "repeated.parquet", repeated)
    reasons = Counter(kind_of(reason) for reason in rejected["reason"].to_pylist())
    if not kept:
        found = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(3)) or "none"
        raise PoolFormatError(root, expected="a pair that can be used", found=found, remedy="see rejected.parquet")
    written = sum(report.kept > 0 for report in reports)
    derived = sum(report.derived for report in reports)
    return Made(written, read, kept, reasons, repeated.num_rows, derived, embedded, seconds)
