"""Does clipsel read an odd input as the plain reader does? Each difference is a line of text."""

from __future__ import annotations

import traceback
from collections import Counter
from pathlib import Path

import numpy as np

from clipsel_core import uids
from clipsel_core.curation.recipes.uidlists import read_uid_list
from clipsel_core.errors import ClipselError
from clipsel_core.pool.conventions import as_texts
from clipsel_core.pool.images import open_images
from clipsel_core.pool.inspect import inspect_pool
from clipsel_core.pool.layout import open_pool, read_column, read_uid_column
from clipsel_core.pool.making.embed import Teacher
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.sources.image_tables import with_images
from clipsel_core.pool.sources.look import open_source
from clipsel_core.pool.sources.record import Record, Source
from clipsel_core.pool.target_files import read_target_rows, split_part
from tests.oddities.compose import Case, picture
from tests.oddities.plain import REJECTED, Row

_ORDERED = ("csv", "tsv", "jsonl", "npy")
_PICTURES = {picture(number) for number in range(100)}


def differences(case: Case, out: Path) -> list[str]:
    """What clipsel makes of an input that the plain reader does not. out: a folder to write to."""
    try:
        return _CHECKS.get(case.kind, source_differences)(case, out)
    except ClipselError as error:
        found = [f"more than one line: {error!r}"] * ("\n" in str(error))
        return found if case.refusable else [*found, f"refused: {error}"]
    except Exception:
        return [traceback.format_exc()]


def source_differences(case: Case, out: Path) -> list[str]:
    """Of a source: its rows one by one where they have an order, else all of them."""
    source = open_source(case.path)
    found = [f"kind: {source.kind}, {case.kind}"] * (source.kind != case.kind)
    records = [record for part in range(len(source.parts)) for record in source.read(part)]
    rows = [row_of(source, record) for record in records]
    if case.kind in _ORDERED:
        pairs = zip(rows, case.rows, strict=False)
        found += [f"row {number}: {was}, {wanted}" for number, (was, wanted) in enumerate(pairs) if was != wanted]
        found += [f"rows: {len(rows)}, {len(case.rows)}"] * (len(rows) != len(case.rows))
    else:
        was, wanted = Counter(rows), Counter(case.rows)
        found += [f"{count} more: {row}" for row, count in (was - wanted).items()]
        found += [f"{count} fewer: {row}" for row, count in (wanted - was).items()]
    if source.glance and {"beside"}.issuperset(case.recipe.get("layout", ())):
        glanced = [record for part in range(len(source.parts)) for record in source.glance(part)]
        found += [f"at a glance {len(glanced)}, {len(records)}"] * (len(glanced) != len(records))
    if found:
        found += [f"  fault of {record.key!r}: {record.fault}" for record in records if record.fault]
    return found


def row_of(source: Source, record: Record) -> Row:
    """A record as the plain reader has it."""
    if record.in_row and not record.fault:
        (record,) = with_images(source.base, source.image_column, [record])
    if record.fault:
        return REJECTED
    image = record.data
    if image is None and record.file and record.embeddings is None:
        place = source.base / record.file
        there = place.is_file() and not record.in_row and not record.file.endswith(".parquet")
        image = place.read(record.offset, record.length) if there else None
    return Row(False, record.key, record.caption, record.uid, image)


def made_differences(case: Case, out: Path, teacher: Teacher) -> list[str]:
    """Of a source: the pool that a teacher makes of it."""
    wanted = [row for row in case.rows if row.image in _PICTURES and row.caption.strip()]
    if not wanted:
        return []
    made = make_pool(open_source(case.path), out, teacher, arch="l14", shard_size=3, workers=1)
    counts = (made.read, made.kept, sum(made.reasons.values()))
    was = (len(case.rows), len(wanted), len(case.rows) - len(wanted))
    found = [f"counts: {counts}, {was}"] * (counts != was)
    pool = open_pool(out)
    index = open_images(pool, out / "cache")
    pairs: dict[str, tuple[str, bytes | None]] = {}
    for shard in pool.shards:
        named = uids.to_hex(uids.from_hex(read_uid_column(shard))).to_pylist()
        for uid, text in zip(named, read_column(shard, "text").to_pylist(), strict=True):
            pairs[uid] = text, index.read(uid) if index else None
    lacking = Counter((row.caption, row.image) for row in wanted) - Counter(pairs.values())
    found += [f"{count} fewer: {text!r}" for (text, _), count in lacking.items()]
    given = Counter(row.uid for row in wanted)
    return found + [
        f"{row.uid} is another pair: {row}"
        for row in wanted
        if row.uid and given[row.uid] == 1 and pairs.get(row.uid) != (row.caption, row.image)
    ]


