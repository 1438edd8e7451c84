"""Where a run's files lie, and how they are opened and read. Light: needs neither torch nor the pool."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from clipsel_core.errors import ExportError, RunError, reason_of
from clipsel_core.files import cache_folder, write_json
from clipsel_core.runs.config import AddedTarget, RunConfig, TargetInfo

COUNTS = b"clipsel_counts"
"""The key of what `read_counts` reads in a file's schema."""
# Folders of a run that hold what was picked or found in it, and nothing that the run is read from.
_MAY_BE_WRITTEN = ("exports", "searches")


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
    def status(self) -> dict[str, Any]:
        """Progress as status.json has it; empty where the run was never started."""
        try:
            return json.loads((self.root / "status.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

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
