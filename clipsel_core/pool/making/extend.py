"""How does a pool that somebody else made get another teacher's embeddings, beside those that it has?

metadata/<shard>.npz              gets the arrays <arch>_img and <arch>_txt; all other bytes stay
metadata/<shard>.parquet          gets a column clip_<arch>_similarity_score; all other columns stay
embed/<arch>/<shard>.parquet      the pairs without an image that can be used, and why
set_aside_<arch>.parquet          the same of all shards. Their rows hold zeros, and no score
images/<shard>.parquet            where the images lie, if the pool did not know of any
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, count
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from clipsel_core import reach, uids
from clipsel_core.errors import PoolFormatError, counted
from clipsel_core.leases import confirm, number_of
from clipsel_core.places import Place
from clipsel_core.pool.conventions import WHOLE_FILE, as_texts
from clipsel_core.pool.layout import Pool, add_teacher, open_pool, parquet_file, read_teachers, read_uids
from clipsel_core.pool.making.decode import quiet_pillow
from clipsel_core.pool.making.embed import Teacher, embed_captions, teacher_info
from clipsel_core.pool.making.embedder import BATCH_SIZE, Embedder, Reached
from clipsel_core.pool.making.matching import Matched, match, read_found, write_found
from clipsel_core.pool.making.settings import clear_pool, hold_pool, settings_to_extend
from clipsel_core.pool.making.shard_files import (
    ImagePlaces,
    ShardFiles,
    ShardWriter,
    add_columns,
    kind_of,
    of_each,
    place_of,
    read_parquet,
    score_column,
    write_index,
    write_parquet,
)
from clipsel_core.pool.making.spread import Embedding, Tally, check_spreadable
from clipsel_core.pool.sources.image_tables import with_images
from clipsel_core.pool.sources.record import Record, Source
from clipsel_core.tasks import Report, check, silent
from clipsel_core.workers import Do, Machines, check_asked, results

SET_ASIDE = pa.schema({"uid": pa.string(), "file": pa.string(), "reason": pa.string()})


@dataclass(frozen=True)
class Extended:
    """What was added. embedded: pairs that this call embedded, in seconds. reasons: how many rows were set aside for
    each. strangers, repeated: as in Matched. tried_again: shards that were given to another worker of a cluster."""

    shards: int
    pairs: int
    set_aside: int
    reasons: Counter[str]
    by: str
    strangers: int
    repeated: int
    embedded: int
    seconds: float
    tried_again: int = 0


def extend_pool(
    source: Source,
    root: str | os.PathLike[str],
    teacher: Teacher,
    *,
    arch: str,
    model: str = "",
    pretrained: str | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    most_pixels: int | None = None,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
    finding: Report = silent,
    report: Report = silent,
) -> Extended:
    """Embeds the pairs of a pool that is there, images from the source, captions from the pool, shard by shard.

    Images are matched by uid, or by key where the source has no uids. A pair without an image that can be used keeps
    its row, of zeros, which `score --on-bad-rows skip` sets aside. Nothing else in the pool changes. Killed and started
    again, it goes on at the shard and ends with the same bytes.

    most_pixels: None for as this teacher was begun, else for 64 million.
    cluster, cpus_per_worker: a Ray cluster that embeds it instead, as for make_pool.
    finding, report: told how far the source is searched, and how many of the pool's pairs are done.
    Raises: PoolFormatError where the arch is the pool's already, the pool has no captions or uids, or source and pool
        share no pair.
    """
    root, began = Place.of_named(root), time.monotonic()
    check_asked(teacher.device.type, cluster, cpus_per_worker)
    if cluster:
        check_spreadable(source, root)
    path, settings = settings_to_extend(source, root, arch, most_pixels)
    info = teacher_info(teacher, model, pretrained)
    with hold_pool(root), quiet_pillow():
        pool = open_pool(root)
        if arch not in read_teachers(root) and (arch in pool.archs or score_column(arch) in pool.columns):
            found = f"embeddings {arch}" if arch in pool.archs else score_column(arch)
            expected, remedy = f"no {arch} in the pool yet", "choose another --arch"
            raise PoolFormatError(root, expected=expected, found=found, remedy=remedy)
        if pool.text_column is None:
            expected, found = "captions in a column text or caption", ", ".join(pool.columns)
            raise PoolFormatError(pool.shards[0].parquet, expected=expected, found=found)
        matched = read_found(source, pool) or match(source, pool, finding)
        write_found(source, pool, matched)
        if not path.exists():
            confirm(root)
            path.write_json(settings)
        add_teacher(root, arch, info)
        embedding = Embedding(source, root, info, batch_size, workers, settings["max_pixels"], number_of(root))
        width, again = embed_captions(teacher, ["a"]).shape[1], 0
        if cluster:
            if not pool.tars:
                places = [(file, 0, WHOLE_FILE) for file in matched.files]
                reach.remember_sources(ImagePlaces(source.base, "", places).sources)
            machines = Machines((str(teacher.device),), cluster, cpus_per_worker)
            embedded, again = _extend_there(_Extending(embedding, pool, arch, width), machines, report)
        else:
            with embedding.embedder(teacher) as embedder:
                embedded = _extend_here(_Work(source, pool, matched, embedder, arch, width), report)
    return replace(_finish(pool, matched, arch, embedded, time.monotonic() - began), tried_again=again)


class _Unit(NamedTuple):
    """A shard of the pool. first: its first row in the pool."""

    number: int
    name: str
    first: int
    rows: int

    def __str__(self) -> str:
        return f"shard {self.name}"


@dataclass(frozen=True)
class _Work:
    """Adding to a pool's shards, with all that it takes. width: of the teacher's embeddings."""

    source: Source
    pool: Pool
    matched: Matched
    embedder: Embedder
    arch: str
    width: int

    def extend(self, unit: _Unit, tell: Reached) -> tuple[int, Callable[[], object]]:
        """Embeds a shard's pairs. Returns how many, and what writes them. tell: called after each batch.

        As records their keys are their rows. They come as their images lie, so that none is sought.
        """
        shard, first, files = self.pool.shards[unit.number], unit.first, _files(self.pool, unit)
        table, named = read_parquet(shard.parquet), read_uids(shard)
        names = uids.to_hex(named).to_pylist()
        captions = as_texts(table[shard.text_column]) if shard.text_column else [""] * shard.rows
        listed = (
            self.matched.record(first + row, str(row), captions[row])
            for row in self.matched.in_reading_order(first, shard.rows).tolist()
        )
        records = with_images(self.source.base, self.source.image_column, listed)
        rows = self.embedder.embed(records, tell, lambda *_: None)
        image, text = np.zeros((2, len(names), self.width), np.float16)
        kept = [int(record.key) for record in rows.kept]
        if kept:
            image[kept], text[kept] = rows.image, rows.text
        if len(kept) + len(rows.rejected) != shard.rows:
            expected = f"{counted(shard.rows, 'pairs')} accounted for"
            found = f"{len(kept):,} embedded and {len(rows.rejected):,} set aside"
            raise PoolFormatError(f"shard {shard.name}", expected=expected, found=found)
        rejected = sorted((int(key), file, reason) for file, key, reason in rows.rejected)
        aside = [{"uid": names[row], "file": file, "reason": reason} for row, file, reason in rejected]

        def write() -> None:
            index = files.side("images")
            # An index may be there and empty, where embeddings came without images.
            if not self.pool.tars and kept and not (index.exists() and _rows_in(index)):
                places = [place_of(record) for record in rows.kept]
                write_index(files, ImagePlaces(self.source.base, self.source.image_column, places), named[kept])
            write_parquet(_aside(files, self.arch), pa.Table.from_pylist(aside, SET_ASIDE))
            add_columns(files, table, self.arch, image, text)

        return len(kept), write


def _extend_here(work: _Work, report: Report) -> int:
    """Extends the shards that are left in this process; how many pairs were embedded."""
    embedded, pairs = 0, work.pool.rows
    with ShardWriter() as writer:
        left = _left(work.pool, work.arch)
        for unit in _units(work.pool):

            def tell(_: Record, read: int, first: int = unit.first) -> None:
                check()
                writer.check()
                report(first + read, pairs, "pairs")

            if unit in left:
                kept, write = work.extend(unit, tell)
                writer.begin(write)
                embedded += kept
            writer.check()
            report(unit.first + unit.rows, pairs, "pairs")
        writer.wait()
    return embedded


@dataclass(frozen=True)
class _Extending:
    """The work that extends shards on a cluster; it gives how many of a shard's pairs were embedded."""

    embedding: Embedding
    pool: Pool
    arch: str
    width: int
    gives: str = "embeddings"
    folder: Place | None = None

    @property
    def description(self) -> Place:
        return self.embedding.root / "embed" / self.arch / "settings.json"

    def begin(self, device: str) -> Do:
        source, pool = self.embedding.source, self.pool
        matched = read_found(source, pool)
        if matched is None:
            expected = "where the images lie, as it was found where this was started"
            raise PoolFormatError(pool.root, expected=expected, found="another source or pool")
        work = _Work(source, pool, matched, self.embedding.begin(device), self.arch, self.width)
        embedding_now = threading.Lock()

        def do(unit: _Unit, report: Report) -> int:
            with embedding_now:
                if _is_done(_files(pool, unit), self.arch):  # by a worker that was lost afterwards
                    return unit.rows - _rows_in(_aside(_files(pool, unit), self.arch))
                kept, write = work.extend(unit, lambda _, read: report(read, unit.rows))
            write()
            return kept

        return do


