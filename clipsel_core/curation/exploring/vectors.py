"""Which embeddings belong to which rows of a run? Read from the pool's files a block at a time, never all at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import RunError
from clipsel_core.pool.embeddings import at_unit_length, read_embeddings
from clipsel_core.pool.layout import Arch, Pool
from clipsel_core.tasks import Report, silent

Side = Literal["image", "text"]

_BLOCK_BYTES = 1 << 25


class Vectors(Protocol):
    """Embeddings that come in blocks: (B,) int64 row numbers, ascending from block to block, and their (B, D) floats.

    rows: how many there are in all. width: D.
    """

    @property
    def rows(self) -> int: ...

    @property
    def width(self) -> int: ...

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]: ...


@dataclass(frozen=True)
class PoolVectors:
    """Embeddings of a run's pairs, of one side, as the pool's files hold them.

    among: (M,) row numbers, ascending; None for every pair of the run.
    """

    table: ScoreTable
    side: Side = "image"
    among: np.ndarray | None = None

    @property
    def rows(self) -> int:
        return len(self.table) if self.among is None else len(self.among)

    @property
    def width(self) -> int:
        return self._arch.width

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of some 32 MiB in float32, whichever dtype they are stored in.

        Raises: RunError where the pool or a shard of it is not there, PoolFormatError where a file is damaged, or a
            shard holds other pairs than were scored.
        """
        size = max(1, _BLOCK_BYTES // (4 * self.width))
        member = self._arch.image_member if self.side == "image" else self._arch.text_member
        scaled = self.table.run.config.on_bad_rows == "scale"
        shards = {shard.name: shard for shard in self._pool.shards}
        for name, of_shard in zip(self.table.shard_names, self.table.files.rows_of_shards(), strict=True):
            rows = np.arange(of_shard.start, of_shard.stop)
            if self.among is not None:
                rows = self.among[slice(*np.searchsorted(self.among, [of_shard.start, of_shard.stop]))]
            if not len(rows):
                continue
            if name not in shards:
                found = f"shard {name} is not there"
                raise RunError(self.table.run.pool_root, expected="the pool that was scored", found=found)
            self.table.metadata.check_shard(shards[name])
            stored = read_embeddings(shards[name], member)
            places = self.table.files.place_in_shard(rows)
            for start in range(0, len(rows), size):
                part = places[start : start + size]
                whole = part[-1] - part[0] + 1 == len(part)
                block = stored[part[0] : part[-1] + 1] if whole else stored[part]
                yield rows[start : start + size], at_unit_length(block) if scaled else block

    def read(self, dtype: type | None = None, report: Report = silent) -> np.ndarray:
        """All of them in one array, (rows, D); for samples. dtype: None for the one they are stored in."""
        out: np.ndarray = np.empty((0, self.width), dtype or np.float16)
        start = 0
        for rows, block in self.blocks():
            if not start:
                out = np.empty((self.rows, block.shape[1]), dtype or block.dtype)
            out[start : start + len(rows)] = block
            start += len(rows)
            report(start, self.rows, "pairs")
        return out

    @property
    def _arch(self) -> Arch:
        return self._pool.arch(self.table.run.config.arch)

    @property
    def _pool(self) -> Pool:
        if self.table.metadata.pool is None:
            root = self.table.run.pool_root
            raise RunError(root, expected="the pool that was scored", found="no such folder", remedy="bring it back")
        return self.table.metadata.pool


@dataclass(frozen=True)
class HeldVectors:
    """Embeddings kept in memory, so that a second search over the same sample reads no file.

    numbers: (M,) int64 row numbers, ascending. held: (M, D) floats.
    """

    numbers: np.ndarray
    held: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.numbers)

    @property
    def width(self) -> int:
        return self.held.shape[1]

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Views of the held rows, some 32 MiB of float32 each."""
        size = max(1, _BLOCK_BYTES // (4 * max(self.width, 1)))
        for start in range(0, self.rows, size):
            yield self.numbers[start : start + size], self.held[start : start + size]


def vector_of(table: ScoreTable, row: int, side: Side = "image") -> np.ndarray:
    """The embedding of one pair: (D,) float32, as stored."""
    return PoolVectors(table, side, np.array([row], np.int64)).read(np.float32)[0]
