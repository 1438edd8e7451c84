"""How does a shard become final that was written before those before it?

Of pairs with one uid the first keeps it. Until all earlier shards are there nobody knows which that is, so a shard is
written as if it were the first, with a draft in the place of its report. Mostly nothing changes then but that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from clipsel_core import uids
from clipsel_core.leases import confirm
from clipsel_core.places import IN_FLIGHT, Place
from clipsel_core.pool.layout import parquet_file
from clipsel_core.pool.making.shard_files import (
    Namer,
    ShardFiles,
    ShardReport,
    of_each,
    read_parquet,
    uids_of,
    write_parquet,
    write_repeated,
    write_report,
)
from clipsel_core.pool.sources.members import Members
from clipsel_core.pool.sources.record import Record
from clipsel_core.tasks import in_batches

_REPORT = b"report"


def write_draft(files: ShardFiles, report: ShardReport, kept: Sequence[Record]) -> None:
    """Says that a shard is written, and what naming its pairs again takes."""
    columns = {"file": [record.file for record in kept], "uid": [record.uid for record in kept]}
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    confirm(files.root)
    write_parquet(files.side("draft"), table.replace_schema_metadata({_REPORT: report.model_dump_json()}))


def written(files: ShardFiles, arch: str) -> ShardReport | None:
    """What is said of a shard that has this teacher's embeddings, be it a draft; else None. Raises PoolFormatError."""
    report = files.report() or _drafted(files)
    return report if report and (not report.kept or files.has(arch)) else None


class Final(NamedTuple):
    """A shard that is done. uids: of its pairs, UID_DTYPE, in their order."""

    report: ShardReport
    uids: np.ndarray


def reported(root: Place) -> list[ShardFiles]:
    """The shards of a pool that have reports, as its listing has it, of those that follow each other from the first."""
    names = {name.removesuffix(".json") for name in (root / "embed").names() if name.endswith(".json")}
    numbered = (f"{number:08d}" for number in count())
    return [ShardFiles(root, name) for name in takewhile(names.__contains__, numbered)]


def final_ones(shards: Iterable[ShardFiles], arch: str) -> Iterator[Final | None]:
    """Each shard that is done with this teacher's embeddings, None for others; those of a store are read ahead."""

    def look(files: ShardFiles) -> Final | None:
        report = files.report()
        if not report or (report.kept and not files.has(arch)):
            return None
        files.side("draft").remove()
        return Final(report, uids_of(files, report))

    for some in in_batches(shards, IN_FLIGHT):
        yield from of_each(some, look)


def settled(files: ShardFiles, taken: uids.Growing, *, packed: bool) -> np.ndarray:
    """The uids of a shard that is written, UID_DTYPE in the order of its pairs; a draft becomes final.

    Its pairs keep their uids or get others, as if they were named now. taken: the uids of the shards before it.
    packed: whether its pairs are packed, too. Killed in the middle, the shard is made again.
    Raises: OSError.
    """
    report, draft = files.report(), files.side("draft")
    if report:
        draft.remove()
        return uids_of(files, report)
    report = _drafted(files)
    assert report
    named = uids_of(files, report)
    if taken.contains(named).any():
        confirm(files.root)
        table, namer = read_parquet(draft), Namer(taken)
        # What is renamed halfway is neither a draft nor done.
        draft.remove()
        changed = _rename(files, table, namer)
        if packed:
            files.tar.change(lambda tar: _rename_in(tar, changed))
        report, named = report.model_copy(update={"repeated": len(namer.repeated)}), namer.uids()
    write_report(files, report)
    draft.remove()
    return named


def _drafted(files: ShardFiles) -> ShardReport | None:
    """What a draft is going to report, where there is one."""
    draft = files.side("draft")
    # Asked for by its name: what a store listed before may lack it.
    if not draft.exists():
        return None
    try:
        with parquet_file(draft) as file:
            return ShardReport.model_validate_json((file.schema_arrow.metadata or {})[_REPORT])
    except (FileNotFoundError, KeyError, pa.ArrowException, ValidationError):
        return None


def _rename(files: ShardFiles, draft: pa.Table, namer: Namer) -> dict[str, str]:
    """Has a shard's pairs named again, in its tables. Returns the new uid of each by its old one, hex."""
    table = read_parquet(files.parquet)
    own, sources = draft["uid"].to_pylist(), table["source_uid"].to_pylist()
    told = zip(draft["file"].to_pylist(), table["key"].to_pylist(), table["text"].to_pylist(), own, strict=True)
    kept = [Record(key, file, caption, uid=uid) for file, key, caption, uid in told]
    names = [namer.name(record) for record in kept]
    changed = dict(zip(table["uid"].to_pylist(), names, strict=True))
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    columns["uid"] = pa.array(names, pa.string())
    # As _metadata has it: the source's own text, or the uid that it had and another pair has now.
    sources = [
        said or (uid if uid != name else "") or None for said, uid, name in zip(sources, own, names, strict=True)
    ]
    columns["source_uid"] = pa.array(sources, pa.string())
    write_parquet(files.parquet, pa.table(columns))
    write_repeated(files, kept, namer, names)
    _rename_places(files, changed)
    return changed


def _rename_places(files: ShardFiles, names: Mapping[str, str]) -> None:
    """The same in the list of where the images lie. names: the new one of each."""
    index = read_parquet(files.side("images"))
    listed = uids.to_hex(uids.from_columns([index["uid_hi"], index["uid_lo"]])).to_pylist()
    named = uids.from_hex([names[name] for name in listed])
    halves = [pa.array(named[half].copy()) for half in ("f0", "f1")]
    rest = [index[name].combine_chunks() for name in index.column_names[2:]]
    write_parquet(files.side("images"), pa.table([*halves, *rest], schema=index.schema))


def _rename_in(tar: Path, names: Mapping[str, str]) -> None:
    """The same in the json of packed pairs, in place: a uid is as long as another. names: the new one of each."""
    with open(tar, "r+b") as file:
        size = file.seek(0, 2)
        changes = list[tuple[int, bytes]]()
        for member in (members := Members(file, size)):
            if member.name.endswith(".json"):
                facts: dict[str, Any] = json.loads(members.read(member))
                if facts["uid"] != names[facts["uid"]]:
                    said = json.dumps({**facts, "uid": names[facts["uid"]]}).encode()
                    changes.append((member.offset, said))
        for offset, said in changes:
            file.seek(offset)
            file.write(said)
        file.flush()
        os.fsync(file.fileno())