def _extend_there(work: _Extending, machines: Machines, report: Report) -> tuple[int, int]:
    """Has a cluster extend the shards that are left.

    Returns: how many pairs were embedded, and how many shards were given to another worker.
    """
    pool, embedded = work.pool, 0
    units = _units(pool)
    left = _left(pool, work.arch)
    tally = Tally({str(unit): unit.rows for unit in units}, map(str, left), report)
    if not left:
        return 0, 0
    try:
        with machines.workers(work, len(left)) as workers, results(workers, left, tally.of) as found:
            for unit, kept in zip(left, found, strict=True):
                tally.add(unit)
                embedded += kept
            return embedded, workers.tried_again
    finally:
        clear_pool(work.embedding.root)


def _units(pool: Pool) -> list[_Unit]:
    rows = [shard.rows for shard in pool.shards]
    starts = accumulate(rows, initial=0)
    return [_Unit(*unit) for unit in zip(count(), (shard.name for shard in pool.shards), starts, rows)]


def _files(pool: Pool, unit: _Unit) -> ShardFiles:
    return ShardFiles(pool.root, unit.name)


def _left(pool: Pool, arch: str) -> list[_Unit]:
    """The shards without this teacher's embeddings."""
    units = _units(pool)
    done = of_each([_files(pool, unit) for unit in units], lambda files: _is_done(files, arch))
    return [unit for unit, is_done in zip(units, done, strict=True) if not is_done]


