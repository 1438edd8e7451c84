"""Which pairs' captions hold certain words, or are a certain text?

The pool's parquet files are read a few at a time, so whoever asks can show how far it is and stop between two steps.
What was found is kept as one bit a pair, however many match. Words and texts reach DuckDB as bound parameters and are
compared as they are: % and _ stand for themselves.

A word is a whole one: no letter, digit or accent stands directly before or behind it. Scripts that are written without
blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) have no such bounds: beside their letters
any word may begin or end, theirs or another script's.
"""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa

from clipsel_core import uids
from clipsel_core.curation.index.metadata import ROWS, as_named
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.conventions import as_texts
from clipsel_core.pool.layout import Pool, Shard, read_column, read_uid_column

MOST_WORDS = 8
_STEP_ROWS = 400_000
_CAPTIONS = f"""
    SELECT file_index, file_row_number, uid FROM (
        SELECT file_index, file_row_number, COLUMNS(lambda name: name = $uid) AS uid,
               coalesce(CAST(COLUMNS(lambda name: name = $column) AS VARCHAR), '') AS caption
        FROM {ROWS}
    )
"""
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


class CaptionScan:
    """A search through the captions of a run, done step by step.

    bits: a bitmap of the run's pairs that were found so far. done, total: rows looked at, and rows in all. found: how
    many were found.

    >>> scan = CaptionScan.for_words(table, ["red", "house"])  # doctest: +SKIP
    >>> while not scan.finished: scan.step()                   # doctest: +SKIP
    >>> scan.found, bitmaps.pairs_in(scan.bits)                   # doctest: +SKIP
    (128, 128)
    """

    def __init__(self, table: ScoreTable, condition: str, asked: dict[str, str]) -> None:
        pool = table.metadata.pool
        if pool is None or pool.text_column is None:
            where, found = table.run.pool_root, "no captions" if pool else "no pool"
            raise PoolFormatError(where, expected="a pool with captions", found=found)
        self._table, self._pool, self._condition, self._asked = table, pool, condition, asked
        self._parts = _parts(table, pool)
        self.total = sum(shard.rows for part in self._parts for shard in part)
        self.bits = np.zeros(-(-len(table) // 8), np.uint8)
        self.done = self.found = self._next = 0

    @classmethod
    def for_words(cls, table: ScoreTable, words: list[str]) -> CaptionScan:
        """Captions that hold every one of these whole words, wherever, in upper or lower case.

        Raises: PoolFormatError where the pool is not at hand or has no captions, or more than MOST_WORDS are asked.
        """
        if not 1 <= len(words) <= MOST_WORDS:
            raise PoolFormatError("words", expected=f"1 to {MOST_WORDS} words", found=f"{len(words):,}")
        asked = {f"word{place}": word for place, word in enumerate(words)}
        return cls(table, " AND ".join(_HOLDS.replace("$word", f"${name}") for name in asked), asked)

    @classmethod
    def for_caption(cls, table: ScoreTable, caption: str) -> CaptionScan:
        """Captions that are this text, letter by letter. Raises PoolFormatError as for_words does."""
        return cls(table, "caption = $asked", {"asked": caption})

    @property
    def finished(self) -> bool:
        return self._next == len(self._parts)

    def step(self) -> None:
        """Looks through the next few hundred thousand captions.

        Raises: PoolFormatError where a file cannot be read, or a row that was found is another pair than was scored.
        """
        part = self._parts[self._next]
        shards = list(part)
        try:
            hits = self._hits(shards)
        except duckdb.Error as error:
            reason = str(error).split("\n")[0]
            where = self._pool.root / "metadata"
            raise PoolFormatError(where, expected="readable parquet files", found=reason) from error
        files, rows = (hits.column(name).to_numpy() for name in ("file_index", "file_row_number"))
        rows = np.array(list(part.values()))[files.astype(np.int64)] + rows
        self._table.metadata.check_uids(rows, hits.column("uid"))
        np.bitwise_or.at(self.bits, rows >> 3, (1 << (rows & 7)).astype(np.uint8))
        self.found += len(rows)
        self.done += sum(shard.rows for shard in shards)
        self._next += 1

    def _hits(self, shards: list[Shard]) -> pa.Table:
        uid, column = self._pool.uid_column or "", self._pool.text_column or ""
        columns = [self._pool.columns, *(shard.columns for shard in shards)]
        types = [{of_shard.get(name) for of_shard in columns} for name in (uid, column)]
        if self._pool.root.remote or any(len(kinds) > 1 or not kinds <= {"string", "large_string"} for kinds in types):
            return self._hits_apart(shards)
        asked = {"files": as_named([str(shard.parquet) for shard in shards]), "uid": uid, "column": column}
        try:
            with duckdb.connect(":memory:") as database:
                return database.sql(f"{_CAPTIONS} WHERE {self._condition}", params=asked | self._asked).to_arrow_table()
        except duckdb.InvalidInputException:  # a caption that is not UTF-8
            return self._hits_apart(shards)

    def _hits_apart(self, shards: list[Shard]) -> pa.Table:
        """The same where shards differ in their columns, or DuckDB does not read them."""
        texts = [as_texts(read_column(s, s.text_column)) if s.text_column else [""] * s.rows for s in shards]
        table = {
            "file_index": np.repeat(np.arange(len(texts)), [len(of_shard) for of_shard in texts]),
            "file_row_number": np.concatenate([np.arange(len(of_shard)) for of_shard in texts]),
            "uid": pa.concat_arrays([uids.to_hex(uids.from_hex(read_uid_column(shard))) for shard in shards]),
            "caption": [text for of_shard in texts for text in of_shard],
        }
        with duckdb.connect(":memory:") as database:
            database.register("captions", pa.table(table))
            query = f"SELECT file_index, file_row_number, uid FROM captions WHERE {self._condition}"
            return database.sql(query, params=self._asked).to_arrow_table()


def _parts(table: ScoreTable, pool: Pool) -> list[dict[Shard, int]]:
    """The finished shards whose metadata is there, in groups of about _STEP_ROWS rows, each with its first row."""
    known = {shard.name: shard for shard in pool.shards}
    sizes = {shard.name: shard.rows for shard in table.run.config.shards}
    parts: list[dict[Shard, int]] = []
    start = 0
    for name in table.shard_names:
        if name in known:
            if not parts or sum(shard.rows for shard in parts[-1]) >= _STEP_ROWS:
                parts.append({})
            parts[-1][known[name]] = start
        start += sizes[name]
    return parts
