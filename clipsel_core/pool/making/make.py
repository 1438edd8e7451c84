"""How do images and captions become a pool? Shard by shard, each finished whole, resumed where it stopped."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError, counted
from clipsel_core.leases import confirm, number_of
from clipsel_core.places import Place
from clipsel_core.pool.layout import add_teacher
from clipsel_core.pool.making.carried import UNFIT, LeftOut, merged, names_in, settle_types
from clipsel_core.pool.making.decode import quiet_pillow
from clipsel_core.pool.making.drafts import final_ones, reported, settled, written
from clipsel_core.pool.making.embed import Teacher, teacher_info
from clipsel_core.pool.making.embedder import BATCH_SIZE, copy_embeddings
from clipsel_core.pool.making.feed import Cursor, Feed
from clipsel_core.pool.making.maker import Maker
from clipsel_core.pool.making.settings import hold_pool, settings_to_make
from clipsel_core.pool.making.shard_files import (
    REJECTED,
    REPEATED,
    ShardFiles,
    ShardWriter,
    kind_of,
    of_each,
    read_parquet,
    write_parquet,
)
from clipsel_core.pool.making.spread import Embedding, check_spreadable, forget_counts, make_shards
from clipsel_core.pool.sources.record import Record, Source
from clipsel_core.status import Pace
from clipsel_core.tasks import Report, check, silent
from clipsel_core.workers import Machines, check_asked

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """What a pool is made of now. reasons: how many records were rejected for each.

    derived: pairs whose source has a uid that is neither 32 hex digits nor a UUID with dashes.
    embedded: pairs that this call embedded, in seconds. columns: of the source, which the pool has, too.
    left_out: those that it has not, see carried. tried_again: shards that were given to another worker of a cluster.
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
    tried_again: int = 0


def make_pool(
    source: Source,
    root: str | os.PathLike[str],
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
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
    report: Report = silent,
) -> Made:
    """Embeds a source into a pool in DataComp's layout, or goes on with what was begun there.

    teacher: None for a source that has its embeddings: they are taken as they are, scaled to unit length.

    A pool that is there already with other teachers gets this one's arrays and scores beside them. Killed and started
    again, it ends with the same bytes, on the same machine and with the same options.

    root: the pool's folder, or its address in a store that is written to, as s3:// and gs:// are.
    arch: the teacher's name in the pool. model, pretrained: what it is called elsewhere, for teachers.json.
    shard_size: records to a shard, the rejected among them. workers: processes that decode; None for as many as
        cores. pack: also write the pairs to shards/<shard>.tar, images as they are. columns: of the source, that the
        pool's table gets beside its own: all, none, or names separated by commas. shard_size, most_pixels, pack,
        columns: None for as the pool was begun, else for 100,000, 64 million, no and all.
    cluster, cpus_per_worker: a Ray cluster that embeds it instead, see `Machines`, on devices of the teacher's kind.
        Source and pool are given by absolute paths and lie where all of its nodes see them, and so does what `model`
        and `pretrained` name: each worker loads the teacher again. workers: of each of its workers then.
    report: told how far the source has been read, in a unit of its own; the note, how many of its records this call has
        been through; the last time when all is written. On a cluster it is told the pairs and the shards that are done.
    Raises: PoolFormatError where the source is not the one that was begun with, or none of it can be used; TeacherError
        where a worker has another teacher; RunError where there is no such cluster, or a shard ended three workers.
    """
    root = Place.of_named(root)
    given: dict[str, Any] = {"shard_size": shard_size, "most_pixels": most_pixels, "pack": pack, "columns": columns}
    settings = settings_to_make(source, root, arch, teacher=teacher is not None, **given)
    if min(settings["shard_size"], batch_size) < 1:
        found = f"{settings['shard_size']} and {batch_size}"
        raise PoolFormatError("--shard-size, --batch-size", expected="1 or more", found=found)
    check_asked(teacher.device.type if teacher else "auto", cluster, cpus_per_worker)
    if cluster:
        check_spreadable(source, root)
    if root.remote and not (source.base.remote or source.embedded or settings["pack"]):
        remedy = "--pack writes them into the pool"
        _log.warning(
            "%s: its images stay on this machine, and others who read %s see none; %s", source.base, root, remedy
        )
    start, chosen = time.monotonic(), (settings["shard_size"], settings["pack"], settings["columns"])
    with hold_pool(root), quiet_pillow():
        if not (root / "embed" / "settings.json").exists():
            confirm(root)
            (root / "embed" / "settings.json").write_json(settings)
        maker, again = Maker(source, root, copy_embeddings, arch, *chosen), 0
        if teacher is None:
            shards, embedded = _make_here(maker, report)
        else:
            info = teacher_info(teacher, model, pretrained)
            add_teacher(root, arch, info)
            embedding = Embedding(source, root, info, batch_size, workers, settings["most_pixels"], number_of(root))
            if cluster:
                machines = Machines((str(teacher.device),), cluster, cpus_per_worker)
                shards, embedded, again = make_shards(maker, embedding, machines, report)
            else:
                with embedding.embedder(teacher, keep=settings["pack"]) as embedder:
                    shards, embedded = _make_here(replace(maker, embed=embedder.embed), report)
        made = _finish(source, root, settings["columns"], shards, embedded, time.monotonic() - start)
    return replace(made, tried_again=again)


