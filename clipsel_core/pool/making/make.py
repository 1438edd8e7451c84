"""How do images and captions become a pool? Shard by shard, each finished whole, resumed where it stopped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError, counted
from clipsel_core.files import write_atomically, write_json
from clipsel_core.places import Place
from clipsel_core.pool.conventions import facts_in
from clipsel_core.pool.layout import add_teacher
from clipsel_core.pool.making.carried import UNFIT, LeftOut, carry, merged, names_in, settle_types
from clipsel_core.pool.making.decode import quiet_pillow
from clipsel_core.pool.making.embed import Teacher, teacher_info
from clipsel_core.pool.making.embedder import BATCH_SIZE, Embedder, Reached, Took, copy_embeddings
from clipsel_core.pool.making.feed import Cursor, Feed
from clipsel_core.pool.making.packing import for_loaders, new_tar, write_stats
from clipsel_core.pool.making.settings import hold_pool, settings_to_make
from clipsel_core.pool.making.shard_files import (
    REJECTED,
    REPEATED,
    EmbeddedRows,
    ImagePlace,
    Images,
    Namer,
    ShardFiles,
    ShardReport,
    ShardWriter,
    add_to_shard,
    kind_of,
    place_of,
    write_parquet,
    write_shard,
)
from clipsel_core.pool.sources.record import Record, Source
from clipsel_core.status import Pace
from clipsel_core.tasks import Report, allowed_cores, silent


@dataclass(frozen=True)
class Made:
    """What a pool is made of now. reasons: how many records were rejected for each.

    derived: pairs whose source has a uid that is neither 32 hex digits nor a UUID with dashes.
    embedded: pairs that this call embedded, in seconds. columns: of the source, which the pool has, too.
    left_out: those that it has not, see carried.
    """

    shards: int
    read: int
    kept: int
    reasons: Counter[str]
    repeated: int
    derived: int
    embedded: int
    seconds: float
    columns: tuple[str, ...] = ()
    left_out: LeftOut = field(default_factory=dict)


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
    columns: str | None = None,
    report: Report = silent,
) -> Made:
    """Embeds a source into a pool in DataComp's layout, or goes on with what was begun there.

    teacher: None for a source that has its embeddings: they are taken as they are, scaled to unit length.

    A pool that is there already with other teachers gets this one's arrays and scores beside them. Killed and started
    again, it ends with the same bytes, on the same machine and with the same options.

    arch: the teacher's name in the pool. model, pretrained: what it is called elsewhere, for teachers.json.
    shard_size: records to a shard, the rejected among them. workers: processes that decode; None for as many as
        cores. pack: also write the pairs to shards/<shard>.tar, images as they are. columns: of the source, that the
        pool's table gets beside its own: all, none, or names separated by commas. shard_size, most_pixels, pack,
        columns: None for as the pool was begun, else for 100,000, 64 million, no and all.
    report: told how far the source has been read, in a unit of its own; the note, how many of its records this call has
        been through; the last time when all is written.
    Raises: PoolFormatError where the source is not the one that was begun with, or none of it can be used.
    """
    root = Path(root)
    given: dict[str, Any] = {"shard_size": shard_size, "most_pixels": most_pixels, "pack": pack, "columns": columns}
    settings = settings_to_make(source, root, arch, teacher=teacher is not None, **given)
    if min(settings["shard_size"], batch_size) < 1:
        found = f"{settings['shard_size']} and {batch_size}"
        raise PoolFormatError("--shard-size, --batch-size", expected="1 or more", found=found)
    with hold_pool(root), quiet_pillow(), ExitStack() as working:
        if not (root / "embed" / "settings.json").exists():
            write_json(root / "embed" / "settings.json", settings)
        embed: Callable[[Iterable[Record], Reached, Took], EmbeddedRows] = copy_embeddings
        if teacher:
            add_teacher(root, arch, teacher_info(teacher, model, pretrained))
            embedder = Embedder(
                teacher,
                source,
                workers=workers or allowed_cores(),
                batch_size=batch_size,
                most_pixels=settings["most_pixels"],
                keep=settings["pack"],
            )
            embed = working.enter_context(embedder).embed
        writer = working.enter_context(ShardWriter())
        chosen = settings["shard_size"], settings["pack"], settings["columns"]
        return _Work(source, root, embed, arch, *chosen, report, writer).make()


@dataclass(frozen=True)
class _Work:
    """Making a pool, with all that it takes."""

    source: Source
    root: Path
    embed: Callable[[Iterable[Record], Reached, Took], EmbeddedRows]
    arch: str
    shard_size: int
    pack: bool
    columns: str
    report: Report
    writer: ShardWriter
    pace: Pace = field(default_factory=Pace)

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
                report, named = self._make_shard(files, report, feed, taken, gone_through)
                embedded += report.kept
                gone_through += report.read
            else:
                named = _uids_of(files, report)
            taken = uids.union(taken, named)
            cursor, last, number = Cursor(*report.following), report.last, number + 1
        self.writer.wait()
        self._tell(sum(self.source.sizes), gone_through)
        return _finish(self.source, self.root, self.columns, number, embedded, time.monotonic() - start)

    def _make_shard(
        self, files: ShardFiles, old: ShardReport | None, feed: Feed, taken: np.ndarray, before: int
    ) -> tuple[ShardReport, np.ndarray]:
        """Embeds a shard's records and has them written. old: the shard's report, if others embedded it.

        before: records gone through. Returns the shard's report and its pairs' uids, UID_DTYPE.
        """
        namer = Namer(taken)
        places: list[ImagePlace] = []
        if self.pack and not old:
            rows = self._packed(files, feed, namer, before, places)
        else:
            rows = self._rows(feed, before, lambda kept, _: namer.name(kept))
        if len(rows.kept) + len(rows.rejected) != rows.read or len(rows.image) != len(rows.kept):
            found = f"{len(rows.kept):,} kept and {len(rows.rejected):,} rejected"
            expected = f"{counted(rows.read, 'records')} accounted for"
            raise PoolFormatError(f"shard {files.name}", expected=expected, found=found)
        if old:
            named = _uids_of(files, old)
            self.writer.begin(partial(add_to_shard, files, old, rows, self.arch))
            return old, named
        report = ShardReport(
            read=rows.read,
            kept=len(rows.kept),
            rejected=len(rows.rejected),
            repeated=len(namer.repeated),
            derived=sum(bool(record.source_uid and not record.uid) for record in rows.kept),
            following=feed.following(),
            last=feed.exhausted(),
        )
        if self.pack:
            where = Images(Place.of(self.root), "", places)
        else:
            where = Images(self.source.base, self.source.image_column, [place_of(record) for record in rows.kept])

        def write() -> None:
            # Beside the next shard's embedding: it takes seconds.
            carried = carry(rows.kept, self.columns)
            said = report.model_copy(update={"left_out": carried.left_out})
            write_shard(files, where, rows, namer, self.arch, said, carried.columns)

        self.writer.begin(write)
        return report, namer.uids()

    def _rows(self, feed: Feed, before: int, took: Took) -> EmbeddedRows:
        earlier = feed.handed_out

        def tell(last: Record, read: int) -> None:
            self.writer.check()
            self._tell(feed.reached(last, earlier + read), before + read)

        return self.embed(islice(feed, self.shard_size), tell, took)

    def _tell(self, reached: int, records: int) -> None:
        per_s = self.pace.per_s(records)
        note = counted(records, "pairs") + (f", {per_s:,.0f}/s" if per_s else "")
        self.report(reached, sum(self.source.sizes), "", note if records else "")

    def _packed(
        self, files: ShardFiles, feed: Feed, namer: Namer, before: int, places: list[ImagePlace]
    ) -> EmbeddedRows:
        """The rows, and their pairs in a tar. places: gets where the images lie in it."""
        rows, inner = EmbeddedRows(), files.tar.relative_to(files.root).as_posix()

        def fill(aside: Path) -> None:
            nonlocal rows
            with new_tar(aside) as packer:

                def took(kept: Record, data: bytes | None) -> None:
                    assert data is not None
                    image, key = for_loaders(data), f"{files.name}{packer.count:08d}"
                    facts = _facts_of(kept, namer.name(kept), key)
                    places.append((inner, packer.add(key, image, kept.caption, facts), len(image)))

                rows = self._rows(feed, before, took)

        write_atomically(files.tar, fill)
        write_stats(files.tar, len(rows.kept))
        return rows


def _facts_of(record: Record, uid: str, key: str) -> dict[str, object]:
    """What a packed pair's json says. key: its name in the tar."""
    facts = {
        **facts_in(record.facts),
        "uid": uid,
        "key": key,
        "caption": record.caption,
        "url": record.url,
        "original_width": record.width,
        "original_height": record.height,
        "sha256": record.sha256,
        "source_key": record.key,
    }
    return {**facts, "source_uid": record.source_uid} if record.source_uid else facts


