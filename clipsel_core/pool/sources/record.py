"""What is a pair before it is in a pool, and what can be asked of the source that it comes from?"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import UUID

import numpy as np

from clipsel_core.errors import counted
from clipsel_core.places import Place
from clipsel_core.pool.conventions import SAVE_AS, UNDECODABLE, clean_text, usable_uid

SOURCE_FORMATS = ("webdataset", "folder", "csv", "tsv", "jsonl", "parquet", "arrow", "clip-retrieval", "npy")
EMBEDDED = ("clip-retrieval", "npy")
"""The formats that have embeddings."""
SIDES = ("original_width", "original_height")
"""What tables and json call an image's width and height."""

_NAMED = {"uid", "key", "caption", "url"}
_ALL_HALVES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Record:
    """One pair as its source has it; its image is not decoded yet, and mostly not read.

    key: its name in the source. file: what holds its image, relative to the source's base or absolute.
    offset, length: where the encoded image lies in the file; length None means all of it.
    data: the encoded image where the source had to read it anyway. in_row: offset is a row of the file, a parquet.
    embeddings: of image and caption, (2, D), where the source has these; it may have no image then, and file is "".
    uid: 32 hex digits, or nothing where the source has none. source_uid: the source's own text, where it is another.
    width, height: of the original, where the source knows. sha256: of the image's bytes, once they were seen.
    facts: the JSON of whatever else the source's json says of the pair, or nothing. others: the values of a table's
    other columns, by name, of whatever type; None where there are none.
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
    sha256: str | None = None
    facts: str = ""
    others: Mapping[str, Any] | None = None
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

    kind: one of SOURCE_FORMATS. base: what the records' files are relative to. parts: names; sizes: of the parts, in
    the unit of the records' positions. read: the records of a part, by its number. said: what was found out by looking.
    image_column: what holds the image's bytes in a parquet, else nothing. signature: changes when what is in it does.
    extent: how much it is, for people.
    others: of tables, the columns that records may have as others; None where nobody knows before they are read. unfit:
    columns that no record has, as they hold neither numbers, truth values nor texts, or have another's name.
    written_as_text: whether others are texts that may be written numbers, as in a csv.
    glance: the same records without images and captions, where that is quicker; it can be handed to another process.
    counts: how many records each part has, where that is known. outline: the same records without their images' bytes,
    where `read` gives these. read_on: as `read`, from a record on, where that is quicker than reading those before it.
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
    glance: Callable[[int], Iterator[Record]] | None = None
    others: tuple[str, ...] | None = None
    unfit: tuple[str, ...] = ()
    written_as_text: bool = False
    counts: tuple[int, ...] | None = None
    outline: Callable[[int], Iterator[Record]] | None = None
    read_on: Callable[[int, int], Iterator[Record]] | None = None

    def records(self, part: int, before: int) -> Iterator[Record]:
        """A part's records, but for so many before."""
        return self.read_on(part, before) if self.read_on else islice(self.read(part), before, None)

    @property
    def embedded(self) -> bool:
        """Whether the records have their embeddings, and need no teacher."""
        return self.kind in EMBEDDED


def source_of_files(
    kind: str,
    base: Place,
    names: Sequence[str],
    read: Callable[[int], Iterator[Record]],
    said: str,
    *,
    lengths: Sequence[int] | None = None,
    columns: Iterable[str] = (),
    **more: Any,
) -> Source:
    """The source that these files are. lengths: their bytes, where known. more: parts and sizes, where these are others
    than the files and their bytes, and the rest of Source. columns: those that are read; each counts once."""
    lengths = tuple((base / name).size() for name in names) if lengths is None else lengths
    fields = {"parts": tuple(names), "sizes": tuple(lengths), **more}
    signature = signature_of(names, lengths, kind, *dict.fromkeys(columns))
    extent = f"{counted(sum(lengths), 'bytes')} in {counted(len(lengths), 'files')}"
    return Source(kind=kind, base=base, read=read, said=said, signature=signature, extent=extent, **fields)


def fields_of_json(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a pair's json says of it, as fields of a Record; what has no field of its own goes into `facts`."""
    rest = {name: value for name, value in facts.items() if name not in _NAMED}
    return {**fields_of(facts, "uid", "url"), "facts": json.dumps(rest) if rest else ""}


def fields_of(row: Mapping[str, Any], uid: str, url: str) -> dict[str, Any]:
    """A pair's uid, source_uid, url, width and height, as fields of a Record, as far as they can be used.

    uid, url: the names of the columns, "" for none: there may be a column without a name, as pandas writes its index.
    Of bytes 16 are a UUID, unless all are printable ASCII: no UUID's are. Others are text.
    """
    value = row.get(uid) if uid else None
    if isinstance(value, bytes):
        is_text = len(value) != 16 or (value.isascii() and value.decode().isprintable())
        value = clean_text(value) if is_text else UUID(bytes=value)
    known = usable_uid(value)
    return {
        "uid": known,
        "source_uid": "" if value == known else clean_text(value),
        "url": clean_text(row.get(url)) if url else "",
        "width": _usable_side(row.get(SIDES[0])),
        "height": _usable_side(row.get(SIDES[1])),
    }


def signature_of(names: Sequence[str], sizes: Sequence[int], *settings: str) -> str:
    """32 hex digits that differ where the names, the sizes or the settings do."""
    digest = hashlib.blake2b(digest_size=16)
    for word in (*settings, "", *(f"{size} {name}" for name, size in zip(names, sizes, strict=True))):
        digest.update(word.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _usable_side(value: object) -> int | None:
    """A width or height that a source claims, or None where it is not a positive number."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31 else None
