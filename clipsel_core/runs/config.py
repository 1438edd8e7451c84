"""What a run is: everything that decides its scores, validated once and saved as run.json."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

TargetKind = Literal["npy", "npz", "pt", "parquet", "uids"]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
# A column of the score files; it is written into recipes and shown as a heading.
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}$")]


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
