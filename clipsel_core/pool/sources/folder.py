"""What pairs lie in a folder of images with a .txt beside each?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath

from clipsel_core.pool.ahead import in_order
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.record import (
    IMAGE_ENDINGS,
    LONGEST_CAPTION,
    Record,
    Source,
    clean_text,
    signature_of,
)

_CAPTIONS_AT_ONCE = 32


def open_folder(base: Place) -> Source:
    """The images below `base`, at any depth, in the order of their names; a pair's key is its path."""
    files = base.files(*IMAGE_ENDINGS)
    names, sizes = [name for name, _ in files], [size for _, size in files]
    said = f"a folder of {len(names):,} images, captions from the .txt beside each"
    signature = signature_of(names, sizes, "folder")
    return Source("folder", base, ("",), (len(names),), partial(_read_images, base, names), said, signature)


def _read_images(base: Place, names: list[str], _: int) -> Iterator[Record]:
    with ThreadPoolExecutor(_CAPTIONS_AT_ONCE if base.remote else 1) as threads:
        captions = in_order(names, lambda name: threads.submit(_caption, base, name), 2 * _CAPTIONS_AT_ONCE)
        for number, (name, (caption, fault)) in enumerate(captions):
            key = clean_text(os.fsencode(name))
            fault = fault or ("" if key == name else "its name is not UTF-8")
            yield Record(key, key, caption=caption, fault=fault, position=number)


def _caption(base: Place, name: str) -> tuple[str, str]:
    """The caption beside an image, or what is wrong with it."""
    try:
        text = (base / str(PurePosixPath(name).with_suffix(".txt"))).read(0, LONGEST_CAPTION)
    except FileNotFoundError:
        return "", ""
    except OSError as error:
        return "", f"its caption cannot be read: {error.strerror or error}"
    return clean_text(text).removeprefix("\ufeff").strip(), ""
