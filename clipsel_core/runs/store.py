"""What is a run? Everything that decides its scores, as run.json has it, and its files: how they are written and read.

A file of scores has a seal in its schema: the shard, what it was scored with, and the CRC-32 of each column's values.
The values that are read are held against it, so a file that was damaged, exchanged or made for another run shows. Files
of earlier versions have none. Light: needs neither torch nor the pool.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from clipsel_core.errors import ExportError, PoolFormatError, RunError, counted, reason_of
from clipsel_core.files import cache_folder
from clipsel_core.leases import confirm
from clipsel_core.places import IN_FLIGHT, Place, in_passing, protocol_of
from clipsel_core.reach import make_filter
from clipsel_core.runs.columns import Column, describe
from clipsel_core.tasks import allowed_cores

_log = logging.getLogger(__name__)
TargetKind = Literal["npy", "npz", "pt", "parquet", "uids", "pool", "moment", "pictures"]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
# A column of the score files; it is written into recipes and shown as a heading.
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}$")]
_COUNTS, _SEAL = b"clipsel_counts", b"clipsel_seal"  # keys in a file's schema
UID_HALVES = ("uid_hi", "uid_lo")
# Folders of a run that hold what was picked or found in it, and nothing that the run is read from.
_MAY_BE_WRITTEN = ("exports", "searches")
# A file in a store that is about as large is read as a whole: to ask for its parts takes longer.
_SMALL_BYTES = 1 << 20


def _without_nul(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path cannot hold a NUL")
    return path


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileInfo(_Frozen):
    """A file as it was read. name: relative to the folder that was given. size: in bytes."""

    name: str
    size: Annotated[int, Field(ge=0)]
    sha256: str


class TargetInfo(_Frozen):
    """A named set of image embeddings that NormSim compares the pool with, or their second moment.

    path: a file, a folder or a pattern; of pictures the .npy that their embeddings are kept in. kind: what it was taken
    for. sha256: of the file; of several, of the listing that sha256sum prints of them. rows: embeddings, M; of a second
    moment its side, D. scaled: rows that were not of unit length. files: those that were read, where path is no file.
    pictures: where the pictures lie, teacher: which model embedded them, rejected: how many could not be.
    """

    name: Name
    path: str
    kind: TargetKind
    sha256: str
    rows: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    scaled: int = Field(default=0, ge=0, exclude_if=lambda scaled: scaled == 0)
    files: tuple[FileInfo, ...] = Field(default=(), exclude_if=lambda files: not files)
    pictures: str = Field(default="", exclude_if=lambda pictures: not pictures)
    teacher: str = Field(default="", exclude_if=lambda teacher: not teacher)
    rejected: int = Field(default=0, ge=0, exclude_if=lambda rejected: rejected == 0)

    _plain = field_validator("path", "pictures")(_without_nul)

    @property
    def given(self) -> str:
        """The path that names it to a command, as path is counted."""
        return self.pictures or self.path

    @property
    def said(self) -> str:
        """What it was taken for, for people."""
        if self.kind == "moment":
            return f"a second moment of width {self.width}: NormSim_2 only"
        if self.kind == "pictures" and not self.sha256:
            return f"{counted(self.rows, 'pictures')}, which are embedded with {self.teacher} first"
        if self.kind == "pictures":
            left_out = f", {self.rejected:,} left out" if self.rejected else ""
            return f"{counted(self.rows, 'pictures')} embedded with {self.teacher}{left_out}"
        files = f"{counted(len(self.files), 'files')}, " if self.files else ""
        kinds = {"uids": ("pairs", " of the pool"), "pool": ("images", " of a pool")}
        things, where = kinds.get(self.kind, ("embeddings", ""))
        said = f"{files}{counted(self.rows, things)}{where} of width {self.width}"
        said += f", {self.scaled:,} not of unit length" if self.scaled else ""
        is_square = self.rows == self.width and self.kind not in kinds
        return f"{said}, no second moment as it is not symmetric" if is_square and not self.files else said


class ShardInfo(_Frozen):
    """A shard as it was when the run was planned. name: a part of its files' names, so it leads to no other folder.

    digest: of its uids and of what is scored of its embeddings; None in runs of earlier versions.
    """

    name: Annotated[str, Field(pattern=r"^[^/\x00]+$")]
    rows: Annotated[int, Field(ge=0)]
    digest: str | None = Field(default=None, exclude_if=lambda digest: digest is None)


class AddedTarget(_Frozen):
    """A target that a finished run was compared with later, as RUN/added/<name>/target.json says it.

    norms, device, tiles, versions, tried_again: as in RunConfig. metrics: its score columns. complete: whether every
    shard has them; until then nobody sees them.
    """

    format: Literal[1] = 1
    target: TargetInfo
    norms: tuple[str, ...]
    device: str
    tiles: dict[str, int] | None = Field(default=None, exclude_if=lambda tiles: tiles is None)
    versions: dict[str, str] = {}
    metrics: tuple[MetricName, ...]
    complete: bool = False
    tried_again: Annotated[int, Field(ge=0)] = Field(default=0, exclude_if=lambda times: times == 0)

    @property
    def folder(self) -> str:
        """Its folder's name in RUN/added/."""
        return self.target.name

    @property
    def columns(self) -> dict[str, Column]:
        """What is to be said of each of its metrics."""
        return {name: describe(name) for name in self.metrics}


