"""How does the field name things? A pair's key and uid, the endings of pictures, what is hidden: decided here alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from uuid import UUID

IMAGE_ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
"""What the names of pictures end with, in any case."""
IMAGES_END = f"images end with {', '.join(IMAGE_ENDINGS)}"
"""The same for people: what a file that is none of them is told."""
MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
}
"""The formats of pictures that are read, as Pillow calls them, whatever the names end with, and their media types.

An MPO, a camera's file of several JPEGs, is opened as JPEG. No other format is tried: for EPS Pillow starts another
program.
"""

_UID = re.compile("[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_SHORT_UID = re.compile("[0-9A-Fa-f]{1,31}")


def split_key(name: str) -> tuple[str, str]:
    """A file's key and ending, as the webdataset library splits them: at the first dot after the last slash.

    >>> split_key("./part.1/000.seg.PNG")
    ('part.1/000', '.seg.png')
    """
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, dot, ending = file.partition(".")
    return folder + slash + stem, dot + ending.lower()


def find_column(names: Iterable[str], usual: Sequence[str]) -> str | None:
    """The first of the usual names of a column that is there, in any case, as it is written; None where none is.

    >>> find_column(["UID", "TEXT"], ("caption", "text"))
    'TEXT'
    """
    known = {name.strip().lower(): name for name in reversed(list(names))}
    return next((known[name] for name in usual if name in known), None)


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder it lies in, has a name that begins with a dot, as AppleDouble's ._x does.

    >>> is_hidden("shards/._000.tar"), is_hidden("./a.jpg"), is_hidden("../a.jpg")
    (True, False, False)
    """
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def usable_uid(value: object) -> str:
    """A source's uid as 32 lower-case hex digits: it is 32 of them or a UUID with dashes, in either case; else nothing.

    Fewer digits are not read as hex: 10 may be ten.

    >>> usable_uid("0E984725-C51C-4BF4-9960-E1C80E27ABA0"), usable_uid("10")
    ('0e984725c51c4bf49960e1c80e27aba0', '')
    """
    # Not through `uids`, whose columns are quick: one by one they would take as long as the rest of a record.
    if isinstance(value, str):
        return value.replace("-", "").lower() if _UID.fullmatch(value) else ""
    return value.hex if isinstance(value, UUID) else ""


def padded_uid(value: object) -> str:
    """The same for a uid that is only compared with a pool's: there fewer digits are padded with zeros."""
    short = isinstance(value, str) and _SHORT_UID.fullmatch(value)
    return str(value).lower().zfill(32) if short else usable_uid(value)
