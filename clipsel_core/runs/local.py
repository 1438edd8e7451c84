"""How a run is carried out on this machine: shard after shard, each finished whole, resumed where it stopped."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from clipsel_core.errors import ClipselError, RunError
from clipsel_core.files import write_atomically
from clipsel_core.pool.layout import Shard
from clipsel_core.runs.plan import Plan, plan_run
from clipsel_core.runs.score_shard import ShardScorer, read_counts
from clipsel_core.runs.status import Status, StatusWriter
from clipsel_core.runs.store import Run, score_file, write_config

_log = logging.getLogger(__name__)


def score(
    pool: str | Path, root: str | Path, *, listener: Callable[[Status], None] | None = None, **options: Any
) -> Run:
    """Scores a pool into a run's folder, or goes on with what was begun there.

    A run that is killed and started again has, byte for byte, the scores of one that was left alone.

    listener: called about twice a second with the run's Status. options: those of `plan_run`.
    Raises: what `plan_run` raises; PoolFormatError on a shard that cannot be scored; RunError where another process
        is at work in the folder, or it cannot be written. Shards that were finished stay.
    """
    root = Path(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with sole_worker(root):
            plan = plan_run(pool, root, **options)
            _remove_leftovers(root)
            if not (root / "run.json").exists():
                write_config(root, plan.config)
            _score_shards(plan, listener)
    except OSError as error:
        remedy = "make room or choose another folder, then start again: finished shards are kept"
        found = f"{error.strerror or error}"
        raise RunError(error.filename or root, expected="to write the run", found=found, remedy=remedy) from error
    return Run.open(root)


def _score_shards(plan: Plan, listener: Callable[[Status], None] | None) -> None:
    shards = plan.pool.shards
    left = [shard for shard in shards if not score_file(plan.root, shard.name).exists()]
    status = StatusWriter(plan.root, plan.config, [shard for shard in shards if shard not in left], listener)
    try:
        if left:
            _score_left(plan, left, status)
        counts = [read_counts(score_file(plan.root, shard.name)) for shard in shards]
        skipped = sum(count["skipped"] for count in counts)
        write_config(plan.root, plan.config.model_copy(update={"skipped_rows": skipped}))
        status.close("done")
    except KeyboardInterrupt:
        status.close("stopped", "interrupted; start it again to go on")
        raise
    except (ClipselError, OSError) as error:
        status.close("failed", str(error))
        raise


def _score_left(plan: Plan, left: list[Shard], status: StatusWriter) -> None:
    scorer, warned = ShardScorer(plan), False
    for shard in left:
        table = scorer.score(shard, partial(status.advance, shard))
        path = score_file(plan.root, shard.name)
        write_atomically(path, partial(pq.write_table, table))
        warned = warned or _warn_of_scaled_rows(path)
        status.finish(shard)


def _warn_of_scaled_rows(scores: Path) -> bool:
    scaled = read_counts(scores)["renormalised"]
    if scaled:
        _log.warning("shard %s: %d rows a little off unit length were scaled to it", scores.stem, scaled)
    return scaled > 0


def _remove_leftovers(root: Path) -> None:
    """Files that a killed process was still writing; nobody else writes here while the folder is locked."""
    for leftover in (*root.glob(".*.partial"), *root.glob("scores/.*.partial")):
        leftover.unlink()


@contextmanager
def sole_worker(root: Path) -> Iterator[None]:
    """Holds a run's folder for this process; the kernel lets go of it however the process ends.

    Raises: RunError where another process holds it.
    """
    with open(root / ".lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "wait for it, or score into another folder"
            raise RunError(root, expected="a folder nobody works in", found="a run going on", remedy=remedy) from error
        yield
