"""What does the pool say about a run's pairs? Captions, urls and other metadata by row number.

Row i of a shard's scores is row i of the shard's metadata, so captions are found by position, without looking up uids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsel_core.counts import counted
from clipsel_core.curation.database import COLUMNS, ROWS
from clipsel_core.curation.index.passes import read_only
from clipsel_core.curation.index.score_files import ScoreFiles
from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.layout import Pool, open_pool

if TYPE_CHECKING:
    import pandas as pd

_MOST_CATEGORIES = 64
_AT_POSITIONS = f"""
    SELECT asked.place, COLUMNS(lambda name: list_contains($names, name))
    FROM {ROWS} AS pairs
    JOIN (SELECT unnest($places) AS place, unnest($shards) AS shard, unnest($positions) AS position) AS asked
      ON pairs.file_index = asked.shard AND pairs.file_row_number = asked.position
"""
_COUNT_VALUES = f"""
    SELECT value, count(*) AS pairs
    FROM (SELECT CAST(COLUMNS(lambda name: name = $name) AS VARCHAR) AS value FROM {ROWS})
    GROUP BY value ORDER BY pairs DESC, value LIMIT $most
"""


@dataclass(frozen=True)
class Categories:
    """A metadata column with few distinct values. labels: most frequent first, "" where a value is absent.

    codes: (N,) int16, for each pair the place of its value in labels. counts: (len(labels),) int64.
    """

    labels: tuple[str, ...]
    codes: np.ndarray
    counts: np.ndarray


class Metadata:
    """The metadata of the pairs in a run's score files, read from the pool where it is at hand."""

    def __init__(self, files: ScoreFiles) -> None:
        self._files = files
        self._root = files.run.pool_root
        self._pool: Pool | None = None  # Looked for again until it is there: a disk may be brought back.

    @property
    def pool(self) -> Pool | None:
        """The pool that was scored, None where it is not on this machine: scores alone are enough to select by.

        Raises: PoolFormatError where it cannot be read, or a shard has other rows than were scored.
        """
        if self._pool is None and (self._root / "metadata").is_dir():
            self._pool = self._open_pool()
        return self._pool

    def _open_pool(self) -> Pool:
        pool = open_pool(self._root)
        scored = dict(zip(self._files.shard_names, self._files.sizes, strict=True))
        for shard in pool.shards:
            if scored.get(shard.name, shard.rows) != shard.rows:
                expected, found = f"{counted(scored[shard.name], 'rows')}, as were scored", f"{shard.rows:,}"
                remedy = "bring back the pool that was scored, or score this one into a new folder"
                raise PoolFormatError(shard.parquet, expected=expected, found=found, remedy=remedy)
        return pool

    def of(self, rows: np.ndarray, columns: tuple[str, ...]) -> pd.DataFrame:
        """Metadata of the asked rows, in their order, read by position from the pool's parquet files.

        columns: names of the pool's columns; "caption" and "url" stand for whatever the pool calls them.
        Returns: a row for each of `rows`, indexed by row number; "" where the pool or a shard's file is not there, or
            has no captions or urls.
        Raises: PoolFormatError on any other column that the pool lacks, or where the pool is not as it was scored.
        """
        import pandas as pd  # a fifth of a second, which selecting does without

        rows = np.asarray(rows, np.int64)
        frame = pd.DataFrame(dict.fromkeys(columns, ""), index=pd.Index(rows, name="row"), dtype=object)
        sources = {name: source for name in columns if (source := self._source(name))}
        shards = self._files.shard_of(rows)
        parquets = self._parquets()
        paths = np.array([parquets.get(name, "") for name in self._files.shard_names], object)[shards]
        places = np.flatnonzero(paths != "")
        if not len(places) or not sources:
            return frame
        files, file_of = np.unique(paths[places], return_inverse=True)
        asked = {
            "names": list(set(sources.values())),
            "files": files.tolist(),
            "places": places.tolist(),
            "shards": file_of.tolist(),
            "positions": self._files.place_in_shard(rows)[places].tolist(),
        }
        found = self._files.database.table(_AT_POSITIONS, asked)
        order = found.column("place").to_numpy()
        for name, source in sources.items():
            frame.iloc[order, frame.columns.get_loc(name)] = found.column(source).to_pandas().fillna("").to_numpy()
        return frame

    def category_columns(self) -> list[str]:
        """Metadata columns of text or truth values with few distinct values, as categories() takes them."""
        kinds = ("string", "large_string", "bool")
        names = [name for name, kind in self.pool.columns.items() if kind in kinds] if self.pool else []
        first = self._metadata_files()[:1]
        return [name for name in names if first and self._is_categorical(name, first)]

    def categories(self, column: str) -> Categories:
        """A metadata column as labels and a code for each pair; the labels are the column's values as text.

        Raises: PoolFormatError where the pool or the column is not there, or has more than 64 distinct values.
        """
        files = self._metadata_files()
        if self._source(column) is None or len(files) != len(self._files.shard_names):
            found = "no such column" if self.pool else "no pool"
            raise PoolFormatError(self._root, expected=f"a column {column!r} in every shard", found=found)
        values = self._value_counts(column, files)
        if len(values) > _MOST_CATEGORIES:
            expected, found = f"at most {_MOST_CATEGORIES} distinct values", "more"
            raise PoolFormatError(f"{self._root}: {column}", expected=expected, found=found)
        labels = tuple(dict.fromkeys(value or "" for value in values))
        codes, start = np.zeros(len(self._files), np.int16), 0
        known = pa.array(labels, pa.string())
        for batch in self._files.database.record_batches(COLUMNS, {"names": [column], "files": files}):
            text = pc.fill_null(pc.cast(batch.column(0), pa.string()), "")
            part = pc.index_in(text, known).to_numpy()
            codes[start : start + len(part)] = part
            start += len(part)
        return Categories(labels, read_only(codes), np.bincount(codes, minlength=len(labels)))

    def _is_categorical(self, column: str, files: list[str]) -> bool:
        return len(self._value_counts(column, files)) <= _MOST_CATEGORIES

    def _value_counts(self, column: str, files: list[str]) -> list[str | None]:
        """A column's distinct values, most frequent first, and one more than there may be where there are too many."""
        asked = {"name": column, "files": files, "most": _MOST_CATEGORIES + 1}
        found = self._files.database.table(_COUNT_VALUES, asked)
        return found.column("value").to_pylist()

    def _parquets(self) -> dict[str, str]:
        return {shard.name: str(shard.parquet) for shard in self.pool.shards} if self.pool else {}

    def _metadata_files(self) -> list[str]:
        parquets = self._parquets()
        return [parquets[name] for name in self._files.shard_names if name in parquets]

    def _source(self, column: str) -> str | None:
        """The pool's own name of a column, None where it has none. Raises PoolFormatError on an unknown name."""
        if self.pool is None:
            return None
        roles = {"caption": self.pool.text_column, "url": self.pool.url_column}
        if column in self.pool.columns:
            return column
        if column in roles:
            return roles[column]
        known = ", ".join(self.pool.columns)
        raise PoolFormatError(self.pool.root, expected=f"one of the columns {known}", found=repr(column))