def array_differences(case: Case, out: Path) -> list[str]:
    """Of embeddings: their rows, and the pool that is made of them."""
    found = source_differences(case, out)
    wanted = [row for row in case.rows if not row.rejected]
    if found or not wanted:
        return found
    made = make_pool(open_source(case.path), out, None, arch="l14", shard_size=3)
    counts = (made.read, made.kept, sum(made.reasons.values()))
    was = (len(case.rows), len(wanted), len(case.rows) - len(wanted))
    found += [f"counts: {counts}, {was}"] * (counts != was)
    pool = open_pool(out)
    captions = [text for shard in pool.shards for text in read_column(shard, "text").to_pylist()]
    named = [uid for shard in pool.shards for uid in uids.to_hex(uids.from_hex(read_uid_column(shard))).to_pylist()]
    arrays = np.concatenate([np.load(shard.npz.path)["l14_img"] for shard in pool.shards])
    found += [f"captions: {captions}, {[row.caption for row in wanted]}"] * (
        captions != [row.caption for row in wanted]
    )
    found += [f"uids repeat: {named}"] * (len(set(named)) != len(named))
    seen = set[str]()
    for row, uid in zip(wanted, named, strict=True):
        found += [f"uid {uid}, {row.uid}"] * (bool(row.uid) and row.uid not in seen and uid != row.uid)
        seen.add(row.uid)
    assert case.embeddings is not None
    exact = case.embeddings[0].astype(np.float64)[[not row.rejected for row in case.rows]]
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    return found + ["embeddings"] * (not np.allclose(exact, arrays, atol=2e-3))


def pool_differences(case: Case, out: Path) -> list[str]:
    """Of a pool: uids and captions row by row, and each uid's image."""
    pool, found = open_pool(case.path), []
    report = inspect_pool(pool)
    found += [f"more than one line: {problem}" for problem in report.problems if "\n" in str(problem)]
    if [shard.name for shard in pool.shards] != sorted(case.pool):
        return [f"shards: {[shard.name for shard in pool.shards]}"]
    try:
        index = open_images(pool, out)
    except ClipselError as error:
        known = [image for rows in case.pool.values() for *_, image in rows if image]
        return [f"images refused: {error}"] * bool(known) + found
    for shard in pool.shards:
        wanted = case.pool[shard.name]
        named = uids.to_hex(uids.from_hex(read_uid_column(shard))).to_pylist()
        texts = as_texts(read_column(shard, shard.text_column)) if shard.text_column else [""] * shard.rows
        for uid, text, row in zip(named, texts, wanted, strict=True):
            found += [f"{shard.name}: {uid}, {text!r}, {row[:2]}"] * ((uid, text) != row[:2])
            if index and index.read(uid) != row[2]:
                found.append(f"{shard.name}: {uid} has another image: {index.read(uid)!r}, {row[2]!r}")
    return found


def list_differences(case: Case, out: Path) -> list[str]:
    """Of a list: the set of uids, ascending."""
    found = uids.to_hex(read_uid_list(case.path)).to_pylist()
    if (
        case.recipe.get("no uid")
        and "dtype" not in case.recipe
        and case.recipe.get("type") not in ("halves", "fixed", "uuid")
    ):
        return [f"taken for uids: {found}"]
    wanted = sorted({*case.uids, "0" * 32} if case.recipe.get("zero") else case.uids)
    if case.recipe.get("no uid"):
        return []
    return [f"uids: {found}, {wanted}"] * (found != wanted)


def target_differences(case: Case, out: Path) -> list[str]:
    """Of a target: its rows."""
    rows = read_target_rows(*split_part(case.path), "l14_img")
    assert case.embeddings is not None
    same = rows.shape == case.embeddings.shape and np.array_equal(rows, case.embeddings)
    return [f"rows: {rows}, {case.embeddings}"] * (not same)


_CHECKS = {
    "npy": array_differences,
    "pool": pool_differences,
    "uid list": list_differences,
    "target": target_differences,
}
