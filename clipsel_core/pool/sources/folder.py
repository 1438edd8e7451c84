"""What pairs lie in a folder of images with a .txt beside each?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath

from clipsel_core.counts import counted
from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.ahead import in_order
from clipsel_core.pool.conventions import IMAGE_ENDINGS
from clipsel_core.pool.places import Place
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

_CAPTIONS_AT_ONCE = 32


def open_folder(base: Place) -> Source:
    """The images below `base`, at any depth, in the order of their names; a pair's key is its path. A .txt beside no
    image comes after them, as a fault.

    Where the first of them has a .json beside it too, as img2dataset writes them, each is read: uid, url and caption.
    Raises: PoolFormatError where none has either.
    """
    files = base.files(*IMAGE_ENDINGS)
    names, sizes = [name for name, _ in files], [size for _, size in files]
    texts = {name for name, _ in base.files(".txt", ".json")}
    if texts.isdisjoint(_beside(name, ending) for name in names for ending in (".txt", ".json")):
        expected, found = "a .txt or .json beside each image", ", ".join(sorted(texts)[:3]) or "none"
        remedy = "give the table of captions instead of the folder"
        raise PoolFormatError(base, expected=expected, found=found, remedy=remedy)
    facts = bool(names) and (base / _beside(names[0], ".json")).is_file()
    said = f"a folder of {counted(len(names), 'images')}, captions from the .txt beside each"
    said += " and uids from the .json" * facts
    taken = {_beside(name, ".txt") for name in names}
    lone = sorted(name for name in texts if name.lower().endswith(".txt") and name not in taken)
    signature, read = signature_of(names, sizes, "folder"), partial(_read_folder, base, names, lone, facts)
    return Source("folder", base, ("",), (len(names) + len(lone),), read, said, signature, extent_of(sizes))


def _read_folder(base: Place, names: list[str], lone: list[str], facts: bool, part: int) -> Iterator[Record]:
    yield from _read_images(base, names, facts, part)
    for number, name in enumerate(lone, len(names)):
        key = clean_text(os.fsencode(name))
        yield Record(key, key, fault="a caption without an image", position=number)


def _read_images(base: Place, names: list[str], facts: bool, _: int) -> Iterator[Record]:
    with ThreadPoolExecutor(_CAPTIONS_AT_ONCE if base.remote else 1) as threads:
        read = partial(_described, base, facts)
        for number, (name, record) in enumerate(
            in_order(names, lambda name: threads.submit(read, name), 2 * _CAPTIONS_AT_ONCE)
        ):
            fault = record.fault or ("" if record.key == name else "its name is not UTF-8")
            yield replace(record, fault=fault, position=number)


def _described(base: Place, facts: bool, name: str) -> Record:
    """An image with what lies beside it, or what is wrong with that."""
    key = clean_text(os.fsencode(name))
    try:
        said = facts_in(_text(base, _beside(name, ".json"), LARGEST_JSON)) if facts else {}
        caption = clean_text(_text(base, _beside(name, ".txt"), LONGEST_CAPTION)).removeprefix("\ufeff").strip()
    except OSError as error:
        return Record(key, key, fault=f"its caption cannot be read: {error.strerror or error}")
    return Record(key, key, caption=caption or caption_in(said).strip(), **named_in(said))


def _beside(name: str, ending: str) -> str:
    return str(PurePosixPath(name).with_suffix(ending))


def _text(base: Place, name: str, most: int) -> bytes:
    """A file's bytes, none where there is no such file."""
    try:
        return (base / name).read(0, most)
    except FileNotFoundError:
        return b""
