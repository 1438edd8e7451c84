"""Which columns of a source go into the pool's table beside the pool's own, and of what type is each?

Numbers, truth values and texts do. A shard is written with the columns that have a value in it, a csv's as texts. When
all shards are there each gets the same columns, and a column the same type in all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsel_core.pool.conventions import NAMES_OF_PAIRS, UNDECODABLE, clean_text, facts_in
from clipsel_core.pool.layout import read_schema
from clipsel_core.pool.making.shard_files import ShardFiles, of_each, read_parquet, write_parquet
from clipsel_core.pool.sources.record import Record

ALL, NONE = "all", "none"
"""In place of names, for all columns that can be carried, and for none."""
LeftOut = dict[str, dict[str, int]]
"""Why columns were left out, and of each how many values were; 0 where nobody counted."""
UNFIT = "neither numbers, truth values nor texts"
_TAKEN, _NO_NAME, _SURPLUS = "named like the pool's own", "without a name that a column can have", "one too many"
_MOST, _MOST_LETTERS = 500, 200
_OWN = {
    *("uid", "url", "text", "caption", "original_width", "original_height", "aspect_ratio"),
    *NAMES_OF_PAIRS,
}
_SCORE = re.compile("clip_.*_similarity_score")
_TYPES = {"flag": pa.bool_(), "whole": pa.int64(), "number": pa.float64(), "text": pa.string()}
_KINDS = {kind: name for name, kind in _TYPES.items()}
# As a csv has them. Whole numbers that begin with 0 or are too long are names of something.
_NO_VALUE = pa.array(["", "nan", "null"])
_WRITTEN = {
    "flag": "^(true|false)$",
    "whole": r"^-?(0|[1-9]\d{0,17})$",
    "number": r"^-?((0|[1-9]\d{0,17})(\.\d*)?|\.\d+)(e[+-]?\d+)?$",
}


class Carried(NamedTuple):
    """The columns of some pairs, each with a value or more, and what was left out."""

    columns: dict[str, pa.Array]
    left_out: LeftOut


def is_own(name: str) -> bool:
    """Whether the pool's table has a column of this name, in any case, or may get one of a teacher's scores."""
    return name.strip().lower() in _OWN or _SCORE.fullmatch(name.strip().lower()) is not None


def names_in(columns: str) -> list[str] | None:
    """The columns that somebody named, separated by commas; None for all."""
    return None if columns == ALL else [] if columns == NONE else [name.strip() for name in columns.split(",")]


def carry(records: Sequence[Record], columns: str) -> Carried:
    """What the source says of these pairs beside what the pool's own columns hold.

    columns: names separated by commas, or ALL, or NONE. Of names that differ in case alone the first is a column's.
    """
    wanted, left_out = names_in(columns), LeftOut()
    spelled, found = dict[str, str](), dict[str, list[Any]]()
    # Each name's column, or why it has none, "" where nobody wants it: a shard has a million values.
    known = dict[str, list[Any] | str]()

    def column_of(name: str) -> list[Any] | str:
        if wanted is not None and name not in wanted:
            return ""
        if is_own(name):
            return _TAKEN
        if not name.strip() or len(name) > _MOST_LETTERS or name.startswith("{"):
            return _NO_NAME
        if (place := name.lower()) not in found:
            if len(found) >= _MOST:
                return _SURPLUS
            spelled[place], found[place] = clean_text(name), [None] * len(records)
        return found[place]

    for row, record in enumerate(records if wanted != [] else ()):
        said = facts_in(record.facts) if record.facts else record.others or {}
        for name, given in said.items():
            if given is None:
                continue
            column = known.get(name)
            if column is None:
                column = known[name] = column_of(name)
            if isinstance(column, str):
                if column:
                    _count(left_out, column, name)
            elif isinstance(value := _plain(given), list):
                _count(left_out, UNFIT, name)
            elif value is not None:
                column[row] = value
    arrays = {spelled[place]: _array(values) for place, values in found.items() if any(v is not None for v in values)}
    return Carried(arrays, left_out)


def settle_types(shards: Iterable[ShardFiles], *, written_as_text: bool) -> Carried:
    """Gives all shards the same columns of the source, a column of one type; null where a shard has none.

    Whole numbers and fractions become fractions, other different types text. written_as_text: whether the source is a
    csv, whose texts may be numbers or truth values.
    Returns: the columns, without values, and those that are one too many.
    """
    shards, spelled, kinds = list(shards), dict[str, str](), dict[str, set[str]]()
    schemas = of_each(shards, lambda files: read_schema(files.parquet))
    # What somebody added to the pool stays as it is.
    others = {field.name.lower() for schema in schemas for field in schema if field.type not in _KINDS}
    for files, schema in zip(shards, schemas, strict=True):
        for name in schema.names:
            if not is_own(name) and name.lower() not in others:
                kind = _KINDS[schema.field(name).type]
                if kind == "text" and written_as_text:
                    kind = _kind_of(read_parquet(files.parquet, [name])[name])
                spelled.setdefault(name.lower(), name)
                kinds.setdefault(name.lower(), set()).add(kind)
    settled = {spelled[place]: _TYPES[_common(kinds[place])] for place in list(spelled)[:_MOST]}
    for files, schema in zip(shards, schemas, strict=True):
        own = [name for name in schema.names if is_own(name) or name.lower() in others]
        scores = [name for name in own if _SCORE.fullmatch(name)]
        order = [*(name for name in own if name not in scores), *settled, *scores]
        fields = [(name, settled[name] if name in settled else schema.field(name).type) for name in order]
        if not schema.equals(pa.schema(fields)):
            table = read_parquet(files.parquet)
            there = {name.lower(): table[name] for name in table.column_names}
            arrays = [_cast(there.get(name.lower()), kind, table.num_rows) for name, kind in fields]
            write_parquet(files.parquet, pa.table(arrays, schema=pa.schema(fields)))
    surplus = {name: 0 for place, name in list(spelled.items())[_MOST:]}
    return Carried({name: pa.nulls(0, kind) for name, kind in settled.items()}, {_SURPLUS: surplus} if surplus else {})


def merged(parts: Iterable[Mapping[str, Mapping[str, int]]]) -> LeftOut:
    """What was left out of several parts, together."""
    out = LeftOut()
    for part in parts:
        for reason, names in part.items():
            for name, count in names.items():
                _count(out, reason, name, count)
    return out


def _count(left_out: LeftOut, reason: str, name: str, values: int = 1) -> None:
    names = left_out.setdefault(reason, {})
    if name not in names:
        name = clean_text(name)[:_MOST_LETTERS]
    if name in names or len(names) < _MOST:
        names[name] = names.get(name, 0) + values


def _plain(value: Any) -> Any:
    """A number, truth value or text as it is kept; None for none; a list for anything else."""
    if isinstance(value, str) and value.isascii():
        return value or None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float | np.floating | Decimal):
        number = float(value)
        return None if number != number else number
    if isinstance(value, str | bytes):
        return clean_text(value).replace(UNDECODABLE, "\ufffd") or None
    return []


def _array(values: list[Any]) -> pa.Array:
    """Plain values in the type that holds them all."""
    kinds = {type(value) for value in values if value is not None}
    try:
        if kinds == {bool}:
            return pa.array(values, pa.bool_())
        if kinds == {int}:
            return pa.array(values, pa.int64())
        if kinds <= {int, float}:
            return pa.array([None if value is None else float(value) for value in values], pa.float64())
    except (OverflowError, pa.ArrowInvalid):
        pass  # whole numbers that are too long stay what they are as text
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array(texts, pa.string())


def _present(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts in lower case, null where they say that there is no value."""
    lowered = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
    return pc.if_else(pc.is_in(lowered, _NO_VALUE), None, lowered)


def _kind_of(texts: pa.ChunkedArray) -> str:
    """What all these texts are, "" where none says anything."""
    present = pc.drop_null(_present(texts))
    if not len(present):
        return ""
    written = (kind for kind, form in _WRITTEN.items() if pc.all(pc.match_substring_regex(present, form)).as_py())
    return next(written, "text")


def _common(kinds: set[str]) -> str:
    kinds = kinds - {""}
    if len(kinds) == 1:
        return next(iter(kinds))
    return "number" if kinds == {"whole", "number"} else "text"


def _cast(column: pa.ChunkedArray | None, kind: pa.DataType, rows: int) -> pa.Array | pa.ChunkedArray:
    if column is None:
        return pa.nulls(rows, kind)
    if pa.types.is_string(column.type) and not pa.types.is_string(kind):
        column = _present(column)
    return pc.cast(column, kind, safe=False)
