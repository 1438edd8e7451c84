"""What pairs lie in webdataset tars? img2dataset's layout: <key>.jpg, <key>.txt, <key>.json, one after the other."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

from clipsel_core.counts import counted
from clipsel_core.errors import PoolFormatError, reason_of
from clipsel_core.pool.conventions import IMAGE_ENDINGS, split_key
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.members import Member, Members
from clipsel_core.pool.sources.record import (
    LARGEST_JSON,
    LONGEST_CAPTION,
    Record,
    Source,
    caption_in,
    clean_text,
    extent_of,
    facts_in,
    named_in,
    signature_of,
)


@dataclass
class _Sample:
    """The members that share a key, as they come by."""

    key: str
    place: tuple[int, int] | None = None
    data: bytes | None = None
    text: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    cut: bool = False


def open_tars(base: Place, names: tuple[str, ...]) -> Source:
    """The pairs of these tars, which lie below `base`. A remote tar is read once from end to end, images and all.

    Raises: PoolFormatError where not one of them is a tar; OSError where one cannot be read.
    """
    _check_one_is_a_tar(base, names)
    sizes = tuple((base / name).size() for name in names)
    said = f"webdataset, {counted(len(names), 'tars')}"
    read, glance = (partial(_read_part, base, names, names_only=only) for only in (False, True))
    signature = signature_of(names, sizes, "webdataset")
    return Source("webdataset", base, names, sizes, read, said, signature, extent_of(sizes), glance=glance)


def _check_one_is_a_tar(base: Place, names: tuple[str, ...]) -> None:
    """Tells tars, damaged ones among them, from files that were only called so. Raises: PoolFormatError, OSError."""
    found = ""
    for name in names:
        try:
            with (base / name).open() as raw:
                next(iter(Members(raw, (base / name).size())), None)
            return
        except (tarfile.TarError, EOFError, ValueError) as error:
            found = found or str(error)
    remedy = "give tars that are not compressed, or another --format"
    raise PoolFormatError(base / names[0], expected="a tar", found=found, remedy=remedy)


def _read_part(base: Place, names: tuple[str, ...], part: int, *, names_only: bool) -> Iterator[Record]:
    name = names[part]
    sample: _Sample | None = None
    position, fault = 0, ""
    try:
        size = (base / name).size()
        with (base / name).open() as raw:
            tar = Members(raw, size)
            for member in tar:
                key, ending = split_key(member.name)
                if not key or key.endswith("/"):
                    continue
                if sample is None or sample.key != key:
                    if sample:
                        yield _record(name, sample, position)
                    sample = _Sample(key)
                if not (names_only and ending == ".txt"):
                    _take(tar, member, ending, sample, size, keep=base.remote and not names_only)
                position = member.offset
            fault = _end_fault(raw, tar.end)
    except OSError as error:
        # A tar that comes to an end is damage, and listed; a store or a disk that fails is not the tar's fault.
        remedy = "start again when it can be: finished shards are kept"
        found = reason_of(error)
        raise PoolFormatError(base / name, expected="a tar that can be read", found=found, remedy=remedy) from error
    except (tarfile.TarError, EOFError, ValueError) as error:
        fault = f"the tar cannot be read {'on' if position else 'at all'}: {error}"
    if sample:
        yield _record(name, sample, position)
    if fault:
        yield Record("", name, fault=fault, position=position)


def _take(tar: Members, member: Member, ending: str, sample: _Sample, size: int, *, keep: bool) -> None:
    if member.offset + member.size > size:
        sample.cut = True
    elif ending in IMAGE_ENDINGS:
        if sample.place is None and keep:
            sample.data = tar.read(member)
        sample.place = sample.place or (member.offset, member.size)
    elif ending == ".txt":
        sample.text = clean_text(tar.read(member, LONGEST_CAPTION))
    elif ending == ".json" and member.size <= LARGEST_JSON:
        sample.facts = facts_in(tar.read(member))


def _record(name: str, sample: _Sample, position: int) -> Record:
    if sample.cut or sample.place is None:
        fault = "the tar is cut off within it" if sample.cut else "a key without an image"
        return Record(sample.key, name, fault=fault, position=position)
    caption = sample.text if sample.text.strip() else caption_in(sample.facts)
    return Record(
        key=sample.key,
        file=name,
        caption=caption,
        offset=sample.place[0],
        length=sample.place[1],
        data=sample.data,
        position=position,
        **named_in(sample.facts),
    )


def _end_fault(file: BinaryIO, end: int) -> str:
    """What is wrong with the place where Members stopped: it stops at damage as quietly as at the end mark."""
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) == tarfile.BLOCKSIZE and not block.strip(b"\0"):
        return ""
    return f"the tar is {'damaged' if len(block) == tarfile.BLOCKSIZE else 'cut off'} at byte {end:,}"