def _make_here(maker: Maker, report: Report) -> tuple[int, int]:
    """Goes through the shards in this process; those that are there with this teacher are passed over.

    Returns: the shards, and how many pairs were embedded.
    """
    pace, embedded, number, gone_through = Pace(), 0, 0, 0
    taken, cursor, last = uids.Growing(), Cursor(), False
    done = final_ones(reported(maker.root), maker.arch)
    feed = Feed(maker.source, cursor)

    def tell(reached: int, records: int) -> None:
        per_s = pace.per_s(records)
        note = counted(records, "pairs") + (f", {per_s:,.0f}/s" if per_s else "")
        report(reached, sum(maker.source.sizes), "", note if records else "")

    def reached(feed: Feed, handed_out: int, before: int, last: Record, read: int) -> None:
        check()
        writer.check()
        tell(feed.reached(last, handed_out + read), before + read)

    with ShardWriter() as writer:
        while not last:
            files = ShardFiles(maker.root, f"{number:08d}")
            if final := next(done, None):
                found, named = final
            elif there := written(files, maker.arch):
                found, named = there, settled(files, taken, packed=maker.pack)
            else:
                feed = feed.continued(cursor)

                found, named, write, _ = maker.make(
                    files, files.report(), feed, taken, partial(reached, feed, feed.handed_out, gone_through)
                )
                writer.begin(write)
                embedded += found.kept
                gone_through += found.read
            taken.add(named)
            cursor, last, number = Cursor(*found.following), found.last, number + 1
        writer.wait()
    tell(sum(maker.source.sizes), gone_through)
    return number, embedded


def _finish(source: Source, root: Place, columns: str, shards: int, embedded: int, seconds: float) -> Made:
    """Puts the shards' lists together, checks the counts against them, and settles the source's columns."""
    written = [ShardFiles(root, f"{number:08d}") for number in range(shards)]
    reports = [report for report in of_each(written, ShardFiles.report) if report]
    assert len(reports) == shards
    rejected, repeated = _listed(written, "rejected", REJECTED), _listed(written, "repeated", REPEATED)
    read, kept = sum(report.read for report in reports), sum(report.kept for report in reports)
    if read != kept + rejected.num_rows:
        found = f"{kept:,} kept and {rejected.num_rows:,} rejected"
        raise PoolFormatError(root, expected=f"{counted(read, 'records')} accounted for", found=found)
    confirm(root)
    forget_counts(root)
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


def _listed(shards: Sequence[ShardFiles], what: str, schema: pa.Schema) -> pa.Table:
    """What the shards' lists hold, together."""
    lists = of_each(shards, lambda files: read_parquet(files.side(what)))
    return pa.concat_tables([schema.empty_table(), *lists])