def _is_done(files: ShardFiles, arch: str) -> bool:
    return files.has(arch) and _aside(files, arch).exists()


def _rows_in(parquet: Place) -> int:
    with parquet_file(parquet) as file:
        return file.metadata.num_rows


def _aside(files: ShardFiles, arch: str) -> Place:
    return files.root / "embed" / arch / f"{files.name}.parquet"


def _finish(pool: Pool, matched: Matched, arch: str, embedded: int, seconds: float) -> Extended:
    """Puts the shards' lists together."""
    files = [ShardFiles(pool.root, shard.name) for shard in pool.shards]
    lists = of_each(files, lambda shard: read_parquet(_aside(shard, arch)))
    aside = pa.concat_tables([SET_ASIDE.empty_table(), *lists])
    if aside.num_rows:
        write_parquet(pool.root / f"set_aside_{arch}.parquet", aside)
    reasons = Counter(kind_of(reason) for reason in aside["reason"].to_pylist())
    if aside.num_rows == pool.rows:
        found, remedy = ", ".join(sorted(reasons)[:3]), f"see set_aside_{arch}.parquet"
        raise PoolFormatError(pool.root, expected="a pair that can be used", found=found, remedy=remedy)
    return Extended(
        shards=len(files),
        pairs=pool.rows,
        set_aside=aside.num_rows,
        reasons=reasons,
        by=matched.by,
        strangers=matched.strangers,
        repeated=matched.repeated,
        embedded=embedded,
        seconds=seconds,
    )
