"""What is a run? Everything that decides its scores, as run.json has it, and where its files lie.

Light: needs neither torch nor the pool.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from clipsel_core.errors import ExportError, RunError, reason_of
from clipsel_core.files import cache_folder, write_json

TargetKind = Literal["npy", "npz", "pt", "parquet", "uids"]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
# A column of the score files; it is written into recipes and shown as a heading.
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}$")]
COUNTS = b"clipsel_counts"
"""The key of what `read_counts` reads in a file's schema."""
# Folders of a run that hold what was picked or found in it, and nothing that the run is read from.
_MAY_BE_WRITTEN = ("exports", "searches")


def _without_nul(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path cannot hold a NUL")
    return path


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TargetInfo(_Frozen):
    """A named set of image embeddings that NormSim compares the pool with."""

    name: Name
    path: str
    kind: TargetKind
    sha256: str
    rows: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]

    _plain = field_validator("path")(_without_nul)


class ShardInfo(_Frozen):
    """A shard as it was when the run was planned. name: a part of its files' names, so it leads to no other folder.

    digest: of its uids and of what is scored of its embeddings; None in runs of earlier versions.
    """

    name: Annotated[str, Field(pattern=r"^[^/\x00]+$")]
    rows: Annotated[int, Field(ge=0)]
    digest: str | None = Field(default=None, exclude_if=lambda digest: digest is None)


class AddedTarget(_Frozen):
    """A target that a finished run was compared with later, as RUN/added/<name>/target.json says it.

    norms, device, tiles, versions: as in RunConfig. metrics: its score columns. complete: whether every shard has them;
    until then nobody sees them.
    """

    format: Literal[1] = 1
    target: TargetInfo
    norms: tuple[str, ...]
    device: str
    tiles: dict[str, int] | None = Field(default=None, exclude_if=lambda tiles: tiles is None)
    versions: dict[str, str] = {}
    metrics: tuple[MetricName, ...]
    complete: bool = False


class RunConfig(_Frozen):
    """One scoring of one pool. Two runs with equal configs have equal scores, byte for byte on one machine.

    temperature: tau of the s-CLIPLoss formula; batch_size: B; divisions: K; pairs: N; width: D.
    norms: the p of each NormSim_p, as text ("inf", "2", ...).
    pool and target paths are absolute, or relative to the run's folder where they lie beside it.
    mix_shards: how many shards, in the order of their names, are divided into batches together; left out where it is 1.
    precision: "bf16" rounds what is multiplied for r_image and r_text (see scoring.rounded); all else stays exact.
    device: the kind of device, "cpu" or "cuda"; which of them, and how many, decides nothing.
    tiles: the block sizes of the GPU's kernels, which decide the order of their sums; None, and left out of run.json,
    where no such kernel computes, as on the CPU.
    skipped_rows: rows set aside by on_bad_rows "skip" or "scale"; None until the run has finished.
    """

    format: Literal[1] = 1
    pool: str
    arch: Name
    temperature: Annotated[float, Field(ge=0.001, le=1.0)] = 0.01
    batch_size: Annotated[int, Field(ge=1)] = 32768
    divisions: Annotated[int, Field(ge=1, le=1000)] = 10
    seed: Annotated[int, Field(ge=0)] = 0
    norms: tuple[str, ...] = ("inf", "2")
    mix_shards: Annotated[int, Field(ge=1)] = Field(default=1, exclude_if=lambda together: together == 1)
    on_bad_rows: Literal["error", "skip", "scale"] = "error"
    precision: Literal["exact", "bf16"] = "exact"
    device: str = "cpu"
    tiles: dict[str, int] | None = Field(default=None, exclude_if=lambda tiles: tiles is None)
    targets: tuple[TargetInfo, ...] = ()
    versions: dict[str, str] = {}
    shards: tuple[ShardInfo, ...] = ()
    pairs: int = 0
    width: int = 0
    metrics: tuple[MetricName, ...] = ()
    skipped_rows: int | None = None

    _plain = field_validator("pool")(_without_nul)