class AddedColumn(_Frozen):
    """A column that was added to a finished run, as RUN/added/<name>/column.json says it.

    made: from what and how, as words and numbers: the file or run, its hash, the column there. counts: pairs that have
    a value, pairs that have none, and uids in the file that the run lacks. complete: as in AddedTarget.
    """

    format: Literal[1] = 1
    column: Column
    made: dict[str, str | int | float | None] = {}
    counts: dict[str, int] = {}
    complete: bool = False

    @field_validator("column")
    @classmethod
    def _may_be_file(cls, column: Column) -> Column:
        if not re.fullmatch(NAME_PATTERN, column.name):
            raise ValueError(f"the name of a column, {NAME_PATTERN}")
        return column

    @property
    def folder(self) -> str:
        """Its folder's name in RUN/added/."""
        return self.column.name

    @property
    def metrics(self) -> tuple[str, ...]:
        """The column that its files hold."""
        return (self.column.name,)

    @property
    def columns(self) -> dict[str, Column]:
        """What is to be said of it, by its name."""
        return {self.column.name: self.column}


Added = AddedTarget | AddedColumn


class Planned(_Frozen):
    """What a run was to take when it was begun. bytes_read: of embeddings; operations: floating point ones in products.

    seconds: by the clock; cpu_seconds: of all cores; None where they were not foreseen: it takes no minute, or a
    cluster scores it.
    """

    bytes_read: Annotated[int, Field(ge=0)]
    operations: Annotated[int, Field(ge=0)]
    seconds: float | None = None
    cpu_seconds: float | None = None


class Outcome(_Frozen):
    """What a run took, all its starts together; of one that was killed nothing is known, so pairs may be fewer.

    pairs: that were scored in it. cpu_seconds: of all cores, in all workers. bytes_read: of embeddings. workers: that
    took part in the last start.
    """

    pairs: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0
    cpu_seconds: Annotated[float, Field(ge=0)] = 0.0
    bytes_read: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0)] = 0


# What of a run's description decides no score.
HOW_IT_WENT = ("skipped_rows", "tried_again", "plan", "outcome")


