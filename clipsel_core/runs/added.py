"""How is a finished run compared with one more target? Beside its scores, which stay as they are.

RUN/added/<name>/target.json      what it is compared with and how; says at the end that it is complete
RUN/added/<name>/<shard>.parquet  uid_hi, uid_lo (uint64) and its metrics (float32), a row a pair, in the shard's order

The values are those that `score` gives with this target from the start, on the same device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import torch

from clipsel_core.errors import RunError, TargetError
from clipsel_core.files import write_atomically, write_json
from clipsel_core.pool.embeddings import read_pairs
from clipsel_core.pool.layout import Arch, Pool, Shard, open_pool
from clipsel_core.runs.config import AddedTarget, RunConfig
from clipsel_core.runs.local import sole_worker
from clipsel_core.runs.plan import parse_norms, resolve_device, tiles_as, versions
from clipsel_core.runs.score_group import NormSims, spread, usable_rows, with_uids
from clipsel_core.runs.store import Run, added_file, read_added
from clipsel_core.runs.targets import load_target


def add_target(
    root: str | Path,
    name: str,
    path: str | Path,
    *,
    norms: Sequence[str] | None = None,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Run:
    """Computes NormSim of a finished run's pairs to a target, or goes on with what was begun.

    name, path: as in `load_target`. norms: the p of each NormSim_p; None for those of the run, inf and 2 where it has
    none. device: None for the run's. progress: called with pairs done and pairs in all.
    Returns: the run with its new metrics, normsim_<p>_<name>.
    Raises: RunError where the run is unfinished, has another target of this name, or its pool has changed; TargetError
        on a file that does not fit; what scoring raises. Shards that were finished stay.
    """
    run = Run.open(root)
    try:
        with sole_worker(run.root):
            pool, arch = _scored_pool(run)
            plan, sims = _plan(run, pool, arch, name, path, norms, device)
            if not plan.complete:
                _compute(run, pool, arch, plan, sims, progress or (lambda done, total: None))
    except OSError as error:
        remedy, found = "make room, then start it again", str(error.strerror or error)
        raise RunError(error.filename or root, expected="to write scores", found=found, remedy=remedy) from error
    return Run.open(root)


def _plan(
    run: Run, pool: Pool, arch: Arch, name: str, path: str | Path, norms: Sequence[str] | None, device: str | None
) -> tuple[AddedTarget, NormSims]:
    """What is going to be computed, checked against the run and against what was begun before."""
    info, rows = load_target(name, path, pool, arch, run.root)
    if any(target.name == name for target in run.config.targets):
        raise TargetError(run.root, expected="a new target's name", found=name, remedy="choose another name")
    chosen, file = resolve_device(device or run.config.device), _description(run.root, name)
    begun = read_added(file) if file.exists() else None
    wanted = parse_norms(norms or run.config.norms or RunConfig.model_fields["norms"].default)
    tiles = tiles_as(begun or run.config, chosen, arch.width)
    sims = NormSims({name: rows}, wanted, chosen)
    plan = AddedTarget(target=info, norms=wanted, device=chosen, tiles=tiles, versions=versions(), metrics=sims.metrics)
    if begun:
        _check_same(file, begun, plan)
    return begun or plan, sims


def _compute(
    run: Run, pool: Pool, arch: Arch, plan: AddedTarget, sims: NormSims, progress: Callable[[int, int], None]
) -> None:
    """Computes the shards that are not there yet, then says that all are."""
    folder = _description(run.root, plan.target.name).parent
    if not _description(run.root, plan.target.name).exists():
        write_json(_description(run.root, plan.target.name), plan.model_dump(mode="json"))
    for leftover in folder.glob(".*.partial"):
        leftover.unlink()
    done = 0
    for shard in pool.shards:
        path = added_file(run.root, plan.target.name, shard.name)
        if not path.exists():
            told = partial(_tell, progress, done, shard.rows, pool.rows, sims.work(shard.rows))
            table = with_uids(pool, shard, _columns(run, pool, arch, shard, sims, told))
            write_atomically(path, partial(pq.write_table, table))
        done += shard.rows
        progress(done, pool.rows)
    finished = plan.model_copy(update={"complete": True})
    write_json(_description(run.root, plan.target.name), finished.model_dump(mode="json"))


def _columns(run: Run, pool: Pool, arch: Arch, shard: Shard, sims: NormSims, told: Callable[[float], None]) -> dict:
    """The shard's metrics by name; rows that the run set aside are NaN."""
    pairs = read_pairs(pool, shard, arch, on_bad_rows=run.config.on_bad_rows)
    image, products = usable_rows(pairs.image, pairs.usable), 0.0

    def add(done: float) -> None:
        nonlocal products
        products += done
        told(products)

    found: dict[str, torch.Tensor] = sims.of(image, add) if len(image) else {}
    return {metric: spread(found.get(metric), pairs.usable) for metric in sims.metrics}


def _tell(progress: Callable[[int, int], None], before: int, rows: int, total: int, work: int, products: float) -> None:
    progress(before + int(rows * min(1.0, products / work)), total)


def _scored_pool(run: Run) -> tuple[Pool, Arch]:
    """The run's pool, made sure to be the one that was scored."""
    if not run.finished:
        remedy = "finish it first: the same score command goes on"
        raise RunError(run.root, expected="a finished run", found="shards left to score", remedy=remedy)
    pool = open_pool(run.pool_root)
    arch = pool.arch(run.config.arch)
    scored = [(shard.name, shard.rows) for shard in run.config.shards]
    if [(shard.name, shard.rows) for shard in pool.shards] != scored or arch.width != run.config.width:
        found = f"{len(pool.shards):,} shards, {pool.rows:,} pairs of width {arch.width}"
        expected = f"{len(scored):,} shards, {run.config.pairs:,} pairs of width {run.config.width}, as scored"
        raise RunError(run.pool_root, expected=expected, found=found, remedy="bring back the pool that was scored")
    return pool, arch


def _check_same(file: Path, begun: AddedTarget, wanted: AddedTarget) -> None:
    """A target that was begun goes on only as it was begun; a complete one may have been made by other versions."""
    loose = {"complete", "versions"} if begun.complete else {"complete"}
    before, now = (plan.model_dump(mode="json", exclude=loose) for plan in (begun, wanted))
    changed = next((field for field in {**before, **now} if before.get(field) != now.get(field)), None)
    if changed:
        remedy = f"choose another name than {wanted.target.name}, or remove its folder"
        expected = f"{changed} {before.get(changed)}, as begun"
        raise RunError(file, expected=expected, found=str(now.get(changed)), remedy=remedy)


def _description(root: Path, name: str) -> Path:
    return root / "added" / name / "target.json"
