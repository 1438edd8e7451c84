"""Which shards are scored together? One at a time, or m in a row whose pairs share their batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipsel_core.pool.layout import Shard
from clipsel_core.runs.store import score_file


@dataclass(frozen=True)
class Group:
    """Shards that are divided into batches together. left: those of them that have no scores yet."""

    shards: tuple[Shard, ...]
    left: tuple[Shard, ...]

    @property
    def name(self) -> str:
        """What seeds the group's divisions; a single shard's name is its own."""
        return "\n".join(shard.name for shard in self.shards)

    def without(self, shard: str) -> Group:
        """The same group once a shard of it has its scores."""
        return Group(self.shards, tuple(one for one in self.left if one.name != shard))


def groups_left(root: Path, shards: Sequence[Shard], together: int) -> list[Group]:
    """The groups of a run that have something left to score, in the pool's order.

    together: shards in a group; the last may have fewer. A group is a function of the pool alone, so a run that is
    taken up again has the same batches.
    """
    sets = (tuple(shards[start : start + together]) for start in range(0, len(shards), together))
    groups = (Group(s, tuple(shard for shard in s if not score_file(root, shard.name).exists())) for s in sets)
    return [group for group in groups if group.left]