@dataclass(frozen=True)
class Run:
    """A run's folder and what run.json says of it. Properties that can change while scoring goes on are read anew."""

    root: Path
    config: RunConfig
    added: tuple[AddedTarget, ...] = ()

    @classmethod
    def open(cls, root: str | Path) -> Run:
        """The run in a folder. Raises RunError where there is none or its run.json cannot be understood."""
        root = Path(root)
        return cls(root, read_config(root), tuple(_read_added(root)))

    @property
    def pool_root(self) -> Path:
        """The pool's folder; it need not be there any more."""
        return (self.root / self.config.pool).resolve()

    @property
    def metrics(self) -> list[str]:
        """The score columns, in the order of the files; those of targets that were added later come last."""
        return [*self.config.metrics, *(metric for added in self.added for metric in added.metrics)]

    @property
    def targets(self) -> list[TargetInfo]:
        """The targets that the run was compared with, those that were added later last; paths as in RunConfig."""
        return [*self.config.targets, *(added.target for added in self.added)]

    def file_with(self, column: str, shard: str) -> Path:
        """The file that holds a column of a shard's rows, in their order: its scores, or what was added beside them."""
        added = self.added_with(column)
        return added_file(self.root, added.target.name, shard) if added else score_file(self.root, shard)

    def added_with(self, column: str) -> AddedTarget | None:
        """The target that a column was added with, None for those of the scores."""
        return next((added for added in self.added if column in added.metrics), None)

    @property
    def score_files(self) -> list[Path]:
        """The finished shards' score files, in the pool's order."""
        folder = score_file(self.root, "any").parent
        try:
            there = set(os.listdir(folder))  # Asking for each file by itself takes longer than everything else.
        except FileNotFoundError:
            return []
        files = (score_file(self.root, shard.name) for shard in self.config.shards)
        return [file for file in files if file.name in there]

    @property
    def finished(self) -> bool:
        """Whether every shard has been scored."""
        return self.config.skipped_rows is not None and len(self.score_files) == len(self.config.shards)

    def check_finished(self) -> None:
        """Raises RunError where shards are left to score: what is picked of the others is not what the run will say."""
        if not self.finished:
            found = f"{len(self.score_files):,} of {len(self.config.shards):,} shards scored"
            remedy = "start score again to go on, or pick from these shards alone with --unfinished"
            raise RunError(self.root, expected="a finished run", found=found, remedy=remedy)

    @property
    def pairs(self) -> int:
        """Pairs in the finished shards."""
        rows = {shard.name: shard.rows for shard in self.config.shards}
        return sum(rows[file.stem] for file in self.score_files)

    @property
    def scaled_rows(self) -> int:
        """Rows of the finished shards that were scaled to unit length; looks into each file. Raises RunError."""
        return sum(read_counts(file)["renormalised"] for file in self.score_files)

    @property
    def projection_file(self) -> Path:
        """Where the map's coordinates are kept."""
        return self.root / "projection.parquet"

    @property
    def recipes_dir(self) -> Path:
        """Where saved recipes are kept."""
        return self.root / "recipes"

    @property
    def cache_dir(self) -> Path:
        """Where what can be made again is kept: in the run where it can be written, else below the user's cache."""
        if os.access(self.root, os.W_OK):
            return self.root / "cache"
        digest = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()
        return cache_folder() / "runs" / f"{self.root.name}-{digest[:16]}"

    @property
    def exports_dir(self) -> Path:
        """Where the dashboard writes subsets."""
        return self.root / "exports"


def check_outside(out: Path) -> None:
    """Makes sure that a file or folder to be written lies in no pool, and in no run but for its exports/
    and searches/.

    Raises: ExportError where it does: it could replace what scores and images are read from.
    """
    target = out.resolve()
    for folder in target.parents:
        is_run, is_pool = (folder / "run.json").is_file(), any((folder / "metadata").glob("[!.]*.parquet"))
        if is_run and target.relative_to(folder).parts[0] in _MAY_BE_WRITTEN:
            return
        if is_run or is_pool:
            remedy = f"write it into {folder / 'exports'}, or elsewhere" if is_run else "write it elsewhere"
            found = f"one in the {'run' if is_run else 'pool'} {folder}"
            raise ExportError(out, expected="a place outside runs and pools", found=found, remedy=remedy)


def score_file(root: Path, shard: str) -> Path:
    """Where a shard's scores are kept; that the file exists means that the shard is done."""
    return root / "scores" / f"{shard}.parquet"


def read_counts(scores: Path) -> dict[str, int]:
    """What a finished shard's file says of its rows: how many were skipped, how many renormalised.

    Raises: RunError where it says nothing.
    """
    try:
        return json.loads(pq.read_schema(scores).metadata[COUNTS])
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        remedy = "start score again as before: it makes this shard anew and keeps the others"
        raise RunError(scores, expected="scores as written", found=reason_of(error), remedy=remedy) from error


def added_file(root: Path, target: str, shard: str) -> Path:
    """Where a shard's scores against a target that was added later are kept."""
    return root / "added" / target / f"{shard}.parquet"


def description_files(root: Path) -> list[Path]:
    """The files that say which metrics a run has; what is kept of a run holds for as long as they do not change."""
    return [root / "run.json", *sorted((root / "added").glob("*/target.json"))]


def read_config(root: Path) -> RunConfig:
    """What run.json says. Raises RunError naming the first thing that is wrong with it."""
    path = root / "run.json"
    try:
        return RunConfig.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        remedy = "make one with: clipsel score POOL RUN"
        raise RunError(root, expected="a run's folder", found="no run.json in it", remedy=remedy) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "JSON"
        found = f"{field}: {first['msg']}"
        remedy = "score the pool into a new folder"
        raise RunError(path, expected="a run's description", found=found, remedy=remedy) from error


def read_added(path: Path) -> AddedTarget:
    """What a target.json says. Raises RunError where it cannot be understood."""
    try:
        return AddedTarget.model_validate_json(path.read_bytes())
    except ValidationError as error:
        remedy = "remove its folder, then add the target again"
        found = error.errors(include_url=False)[0]["msg"]
        raise RunError(path, expected="an added target's description", found=found, remedy=remedy) from error


def _read_added(root: Path) -> Iterator[AddedTarget]:
    for path in description_files(root)[1:]:
        added = read_added(path)
        if added.complete:
            yield added


def write_config(root: Path, config: RunConfig) -> None:
    """Writes run.json, whole or not at all."""
    write_json(root / "run.json", config.model_dump(mode="json"))
