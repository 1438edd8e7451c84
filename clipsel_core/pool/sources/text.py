"""How is text decoded, and how are its lines, rows and fields told apart? Encodings, line ends; quotes in csv, tsv."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, NamedTuple

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.places import Place

SAVE_AS = "save it as UTF-8, or as UTF-16 with a byte order mark"
"""What to do about text that cannot be decoded."""
LONGEST_CAPTION = 1 << 20
"""Bytes of a caption that are read at all."""
UNDECODABLE = "\udcff"
"""Stands in decoded text, until it is a record's, for bytes that mean nothing in its encoding."""

_DECODE_ERRORS = "clipsel.undecodable"
codecs.register_error(_DECODE_ERRORS, lambda error: (UNDECODABLE, error.end))  # type: ignore[attr-defined]
# UTF-32's begins with UTF-16's.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    *((mark, "utf-32") for mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
    *((mark, "utf-16") for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
)
_LONE_HALVES = re.compile("[\ud800-\udcfe\udd00-\udfff]")

_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
# Rows by which a tsv shows whether a column is quoted in all of them.
_LOOKED_AT, _ENOUGH = 100, 2
# How many lines of a tsv may be rows by themselves, beyond as many that are none, while a closing quote is looked for.
_DOUBTS = 4
# Beyond these a quote that nothing closes is taken for a quote.
_MOST_LINES, _MOST_LETTERS = 1000, 1 << 20
_ENDS = "\r\n"
_UNCLOSED = re.compile('"[^"]*(?:""[^"]*)*\\Z')


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
        decoder = codecs.getincrementaldecoder(encoding_of(value))(_DECODE_ERRORS)
        return value.decode("ascii") if value.isascii() else decoder.decode(value, len(value) < LONGEST_CAPTION)
    return "" if value is None or isinstance(value, dict) or value != value else str(value)


def encoding_of(head: bytes) -> str:
    """What text is encoded in, by the byte order mark at its beginning; UTF-8 where it has none."""
    return next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), "utf-8")


def separator_of(line: str, usual: str = ",") -> str:
    """What separates the fields of a table's first line: the most frequent of , tab ; and | outside quotes."""
    bare = re.sub('"[^"]*"', "", line)
    return max(_SEPARATORS, key=lambda mark: (bare.count(mark), mark == usual))


class Row(NamedTuple):
    """A row of a table. position: how far the table is read. number: of its line, from 1; in a parquet, from 0.

    values: by column, or a text that says why it cannot be read.
    """

    position: int
    number: int
    values: dict[str, Any] | str


class Text(NamedTuple):
    """The lines of a file, the letters that each of them ends with one or both of, and how far it is read, in bytes."""

    lines: Iterator[str]
    ends: str
    tell: Callable[[], int]


@contextmanager
def open_text(place: Place) -> Iterator[Text]:
    """A file of text, decoded by its byte order mark as in clean_text. Its first line end, LF or CR, is that of all.

    Raises: PoolFormatError where it is UTF-16 without the mark, or no text; OSError.
    """
    with place.open() as raw:
        head = raw.peek(1)  # type: ignore[attr-defined]
        encoding = encoding_of(head)
        if encoding == "utf-8" and head[:256].count(0) * 4 > len(head[:256]):
            raise PoolFormatError(place, expected="text", found="bytes of zero", remedy=SAVE_AS)
        shown = head.decode(encoding, "ignore")
        first = re.search("\r\n?|\n", shown)
        ends = "\n" if first is None or first[0] != "\r" else _ENDS if "\n" in shown else "\r"
        newline = ends if len(ends) == 1 else ""
        yield Text(io.TextIOWrapper(raw, encoding, _DECODE_ERRORS, newline), ends, raw.tell)