class RunConfig(_Frozen):
    """One scoring of one pool. Two runs with equal configs have equal scores, byte for byte on one machine.

    temperature: tau of the s-CLIPLoss formula; batch_size: B; divisions: K; pairs: N; width: D.
    norms: the p of each NormSim_p, as text ("inf", "2", ...).
    pool and target paths are absolute, or relative to the run's folder where they lie beside it, or addresses.
    mix_shards: how many shards, in the order of their names, are divided into batches together; left out where it is 1.
    precision: "bf16" rounds what is multiplied for r_image and r_text (see scoring.rounded); all else stays exact.
    device: the kind of device, "cpu" or "cuda"; which of them, and how many, decides nothing.
    tiles: the block sizes of the GPU's kernels, which decide the order of their sums; None, and left out of run.json,
    where no such kernel computes, as on the CPU.
    skipped_rows: rows set aside by on_bad_rows "skip" or "scale"; None until the run has finished.
    tried_again: groups that were scored by another worker since one was lost; left out where it is 0.
    plan, outcome: what it was to take, and what it took until it was finished; left out where they are not known.
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
    tried_again: Annotated[int, Field(ge=0)] = Field(default=0, exclude_if=lambda times: times == 0)
    plan: Planned | None = Field(default=None, exclude_if=lambda plan: plan is None)
    outcome: Outcome | None = Field(default=None, exclude_if=lambda outcome: outcome is None)

    _plain = field_validator("pool")(_without_nul)


@dataclass(frozen=True)
class Run:
    """A run's folder and what run.json says of it. Properties that can change while scoring goes on are read anew.

    root: the folder, on this machine or in a store.
    """

    root: Place
    config: RunConfig
    added: tuple[Added, ...] = ()
    named: tuple[str, ...] | None = None

    @classmethod
    def open(cls, root: str | os.PathLike[str], named: Sequence[str] | None = None) -> Run:
        """The run in a folder. root: its path, or its address in a store.

        named: places below one of which its pool has to lie to be read, if that is in a store; None for anywhere.
        Raises: RunError where there is none or its run.json cannot be read or understood; PoolFormatError where its
            store cannot be opened.
        """
        root = Place.of_named(root)
        added = (read_added(file) for file in description_files(root)[1:])
        whole = tuple(target for target in added if target.complete)
        return cls(root, read_config(root), whole, None if named is None else tuple(named))

    @property
    def pool_address(self) -> str:
        """The pool's folder, or its address in a store; it need not be there any more."""
        return placed(self.root, self.config.pool)

    @property
    def pool_root(self) -> Place:
        """Where the pool lies, to be read. Raises PoolFormatError where its store cannot be opened."""
        return Place.of_named(self.pool_address)

    @property
    def may_read_pool(self) -> bool:
        """Whether the pool may be read, see `open`, wherever it lies."""
        pool = self.pool_address
        return self.named is None or not protocol_of(pool) or make_filter(self.named)(pool)

    @property
    def has_pool(self) -> bool:
        """Whether the pool is there and may be read, see `open`; a store without its package or credentials is not.

        Raises: PoolFormatError where its store fails in passing: nobody is to take it for gone.
        """
        pool = self.pool_address
        if not self.may_read_pool:
            return False
        try:
            return (self.pool_root / "metadata").is_dir()
        except (OSError, PoolFormatError) as error:
            if isinstance(error, OSError) and in_passing(error):
                raise PoolFormatError(pool, expected="a store that answers", found=reason_of(error)) from error
            _warn_once(f"{pool}: the pool cannot be read: {reason_of(error)}")
            return False

    @property
    def metrics(self) -> list[str]:
        """The score columns, in the order of the files; those of targets that were added later come last."""
        return [*self.config.metrics, *(metric for added in self.added for metric in added.metrics)]

    @property
    def columns(self) -> dict[str, Column]:
        """What is to be said of each of its score columns, by name, in their order."""
        own = {name: describe(name) for name in self.config.metrics}
        return own | {name: column for added in self.added for name, column in added.columns.items()}

    @property
    def targets(self) -> list[TargetInfo]:
        """The targets that the run was compared with, those that were added later last; paths as in RunConfig."""
        return [*self.config.targets, *(added.target for added in self.added_targets)]

    @property
    def added_targets(self) -> list[AddedTarget]:
        """What was added of targets."""
        return [added for added in self.added if isinstance(added, AddedTarget)]

    @property
    def added_columns(self) -> list[AddedColumn]:
        """What was added of columns."""
        return [added for added in self.added if isinstance(added, AddedColumn)]

    def file_with(self, column: str, shard: str) -> Place:
        """The file that holds a column of a shard's rows, in their order: its scores, or what was added beside them."""
        added = self.added_with(column)
        return added_file(self.root, added.folder, shard) if added else score_file(self.root, shard)

    def added_with(self, column: str) -> Added | None:
        """What a column was added with, None for those of the scores."""
        return next((added for added in self.added if column in added.metrics), None)

    @property
    def score_files(self) -> list[Place]:
        """The files of `scored_shards`, in their order."""
        folder = self.root / "scores"
        return [folder / f"{shard.name}.parquet" for shard in self.scored_shards]

    @property
    def scored_shards(self) -> list[ShardInfo]:
        """The finished shards, in the pool's order.

        Of a run in a store that is not finished, those that the store's listing has.
        """
        names = names_of_scored(self.root, self.config.shards, by_name=self.config.skipped_rows is not None)
        return [shard for shard in self.config.shards if shard.name in names]

    @property
    def finished(self) -> bool:
        """Whether every shard has been scored."""
        return self.config.skipped_rows is not None and len(self.scored_shards) == len(self.config.shards)

    def check_finished(self) -> None:
        """Raises RunError where shards are left to score: what is picked of the others is not what the run will say."""
        if not self.finished:
            found = f"{len(self.scored_shards):,} of {len(self.config.shards):,} shards scored"
            remedy = "start score again to go on, or pick from these shards alone with --unfinished"
            raise RunError(self.root, expected="a finished run", found=found, remedy=remedy)

    @property
    def pairs(self) -> int:
        """Pairs in the finished shards."""
        return sum(shard.rows for shard in self.scored_shards)

    @property
    def scaled_rows(self) -> int:
        """Rows of the finished shards that were scaled to unit length; looks into each file. Raises RunError."""
        return sum(read_counts(file)["renormalised"] for file in self.score_files)

    @property
    def projection_file(self) -> Place:
        """Where the map's coordinates are kept."""
        return self.root / "projection.parquet"

    @property
    def recipes_dir(self) -> Place:
        """Where saved recipes are kept."""
        return self.root / "recipes"

    @property
    def cache_dir(self) -> Path:
        """Where what can be made again is kept, on this machine: in the run where it can be written, else below the
        user's cache.
        """
        if not self.root.remote and os.access(self.root, os.W_OK):
            return Path(self.root) / "cache"
        digest = hashlib.sha256(self.root.absolute().address.encode()).hexdigest()
        return cache_folder() / "runs" / f"{self.root.name}-{digest[:16]}"

    @property
    def index_dir(self) -> Path:
        """Where its indexes lie, on this machine: in the run, or of a run in a store in its cache."""
        return self.cache_dir / "index" if self.root.remote else Path(self.root) / "index"

    @property
    def exports_dir(self) -> Place:
        """Where the dashboard writes subsets."""
        return self.root / "exports"


