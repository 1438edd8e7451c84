"""What is a pair before it is in a pool, and what can be asked of the place it comes from?"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict
from uuid import UUID

import numpy as np

from clipsel_core.counts import counted
from clipsel_core.pool.conventions import usable_uid
from clipsel_core.pool.places import Place

FORMATS = ("webdataset", "folder", "csv", "tsv", "jsonl", "parquet", "arrow", "clip-retrieval", "npy")
SAVE_AS = "save it as UTF-8, or as UTF-16 with a byte order mark"
"""What to do about text that cannot be decoded."""
LONGEST_CAPTION = 1 << 20
"""Bytes of a caption that are read at all."""
_NAMED = {"uid", "key", "caption", "url"}
LARGEST_JSON = 1 << 24
"""Bytes of a pair's json above which it is left unread."""

UNDECODABLE = "\udcff"
"""Stands in decoded text, until it is a record's, for bytes that mean nothing in its encoding."""
DECODE_ERRORS = "clipsel.undecodable"
"""The error handler that puts it there, by the name that codecs know it by."""
codecs.register_error(DECODE_ERRORS, lambda error: (UNDECODABLE, error.end))  # type: ignore[attr-defined]

# UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    *((mark, "utf-32") for mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
    *((mark, "utf-16") for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
)
_LONE_HALVES = re.compile("[\ud800-\udcfe\udd00-\udfff]")
_ALL_HALVES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Record:
    """One pair as its source has it; its image is not decoded yet, and mostly not read.

    key: its name in the source. file: what holds its image, relative to the source's base or absolute.
    offset, length: where the encoded image lies in the file; length None means all of it.
    data: the encoded image where the source had to read it anyway. in_row: offset is a row of the file, a parquet.
    embeddings: of image and caption, (2, D), where the source has these; it may have no image then, and file is "".
    uid: 32 hex digits, or nothing where the source has none. source_uid: the source's own text, where it is another.
    width, height: of the original, where the source knows.
    facts: the JSON of whatever else the source's json says of the pair, or nothing.
    fault: why this is no pair after all; then the rest may be missing. position: how far the part has been read.
    """

    key: str
    file: str
    caption: str = ""
    offset: int = 0
    length: int | None = None
    data: bytes | None = None
    in_row: bool = False
    embeddings: np.ndarray | None = None
    uid: str = ""
    source_uid: str = ""
    url: str = ""
    width: int | None = None
    height: int | None = None
    facts: str = ""
    fault: str = ""
    position: int = 0

    def __post_init__(self) -> None:
        """Whoever read it: a caption that could not be decoded is a fault, and nothing here is unfit for a file."""
        if self.caption.isascii() and self.key.isascii() and self.url.isascii() and self.source_uid.isascii():
            return
        if UNDECODABLE in self.caption and not self.fault:
            object.__setattr__(self, "fault", f"its caption cannot be decoded: {SAVE_AS}")
        for name in ("key", "caption", "url", "source_uid"):
            if not (text := getattr(self, name)).isascii() and _ALL_HALVES.search(text):
                object.__setattr__(self, name, _ALL_HALVES.sub("\ufffd", text))


@dataclass(frozen=True)
class Source:
    """Pairs in a fixed order, in parts that can be read one by one.

    kind: one of FORMATS. base: what the records' files are relative to. parts: names; sizes: of the parts, in the unit
    of the records' positions. read: the records of a part, by its number. said: what was found out by looking.
    image_column: what holds the image's bytes in a parquet, else nothing. signature: changes when what is in it does.
    extent: how much it is, for people.
    glance: the same records without images and captions, where that is quicker; it can be handed to another process.
    embedded: whether the records have their embeddings, and need no teacher.
    """

    kind: str
    base: Place
    parts: tuple[str, ...]
    sizes: tuple[int, ...]
    read: Callable[[int], Iterator[Record]]
    said: str
    signature: str
    extent: str
    image_column: str = ""
    embedded: bool = False
    glance: Callable[[int], Iterator[Record]] | None = None


class Named(TypedDict):
    """What a pair's json says of it beside the caption, named as in Record."""

    uid: str
    source_uid: str
    url: str
    width: int | None
    height: int | None
    facts: str


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


def named_in(facts: Mapping[str, Any]) -> Named:
    """What a pair's json says of it, as far as that can be used, and the rest as it is."""
    rest = {name: value for name, value in facts.items() if name not in _NAMED}
    uid, source_uid = uids_in(facts.get("uid"))
    return {
        "uid": uid,
        "source_uid": source_uid,
        "url": clean_text(facts.get("url")),
        "width": usable_side(facts.get("original_width")),
        "height": usable_side(facts.get("original_height")),
        "facts": json.dumps(rest) if rest else "",
    }


def uids_in(value: object) -> tuple[str, str]:
    """A source's uid as a pool's, nothing where it cannot be one; and as the source has it, where that is another.

    Of bytes 16 are a UUID, as columns of them are read; others are text.
    """
    if isinstance(value, bytes):
        value = UUID(bytes=value) if len(value) == 16 else clean_text(value)
    uid = usable_uid(value)
    return uid, "" if value == uid else clean_text(value)


def signature_of(names: Sequence[str], sizes: Sequence[int], *settings: str) -> str:
    """32 hex digits that differ where the names, the sizes or the settings do."""
    digest = hashlib.blake2b(digest_size=16)
    for word in (*settings, "", *(f"{size} {name}" for name, size in zip(names, sizes, strict=True))):
        digest.update(word.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def extent_of(sizes: Sequence[int]) -> str:
    """How much files of these sizes are, for people.

    >>> extent_of([1000, 234])
    '1,234 bytes in 2 files'
    """
    return f"{counted(sum(sizes), 'bytes')} in {counted(len(sizes), 'files')}"


def encoding_of(head: bytes) -> str:
    """What text is encoded in, by the byte order mark at its beginning; UTF-8 where it has none."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")


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
        # A caption that was cut at the longest length may end within a character.
        decoder = codecs.getincrementaldecoder(encoding_of(value))(DECODE_ERRORS)
        return value.decode("ascii") if value.isascii() else decoder.decode(value, len(value) < LONGEST_CAPTION)
    return "" if value is None or isinstance(value, dict) or value != value else str(value)


def usable_side(value: object) -> int | None:
    """A width or height that a source claims, or None where it is not a positive number."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31 else None
