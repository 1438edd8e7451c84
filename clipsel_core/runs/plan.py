"""What a run is going to do: its options checked against the pool, and against what was begun before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import ValidationError

from clipsel_core.errors import RunError, ScoringError, counted
from clipsel_core.places import Place
from clipsel_core.pool.embeddings import find_sides
from clipsel_core.pool.layout import (
    Arch,
    Pool,
    Shard,
    UidCheck,
    check_uids,
    metadata_files,
    open_pool,
    read_teachers,
    read_uids,
)
from clipsel_core.processes import versions
from clipsel_core.runs.store import (
    HOW_IT_WENT,
    AddedTarget,
    RunConfig,
    ShardInfo,
    TargetInfo,
    description_files,
    names_of_scored,
    placed,
    read_config,
)
from clipsel_core.runs.targets import NOT_DECIDING, choose_norms, load_target, norms_of
from clipsel_core.scoring.checks import check_precision
from clipsel_core.scoring.normsim import metric_name
from clipsel_core.scoring.reductions import tile_sizes, use_tile_sizes
from clipsel_core.tasks import Report

_AT_ONCE = 8
_BASE_METRICS = ("clip_score", "s_cliploss", "r_image", "r_text", "normalizer_se")


@dataclass(frozen=True)
class Plan:
    """A run that may begin or go on. devices: a worker's each, all of a kind.

    targets: name to (M, D) embeddings, or to a second moment, (D, D) float64.
    check_similarity: whether similarities that the pool stores are compared with those computed.
    """

    root: Place
    pool: Pool
    arch: Arch
    config: RunConfig
    targets: dict[str, torch.Tensor]
    devices: tuple[str, ...]
    check_similarity: bool = True


def plan_run(
    pool_root: str | os.PathLike[str],
    root: str | os.PathLike[str],
    *,
    arch: str | None = None,
    targets: Mapping[str, str | os.PathLike[str]] | None = None,
    norms: tuple[str, ...] | None = None,
    device: str = "auto",
    temperature: float | None = None,
    check_similarity: bool = True,
    embedding: Report | None = None,
    **options: Any,
) -> Plan:
    """Checks everything that can be checked before the work begins.

    arch: the teacher's name in the pool; may be left out where there is only one.
    targets: name to path, see `load_target`. norms: p of each NormSim_p; None for inf and 2, of a second moment 2.
    temperature: tau; None for that of the run that was begun, else the teacher's as the pool has it, else 0.01.
    device: see `resolve_devices`. check_similarity: see Plan. embedding: told how far the pictures of targets are
        embedded; None where nothing is to be written, and they are only looked at.
    options: batch_size, divisions, seed, mix_shards, on_bad_rows, precision, as in RunConfig.
    Raises: PoolFormatError, TargetError, ScoringError on an option out of range, RunError where `root` holds a run
        with another config.
    """
    root, pool = Place.of_named(root), open_pool(pool_root)
    teacher = pool.arch(arch)
    if metadata_files(root):
        raise RunError(root, expected="a folder for the run", found="a pool", remedy="choose a new folder")
    devices = resolve_devices(device)
    kind = torch.device(devices[0]).type
    begun = read_config(root) if (root / "run.json").exists() and not nothing_scored(root) else None
    with nullcontext() if begun else UidCheck(pool) as distinct:
        shards = shard_infos(pool, teacher, distinct)
    if begun:
        embedding = None  # those that it was begun with are there; others are refused
    loaded = {
        name: load_target(name, path, pool, teacher, root, device=devices[0], embedding=embedding)
        for name, path in (targets or {}).items()
    }
    infos = tuple(info for info, _ in loaded.values())
    chosen = choose_norms(norms, RunConfig.model_fields["norms"].default, infos)
    if temperature is None:
        known = begun or read_teachers(pool.root).get(teacher.name)
        temperature = known.temperature if known else RunConfig.model_fields["temperature"].default
    computed = {"norms": chosen if infos else (), "device": kind, "tiles": tiles_as(begun, devices[0], teacher.width)}
    config = _config(root, pool, teacher, infos, shards, temperature=temperature, **computed, **options)
    check_precision(config.precision, kind)
    if begun:
        shards = check_same_pool(root, begun, shards)
        wanted = config.model_copy(update={"shards": begun.shards})
        unfinished = len(names_of_scored(root, begun.shards)) < len(begun.shards)
        loose = {"targets": {"__all__": set(NOT_DECIDING)}}
        before, now = (config.model_dump(mode="json", exclude=loose) for config in (begun, wanted))
        for field in {**before, **now}:
            was, asked = before.get(field, getattr(begun, field)), now.get(field, getattr(wanted, field))
            # Other versions may only look at what is complete.
            if field not in HOW_IT_WENT and (field != "versions" or unfinished) and was != asked:
                was, asked = _difference(was, asked)
                remedy = f"score into another folder, or give {field} as before"
                raise RunError(root / "run.json", expected=f"{field} {was}, as begun", found=asked, remedy=remedy)
        config = begun.model_copy(update={"skipped_rows": None, "shards": shards})
        if shards != begun.shards:
            check_uids(pool)
    loaded_rows = {name: rows for name, (_, rows) in loaded.items()}
    return Plan(root, pool, teacher, config, loaded_rows, devices, check_similarity)


@dataclass(frozen=True)
class Group:
    """Shards that are divided into batches together. left: those that have no scores yet; its str names them."""

    shards: tuple[Shard, ...]
    left: tuple[Shard, ...]

    def __str__(self) -> str:
        return ", ".join(shard.name for shard in self.left)

    @property
    def name(self) -> str:
        """What seeds the group's divisions; a single shard's name is its own."""
        return "\n".join(shard.name for shard in self.shards)

    @property
    def rows_left(self) -> int:
        """Pairs of the shards that have no scores yet."""
        return sum(shard.rows for shard in self.left)


def groups_left(shards: Sequence[Shard], together: int, done: Collection[str]) -> list[Group]:
    """The groups of a run that have something left to score, in the pool's order.

    together: shards in a group; the last may have fewer. A group is a function of the pool alone, so a run that is
    taken up again has the same batches. done: the shards that need nothing any more.
    """

    def is_left(shard: Shard) -> bool:
        return shard.name not in done

    sets = (tuple(shards[start : start + together]) for start in range(0, len(shards), together))
    groups = (Group(s, tuple(filter(is_left, s))) for s in sets)
    return [group for group in groups if group.left]


def nothing_scored(root: Place) -> bool:
    """Whether a run's folder holds no shard's scores yet: then its options may still change."""
    return not any(name.endswith(".parquet") for name in (root / "scores").names())


def with_targets(plan: Plan) -> Plan:
    """A plan with its targets, read again from their files. Raises RunError where one has changed."""
    infos, pool, arch = plan.config.targets, plan.pool, plan.arch
    return replace(plan, targets={info.name: read_target_again(info, pool, arch, plan.root) for info in infos})


def read_target_again(was: TargetInfo, pool: Pool, arch: Arch, root: Place) -> torch.Tensor:
    """The rows or the moment of a target that a run was begun with. Raises RunError where it has changed."""
    now, rows = load_target(was.name, placed(root, was.path), pool, arch, root)
    if was.sha256 != now.sha256:
        raise RunError(now.path, expected="the target as it was begun with", found="another file")
    return rows


def resolve_devices(text: str) -> tuple[str, ...]:
    """The devices to compute on, one for each worker.

    text: "auto" (every GPU, else the CPU), "cpu", "cuda" (every GPU), or names separated by commas: "cuda:0,cuda:2",
        "cpu,cpu" for two workers that share the cores.
    Raises: ScoringError on one that is not there, or where they are not all of a kind.
    """
    gpus = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    if text == "auto":
        return gpus or ("cpu",)
    names = tuple(name.strip() for name in text.split(","))
    if names == ("cuda",) and gpus:
        return gpus
    try:
        kinds = {torch.empty(1, device=name).device.type for name in names}
    except (RuntimeError, AssertionError) as error:
        found = str(error).split("\n")[0]
        raise ScoringError("--device", expected="auto, cpu or devices of this machine", found=found) from error
    if len(kinds) > 1:
        raise ScoringError("--device", expected="devices of one kind", found=text, remedy="score on the GPUs alone")
    return names


def tiles_as(begun: RunConfig | AddedTarget | None, device: str, width: int) -> dict[str, int] | None:
    """The tile sizes that this machine is going to use: those that were begun with, where there are any."""
    if begun and begun.tiles and torch.device(begun.device).type == torch.device(device).type:
        use_tile_sizes(device, width, begun.tiles)
    return tile_sizes(device, width)


def _config(
    root: Place,
    pool: Pool,
    arch: Arch,
    targets: tuple[TargetInfo, ...],
    shards: tuple[ShardInfo, ...],
    **options: Any,
) -> RunConfig:
    norm_metrics = (
        metric_name(float(p), target.name) for target in targets for p in norms_of(target, options["norms"])
    )
    try:
        return RunConfig(
            pool=pool.root.relative_to(root),
            arch=arch.name,
            targets=targets,
            versions=versions(),
            shards=shards,
            pairs=pool.rows,
            width=arch.width,
            metrics=(*_BASE_METRICS, *norm_metrics),
            **options,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "--" + str(first["loc"][0]).replace("_", "-")
        expected = first["msg"].lower().removeprefix("input should be ")
        expected = f"a number {expected}" if expected.startswith(("greater", "less")) else expected
        raise ScoringError(where, expected=expected, found=repr(first["input"])) from error


def shard_infos(pool: Pool, arch: Arch, distinct: UidCheck | None = None) -> tuple[ShardInfo, ...]:
    """The pool's shards with digests of what is scored of them: the uids, and the CRCs that the npz has of both sides.

    Opens every npz before the first is scored, so that a missing one is not found out hours later.
    distinct: makes sure that no uid repeats, where that is not known yet.
    """

    def examine(shard: Shard) -> ShardInfo:
        _, sides = find_sides(shard, arch)
        here = read_uids(shard)
        if distinct:
            distinct.add(here)
        found = hashlib.sha256(here.tobytes())
        for member in sides:
            found.update(f"{member.name} {member.crc}".encode())
        return ShardInfo(name=shard.name, rows=shard.rows, digest=found.hexdigest()[:16])

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = tuple(threads.map(examine, pool.shards))
    if distinct:
        distinct.finish()
    return found


def check_same_pool(root: Place, begun: RunConfig, now: Sequence[ShardInfo]) -> tuple[ShardInfo, ...]:
    """Makes sure that the shards that a run has scored are what they were then, and that there are no others.

    Returns: the shards as the run goes on with them: one of which nothing was used yet may have been mended.
    Raises: RunError where there are others, or the uids or embeddings of a scored one have changed.
    """
    remedy = "bring back the pool that was scored, or score this one into another folder"
    was, names = [(shard.name, shard.rows) for shard in begun.shards], [shard.name for shard in now]
    if was != [(shard.name, shard.rows) for shard in now]:
        expected = f"{counted(len(was), 'shards')}, {counted(begun.pairs, 'pairs')}, as begun"
        found = f"{counted(len(now), 'shards')}, {counted(sum(shard.rows for shard in now), 'pairs')}"
        raise RunError(root / begun.pool, expected=expected, found=found, remedy=remedy)
    changed = [shard for old, shard in zip(begun.shards, now, strict=True) if old.digest and old.digest != shard.digest]
    # What a shard was compared with later has its rows in the order of its scores.
    folders = [root / "scores", *(file.parent for file in description_files(root)[1:])]
    for shard in changed:
        place = names.index(shard.name) // begun.mix_shards * begun.mix_shards
        together = names[place : place + begun.mix_shards]
        if any((folder / f"{name}.parquet").exists() for folder in folders for name in together):
            where = f"pool {root / begun.pool}, shard {shard.name}"
            raise RunError(where, expected="the uids and embeddings that were scored", found="others", remedy=remedy)
    return tuple(shard if shard in changed else old for old, shard in zip(begun.shards, now, strict=True))


def _difference(before: Any, now: Any) -> tuple[str, str]:
    """Both values of a field, cut down to the part that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        was, asked = (", ".join(f"{key}={side.get(key)}" for key in changed) for side in (before, now))
        return was, asked
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return next(_difference(a, b) for a, b in zip(before, now, strict=True) if a != b)
    if isinstance(before, list) and isinstance(now, list):
        return f"{len(before)} entries", f"{len(now)} entries"
    return repr(before), repr(now)
