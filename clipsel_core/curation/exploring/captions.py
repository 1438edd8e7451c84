"""Which pairs' captions hold certain words, or are a certain text?

The pool's parquet files are read a few at a time, so whoever asks can show how far it is and stop between two steps.
What was found is kept as one bit a pair, however many match. Words and texts reach DuckDB as bound parameters and are
compared as they are: % and _ stand for themselves.

A word is a whole one: no letter, digit or accent stands directly before or behind it. Scripts that are written without
blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) have no such bounds: beside their letters
any word may begin or end, theirs or another script's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import duckdb
import numpy as np

from clipsel_core.curation.database import ROWS, as_named
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import PoolFormatError

MOST_WORDS = 8
_STEP_ROWS = 400_000
_CAPTIONS = f"""
    SELECT file_index, file_row_number FROM (
        SELECT file_index, file_row_number,
               coalesce(CAST(COLUMNS(lambda name: name = $column) AS VARCHAR), '') AS caption
        FROM {ROWS}
    )
"""
_EQUAL = _CAPTIONS + "WHERE caption = $asked"
_UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\x{30FC}\x{FF70}"
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Javanese}\p{Balinese}"
)
_APART = rf"[^\p{{L}}\p{{M}}\p{{N}}]|[{_UNSPACED}]"
# The quick comparison first: what it leaves is looked at by the slow one.
_HOLDS = f"""
    contains(lower(caption), lower($word)) AND regexp_matches(lower(caption), concat(
        CASE WHEN regexp_matches(lower($word), '^(?:{_APART})') THEN '' ELSE '(?:^|{_APART})' END,
        regexp_escape(lower($word)),
        CASE WHEN regexp_matches(lower($word), '(?:{_APART})$') THEN '' ELSE '(?:$|{_APART})' END
    ))
"""


@dataclass(frozen=True)
class _Part:
    """Some shards that are read together: their files, and the row number at which each begins."""

    files: list[str]
    starts: np.ndarray
    rows: int


@dataclass
class CaptionScan:
    """A search through the captions of a run, done step by step.

    bits: a bitmap of the run's pairs that were found so far. done, total: rows looked at, and rows in all. found: how
    many were found.

    >>> scan = CaptionScan.for_words(table, ["red", "house"])  # doctest: +SKIP
    >>> while not scan.finished: scan.step()                   # doctest: +SKIP
    >>> scan.found, bitmaps.count(scan.bits)                   # doctest: +SKIP
    (128, 128)
    """

    total: int
    _query: str
    _column: str
    _asked: dict[str, str]
    _parts: list[_Part]
    bits: np.ndarray
    done: int = 0
    found: int = 0
    _next: int = field(default=0, repr=False)

    @classmethod
    def for_words(cls, table: ScoreTable, words: list[str]) -> CaptionScan:
        """Captions that hold every one of these whole words, wherever, in upper or lower case.

        Raises: PoolFormatError where the pool is not at hand or has no captions, or more than MOST_WORDS are asked.
        """
        if not 1 <= len(words) <= MOST_WORDS:
            raise PoolFormatError("words", expected=f"1 to {MOST_WORDS} words", found=f"{len(words):,}")
        asked = {f"word{place}": word for place, word in enumerate(words)}
        held = (_HOLDS.replace("$word", f"${name}") for name in asked)
        return cls._of(table, f"{_CAPTIONS} WHERE {' AND '.join(held)}", asked)

    @classmethod
    def for_caption(cls, table: ScoreTable, caption: str) -> CaptionScan:
        """Captions that are this text, letter by letter. Raises PoolFormatError as for_words does."""
        return cls._of(table, _EQUAL, {"asked": caption})

    @classmethod
    def _of(cls, table: ScoreTable, query: str, asked: dict[str, str]) -> CaptionScan:
        pool = table.pool
        if pool is None or pool.text_column is None:
            where, found = table.run.pool_root, "no captions" if pool else "no pool"
            raise PoolFormatError(where, expected="a pool with captions", found=found)
        files = {shard.name: shard.parquet for shard in pool.shards}
        parts = _parts(table, files)
        total = sum(part.rows for part in parts)
        bits = np.zeros(-(-len(table) // 8), np.uint8)
        return cls(total, query, pool.text_column, asked, parts, bits)

    @property
    def finished(self) -> bool:
        return self._next == len(self._parts)

    def step(self) -> None:
        """Looks through the next few hundred thousand captions. Raises PoolFormatError where a file cannot be read."""
        part = self._parts[self._next]
        asked = {"files": as_named(part.files), "column": self._column, **self._asked}
        try:
            with duckdb.connect(":memory:") as database:
                hits = database.execute(self._query, asked).fetchnumpy()
        except duckdb.Error as error:
            reason = str(error).split("\n")[0]
            where = Path(part.files[0]).parent
            raise PoolFormatError(where, expected="readable parquet files", found=reason) from error
        rows = part.starts[hits["file_index"].astype(np.int64)] + hits["file_row_number"]
        np.bitwise_or.at(self.bits, rows >> 3, (1 << (rows & 7)).astype(np.uint8))
        self.found += len(rows)
        self.done += part.rows
        self._next += 1


def _parts(table: ScoreTable, files: dict[str, Path]) -> list[_Part]:
    """The finished shards whose metadata is there, in groups of about _STEP_ROWS rows."""
    sizes = {shard.name: shard.rows for shard in table.run.config.shards}
    starts = accumulate((sizes[name] for name in table.shard_names), initial=0)
    parts: list[list[tuple[str, int, int]]] = []
    for name, start in zip(table.shard_names, starts, strict=False):
        if name in files:
            if not parts or sum(rows for _, _, rows in parts[-1]) >= _STEP_ROWS:
                parts.append([])
            parts[-1].append((str(files[name]), start, sizes[name]))
    return [
        _Part([file for file, _, _ in part], np.array([start for _, start, _ in part]), sum(x[2] for x in part))
        for part in parts
    ]
