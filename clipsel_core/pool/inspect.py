"""What a pool is, at a glance: what a curator wants to know before scoring it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.check import Problem, check_uids, shard_problems
from clipsel_core.pool.layout import Pool
from clipsel_core.pool.tar_index import damage_at_a_glance


@dataclass(frozen=True)
class PoolReport:
    """A pool and what is wrong with it."""

    pool: Pool
    problems: tuple[Problem, ...]

    @property
    def stops(self) -> bool:
        """Whether scoring would stop at a problem."""
        return any(problem.stops for problem in self.problems)

    @property
    def npz_count(self) -> int:
        """Shards whose embeddings are there."""
        return sum(shard.npz is not None for shard in self.pool.shards)


def inspect_pool(pool: Pool, *, values: bool = True, progress: Callable[[int, int], None] | None = None) -> PoolReport:
    """Checks a pool's uids, headers and, with `values`, every embedding; collects what it finds instead of raising.

    progress: told after each shard how many of how many pairs are done.
    """
    problems = []
    if not pool.archs:
        problems.append(Problem(f"{pool.root / 'metadata'}: no teacher's embeddings in any .npz"))
    done = 0
    for shard in pool.shards:
        problems += shard_problems(shard, pool, list(pool.archs.values()), values=values)
        done += shard.rows
        if progress:
            progress(done, pool.rows)
    try:
        check_uids(pool)
    except PoolFormatError as error:
        problems.append(Problem(str(error)))
    # Where `embed` left an index, no tar is gone through for images.
    for tar in () if pool.indexes else pool.tars:
        if damage := damage_at_a_glance(tar):
            problems.append(Problem(f"{tar}: {damage}; download it again", stops=False))
    return PoolReport(pool, tuple(problems))
