"""How is a finished run compared with one more target? Beside its scores, which stay as they are.

RUN/added/<name>/target.json      what it is compared with and how; says at the end that it is complete
RUN/added/<name>/<shard>.parquet  uid_hi, uid_lo (uint64) and its metrics (float32), a row a pair, in the shard's order

The values are those that `score` gives with this target from the start, on the same device.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from clipsel_core.errors import RunError, TargetError
from clipsel_core.files import remove_leftovers
from clipsel_core.places import Place
from clipsel_core.pool.embeddings import ROUNDING, ImageBlocks, expect_images, read_images, read_pairs, row_scale
from clipsel_core.pool.layout import Arch, Pool, Shard, open_pool
from clipsel_core.processes import versions
from clipsel_core.runs.groups import NormSims, spread, usable_rows
from clipsel_core.runs.local import do_groups, sole_worker
from clipsel_core.runs.plan import (
    Group,
    check_same_pool,
    groups_left,
    read_target_again,
    resolve_devices,
    shard_infos,
    tiles_as,
)
from clipsel_core.runs.store import (
    UID_HALVES,
    AddedTarget,
    Run,
    RunConfig,
    SealedFiles,
    TargetInfo,
    keep_whole,
    read_added,
    write_description,
)
from clipsel_core.runs.targets import NOT_DECIDING, choose_norms, load_target, norms_of
from clipsel_core.scoring.checks import telling_of_memory
from clipsel_core.scoring.normsim import metric_name
from clipsel_core.scoring.reductions import use_tile_sizes
from clipsel_core.tasks import Report, check, silent
from clipsel_core.workers import Do, Machines, check_asked

# Rows are of unit length within ROUNDING; whether those near its edge are is for row_scale to say.
_SURELY_UNIT = 0.9 * ROUNDING


def add_target(
    root: str | os.PathLike[str],
    name: str,
    path: str | os.PathLike[str],
    *,
    norms: Sequence[str] | None = None,
    device: str | None = None,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
    report: Report = silent,
    embedding: Report = silent,
) -> Run:
    """Computes NormSim of a finished run's pairs to a target, or goes on with what was begun.

    name, path: as in `load_target`. norms: the p of each NormSim_p; None for those of the run, inf and 2 where it has
    none, 2 for a second moment. device: None for the run's; of several, each gets a worker.
    cluster, cpus_per_worker: as in `score`. report: told how many of the run's pairs and shards are done.
    embedding: told how far the target's pictures are embedded.
    Returns: the run with its new metrics, normsim_<p>_<name>.
    Raises: RunError where the run is unfinished, has another target of this name, or its pool has changed; TargetError
        on a file that does not fit; what scoring raises. Shards that were finished stay.
    """
    run = Run.open(Place.of_named(root).absolute() if cluster else root)
    check_asked(device or "auto", cluster, cpus_per_worker)
    try:
        with sole_worker(run.root):
            pool, arch = scored_pool(run)
            plan, rows = _plan(run, pool, arch, name, path, norms, device, embedding)
            machines = Machines(resolve_devices(device or run.config.device), cluster, cpus_per_worker)
            _compute(_Comparing(run, pool, arch, plan, rows), machines, report)
    except OSError as error:
        remedy = "see whether the store is there" if run.root.remote else "make room"
        remedy, found = f"{remedy}, then start it again", str(error.strerror or error)
        raise RunError(error.filename or root, expected="to write scores", found=found, remedy=remedy) from error
    return Run.open(root)


def check_target(
    root: str | os.PathLike[str],
    name: str,
    path: str | os.PathLike[str],
    *,
    norms: Sequence[str] | None = None,
    device: str | None = None,
) -> TargetInfo:
    """Makes sure that `add_target` can begin, and writes nothing. Arguments and what is raised: as there.

    Returns: what the target was taken for.
    """
    run = Run.open(root)
    return _plan(run, *scored_pool(run), name, path, norms, device, None)[0].target


def _plan(
    run: Run,
    pool: Pool,
    arch: Arch,
    name: str,
    path: str | os.PathLike[str],
    norms: Sequence[str] | None,
    device: str | None,
    embedding: Report | None,
) -> tuple[AddedTarget, torch.Tensor]:
    """What is going to be computed, checked against the run and against what was begun before; and the target."""
    if any(target.name == name for target in run.config.targets):
        raise TargetError(run.root, expected="a new target's name", found=name, remedy="choose another name")
    file = run.root / "added" / name / "target.json"
    if file.with_name("column.json").exists():
        found = f"{name}, an added column"
        raise TargetError(run.root, expected="a new target's name", found=found, remedy="choose another name")
    (chosen, *_) = resolve_devices(device or run.config.device)
    begun = AddedTarget.model_validate(read_added(file)) if file.exists() else None
    if begun:
        embedding = None  # as in plan_run
    info, rows = load_target(name, path, pool, arch, run.root, device=chosen, embedding=embedding)
    wanted = choose_norms(norms, run.config.norms or RunConfig.model_fields["norms"].default, [info])
    tiles = tiles_as(begun or run.config, chosen, arch.width)
    metrics = tuple(metric_name(float(p), name) for p in norms_of(info, wanted))
    for column in run.added_columns:
        if column.column.name in metrics:
            found = f"{name}, which would give a second {column.column.name}"
            raise TargetError(run.root, expected="a new target's name", found=found, remedy="choose another name")
    plan = AddedTarget(target=info, norms=wanted, device=chosen, tiles=tiles, versions=versions(), metrics=metrics)
    if begun:
        # It goes on only as it was begun; a complete one may have been made by other versions.
        loose: Any = {"complete": True, "tried_again": True, "target": set(NOT_DECIDING)}
        loose |= {"versions": True} if begun.complete else {}
        before, now = (target.model_dump(mode="json", exclude=loose) for target in (begun, plan))
        changed = next((field for field in {**before, **now} if before.get(field) != now.get(field)), None)
        if changed:
            remedy = f"choose another name than {name}, or remove its folder"
            expected = f"{changed} {before.get(changed)}, as begun"
            raise RunError(file, expected=expected, found=str(now.get(changed)), remedy=remedy)
    return begun or plan, rows


@dataclass(frozen=True)
class _Comparing:
    """The work that compares a run's shards with a target. rows: the target; pickled without, which is read again."""

    run: Run
    pool: Pool
    arch: Arch
    plan: AddedTarget
    rows: torch.Tensor | None = None
    gives: str = "scores"

    def __reduce__(self) -> tuple[type[_Comparing], tuple[Any, ...]]:
        return _Comparing, (self.run, self.pool, self.arch, self.plan)

    @property
    def description(self) -> Place:
        return self.folder / "target.json"

    @property
    def folder(self) -> Place:
        return self.run.root / "added" / self.plan.target.name

    def begin(self, device: str) -> Do:
        plan, rows = self.plan, self.rows
        if rows is None:
            rows = read_target_again(plan.target, self.pool, self.arch, self.run.root)
        if plan.tiles:
            use_tile_sizes(device, self.arch.width, plan.tiles)
        with telling_of_memory(device):
            sims = NormSims({plan.target.name: rows}, plan.norms, device)
        return _Comparison(self.run, self.pool, self.arch, plan, sims, device).add


