"""What a pool is, at a glance: what a curator wants to know before scoring it."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsel_core.errors import PoolFormatError, counted, reason_of
from clipsel_core.npy import read_array
from clipsel_core.places import Place
from clipsel_core.pool.conventions import IMAGE_ENDINGS, as_texts, facts_in, padded_uid, split_key
from clipsel_core.pool.embeddings import describe_row, find_member, remedy_for, stored_scale
from clipsel_core.pool.layout import Arch, Pool, Shard, check_uids, parquet_file, read_column
from clipsel_core.pool.sources.members import Members, damage_at_a_glance
from clipsel_core.tasks import Report, silent

_FIRST_MEMBERS = 60
_LARGEST_JSON = 1 << 20


@dataclass(frozen=True)
class Problem:
    """Something wrong with a pool, in one line. stops: whether scoring stops at it, or mends it."""

    text: str
    stops: bool = True


@dataclass(frozen=True)
class PoolReport:
    """A pool and what is wrong with it."""

    pool: Pool
    problems: tuple[Problem, ...]

    @property
    def stops(self) -> bool:
        """Whether scoring would stop at a problem."""
        return any(problem.stops for problem in self.problems)

    @property
    def npz_count(self) -> int:
        """Shards whose embeddings are there."""
        return sum(shard.npz is not None for shard in self.pool.shards)


def inspect_pool(pool: Pool, *, values: bool = True, report: Report = silent) -> PoolReport:
    """Checks a pool's uids, headers and, with `values`, every embedding and caption; collects what it finds.

    report: told after each shard how many of how many pairs are done.
    """
    problems = []
    if not pool.archs:
        problems.append(Problem(f"{pool.root / 'metadata'}: no teacher's embeddings in any .npz"))
    done = 0
    # Captions are read beside the embeddings, which take most of the time.
    with ThreadPoolExecutor(1) as threads:
        captions = threads.map(_look_at_captions, pool.shards if values else ())
        for shard in pool.shards:
            problems += _shard_problems(shard, list(pool.archs.values()), values=values)
            done += shard.rows
            report(done, pool.rows, "pairs")
        problems += _caption_problems(pool, captions)
    try:
        check_uids(pool)
    except PoolFormatError as error:
        problems.append(Problem(str(error)))
    odd: dict[str, list[str]] = {}
    for shard in pool.shards:
        for said in _odd_columns(shard, pool):
            odd.setdefault(said, []).append(shard.name)
    for said, names in odd.items():
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        problems.append(Problem(f"shard {names[0]}{more}: {said}", stops=False))
    problems += _image_problems(pool)
    return PoolReport(pool, tuple(problems))


def _shard_problems(shard: Shard, archs: list[Arch], *, values: bool) -> Iterator[Problem]:
    """Everything that keeps a shard from being scored, and what scoring will mend.

    values: also read every embedding, to find rows that are zero, NaN, infinite or not of unit length.
    """
    if shard.uid_column is None:
        yield Problem(f"shard {shard.name}: no column uid")
    for arch in archs:
        for member in (arch.image_member, arch.text_member):
            try:
                npz, found = find_member(shard, member)
                if found.shape[1] != arch.width:
                    said = f"{member} has width {found.shape[1]}, in the pool's first npz {arch.width}"
                    yield Problem(f"shard {shard.name}: {said}")
                    continue
                if not values:
                    read_array(npz, found)  # one that is compressed may be damaged
                    continue
                scale = stored_scale(npz, found)
                bad = np.flatnonzero(np.isnan(scale))
                if len(bad):
                    row = read_array(npz, found)[bad[0]]
                    said = f"the first is row {bad[0]}: {describe_row(row)}; {remedy_for(row)}"
                    yield Problem(f"shard {shard.name}: {counted(len(bad), 'bad rows')} in {member}, {said}")
                if off := int((scale[np.isfinite(scale)] != 1).sum()):
                    said = f"{counted(off, 'rows')} in {member} a little off unit length; scoring scales them"
                    yield Problem(f"shard {shard.name}: {said}", stops=False)
            except PoolFormatError as error:
                yield Problem(str(error))


class _Captions(NamedTuple):
    """A shard's captions. empty, damaged: how many say nothing, and are not UTF-8. fault: why they cannot be read."""

    empty: int = 0
    damaged: int = 0
    fault: str = ""


