"""What a pool's folder holds: its shards, their columns, and the teachers whose embeddings lie beside them.

A pool is laid out as DataComp's: `metadata/*.parquet`, a `.npz` of the same stem beside each, and `shards/*.tar`.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.npz import Member, read_members

_AT_ONCE = 8
_TEXT_COLUMNS = ("text", "caption")
_URL_COLUMNS = ("url",)
# DataComp's names first (l14_img, l14_txt), then those of the tools that write <model>-image, <model>-text.
_FAMILIES = (("_img", "_txt", "clip_{arch}_similarity_score"), ("-image", "-text", "{arch}-score"))


@dataclass(frozen=True)
class Shard:
    """One metadata file and what lies beside it. npz is None where there are no embeddings."""

    name: str
    parquet: Path
    npz: Path | None
    rows: int


@dataclass(frozen=True)
class Arch:
    """A teacher as the pool's files name it: its members of the npz, its width D, its own score column if any."""

    name: str
    image_member: str
    text_member: str
    width: int
    score_column: str | None


@dataclass(frozen=True)
class Pool:
    """A pool's files and columns.

    columns: name to Arrow type, of the first shard. tars: where images lie, may be empty. indexes: images/*.parquet of
    pools made by `embed`, which say where each image was left.
    """

    root: Path
    shards: tuple[Shard, ...]
    archs: dict[str, Arch]
    uid_column: str
    text_column: str | None
    url_column: str | None
    columns: dict[str, str]
    tars: tuple[Path, ...]
    indexes: tuple[Path, ...] = ()

    @property
    def rows(self) -> int:
        """Pairs in the pool."""
        return sum(shard.rows for shard in self.shards)

    @property
    def has_images(self) -> bool:
        """Whether the pool knows where its images are: in its tars, or by an index of where `embed` found them."""
        return bool(self.tars or self.indexes)

    def arch(self, name: str | None = None) -> Arch:
        """The teacher of that name, or the only one there is. Raises PoolFormatError listing those there are."""
        known = ", ".join(sorted(self.archs)) or "none"
        if name is None and len(self.archs) == 1:
            return next(iter(self.archs.values()))
        if name is None or name not in self.archs:
            expected = f"embeddings of {name!r}" if name else "embeddings of one teacher"
            remedy = "name one with --arch" if self.archs else "the .npz files belong beside the .parquet files"
            raise PoolFormatError(self.root, expected=expected, found=known, remedy=remedy)
        return self.archs[name]


def open_pool(root: str | Path) -> Pool:
    """Finds a pool's shards and works out its names, from the first shard's columns and members.

    Raises: PoolFormatError where there is no shard, a file cannot be read, or there is no uid column.
    """
    root = Path(root)
    parquets = sorted((root / "metadata").glob("*.parquet"))
    if not parquets:
        remedy = "a pool is a folder with metadata/<shard>.parquet and metadata/<shard>.npz"
        found = "no such file" if root.is_dir() else "no such folder"
        raise PoolFormatError(root / "metadata", expected="*.parquet", found=found, remedy=remedy)
    schema = read_schema(parquets[0])
    # A large pool has thousands of them; where they are not in memory each waits for the disk.
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        shards = tuple(threads.map(_shard, parquets))
    with_npz = next((shard.npz for shard in shards if shard.npz), None)
    members = read_members(with_npz) if with_npz else {}
    names = schema.names
    if "uid" not in names:
        raise PoolFormatError(parquets[0], expected="a column uid", found=", ".join(names))
    return Pool(
        root=root,
        shards=shards,
        archs=detect_archs(members, names),
        uid_column="uid",
        text_column=next((name for name in _TEXT_COLUMNS if name in names), None),
        url_column=next((name for name in _URL_COLUMNS if name in names), None),
        columns={field.name: str(field.type) for field in schema},
        tars=tuple(sorted((root / "shards").glob("*.tar"))),
        indexes=tuple(sorted((root / "images").glob("*.parquet"))),
    )


def knows_images(root: Path) -> bool:
    """Pool.has_images of the pool in a folder, without opening it: that looks into every shard."""
    return any(next(root.glob(pattern), None) for pattern in ("shards/*.tar", "images/*.parquet"))


def detect_archs(members: dict[str, Member], columns: list[str]) -> dict[str, Arch]:
    """The teachers with both an image and a text member, by name. columns: those of the parquet, for their scores."""
    found = {}
    for image_end, text_end, score in _FAMILIES:
        for image_member, member in members.items():
            name = image_member.removesuffix(image_end)
            text_member = name + text_end
            if name == image_member or not name or text_member not in members or len(member.shape) != 2:
                continue
            column = score.format(arch=name)
            safe = re.sub(r"[^A-Za-z0-9_\-]", "_", name)
            found[safe] = Arch(safe, image_member, text_member, member.shape[1], column if column in columns else None)
    return found


def read_schema(parquet: Path) -> pa.Schema:
    """A parquet's columns. Raises PoolFormatError where it is not one."""
    try:
        return pq.read_schema(parquet)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(parquet, error) from error


def read_uid_strings(shard: Shard) -> pa.ChunkedArray:
    """A shard's uids as text, in row order. Raises PoolFormatError where the column is absent or not text."""
    try:
        column = pq.ParquetFile(shard.parquet).read(["uid"])
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(shard.parquet, error) from error
    if not column.num_columns:
        found = ", ".join(read_schema(shard.parquet).names)
        raise PoolFormatError(shard.parquet, expected="a column uid", found=found)
    values = column.column(0)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise PoolFormatError(shard.parquet, expected="uid as text", found=str(values.type))
    return pc.cast(values, pa.string())


def _shard(parquet: Path) -> Shard:
    npz = parquet.with_suffix(".npz")
    try:
        rows = pq.read_metadata(parquet).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(parquet, error) from error
    return Shard(parquet.stem, parquet, npz if npz.exists() else None, rows)


def _unreadable(parquet: Path, error: Exception) -> PoolFormatError:
    reason = str(error).split("\n")[0]
    return PoolFormatError(parquet, expected="a parquet file", found=reason, remedy="download it again")
