"""Which column of a table holds what? Guessed by name, unless somebody says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.conventions import find_column
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.record import Named, clean_text, uids_in, usable_side

_IMAGE_NAMES = (
    *("image_path", "img_path", "path", "filepath", "file_path", "file_name", "filename", "file"),
    *("image", "img", "image_name", "image_file", "image_id", "photo", "picture", "jpg", "png", "webp"),
)
_TEXT_NAMES = ("caption", "text", "txt", "captions", "description", "title", "alt", "alt_text", "sentence", "comment")
_UID_NAMES, _URL_NAMES, _KEY_NAMES = ("uid",), ("url", "image_url"), ("key", "__key__")
_TEXT_KINDS = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
)
_SIDES = ("original_width", "original_height")


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns; those that it need not have may be nothing."""

    image: str
    text: str
    uid: str = ""
    url: str = ""
    key: str = ""

    @property
    def all(self) -> list[str]:
        """Those that are there, each once."""
        return list(
            dict.fromkeys(name for name in (self.image, self.text, self.uid, self.url, self.key, *_SIDES) if name)
        )


class Said(Named):
    """What a row says of its pair, named as in Record."""

    caption: str


def said_in(row: Mapping[str, Any], columns: Columns) -> Said:
    """What a row of a table says of its pair, beside the image and the key."""
    # A column without a name, as pandas writes its index, is none of those that are not there.
    uid, source_uid = uids_in(row.get(columns.uid)) if columns.uid else ("", "")
    return {
        "caption": clean_text(row.get(columns.text)),
        "uid": uid,
        "source_uid": source_uid,
        "url": clean_text(row.get(columns.url)) if columns.url else "",
        "width": usable_side(row.get(_SIDES[0])),
        "height": usable_side(row.get(_SIDES[1])),
        "facts": "",
    }


def rows_in(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows by column. Of a column with text that is not UTF-8, as some writers leave it, the values are bytes."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        return pa.RecordBatch.from_arrays(list(map(as_bytes, batch.columns)), batch.schema.names).to_pylist()


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


def refuse_columns(where: str, image: str | None, text: str | None) -> None:
    """Raises PoolFormatError where a column is named of something that has none."""
    if image or text:
        option, remedy = "--image-column" if image else "--text-column", "leave it out, or say which --format"
        found = str(image or text)
        raise PoolFormatError(option, expected=f"no column, as {where} has none", found=found, remedy=remedy)


def check_texts(table: Place, column: str, kind: pa.DataType | None, option: str = "--text-column") -> None:
    """Makes sure that a column holds texts, or lists of them. kind: its type, None where it has none of its own.

    Raises: PoolFormatError naming it.
    """
    inner = kind
    while inner is not None and hasattr(inner, "value_type"):
        inner = inner.value_type
    if inner is None or any(is_kind(inner) for is_kind in _TEXT_KINDS):
        return
    remedy = f"name another with {option}"
    raise PoolFormatError(table, expected=f"texts in column {column}", found=str(kind), remedy=remedy)


def guess_columns(
    table: Place, names: Iterable[str], *, image: str | None, text: str | None, needed: bool = True
) -> Columns:
    """The columns to read. image, text: as somebody gave them, or None to go by the usual names, in any case.

    Raises: PoolFormatError where one that was given is not there, or one that is `needed` cannot be guessed.
    """
    names = list(names)
    return Columns(
        image=_given(table, names, image, "--image-column", _IMAGE_NAMES, needed),
        text=_given(table, names, text, "--text-column", _TEXT_NAMES, needed),
        uid=find_column(names, _UID_NAMES) or "",
        url=find_column(names, _URL_NAMES) or "",
        key=find_column(names, _KEY_NAMES) or "",
    )


def _given(table: Place, names: list[str], given: str | None, option: str, usual: tuple[str, ...], needed: bool) -> str:
    column = given if given in names else "" if given else find_column(names, usual) or ""
    if column and names.count(column) > 1:
        found, remedy = f"{names.count(column)}", "rename the others"
        raise PoolFormatError(table, expected=f"one column {column}", found=found, remedy=remedy)
    if not column and (given or needed):
        expected = f"a column {given}" if given else f"a column named like {', '.join(usual[:6])}"
        found = ", ".join(name[:40] for name in names[:20]) or "none"
        remedy = f"name it with {option}; the names stand in the table's first line"
        raise PoolFormatError(table, expected=expected, found=found, remedy=remedy)
    return column


def is_image_name(name: str) -> bool:
    """Whether a column with this name usually holds images or their paths."""
    return name.strip().lower() in _IMAGE_NAMES
