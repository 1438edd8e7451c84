"""What pairs lie in a folder of images with a .txt beside each?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from clipsel_core.counts import counted
from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.ahead import in_order
from clipsel_core.pool.conventions import IMAGE_ENDINGS, IMAGES_END
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.record import (
    LARGEST_JSON,
    Record,
    Source,
    caption_in,
    extent_of,
    facts_in,
    fields_of_json,
    signature_of,
)
from clipsel_core.pool.sources.text import LONGEST_CAPTION, clean_text

_CAPTIONS_AT_ONCE = 32


def open_folder(base: Place) -> Source:
    """The images below `base`, at any depth, in the order of their names; a pair's key is its path. A .txt beside no
    image comes after them, as a fault.

    A .json beside an image, as img2dataset writes them, is read too: uid, url and caption.
    Raises: PoolFormatError where none has either.
    """
    files = base.files(*IMAGE_ENDINGS)
    names, sizes = [name for name, _ in files], [size for _, size in files]
    # By the name with its ending in lower case, how it is spelt; a name spelt so comes last, and goes before others.
    texts = {_with_ending(name, name[name.rindex(".") :].lower()): name for name, _ in base.files(".txt", ".json")}
    facts = sum(_with_ending(name, ".json") in texts for name in names)
    if not facts and texts.keys().isdisjoint(_with_ending(name, ".txt") for name in names):
        expected, found = "a .txt or .json beside each image", ", ".join(sorted(texts.values())[:3]) or "none"
        remedy = "give the table of captions instead of the folder"
        raise PoolFormatError(base, expected=expected, found=found, remedy=remedy)
    said = f"a folder of {counted(len(names), 'images')}, captions from the .txt beside each"
    said += f" and uids from the .json of {f'{facts:,}' if facts < len(names) else 'each'}" * (facts > 0)
    taken = {_with_ending(name, ".txt") for name in names}
    lone = sorted(name for text, name in texts.items() if text.endswith(".txt") and text not in taken)
    signature, read = signature_of(names, sizes, "folder"), partial(_read_folder, base, names, texts, lone)
    return Source("folder", base, ("",), (len(names) + len(lone),), read, said, signature, extent_of(sizes))


def _read_folder(base: Place, names: list[str], texts: dict[str, str], lone: list[str], _: int) -> Iterator[Record]:
    with ThreadPoolExecutor(_CAPTIONS_AT_ONCE if base.remote else 1) as threads:
        read = partial(_described, base, texts)
        for number, (name, record) in enumerate(
            in_order(names, lambda name: threads.submit(read, name), 2 * _CAPTIONS_AT_ONCE)
        ):
            fault = record.fault or ("" if record.key == name else "its name is not UTF-8")
            yield replace(record, fault=fault, position=number)
    for number, name in enumerate(lone, len(names)):
        key = clean_text(os.fsencode(name))
        yield Record(key, key, fault=f"a caption without an image: {key}; {IMAGES_END}", position=number)


def _described(base: Place, texts: dict[str, str], name: str) -> Record:
    """An image with what lies beside it, or what is wrong with that."""
    key = clean_text(os.fsencode(name))
    try:
        said = facts_in(_text(base, texts.get(_with_ending(name, ".json")), LARGEST_JSON))
        caption = clean_text(_text(base, texts.get(_with_ending(name, ".txt")), LONGEST_CAPTION)).strip()
    except OSError as error:
        return Record(key, key, fault=f"its caption cannot be read: {error.strerror or error}")
    return Record(key, key, caption=caption or caption_in(said).strip(), **fields_of_json(said))


def _with_ending(name: str, ending: str) -> str:
    return name[: name.rindex(".")] + ending


def _text(base: Place, name: str | None, most: int) -> bytes:
    """A file's bytes, none where there is no such file."""
    try:
        return (base / name).read(0, most) if name else b""
    except FileNotFoundError:
        return b""
