"""How does the field name things? A pair's key and uid, the endings of pictures, what is hidden: decided here alone."""

from __future__ import annotations

import re

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

_UID = re.compile("[0-9A-Fa-f]{1,32}")


def split_key(name: str) -> tuple[str, str]:
    """A file's key and ending, as the webdataset library splits them: at the first dot after the last slash.

    >>> split_key("./part.1/000.seg.PNG")
    ('part.1/000', '.seg.png')
    """
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, dot, ending = file.partition(".")
    return folder + slash + stem, dot + ending.lower()


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder it lies in, has a name that begins with a dot, as AppleDouble's ._x does.

    >>> is_hidden("shards/._000.tar"), is_hidden("./a.jpg"), is_hidden("../a.jpg")
    (True, False, False)
    """
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def usable_uid(value: object) -> str:
    """A source's uid as 32 lower-case hex digits, or nothing where it is not 1 to 32 of them."""
    # Not through `uids`, whose columns are quick: one by one they would take as long as the rest of a record.
    return value.lower().zfill(32) if isinstance(value, str) and _UID.fullmatch(value) else ""