def _compute(work: _Comparing, machines: Machines, report: Report) -> None:
    """Computes the shards that are not there yet, then says that all are."""
    run, pool, plan = work.run, work.pool, work.plan
    if not work.description.exists():
        write_description(run.root, work.description, plan)
    if not work.folder.remote:
        remove_leftovers(Path(work.folder))
    done = keep_whole(SealedFiles(run.root, run.config, plan))

    def count(again: int) -> None:
        nonlocal plan
        plan = plan.model_copy(update={"tried_again": plan.tried_again + again})
        write_description(run.root, work.description, plan)

    groups = groups_left(pool.shards, 1, done)
    do_groups(work, groups, pool, machines, report, count)
    finished = plan.model_copy(update={"complete": True})
    write_description(run.root, work.description, finished)


class _Comparison:
    """How shards are compared with the target: a few exemplars as the images are read, more of them afterwards.

    For several threads: one shard is computed at a time, while others are read and written.
    """

    def __init__(self, run: Run, pool: Pool, arch: Arch, plan: AddedTarget, sims: NormSims, device: str) -> None:
        self._run, self._pool, self._arch, self._sims, self._device = run, pool, arch, sims, device
        self._scores, self._files = SealedFiles(run.root, run.config), SealedFiles(run.root, run.config, plan)
        self._held, self._computing = threading.Semaphore(2), threading.Lock()

    def add(self, group: Group, report: Report) -> None:
        """Writes uids and metrics of a group's shards; rows that the run set aside are NaN. report: as in Do."""
        for shard in group.left:
            # Uids and scores are as good as random: a dictionary would take longer than the comparison.
            self._files.write(shard.name, self._table(shard, report), use_dictionary=False)

    def _table(self, shard: Shard, report: Report) -> pa.Table:
        with self._held:
            check()
            usable, image = self._read(shard)
            with self._computing:
                check()
                found = self._compute(shard, image, report)
            del image
        table = self._scores.read(shard.name, UID_HALVES).replace_schema_metadata(None)
        for metric in self._sims.metrics:
            values = spread(found.get(metric), usable)
            # pa.array would import pandas, which takes longer than comparing half a million pairs
            column = pa.Array.from_buffers(pa.float32(), len(values), [None, pa.py_buffer(values)])
            table = table.append_column(metric, column)
        return table

    def _read(self, shard: Shard) -> tuple[np.ndarray, torch.Tensor | None]:
        """Which rows are usable, (N,) bool, and their images, (n, D); None where these are read in the one pass.

        From a store they are read first, while another shard is compared. Captions are read only where some rows were
        set aside, or may have been scaled.
        """
        config = self._run.config
        if config.skipped_rows or config.on_bad_rows == "scale":
            pairs = read_pairs(shard, self._arch, on_bad_rows=config.on_bad_rows)
            return pairs.usable, usable_rows([pairs.image], [pairs.usable])
        everything = np.ones(shard.rows, bool)
        if not self._sims.are_few or self._pool.root.remote:
            return everything, torch.from_numpy(read_images(shard, self._arch))
        expect_images(shard, self._arch)
        return everything, None

    def _compute(self, shard: Shard, image: torch.Tensor | None, report: Report) -> dict[str, torch.Tensor]:
        """Each metric of the usable rows."""
        if image is None:
            return self._in_one_pass(shard)
        with telling_of_memory(self._device):
            return self._sims.of(image, report) if len(image) else {}

    def _in_one_pass(self, shard: Shard) -> dict[str, torch.Tensor]:
        """As `_compute`, of images that are read as they are compared; once more where their lengths ask for it."""
        with ImageBlocks(shard, self._arch) as blocks:
            length = torch.ones(blocks.rows)

            def put(place: slice, out: torch.Tensor) -> None:
                out.copy_(torch.from_numpy(blocks.read(place)))
                torch.linalg.vector_norm(out, dim=1, out=length[place])

            def put_scaled(place: slice, out: torch.Tensor) -> None:
                out.copy_(torch.from_numpy(blocks.read(place)))
                scale = row_scale(out.numpy())
                if np.isnan(scale).any():
                    read_images(shard, self._arch)  # says which row it is
                out.mul_(torch.from_numpy(scale)[:, None])

            found = self._sims.in_one_pass(put, blocks.rows)
            # Written so that a length of NaN is not taken for 1.
            if bool((length.sub_(1).abs_() < _SURELY_UNIT).all()):
                return found
            return self._sims.in_one_pass(put_scaled, blocks.rows)


def scored_pool(run: Run) -> tuple[Pool, Arch]:
    """The run's pool, made sure to be the one that was scored."""
    if not run.finished:
        remedy = "finish it first: the same score command goes on"
        raise RunError(run.root, expected="a finished run", found="shards left to score", remedy=remedy)
    pool = open_pool(run.pool_root)
    arch = pool.arch(run.config.arch)
    if arch.width != run.config.width:
        expected, found = f"width {run.config.width}, as scored", f"width {arch.width}"
        raise RunError(run.pool_root, expected=expected, found=found, remedy="bring back the pool that was scored")
    check_same_pool(run.root, run.config, shard_infos(pool, arch))
    return pool, arch
