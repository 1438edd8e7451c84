"""How does a stretch of a source become a shard of a pool? Embedded, named, packed, and ready to be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clipsel_core.errors import PoolFormatError, counted
from clipsel_core.leases import confirm
from clipsel_core.places import Place
from clipsel_core.pool.conventions import facts_in
from clipsel_core.pool.making.carried import carry
from clipsel_core.pool.making.drafts import write_draft
from clipsel_core.pool.making.embedder import Reached, Took
from clipsel_core.pool.making.feed import Feed
from clipsel_core.pool.making.packing import for_loaders, new_tar, write_stats
from clipsel_core.pool.making.shard_files import (
    EmbeddedRows,
    ImagePlace,
    ImagePlaces,
    Namer,
    ShardFiles,
    ShardReport,
    add_to_shard,
    place_of,
    uids_of,
    write_report,
    write_shard,
)
from clipsel_core.pool.sources.record import Record, Source
from clipsel_core.uids import Growing


class MadeShard(NamedTuple):
    """A shard whose records are embedded. uids: of its pairs, UID_DTYPE. write: writes what is not yet written.

    sources: the folders that its images lie in.
    """

    report: ShardReport
    uids: np.ndarray
    write: Callable[[], object]
    sources: set[str]


@dataclass(frozen=True)
class Maker:
    """Makes shards of a source. embed: turns records into rows. shard_size, pack, columns: as make_pool has them."""

    source: Source
    root: Place
    embed: Callable[[Iterable[Record], Reached, Took], EmbeddedRows]
    arch: str
    shard_size: int
    pack: bool
    columns: str

    def make(
        self,
        files: ShardFiles,
        old: ShardReport | None,
        feed: Feed,
        taken: Growing,
        tell: Reached,
        *,
        is_draft: bool = False,
    ) -> MadeShard:
        """Embeds a shard's records. old: the shard's report, if others embedded it; then its pairs keep their uids.

        taken: the uids of the shards before it. tell: called after each batch.
        is_draft: write a draft in place of the report, as `taken` are not all of them.
        Raises: PoolFormatError; OSError, as `write` does.
        """
        namer = Namer(taken)
        places: list[ImagePlace] = []
        if self.pack and not old:
            rows = self._packed(files, feed, namer, tell, places)
        else:
            rows = self._rows(feed, tell, lambda kept, _: namer.name(kept))
        if len(rows.kept) + len(rows.rejected) != rows.read or len(rows.image) != len(rows.kept):
            found = f"{len(rows.kept):,} kept and {len(rows.rejected):,} rejected"
            expected = f"{counted(rows.read, 'records')} accounted for"
            raise PoolFormatError(f"shard {files.name}", expected=expected, found=found)
        if old:
            return MadeShard(old, uids_of(files, old), partial(add_to_shard, files, old, rows, self.arch), set())
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
            where = ImagePlaces(self.root, "", places)
        else:
            where = ImagePlaces(self.source.base, self.source.image_column, [place_of(record) for record in rows.kept])

        def write() -> None:
            # Beside the next shard's embedding: it takes seconds.
            carried = carry(rows.kept, self.columns)
            said = report.model_copy(update={"left_out": carried.left_out})
            write_shard(files, where, rows, namer, self.arch, carried.columns)
            if is_draft:
                write_draft(files, said, rows.kept)
            else:
                write_report(files, said)
                files.side("draft").remove()  # of another teacher

        return MadeShard(report, namer.uids(), write, where.sources)

    def _rows(self, feed: Feed, tell: Reached, took: Took) -> EmbeddedRows:
        return self.embed(islice(feed, self.shard_size), tell, took)

    def _packed(
        self, files: ShardFiles, feed: Feed, namer: Namer, tell: Reached, places: list[ImagePlace]
    ) -> EmbeddedRows:
        """The rows, and their pairs in a tar. places: gets where the images lie in it."""
        rows, inner = EmbeddedRows(), f"{files.tar.parent.name}/{files.tar.name}"

        def fill(aside: Path) -> None:
            nonlocal rows
            with new_tar(aside) as packer:

                def took(kept: Record, data: bytes | None) -> None:
                    assert data is not None
                    image, key = for_loaders(data), f"{files.name}{packer.count:08d}"
                    facts = _facts_of(kept, namer.name(kept), key)
                    places.append((inner, packer.add(key, image, kept.caption, facts), len(image)))

                rows = self._rows(feed, tell, took)
            confirm(files.root)

        files.tar.write(fill)
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