class Delimited:
    """The rows of a csv or tsv. names: of its columns in order, "" where one has none. mark: what separates fields.

    kind: csv or tsv; the mark is found in the first line, whatever the kind, and said where it is not the usual one.

    A field is quoted where it begins with a quote and a quote closes it before the next mark or line end. In a tsv
    this may as well be text with quotes in it. There a field counts as quoted only where a writer had to quote it (it
    holds a tab, a line end or a doubled quote), or where a column or the first line is quoted throughout; and lines
    of which most are a row each by itself are not joined to one.
    A row with more or fewer fields than the first line cannot be read: nothing tells which field is too many, and a
    row that is cut within its caption looks like one that is short of a field.
    """

    def __init__(self, text: Text, kind: str) -> None:
        self._tell, self._ends, self._width, self._number = text.tell, text.ends, 0, 0
        lines = iter(text.lines)
        head = list(islice(lines, _LOOKED_AT))
        self._ahead, self._lines = deque[str](), chain(head, lines)
        usual = "\t" if kind == "tsv" else ","
        self.mark = separator_of(next((line for line in head if line.strip(_ENDS)), ""), usual)
        self._quoted = re.compile(f'"([^"]*(?:""[^"]*)*)"(?={re.escape(self.mark)}|\\Z)')
        self._strict = self.mark != "\t" or _quoted_throughout(head)
        self._given = list[str]()
        self._plain = csv.reader(iter(self._given.pop, None), delimiter=self.mark, strict=True)
        self._rows = self._split()
        self.names = [name if name.strip() else "" for name in next(self._rows, (0, [""]))[1]]
        self._width = len(self.names)
        self.said = f", fields separated by {_SEPARATORS[self.mark]}" if self.mark != usual else ""
        self.said += ", a column without a name left out" if "" in self.names and self._width > 1 else ""

    def __iter__(self) -> Iterator[Row]:
        names, width = self.names, self._width
        for number, fields in self._rows:
            if len(fields) != width:
                if len(fields) < width or any(fields[width:]):
                    which = "more" if len(fields) > width else "fewer"
                    said = f"{which} fields than the first line has: {len(fields)} in line {number:,}, {width} there"
                    remedy = f"quote fields that hold {_SEPARATORS[self.mark]} or line ends"
                    yield Row(self._tell(), number, f"{said}; {remedy}")
                    continue
                del fields[width:]
            yield Row(self._tell(), number, dict(zip(names, fields, strict=True)))

    def _split(self) -> Iterator[tuple[int, list[str]]]:
        """The fields of each row, with the number of its first line; lines without anything are passed over."""
        while (line := self._ahead.popleft() if self._ahead else next(self._lines, None)) is not None:
            self._number += 1
            bare = line.rstrip(_ENDS)
            if '"' not in bare:
                if bare:
                    yield self._number, bare.split(self.mark)
                continue
            number = self._number
            yield number, self._joined(line) or self._fields(bare, meant=False) or []

    def _joined(self, line: str) -> list[str] | None:
        """The fields of a row that a line begins and perhaps further ones go on with; none where quotes say nothing."""
        bare = line.rstrip(_ENDS)
        if self._strict:
            # Most lines are a row, which the csv module splits in a fraction of the time; it asks for more where not.
            self._given.append(bare)
            try:
                return next(self._plain)
            except (csv.Error, IndexError):
                self._given.clear()
        if fields := self._fields(bare):
            return fields
        text, whole = line, self._is_whole(line)
        for count, more in enumerate(self._following(), 1):
            text += more
            whole += self._is_whole(more)
            if len(text) > _MOST_LETTERS or (2 * whole > count + _DOUBTS and not self._strict):
                break
            fields = self._fields(text.rstrip(_ENDS)) if '"' in more else None
            if fields is None:
                continue
            if 2 * whole > count + 1 and not self._strict:
                break
            for _ in range(count if fields else 0):
                self._ahead.popleft()
                self._number += 1
            return fields
        return None

    def _is_whole(self, line: str) -> int:
        return int(line.count(self.mark) == self._width - 1)

    def _following(self) -> Iterator[str]:
        """The next lines, which stay to be read."""
        for place in range(_MOST_LINES):
            if place == len(self._ahead):
                self._ahead.extend(islice(self._lines, 1))
            if place == len(self._ahead):
                return
            yield self._ahead[place]

    def _fields(self, text: str, *, meant: bool = True) -> list[str] | None:
        """The fields of one row; None where a quote in it is not closed, none where it is not one row.

        meant: whether quotes that nothing closes are still expected to be closed.
        """
        fields, at = list[str](), 0
        while True:
            found = self._quoted.match(text, at)
            if found and (self._strict or not found[1] or any(mark in found[1] for mark in ('""', self.mark, *_ENDS))):
                fields.append(found[1].replace('""', '"'))
                end = found.end()
            elif meant and not found and _UNCLOSED.match(text, at):
                return None
            else:
                end = text.find(self.mark, at)
                end = len(text) if end < 0 else end
                fields.append(text[at:end])
                if any(letter in fields[-1] for letter in self._ends):
                    return []
            if end == len(text):
                return fields
            at = end + 1


def _quoted_throughout(lines: list[str]) -> bool:
    """Whether a tsv's names are all quoted, or all values of one of its columns."""
    rows = [line.rstrip(_ENDS).split("\t") for line in lines if line.strip(_ENDS)]
    if not rows:
        return False
    quoted = [[len(field) > 1 and field[0] == field[-1] == '"' for field in row] for row in rows]
    values = [row for row in quoted[1:] if len(row) == len(quoted[0])]
    return all(quoted[0]) or (len(values) >= _ENOUGH and any(map(all, zip(*values, strict=True))))
