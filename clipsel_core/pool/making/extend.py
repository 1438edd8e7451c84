"""How does a pool that somebody else made get another teacher's embeddings, beside those that it has?

metadata/<shard>.npz              gets the arrays <arch>_img and <arch>_txt; all other bytes stay
metadata/<shard>.parquet          gets a column clip_<arch>_similarity_score; all other columns stay
embed/<arch>/<shard>.parquet      the pairs without an image that can be used, and why
set_aside_<arch>.parquet          the same of all shards. Their rows hold zeros, and no score
images/<shard>.parquet            where the images lie, if the pool did not know of any
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError, counted
from clipsel_core.files import write_json
from clipsel_core.pool.layout import Pool, Shard, add_teacher, as_texts, open_pool, read_teachers, read_uids
from clipsel_core.pool.making.decode import quiet_pillow
from clipsel_core.pool.making.embed import Teacher, embed_captions, teacher_info
from clipsel_core.pool.making.embedder import BATCH_SIZE, Embedder
from clipsel_core.pool.making.matching import Matched, match, read_found, write_found
from clipsel_core.pool.making.settings import hold_pool, settings_to_extend
from clipsel_core.pool.making.shard_files import (
    Images,
    ShardFiles,
    ShardWriter,
    add_columns,
    kind_of,
    place_of,
    score_column,
    write_index,
    write_parquet,
)
from clipsel_core.pool.sources.image_tables import with_images
from clipsel_core.pool.sources.record import Record, Source
from clipsel_core.tasks import Report, allowed_cores, silent

SET_ASIDE = pa.schema({"uid": pa.string(), "file": pa.string(), "reason": pa.string()})


@dataclass(frozen=True)
class Extended:
    """What was added. embedded: pairs that this call embedded, in seconds. reasons: how many rows were set aside for
    each. strangers, repeated: as in Matched."""

    shards: int
    pairs: int
    set_aside: int
    reasons: Counter[str]
    by: str
    strangers: int
    repeated: int
    embedded: int
    seconds: float


def extend_pool(
    source: Source,
    root: str | Path,
    teacher: Teacher,
    *,
    arch: str,
    model: str = "",
    pretrained: str | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    most_pixels: int | None = None,
    finding: Report = silent,
    report: Report = silent,
) -> Extended:
    """Embeds the pairs of a pool that is there, images from the source, captions from the pool, shard by shard.

    Images are matched by uid, or by key where the source has no uids. A pair without an image that can be used keeps
    its row, of zeros, which `score --on-bad-rows skip` sets aside. Nothing else in the pool changes. Killed and started
    again, it goes on at the shard and ends with the same bytes.

    most_pixels: None for as this teacher was begun, else for 64 million.
    finding, report: told how far the source is searched, and how many of the pool's pairs are done.
    Raises: PoolFormatError where the arch is the pool's already, the pool has no captions or uids, or source and pool
        share no pair.
    """
    root, began = Path(root), time.monotonic()
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
            write_json(path, settings)
        add_teacher(root, arch, info)
        workers, most_pixels = workers or allowed_cores(), settings["max_pixels"]
        width = embed_captions(teacher, ["a"]).shape[1]
        first = embedded = 0
        with (
            Embedder(teacher, source, workers=workers, batch_size=batch_size, most_pixels=most_pixels) as embedder,
            ShardWriter() as writer,
        ):
            work = _Work(source, pool, matched, embedder, arch, width, report, writer)
            for shard in pool.shards:
                files = ShardFiles(root, shard.name)
                if not (files.has(arch) and _aside(files, arch).exists()):
                    embedded += work.extend(shard, files, first)
                first += shard.rows
                writer.check()
                report(first, pool.rows, "pairs")
            writer.wait()
    return _finish(pool, matched, arch, embedded, time.monotonic() - began)


@dataclass(frozen=True)
class _Work:
    """Adding to a pool's shards, with all that it takes. width: of the teacher's embeddings."""

    source: Source
    pool: Pool
    matched: Matched
    embedder: Embedder
    arch: str
    width: int
    report: Report
    writer: ShardWriter

    def extend(self, shard: Shard, files: ShardFiles, first: int) -> int:
        """Embeds a shard's pairs and has them written; how many were embedded. first: its first row in the pool.

        As records their keys are their rows. They come as their images lie, so that none is sought.
        """
        table, named = pq.ParquetFile(shard.parquet).read(), read_uids(self.pool, shard)
        names = uids.to_hex(named).to_pylist()
        captions = as_texts(table[shard.text_column]) if shard.text_column else [""] * shard.rows
        listed = (
            self.matched.record(first + row, str(row), captions[row])
            for row in self.matched.in_reading_order(first, shard.rows).tolist()
        )

        def tell(_: Record, read: int) -> None:
            self.writer.check()
            self.report(first + read, self.pool.rows, "pairs")

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
            if not self.pool.tars and kept and not (index.exists() and pq.read_metadata(index).num_rows):
                places = [place_of(record) for record in rows.kept]
                write_index(files, Images(self.source.base, self.source.image_column, places), named[kept])
            write_parquet(_aside(files, self.arch), pa.Table.from_pylist(aside, SET_ASIDE))
            add_columns(files, table, self.arch, image, text)

        self.writer.begin(write)
        return len(kept)


def _aside(files: ShardFiles, arch: str) -> Path:
    return files.root / "embed" / arch / f"{files.name}.parquet"


def _finish(pool: Pool, matched: Matched, arch: str, embedded: int, seconds: float) -> Extended:
    """Puts the shards' lists together."""
    files = [ShardFiles(Path(pool.root), shard.name) for shard in pool.shards]
    aside = pa.concat_tables([SET_ASIDE.empty_table(), *(pq.read_table(_aside(file, arch)) for file in files)])
    if aside.num_rows:
        write_parquet(Path(pool.root) / f"set_aside_{arch}.parquet", aside)
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