@cache
def _warn_once(line: str) -> None:
    _log.warning(line)


def check_ending(path: str | os.PathLike[str], *endings: str) -> None:
    """Raises RunError where a file's name ends in none of these."""
    ending = Path(str(path)).suffix
    if ending not in endings:
        raise RunError(path, expected=f"a name ending in {', '.join(endings)}", found=ending or "no ending")


def check_outside(out: str | os.PathLike[str]) -> None:
    """Makes sure that a file or folder to be written lies in no pool, and in no run but for its exports/
    and searches/.

    Raises: ExportError where it does: it could replace what scores and images are read from.
    """
    below = Place.of_named(out).absolute()
    while (folder := below.parent).path not in ("", below.path):
        is_run, is_pool = _is_there(folder / "run.json"), _has_metadata(folder)
        if is_run and below.name in _MAY_BE_WRITTEN:
            return
        if is_run or is_pool:
            remedy = f"write it into {folder / 'exports'}, or elsewhere" if is_run else "write it elsewhere"
            found = f"one in the {'run' if is_run else 'pool'} {folder}"
            raise ExportError(out, expected="a place outside runs and pools", found=found, remedy=remedy)
        below = folder


def _is_there(file: Place) -> bool:
    """Whether there is such a file, as far as this process may know."""
    with suppress(PermissionError):
        return file.is_file()
    return False


def _has_metadata(folder: Place) -> bool:
    with suppress(PermissionError):
        return any(name.endswith(".parquet") for name in (folder / "metadata").names())
    return False