def _look_at_captions(shard: Shard) -> _Captions:
    if shard.text_column is None:
        return _Captions()
    try:
        column = read_column(shard, shard.text_column)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            return _Captions(sum(not text.strip() for text in as_texts(column)))
        damaged = 0
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            damaged = sum("\ufffd" in text for text in as_texts(column))
        # Without a scalar of ours: making one imports pandas, which takes longer than a small pool.
        says = pc.cast(pc.binary_length(pc.ascii_trim_whitespace(column)), pa.bool_())
        return _Captions(len(column) - (pc.sum(says).as_py() or 0), damaged)
    except (PoolFormatError, pa.ArrowException) as error:
        return _Captions(fault=reason_of(error))


def _caption_problems(pool: Pool, captions: Iterable[_Captions]) -> Iterator[Problem]:
    seen = list(zip(pool.shards, captions, strict=False))
    yield from (
        Problem(f"shard {shard.name}: captions: {found.fault}", stops=False) for shard, found in seen if found.fault
    )
    for what, said in (("empty", "empty"), ("damaged", "not UTF-8; U+FFFD stands for what cannot be read")):
        counts = [(shard, count) for shard, found in seen if (count := getattr(found, what))]
        if counts:
            total = counted(sum(count for _, count in counts), "captions")
            yield Problem(f"{total} of {pool.rows:,}, the first in shard {counts[0][0].name}: {said}", stops=False)


def _odd_columns(shard: Shard, pool: Pool) -> Iterator[str]:
    """In what a shard differs from others; shards that differ in the same way say the same."""
    text = shard.text_column
    if text is None and pool.text_column:
        yield "no column of captions; they count as empty"
    elif text and shard.columns[text] == "null":
        yield f"{text} is of type null; captions count as empty"
    elif text and "list<" in shard.columns[text]:
        yield f"{text} is {shard.columns[text]}; the first text of each list is the caption"
    if shard.url_column is None and pool.url_column:
        yield "no column of urls; they count as empty"
    for name, kind in shard.columns.items():
        if "struct<" in kind and name.lower() in ("text", "caption"):
            yield f"{name} is {kind}, which is no caption"
        elif name != text and kind != pool.columns[name]:
            yield f"{name} is {kind}, elsewhere {pool.columns[name]}"


def _image_problems(pool: Pool) -> Iterator[Problem]:
    """Images that cannot be found though there are some, and indexes without any."""
    if pool.indexes:
        try:
            if not any(parquet_file(index).metadata.num_rows for index in pool.indexes):
                remedy = "embed TARS POOL with a second teacher gives the pool its images"
                yield Problem(f"{pool.root / 'images'}: no image of any pair; {remedy}", stops=False)
        except (pa.ArrowException, OSError) as error:
            yield Problem(f"{pool.root / 'images'}: {reason_of(error)}; embed the pool again", stops=False)
        return
    for tar in pool.tars:
        if damage := damage_at_a_glance(tar):
            yield Problem(f"{tar}: {damage}; download it again", stops=False)
    nameless = [tar for tar in pool.tars if _names_no_pair(tar)]
    if nameless:
        more = f" and {counted(len(nameless) - 1, 'more tars')}" if len(nameless) > 1 else ""
        said = f"no uid in any json of the first {_FIRST_MEMBERS} members, so none of its images is found"
        remedy = "make a pool of the tars with embed"
        yield Problem(f"{nameless[0]}{more}: {said}; {remedy}", stops=False)


def _names_no_pair(tar: Place) -> bool:
    """Whether a tar begins with images none of which has a uid. One that cannot be read is none."""
    images = 0
    try:
        with tar.open() as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            members = Members(file, size)
            for member in islice(members, _FIRST_MEMBERS):
                ending = split_key(member.name)[1]
                images += ending in IMAGE_ENDINGS
                small = ending == ".json" and member.size <= _LARGEST_JSON
                if small and padded_uid(facts_in(members.read(member)).get("uid")):
                    return False
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return False
    return images > 0
