"""How do pictures without captions become embeddings? With the teacher of a pool, in the order of their source."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.errors import PoolFormatError, TeacherError, counted
from clipsel_core.npy import put_npy
from clipsel_core.places import Place, write_places
from clipsel_core.pool.layout import Arch, Pool, expect_teacher, find_teacher, read_teachers
from clipsel_core.pool.making.decode import MOST_PIXELS, quiet_pillow
from clipsel_core.pool.making.embed import Precision, Teacher, embed_captions, load_teacher, weights_digest
from clipsel_core.pool.making.embedder import BATCH_SIZE, Embedder
from clipsel_core.pool.making.feed import Cursor, Feed
from clipsel_core.pool.making.shard_files import REJECTED, SHARD_SIZE, kind_of
from clipsel_core.pool.sources.record import Record, Source
from clipsel_core.status import Pace
from clipsel_core.tasks import Report, allowed_cores, silent


@dataclass(frozen=True)
class Embedded:
    """What became of a source's pictures. rows: (M, D) float16 of unit length, in the source's order.

    rejected: file, key and reason of those that could not be embedded.
    """

    rows: np.ndarray
    rejected: pa.Table

    @property
    def reasons(self) -> Counter[str]:
        """How many were rejected for each reason."""
        return Counter(kind_of(reason) for reason in self.rejected["reason"].to_pylist())

    def write(self, out: str | os.PathLike[str]) -> None:
        """Writes the rows as .npy, and beside it a parquet of the rejected, if there are any: all or nothing."""
        out = Place.of_named(out)
        listed = rejected_file(out)
        writes: dict[Place, Callable[[Path], object]] = {out: lambda aside: put_npy(aside, self.rows)}
        if self.rejected.num_rows:
            writes = {listed: lambda aside: pq.write_table(self.rejected, aside)} | writes
        write_places(writes)
        if not self.rejected.num_rows:
            listed.remove()


def rejected_file(out: Place) -> Place:
    """Where the pictures are listed that are not in a .npy of embeddings."""
    return out.with_name(f"{out.stem}_rejected.parquet")


def load_teacher_of(
    pool: Pool, arch: Arch, *, model: str | None = None, pretrained: str | None = None, device: str = "cpu"
) -> Teacher:
    """The teacher that embedded a pool, in the precision that it did it in, where the device has that.

    model, pretrained: as load_teacher takes them, for a pool that does not know its teacher.
    Raises: TeacherError where nobody says which it is, it is another one, or it cannot be loaded.
    """
    remedy = "name it: clipsel embed-images --model --pretrained makes a .npy of pictures"
    known = find_teacher(pool.root, arch.name) if model else expect_teacher(pool.root, arch.name, remedy)
    named = (model, pretrained) if model or not known else known[:2]
    teacher = load_teacher(str(named[0]), pretrained=named[1], device=device)
    where = " ".join(filter(None, named))
    if known and known[2] and weights_digest(teacher) != known[2]:
        raise TeacherError(where, expected=f"the weights that embedded {pool.root}", found="others")
    if (width := embed_captions(teacher, ["a"]).shape[1]) != arch.width:
        raise TeacherError(where, expected=f"embeddings of width {arch.width}, as the pool's", found=f"{width}")
    noted = read_teachers(pool.root).get(arch.name)
    if noted and (noted.precision != "fp16" or teacher.device.type != "cpu"):
        teacher = replace(teacher, precision=cast(Precision, noted.precision))
    return teacher


def embed_pictures(
    source: Source,
    teacher: Teacher,
    *,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    most_pixels: int = MOST_PIXELS,
    report: Report = silent,
) -> Embedded:
    """Embeds a source's images, which need no captions, as `make_pool` embeds those of a pool.

    batch_size, workers, most_pixels, report: as for make_pool.
    Raises: PoolFormatError where not one of them can be used.
    """
    feed, pace, total = Feed(source, Cursor()), Pace(), sum(source.sizes)
    parts, rejected = list[np.ndarray](), list[tuple[str, str, str]]()
    workers = workers or allowed_cores()
    with (
        quiet_pillow(),
        Embedder(
            teacher, source, workers=workers, batch_size=batch_size, most_pixels=most_pixels, captions=False
        ) as embedder,
    ):
        while not feed.exhausted():
            before = feed.handed_out

            def tell(last: Record, read: int, before: int = before) -> None:
                per_s = pace.per_s(before + read)
                note = counted(before + read, "pictures") + (f", {per_s:,.0f}/s" if per_s else "")
                report(feed.reached(last, before + read), total, "", note)

            rows = embedder.embed(islice(feed, SHARD_SIZE), tell, lambda *_: None)
            rejected += rows.rejected
            parts += [rows.image] if len(rows.image) else []
        report(total, total, "", counted(feed.handed_out, "pictures"))
    columns = zip(*rejected, strict=True) if rejected else ([], [], [])
    table = pa.table([pa.array(list(column), pa.string()) for column in columns], schema=REJECTED)
    if not parts:
        reasons = Counter(kind_of(reason) for _, _, reason in rejected)
        found = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(3)) or "none"
        raise PoolFormatError(source.base, expected="a picture that can be used", found=found)
    return Embedded(np.concatenate(parts), table)