def placed(root: Place, recorded: str) -> str:
    """The path or the address that one which a run in a folder notes leads to."""
    if protocol_of(recorded) or os.path.isabs(recorded):
        return recorded if protocol_of(recorded) else os.path.realpath(recorded)
    # A run may have been copied to a store together with what lies beside it.
    return root.along(recorded).address if root.remote else os.path.realpath(root / recorded)


def score_file(root: str | os.PathLike[str], shard: str) -> Place:
    """Where a shard's scores are kept; that the file exists means that the shard is done."""
    return Place.of_named(root) / "scores" / f"{shard}.parquet"


def names_of_scored(root: Place, shards: Sequence[ShardInfo], *, by_name: bool = True) -> set[str]:
    """The names of those shards that have scores; by_name: a store is asked by name for those that it does not list."""
    # Asking for each file by itself takes longer than everything else.
    there = (root / "scores").holding([f"{shard.name}.parquet" for shard in shards], by_name=by_name)
    return {shard.name for shard in shards if f"{shard.name}.parquet" in there}


def read_counts(scores: Place) -> dict[str, int]:
    """What a finished shard's file says of its rows: how many were skipped, how many renormalised.

    Raises: RunError where it says nothing.
    """
    try:
        opened = scores.open(in_places=True) if scores.remote else scores.path
        return json.loads(pq.read_schema(opened).metadata[_COUNTS])
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        remedy = "start score again as before: it makes this shard anew and keeps the others"
        raise RunError(scores, expected="scores as written", found=reason_of(error), remedy=remedy) from error


def added_file(root: Place, folder: str, shard: str) -> Place:
    """Where a shard's values of what was added later are kept. folder: as Added has it."""
    return root / "added" / folder / f"{shard}.parquet"


def description_files(root: str | os.PathLike[str]) -> list[Place]:
    """The files that say which columns a run has; what is kept of a run holds for as long as they do not change."""
    root = Place.of_named(root)
    added = root / "added"
    folders = [added / name for name in added.folders()]
    named = (folder / name for name in ("target.json", "column.json") for folder in folders)
    return [root / "run.json", *(file for file in named if file.exists())]


def read_config(root: str | os.PathLike[str]) -> RunConfig:
    """What run.json says. Raises RunError naming the first thing that is wrong with it."""
    root = Place.of_named(root)
    path = root / "run.json"
    try:
        return RunConfig.model_validate_json(path.read())
    except FileNotFoundError as error:
        remedy = "make one with: clipsel score POOL RUN"
        raise RunError(root, expected="a run's folder", found="no run.json in it", remedy=remedy) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "JSON"
        found = f"{field}: {first['msg']}"
        remedy = "score the pool into a new folder"
        raise RunError(path, expected="a run's description", found=found, remedy=remedy) from error
    except OSError as error:
        if not root.remote:
            raise
        raise RunError(path, expected="a run's description", found=reason_of(error)) from error


def read_added(path: Place) -> Added:
    """What a target.json or a column.json says. Raises RunError where it cannot be understood."""
    kind: type[Added] = AddedTarget if path.name == "target.json" else AddedColumn
    try:
        return kind.model_validate_json(path.read())
    except ValidationError as error:
        remedy = f"remove its folder, then add the {path.stem} again"
        found = error.errors(include_url=False)[0]["msg"]
        raise RunError(path, expected=f"an added {path.stem}'s description", found=found, remedy=remedy) from error


def write_config(root: str | os.PathLike[str], config: RunConfig) -> None:
    """Writes run.json, whole or not at all. Raises: as write_description."""
    root = Place.of_named(root)
    write_description(root, root / "run.json", config)


def write_description(root: Place, file: Place, said: RunConfig | Added) -> None:
    """Writes a file that says what a run is, or what was added to it, whole or not at all.

    Raises: RunError where another process took a run in a store over meanwhile; see leases.
    """
    confirm(root)
    file.write_json(said.model_dump(mode="json"))


class OtherConfigError(RunError):
    """A file of scores is whole, and was made with other settings than the run's description says."""


