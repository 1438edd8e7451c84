"""How does the field write things down? Keys, uids, endings of pictures, names of columns, encodings: decided here."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

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
IMAGE_COLUMNS = (
    *("image_path", "img_path", "path", "filepath", "file_path", "file_name", "filename", "file"),
    *("image", "img", "image_name", "image_file", "image_id", "photo", "picture", "jpg", "png", "webp"),
)
"""What sources call their column of images or of their paths, the usual names first; and the one of captions:"""
TEXT_COLUMNS = ("caption", "text", "txt", "captions", "description", "title", "alt", "alt_text", "sentence", "comment")
NAMES_OF_PAIRS = ("sha256", "key", "source_uid", "json")
"""Columns of a pool that `embed` made that say something else of each pair, and sort none."""
POOL_TEXT_COLUMNS = ("text", "caption", "captions", "txt", "alt_text")
"""What pools call their column of captions."""
UID_NAMES, UID_HALF_NAMES = ("uid", "uids"), ("uid_hi", "uid_lo")
"""What files call their column of uids, and those of their halves, in any case."""
COUNT_NAME = "count"
"""What lists of uids call their column of how often each counts, in any case."""
LONGEST_CAPTION = 1 << 20
"""Bytes of a caption that are read at all."""
LARGEST_JSON = 1 << 24
"""Bytes of a pair's json above which it is left unread."""
A_ROW, WHOLE_FILE, NOWHERE = -1, -2, -3
"""In place of an image's length: it is a row of a parquet (offset: which), it is all of its file, there is none."""
UNDECODABLE = "\udcff"
"""Stands in decoded text, until it is a record's, for bytes that mean nothing in its encoding."""
DECODE_ERRORS = "clipsel.undecodable"
"""How Python's decoders are told so."""
SAVE_AS = "save it as UTF-8, or as UTF-16 with a byte order mark"
"""What to do about text that cannot be decoded."""
WHITE_SPACE = r"\s\pZ\x0b\x1c-\x1f\x{85}"
"""What Python's str.split takes for white space, within the brackets of an RE2 pattern, whose \\s knows six of them."""
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
"""What separates the fields of a table, and its name."""

codecs.register_error(DECODE_ERRORS, lambda error: (UNDECODABLE, error.end))  # type: ignore[attr-defined]
# UTF-32's begins with UTF-16's.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    *((mark, "utf-32") for mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
    *((mark, "utf-16") for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
)
_LONE_HALVES = re.compile("[\ud800-\udcfe\udd00-\udfff]")
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


def find_uids(names: Sequence[str]) -> tuple[str, ...]:
    """The column of uids, or those of their halves, in any case; nothing where there is neither.

    >>> find_uids(["UID_LO", "uid_hi", "a"])
    ('uid_hi', 'UID_LO')
    """
    if uid := find_column(names, UID_NAMES):
        return (uid,)
    high, low = (find_column(names, [half]) for half in UID_HALF_NAMES)
    return (high, low) if high and low else ()


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


def encoding_of(head: bytes) -> str:
    """What text is encoded in, by the byte order mark at its beginning; UTF-8 where it has none."""
    return next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), "utf-8")


def separator_of(line: str, usual: str = ",") -> str:
    """What separates the fields of a table's first line: the most frequent of SEPARATORS outside quotes."""
    bare = re.sub('"[^"]*"', "", line)
    return max(SEPARATORS, key=lambda mark: (bare.count(mark), mark == usual))


def clean_text(value: object) -> str:
    """A caption or url as text that any file can hold; half a character becomes a question mark.

    Bytes are decoded by their byte order mark, which is not part of the text; what means nothing is UNDECODABLE.
    Of several captions, as tables of photographs have them, the first that says something. An object is no text.
    """
    if isinstance(value, str):
        return value if value.isascii() else _LONE_HALVES.sub("?", value)
    if isinstance(value, list):
        return next((text for item in value if (text := clean_text(item)).strip()), "")
    if isinstance(value, bytes):
        if value.isascii():
            return value.decode("ascii")
        # A caption that was cut at the longest length may end within a character.
        decoder = codecs.getincrementaldecoder(encoding_of(value))(DECODE_ERRORS)
        return decoder.decode(value, len(value) < LONGEST_CAPTION)
    return "" if value is None or isinstance(value, dict) or value != value else str(value)


def as_bytes(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """A column of texts, or of lists of them, as bytes: one that is not UTF-8 would keep all from being read."""
    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        kind = kind.value_type
        column = pc.cast(column, kind)
    if types.is_list(kind) and types.is_string(kind.value_type):
        return pc.cast(column, pa.list_(pa.binary()))
    if types.is_large_list(kind) and types.is_large_string(kind.value_type):
        return pc.cast(column, pa.large_list(pa.large_binary()))
    if types.is_string(kind) or types.is_string_view(kind):
        return pc.cast(column, pa.binary())
    return pc.cast(column, pa.large_binary()) if types.is_large_string(kind) else column


def as_texts(column: pa.ChunkedArray) -> list[str]:
    """A column's values as text: "" where there is none, of a list the first that says something.

    What is not UTF-8 becomes U+FFFD.
    """
    column = pc.cast(column, pa.string()) if pa.types.is_boolean(column.type) else as_bytes(column)
    return [clean_text(value).replace(UNDECODABLE, "\ufffd") for value in column.to_pylist()]


def facts_in(text: bytes | str) -> dict[str, Any]:
    """What a pair's json says, or nothing where it is broken: the pair can do without."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def caption_in(facts: Mapping[str, Any]) -> str:
    """The caption that a pair's json gives, if any."""
    return clean_text(facts.get("caption") or facts.get("text"))