def _uids_of(files: ShardFiles, report: ShardReport) -> np.ndarray:
    """The uids of a shard that is written."""
    return uids.from_hex(pq.read_table(files.parquet, columns=["uid"])["uid"] if report.kept else [])


def _finish(source: Source, root: Path, columns: str, shards: int, embedded: int, seconds: float) -> Made:
    """Puts the shards' lists together, checks the counts against them, and settles the source's columns."""
    written = [ShardFiles(root, f"{number:08d}") for number in range(shards)]
    reports = [report for files in written if (report := files.report())]
    assert len(reports) == shards
    rejected, repeated = (
        pa.concat_tables([schema.empty_table(), *(pq.read_table(files.side(what)) for files in written)])
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
    wanted = names_in(columns)
    with_pairs = [files for files, report in zip(written, reports, strict=True) if report.kept]
    settled = settle_types(with_pairs if wanted != [] else (), written_as_text=source.written_as_text)
    left_out = merged([*(report.left_out for report in reports), settled.left_out])
    unfit = [name for name in source.unfit if wanted is None or name in wanted]
    left_out = merged([{UNFIT: dict.fromkeys(unfit, 0)} if unfit else {}, left_out])
    return Made(
        shards=sum(report.kept > 0 for report in reports),
        read=read,
        kept=kept,
        reasons=reasons,
        repeated=repeated.num_rows,
        derived=sum(report.derived for report in reports),
        embedded=embedded,
        seconds=seconds,
        columns=tuple(settled.columns),
        left_out=left_out,
    )