def sealed(table: pa.Table, shard: str, digest: str) -> pa.Table:
    """A shard's table with its seal in the schema's metadata, where counts may be already.

    table: of columns without nulls. digest: `digest_of` what describes the scores.
    """
    known = table.schema.metadata or {}
    said = {
        "shard": shard,
        "rows": table.num_rows,
        "config": digest,
        "columns": {name: _checksum(table.column(name)) for name in table.column_names},
        "metadata": _checksum_of_metadata(known),
    }
    return table.replace_schema_metadata({**known, _SEAL: json.dumps(said)})


def check_seal(table: pa.Table) -> None:
    """Makes sure that a table that was read whole is what was sealed; one without a seal is of an earlier version.

    Raises: ValueError or LookupError where it is not.
    """
    metadata = table.schema.metadata or {}
    if _SEAL not in metadata:
        return
    for name, crc in _read_seal(metadata, table.num_rows)["columns"].items():
        if crc != _checksum(table[name]):
            raise ValueError(f"other values of {name}")


def is_sealed(table: pa.Table) -> bool:
    """Whether a table that was read has a seal."""
    return _SEAL in (table.schema.metadata or {})


def digest_of(made_by: RunConfig | Added) -> str:
    """32 hex digits that change with everything that decides scores: not with paths, nor with how far the run is."""
    # A shard may be mended as long as it is not scored: see check_same_pool.
    left_out: Any = dict.fromkeys(("pool", "complete", *HOW_IT_WENT), True)
    left_out["shards"] = {"__all__": {"digest"}}
    said = made_by.model_dump(mode="json", exclude=left_out)
    for target in (said["target"],) if "target" in said else said.get("targets", ()):
        for name in ("path", "pictures", "teacher"):
            target.pop(name, None)
    said.get("made", {}).pop("path", None)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class SealedFiles:
    """The files of a run with the same columns, one a shard. added: what they belong to, None for scores."""

    root: Place
    config: RunConfig
    added: Added | None = None

    def file(self, shard: str) -> Place:
        """Where a shard's file lies."""
        return added_file(self.root, self.added.folder, shard) if self.added else score_file(self.root, shard)

    def read(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of a shard, in its order, held against its seal; None for all of its metrics and its uids.

        Raises: RunError where they are not what was written; OtherConfigError where they are, for another description.
        """
        file, made_by = self.file(shard), self.added or self.config
        names = list(columns or [*UID_HALVES, *made_by.metrics])
        try:
            with pq.ParquetFile(self._opened(shard)) as parquet:
                metadata = parquet.schema_arrow.metadata or {}
                table = parquet.read(names, use_threads=False)
            self._check(shard, table, names, metadata)
        except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            again, found = f"add-{_kind(self.added)}" if self.added else "score", reason_of(error)
            remedy = f"start {again} again as before: it makes shard {shard} anew and keeps the others"
            raise RunError(file, expected="scores as written", found=found, remedy=remedy) from error
        return table

    def write(self, shard: str, table: pa.Table, counts: dict[str, int] | None = None, **options: Any) -> None:
        """Writes a shard's scores with their seal, whole or not at all.

        table: uid_hi and uid_lo (uint64) and the metrics (float32), without nulls. counts: for `read_counts`.
        options: of pq.write_table.
        """
        known = {_COUNTS: json.dumps(counts)} if counts else None
        with_seal = sealed(table.replace_schema_metadata(known), shard, self._digest)
        self.file(shard).write(partial(pq.write_table, with_seal, **options))

    def _opened(self, shard: str) -> Any:
        """A shard's file as pyarrow takes it; in a store, a small one as a whole, of others the parts that are read."""
        file = self.file(shard)
        if not file.remote:
            return file.path
        a_row = 8 * len(UID_HALVES) + 4 * len((self.added or self.config).metrics)
        small = self._rows.get(shard, 0) * a_row <= _SMALL_BYTES
        return io.BytesIO(file.read()) if small else file.open(in_places=True)

    def _check(self, shard: str, table: pa.Table, names: list[str], metadata: dict[bytes, bytes]) -> None:
        """Raises ValueError or LookupError where this table was not written for this shard; OtherConfigError."""
        file, rows = self.file(shard), self._rows[shard]
        if table.num_rows != rows:
            raise ValueError(f"{counted(table.num_rows, 'rows')} where the run has {rows:,}")
        absent = [name for name in names if name not in table.column_names]
        if absent:
            raise ValueError(f"no column {absent[0]}")
        if _SEAL not in metadata:
            if any(known.digest for known in self.config.shards):  # the run was begun by a version that seals
                raise ValueError("no seal")
            return
        said = _read_seal(metadata, rows)
        if said["shard"] != shard:
            raise ValueError(f"those of shard {said['shard']}")
        for name in names:
            kind = pa.uint64() if name in UID_HALVES else pa.float32()
            if kind != table.schema.field(name).type or said["columns"][name] != _checksum(table[name]):
                raise ValueError(f"other values of {name}")
        if said["config"] != self._digest:
            raise OtherConfigError(
                file.with_name(f"{_kind(self.added)}.json") if self.added else self.root / "run.json",
                expected=f"what shard {shard} was scored with",
                found="other settings or shards",
                remedy=f"bring it back as it was, or delete {file} and start again",
            )

    @cached_property
    def _digest(self) -> str:
        return digest_of(self.added or self.config)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {shard.name: shard.rows for shard in self.config.shards}


def _kind(added: Added) -> str:
    return "target" if isinstance(added, AddedTarget) else "column"


def keep_whole(files: SealedFiles) -> set[str]:
    """Removes the files that are not as they were written, so that they are made again; says which, as a warning.

    Returns: the shards whose files are whole. Each is asked for by its name: what a store lists may lag.
    Raises: OtherConfigError where one was made by other settings, RunError where the disk does not give one; others may
        have been removed by then.
    """

    def keep(shard: ShardInfo) -> str | None:
        file = files.file(shard.name)
        try:
            files.read(shard.name)
        except OtherConfigError:
            raise
        except RunError as error:
            cause = error.__cause__
            if isinstance(cause, FileNotFoundError) or not file.exists():
                return None
            if getattr(cause, "errno", None) or (isinstance(cause, OSError) and not _is_given(file)):
                raise  # the disk or the store fails, or forbids it: that says nothing of what the file holds
            _log.warning("%s: made again, found %s", file, error.found)
            file.remove()
            return None
        return shard.name

    with ThreadPoolExecutor(files_at_once(files.root)) as threads:
        return {shard for shard in threads.map(keep, files.config.shards) if shard}


def _is_given(file: Place) -> bool:
    try:
        return bool(file.read())
    except OSError:
        return False


def files_at_once(root: Place) -> int:
    """How many files of a run are read side by side."""
    return IN_FLIGHT if root.remote else allowed_cores()


def as_array(column: pa.Array) -> np.ndarray:
    """A column's numbers; NaN where there is none."""
    if column.null_count == 0 and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return np.from_dlpack(column)  # to_numpy imports pandas, and that takes longer than a small selection
    return column.to_numpy(zero_copy_only=False)


def _read_seal(metadata: dict[bytes, bytes], rows: int) -> dict[str, Any]:
    said = json.loads(metadata[_SEAL])
    if not isinstance(said, dict) or not isinstance(said["columns"], dict):
        raise ValueError("a damaged seal")
    if said["rows"] != rows or said["metadata"] != _checksum_of_metadata(metadata):
        raise ValueError("a damaged description")
    return said


def _checksum(column: pa.ChunkedArray) -> int:
    found = 0
    for chunk in column.chunks:
        if chunk.null_count:
            raise ValueError("nulls")
        is_text = pa.types.is_string(chunk.type)
        found = zlib.crc32("\0".join(chunk.to_pylist()).encode() if is_text else as_array(chunk).data, found)
    return found


def _checksum_of_metadata(metadata: dict[bytes, bytes]) -> int:
    """Of what else the schema says; Arrow's own entry is made by whoever writes the file."""
    others = sorted((key, value) for key, value in metadata.items() if key not in (_SEAL, b"ARROW:schema"))
    return zlib.crc32(repr(others).encode())
