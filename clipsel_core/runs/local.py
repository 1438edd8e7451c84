"""How a run is carried out on this machine: shard after shard, each finished whole, resumed where it stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from clipsel_core import files
from clipsel_core.counts import counted
from clipsel_core.errors import ClipselError, PoolFormatError, RunError
from clipsel_core.pool.layout import Shard
from clipsel_core.runs.groups import Group, groups_left
from clipsel_core.runs.plan import Plan, nothing_scored, plan_run
from clipsel_core.runs.score_group import GroupScorer
from clipsel_core.runs.seal import SealedFiles, keep_whole
from clipsel_core.runs.share import share_out
from clipsel_core.runs.status import Status, StatusWriter
from clipsel_core.runs.store import Run, read_config, read_counts, score_file, write_config
from clipsel_core.runs.work import work_through

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
        with files.made_folder(root), sole_worker(root):
            begun = read_config(root) if (root / "run.json").exists() else None
            if begun:
                keep_whole(SealedFiles(root, begun))
            plan = plan_run(pool, root, **options)
            files.remove_leftovers(root, root / "scores")
            for name in ("cache", "exports", "index", "recipes", "searches"):
                if (root / name).is_dir():
                    files.remove_abandoned(root / name)
            if begun is None or nothing_scored(root) or begun.shards != plan.config.shards:
                write_config(root, plan.config)
            _score_shards(plan, listener)
    except OSError as error:
        remedy = "make room or choose another folder, then start again: finished shards are kept"
        found = f"{error.strerror or error}"
        raise RunError(error.filename or root, expected="to write the run", found=found, remedy=remedy) from error
    return Run.open(root)


def _score_shards(plan: Plan, listener: Callable[[Status], None] | None) -> None:
    shards = plan.pool.shards
    groups = groups_left(plan.root, shards, plan.config.mix_shards)
    left = [shard for group in groups for shard in group.left]
    status = StatusWriter(plan.root, plan.config, [shard for shard in shards if shard not in left], listener)
    try:
        _score_groups(plan, groups, status)
        if plan.config.on_bad_rows != "scale":
            _warn_of_scaled_rows(plan.root, left)
        counts = [read_counts(score_file(plan.root, shard.name)) for shard in shards]
        skipped = sum(count["skipped"] for count in counts)
        _check_something_left(plan, skipped)
        write_config(plan.root, plan.config.model_copy(update={"skipped_rows": skipped}))
        status.close("done")
    except KeyboardInterrupt:
        status.close("stopped", "interrupted; start it again to go on")
        raise
    except (ClipselError, OSError) as error:
        status.close("failed", str(error))
        raise


def _score_groups(plan: Plan, groups: list[Group], status: StatusWriter) -> None:
    """One worker computes here, several in processes of their own."""
    if groups and len(plan.devices) == 1:
        work_through(plan.root, GroupScorer(plan, plan.devices[0]), groups, status)
    elif groups:
        share_out(plan, groups, status)


def _check_something_left(plan: Plan, skipped: int) -> None:
    """Makes sure that a pair was scored. Raises PoolFormatError, and takes the files without scores away, where not."""
    if skipped < plan.pool.rows or not skipped:
        return
    for shard in plan.pool.shards:
        score_file(plan.root, shard.name).unlink(missing_ok=True)
    remedy = "see what clipsel inspect says; --on-bad-rows scale takes rows of any length"
    found = f"all {counted(skipped, 'pairs')} set aside"
    raise PoolFormatError(plan.pool.root, expected="a pair that can be scored", found=found, remedy=remedy)


def _warn_of_scaled_rows(root: Path, shards: list[Shard]) -> None:
    """One warning, with the first shard that has such rows for an example."""
    for shard in shards:
        scaled = read_counts(score_file(root, shard.name))["renormalised"]
        if scaled:
            _log.warning("shard %s: %d rows a little off unit length were scaled to it", shard.name, scaled)
            return


def sole_worker(root: Path) -> AbstractContextManager[None]:
    """Holds a run's folder for this process. Raises RunError where another process holds it."""
    remedy = "wait for it, or score into another folder"
    busy = RunError(root, expected="a folder nobody works in", found="a run going on", remedy=remedy)
    return files.sole_worker(root, busy)
