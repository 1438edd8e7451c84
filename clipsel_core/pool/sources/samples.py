"""What pairs do files named alike make: <key>.jpg, <key>.txt, <key>.json? In webdataset tars, or in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from clipsel_core.errors import PoolFormatError, counted, reason_of
from clipsel_core.places import Place
from clipsel_core.pool.conventions import (
    IMAGE_ENDINGS,
    IMAGES_END,
    LARGEST_JSON,
    LONGEST_CAPTION,
    caption_in,
    clean_text,
    facts_in,
)
from clipsel_core.pool.sources.members import DAMAGE, Members, TarSamples
from clipsel_core.pool.sources.record import Record, Source, fields_of_json, source_of_files
from clipsel_core.tasks import in_order

_CAPTIONS_AT_ONCE = 32


def open_tars(base: Place, names: tuple[str, ...], *, captions: bool = True) -> Source:
    """The pairs of these tars, which lie below `base`. A remote tar is read once from end to end, images and all.

    captions: whether they are read; without them an image by itself is enough.
    Raises: PoolFormatError where not one of them is a tar; OSError where one cannot be read.
    """
    found = ""
    for name in names:
        # One that begins as a tar is enough: a damaged one is its own fault, not the source's.
        try:
            with (base / name).open() as raw:
                next(iter(Members(raw, (base / name).size())), None)
            break
        except DAMAGE as error:
            found = found or str(error)
    else:
        remedy = "give tars that are not compressed, or another --format"
        raise PoolFormatError(base / names[0], expected="a tar", found=found, remedy=remedy)
    read = partial(_read_tar, base, names, keep=base.remote, captions=captions)
    glance = partial(_read_tar, base, names, keep=False, captions=False)
    outline = partial(_read_tar, base, names, keep=False, captions=captions) if base.remote else None
    said = f"webdataset, {counted(len(names), 'tars')}"
    return source_of_files("webdataset", base, names, read, said, glance=glance, outline=outline)


def _read_tar(base: Place, names: tuple[str, ...], part: int, *, keep: bool, captions: bool) -> Iterator[Record]:
    name = names[part]
    try:
        size = (base / name).size()
        with (base / name).open() as raw:
            for sample in TarSamples(Members(raw, size), size, keep=keep, captions=captions):
                if sample.fault or sample.place is None:
                    files = " and ".join(f"{sample.key}{ending}" for ending in list(sample.endings)[:3])
                    fault = sample.fault or f"a key without an image: {files}; {IMAGES_END}"
                    yield Record(sample.key, name, fault=fault, position=sample.position)
                    continue
                yield Record(
                    key=sample.key,
                    file=name,
                    caption=sample.caption or caption_in(sample.facts),
                    offset=sample.place[0],
                    length=sample.place[1],
                    data=sample.data,
                    position=sample.position,
                    **fields_of_json(sample.facts),
                )
    except OSError as error:
        # A tar that comes to an end is damage, and listed; a store or a disk that fails is not the tar's fault.
        remedy = "start again when it can be: finished shards are kept"
        found = reason_of(error)
        raise PoolFormatError(base / name, expected="a tar that can be read", found=found, remedy=remedy) from error


def open_folder(base: Place, *, captions: bool = True) -> Source:
    """The images below `base`, at any depth, in the order of their names; a pair's key is its path. A .txt beside no
    image comes after them, as a fault.

    A .json beside an image, as img2dataset writes them, is read too: uid, url and caption. captions: whether anything
    beside the images is read.
    Raises: PoolFormatError where none has either.
    """
    files = base.files(*IMAGE_ENDINGS)
    names, sizes = [name for name, _ in files], [size for _, size in files]
    if not captions:
        only, said = partial(_read_folder, base, names, {}, []), f"a folder of {counted(len(names), 'images')}"
        return _as_one_part(base, names, only, said, sizes, len(names))
    # By the name with its ending in lower case, how it is spelt; a name spelt so comes last, and goes before others.
    texts = {_with_ending(name, name[name.rindex(".") :].lower()): name for name, _ in base.files(".txt", ".json")}
    facts = sum(_with_ending(name, ".json") in texts for name in names)
    taken = {_with_ending(name, ".txt") for name in names}
    if not facts and texts.keys().isdisjoint(taken):
        expected, found = "a .txt or .json beside each image", ", ".join(sorted(texts.values())[:3]) or "none"
        remedy = "give the table of captions instead of the folder"
        raise PoolFormatError(base, expected=expected, found=found, remedy=remedy)
    said = f"a folder of {counted(len(names), 'images')}, captions from the .txt beside each"
    said += f" and uids from the .json of {f'{facts:,}' if facts < len(names) else 'each'}" * (facts > 0)
    lone = sorted(name for text, name in texts.items() if text.endswith(".txt") and text not in taken)
    read = partial(_read_folder, base, names, texts, lone)
    return _as_one_part(base, names, read, said, sizes, len(names) + len(lone))


def _as_one_part(
    base: Place, names: list[str], read: Callable[..., Iterator[Record]], said: str, lengths: list[int], rows: int
) -> Source:
    more: dict[str, Any] = {"parts": ("",), "sizes": (rows,), "counts": (rows,), "read_on": read}
    return source_of_files("folder", base, names, read, said, lengths=lengths, **more)


def _read_folder(
    base: Place, names: list[str], texts: dict[str, str], lone: list[str], _: int, before: int = 0
) -> Iterator[Record]:
    def beside(name: str, ending: str, most: int) -> bytes:
        try:
            file = texts.get(_with_ending(name, ending))
            return (base / file).read(0, most) if file else b""
        except FileNotFoundError:
            return b""

    def described(name: str) -> Record:
        """An image with what lies beside it, or what is wrong with that."""
        key = clean_text(os.fsencode(name))
        try:
            said = facts_in(beside(name, ".json", LARGEST_JSON))
            caption = clean_text(beside(name, ".txt", LONGEST_CAPTION)).strip()
        except OSError as error:
            return Record(key, key, fault=f"its caption cannot be read: {error.strerror or error}")
        return Record(key, key, caption=caption or caption_in(said).strip(), **fields_of_json(said))

    with ThreadPoolExecutor(_CAPTIONS_AT_ONCE if base.remote else 1) as threads:
        found = in_order(names[before:], lambda name: threads.submit(described, name), 2 * _CAPTIONS_AT_ONCE)
        for number, (name, record) in enumerate(found, before):
            fault = record.fault or ("" if record.key == name else "its name is not UTF-8")
            yield replace(record, fault=fault, position=number)
    further = max(0, before - len(names))
    for number, name in enumerate(lone[further:], len(names) + further):
        key = clean_text(os.fsencode(name))
        yield Record(key, key, fault=f"a caption without an image: {key}; {IMAGES_END}", position=number)


def _with_ending(name: str, ending: str) -> str:
    return name[: name.rindex(".")] + ending
