"""What pairs lie in a folder of images with a .txt beside each?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from clipsel_core.pool.sources.record import (
    IMAGE_ENDINGS,
    LONGEST_CAPTION,
    Record,
    Source,
    clean_text,
    signature_of,
)


def open_folder(base: Path) -> Source:
    """The images below `base`, at any depth, in the order of their names; a pair's key is its path."""
    names = image_names(base)
    said = f"a folder of {len(names):,} images, captions from the .txt beside each"
    sizes = tuple((base / name).stat().st_size for name in names)
    signature = signature_of(names, sizes, "folder")
    return Source("folder", base, ("",), (len(names),), partial(_read_images, base, names), said, signature)


def image_names(base: Path) -> list[str]:
    """Every image below a folder but those in hidden ones, as paths relative to it, in order."""
    found = []
    for folder, folders, files in os.walk(base):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = Path(folder).relative_to(base)
        images = (name for name in files if name.lower().endswith(IMAGE_ENDINGS) and not name.startswith("."))
        found += [(inner / name).as_posix() for name in images]
    return sorted(found)


def _read_images(base: Path, names: list[str], _: int) -> Iterator[Record]:
    for number, name in enumerate(names):
        key = clean_text(os.fsencode(name))
        try:
            with open((base / name).with_suffix(".txt"), "rb") as file:
                caption = clean_text(file.read(LONGEST_CAPTION)).removeprefix("\ufeff").strip()
        except FileNotFoundError:
            caption = ""
        except OSError as error:
            yield Record(key, key, fault=f"its caption cannot be read: {error.strerror}", position=number)
            continue
        fault = "" if key == name else "its name is not UTF-8"
        yield Record(key, key, caption=caption, fault=fault, position=number)
