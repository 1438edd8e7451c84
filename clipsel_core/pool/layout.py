"""What a pool's folder holds: its shards, their columns and uids, and the teachers whose embeddings lie beside them.

A pool is laid out as DataComp's: `metadata/*.parquet`, a `.npz` of the same stem beside each, and `shards/*.tar`.
`embed` notes in teachers.json which CLIP made embeddings, and at what temperature.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError, RunError, TeacherError, UidError, reason_of
from clipsel_core.files import expect_regular
from clipsel_core.leases import confirm
from clipsel_core.npy import Member, read_members
from clipsel_core.places import IN_FLIGHT, Place
from clipsel_core.pool.conventions import POOL_TEXT_COLUMNS, find_column

_AT_ONCE = 8
# Uids held at once while looking for repeats: 1 GiB. Those of a larger pool go through so many files at most.
UIDS_AT_ONCE, _MOST_PARTS = 1 << 26, 512
_MIX = np.uint64(0x9E3779B97F4A7C15)
_ARCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}")
_STRUCTURED = re.compile(r"struct<|map<")
# DataComp's names first (l14_img, l14_txt), then those of the tools that write <model>-image, <model>-text.
_FAMILIES = (("_img", "_txt", "clip_{arch}_similarity_score"), ("-image", "-text", "{arch}-score"))


@dataclass(frozen=True)
class Shard:
    """One metadata file and what lies beside it. npz is None where there are no embeddings.

    columns: name to Arrow type, of this shard; they may differ from shard to shard, as may the case of their names.
    members: the npz's arrays, as they were first found in a store, so that it is asked once; empty on this machine.
    """

    name: str
    parquet: Place
    npz: Place | None
    rows: int
    columns: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    members: dict[str, Member] = field(default_factory=dict, compare=False, repr=False)

    @property
    def uid_column(self) -> str | None:
        """What holds its uids, as it is written here."""
        return find_column(self.columns, ["uid"])

    @property
    def text_column(self) -> str | None:
        """What holds its captions, as it is written here."""
        return caption_column(self.columns)

    @property
    def url_column(self) -> str | None:
        """What holds its urls, as it is written here."""
        return find_column(self.columns, ["url"])


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

    columns: name to Arrow type, of all shards; of several types that of the first shard that has one.
    tars: where images lie, may be empty. indexes: images/*.parquet of pools made by `embed`, which say where each
    image was left.
    """

    root: Place
    shards: tuple[Shard, ...]
    archs: dict[str, Arch]
    uid_column: str
    text_column: str | None
    url_column: str | None
    columns: dict[str, str]
    tars: tuple[Place, ...]
    indexes: tuple[Place, ...] = ()

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


def open_pool(root: str | os.PathLike[str]) -> Pool:
    """Finds a pool's shards and works out its names, from the shards' columns and the first one's members.

    root: its folder, or an address of one in a store. There its shards are not looked into again until one changes.
    Raises: PoolFormatError where there is no shard, a file cannot be read, or there is no uid column.
    """
    root = Place.of_named(root)
    folder = root / "metadata"
    listed = _listed(folder) if root.remote else {}
    # Where sizes are not listed, as by web servers, nothing tells whether a file was changed.
    if listed and all(size for size, _ in listed.values()):
        pool = _open_stored(root, tuple(listed.items()), id(root.fs))
    else:
        pool = _open_pool(root, dict.fromkeys(listed if root.remote else _names(folder)))
    tars, indexes = _files(root / "shards", ".tar"), _files(root / "images", ".parquet")
    return replace(pool, tars=tuple(tars), indexes=tuple(indexes))


@lru_cache(maxsize=4)
def _open_stored(root: Place, listed: tuple[tuple[str, tuple[int, int | str]], ...], opened: int) -> Pool:
    """A pool in a store. listed: what that says of the files in its metadata, see Place.listed. opened: tells the store
    from one that was opened with other settings, and is equal to it."""
    return _open_pool(root, {name: size for name, (size, _) in listed})


def _open_pool(root: Place, sizes: Mapping[str, int | None]) -> Pool:
    """A pool without its images. sizes: of the files in its metadata, by name, in bytes; None where nobody said."""
    folder = root / "metadata"
    parquets = [folder / name for name in sizes if name.endswith(".parquet")]
    if not parquets:
        remedy = "a pool is a folder with metadata/<shard>.parquet and metadata/<shard>.npz"
        found = "no such file" if root.is_dir() else "no such folder"
        raise PoolFormatError(root / "metadata", expected="*.parquet", found=found, remedy=remedy)
    first = _opened(parquets[0], sizes[parquets[0].name]).schema_arrow
    usual = _columns_of(first)

    def open_shard(parquet: Place) -> Shard:
        npz, file = f"{parquet.stem}.npz", _opened(parquet, sizes[parquet.name])
        # Most pools' shards are alike, and share what describes them.
        columns = usual if file.schema_arrow.equals(first) else _columns_of(file.schema_arrow)
        return Shard(parquet.stem, parquet, folder / npz if npz in sizes else None, file.metadata.num_rows, columns)

    # A large pool has thousands of them; where they are not in memory each waits for the disk, or for an answer.
    with ThreadPoolExecutor(IN_FLIGHT if root.remote else _AT_ONCE) as threads:
        shards = tuple(threads.map(open_shard, parquets))
    with_npz = next((shard.npz for shard in shards if shard.npz), None)
    members = read_members(with_npz) if with_npz else {}
    columns = dict(usual)
    for shard in shards:
        if shard.columns is not usual:
            columns |= {name: kind for name, kind in shard.columns.items() if columns.get(name, "null") == "null"}
    uid_column = find_column(columns, ["uid"])
    if uid_column is None:
        raise PoolFormatError(parquets[0], expected="a column uid", found=", ".join(columns))
    return Pool(
        root=root,
        shards=shards,
        archs=detect_archs(members, list(columns)),
        uid_column=uid_column,
        text_column=caption_column(columns),
        url_column=find_column(columns, ["url"]),
        columns=columns,
        tars=(),
    )


def metadata_files(root: str | os.PathLike[str]) -> list[Place]:
    """A pool's metadata/*.parquet in the order of their names, hidden ones left out; none where it is no pool."""
    return _files(Place.of_named(root) / "metadata", ".parquet")


def knows_images(root: str | os.PathLike[str]) -> bool:
    """Pool.has_images of the pool in a folder, without opening it: that looks into every shard."""
    place = Place.of_named(root)
    return any(_files(place / folder, ending) for folder, ending in (("shards", ".tar"), ("images", ".parquet")))


def caption_column(columns: Mapping[str, str]) -> str | None:
    """Which of a table's columns holds the captions, in any case: text comes first, structs are none.

    columns: name to Arrow type.

    >>> caption_column({"UID": "string", "TEXT": "string"})
    'TEXT'
    """
    return find_column([name for name, kind in columns.items() if not _STRUCTURED.search(kind)], POOL_TEXT_COLUMNS)


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


def read_schema(parquet: str | os.PathLike[str]) -> pa.Schema:
    """A parquet's columns. Raises PoolFormatError where it is not one, or a name is no UTF-8."""
    return _opened(Place.of(parquet)).schema_arrow


def read_column(shard: Shard, column: str) -> pa.ChunkedArray:
    """A column of a shard, as it is stored. Raises PoolFormatError where it cannot be read."""
    return read_columns(shard, [column]).column(0)


def read_columns(shard: Shard, columns: Sequence[str]) -> pa.Table:
    """Columns of a shard, as they are stored. Raises PoolFormatError where they cannot be read."""
    try:
        return parquet_file(shard.parquet).read(list(columns))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(shard.parquet, error) from error


def read_uid_column(shard: Shard) -> pa.ChunkedArray:
    """A shard's uids in row order, in whatever type they are stored. Raises PoolFormatError where it has none."""
    if shard.uid_column is None:
        raise PoolFormatError(shard.parquet, expected="a column uid", found=", ".join(shard.columns))
    return read_column(shard, shard.uid_column)


def read_uids(shard: Shard) -> np.ndarray:
    """A shard's uids in row order, (N,) UID_DTYPE. Raises PoolFormatError naming shard and row of a malformed one."""
    column = read_uid_column(shard)
    try:
        return uids.from_hex(column)
    except UidError as error:
        where = f"{shard.parquet}, {error.where}"
        raise PoolFormatError(where, expected=error.expected, found=error.found) from error


def check_uids(pool: Pool) -> None:
    """Makes sure that every uid of the pool is well formed and stands on one row only. Raises: as UidCheck."""
    with UidCheck(pool) as found, ThreadPoolExecutor(_AT_ONCE) as threads:
        for here in threads.map(read_uids, pool.shards):
            found.add(here)
        found.finish()


class UidCheck(ExitStack):
    """Makes sure that each uid of a pool stands on one row only, as its shards' uids are read, in any order.

    Takes 16 bytes a pair: of memory up to UIDS_AT_ONCE pairs. Those of a larger pool are written to temporary files,
    parted by uid, each of which is looked at by itself; they are gone however the process ends.
    Raises: RunError where the folder of temporary files has no room for them.
    """

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool, self._held, self._turn = pool, list[np.ndarray](), Lock()
        self._files: list[Any] = []
        if pool.rows > UIDS_AT_ONCE:
            bytes_needed = pool.rows * uids.UID_DTYPE.itemsize
            free = shutil.disk_usage(tempfile.gettempdir()).free
            if free < bytes_needed:
                raise self._no_room(f"{free / 1e9:.1f} GB")
            parts = min(-(-pool.rows // UIDS_AT_ONCE), _MOST_PARTS)
            self._files = [self.enter_context(tempfile.TemporaryFile()) for _ in range(parts)]  # noqa: SIM115

    def add(self, here: np.ndarray) -> None:
        """Takes the uids of some rows, (N,) UID_DTYPE; from any thread."""
        if not self._files:
            self._held.append(here)
            return
        mixed = (here["f0"] * _MIX) ^ (here["f1"] * _MIX)
        part = ((mixed >> np.uint64(40)) % np.uint64(len(self._files))).astype(np.uint16)
        ordered = here[np.argsort(part, kind="stable")]
        ends = np.cumsum(np.bincount(part, minlength=len(self._files)))
        try:
            with self._turn:
                for file, some in zip(self._files, np.split(ordered, ends[:-1]), strict=True):
                    file.write(some.data)
        except OSError as error:
            raise self._no_room(reason_of(error)) from error

    def finish(self) -> None:
        """Raises PoolFormatError naming both places of a repeated uid, once those of all shards were taken."""
        if self._held:
            together = np.concatenate(self._held)
            self._held.clear()
            self._expect_distinct(together)
        for file in self._files:
            file.seek(0)
            self._expect_distinct(np.fromfile(file, uids.UID_DTYPE))

    def _expect_distinct(self, some: np.ndarray) -> None:
        ordered = uids.sort(some)
        same = uids.repeats(ordered)
        if not same.any():
            return
        repeated, places = ordered[same][:1], list[str]()
        for shard in self._pool.shards:
            rows = np.flatnonzero(read_uids(shard) == repeated[0])
            places += [f"{shard.parquet.name} row {row}" for row in rows]
            if len(places) > 1:
                break
        found = f"{uids.to_hex(repeated)[0].as_py()} at {places[0]} and {places[1]}"
        remedy = "remove one of the two rows"
        raise PoolFormatError(self._pool.root, expected="each uid on one row", found=found, remedy=remedy)

    def _no_room(self, found: str) -> RunError:
        size = f"{self._pool.rows * uids.UID_DTYPE.itemsize / 1e9:.1f} GB"
        remedy = "set TMPDIR to a folder with that much room"
        expected = f"room for {size} of uids while they are told apart"
        return RunError(tempfile.gettempdir(), expected=expected, found=found, remedy=remedy)


class TeacherInfo(BaseModel):
    """A teacher as the pool remembers it.

    model, pretrained: what open_clip was asked for. temperature: tau, 1 / exp(logit scale). weights: 32 hex digits that
    differ where any weight does. precision: what the embeddings were computed in.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    pretrained: str | None = None
    temperature: float = Field(gt=0, allow_inf_nan=False)
    weights: str = ""
    precision: str = "float32"


def read_teachers(root: str | os.PathLike[str]) -> dict[str, TeacherInfo]:
    """The teachers by arch; none where the pool does not say. Raises PoolFormatError where the file is damaged."""
    path = Place.of_named(root) / "teachers.json"
    try:
        found = json.loads(path.read())
        return {arch: TeacherInfo.model_validate(info) for arch, info in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        reason = str(error).split("\n")[0]
        remedy = "give --temperature and move the file away"
        raise PoolFormatError(path, expected="teachers by arch", found=reason, remedy=remedy) from error


def find_teacher(root: str | os.PathLike[str], arch: str) -> tuple[str, str | None, str] | None:
    """The model behind a pool's embeddings as open_clip is asked for it, None where nobody says which it was.

    As the pool notes it, else the folder `teacher` beside the pool, where the demo leaves its own.
    Returns: model, pretrained, and the digest of its weights ("" where that is not known).
    Raises: PoolFormatError where teachers.json is damaged.
    """
    noted, place = read_teachers(root).get(arch), Place.of_named(root)
    if noted is None and not place.remote:
        beside = os.path.join(os.path.dirname(os.path.realpath(place)), "teacher")
        if os.path.isfile(os.path.join(beside, "open_clip_config.json")):
            return f"local-dir:{beside}", None, ""
    return (noted.model, noted.pretrained, noted.weights) if noted else None


def expect_teacher(root: str | os.PathLike[str], arch: str, remedy: str) -> tuple[str, str | None, str]:
    """As find_teacher. Raises TeacherError, with this remedy, where nobody says which model it was."""
    found = find_teacher(root, arch)
    if found is None:
        raise TeacherError(root, expected=f"to know which model {arch} is", found="no teachers.json", remedy=remedy)
    return found


def check_arch(arch: str) -> None:
    """Makes sure that a teacher's name can be part of those of columns and files. Raises PoolFormatError."""
    if not _ARCH.fullmatch(arch):
        raise PoolFormatError("--arch", expected="letters, digits, _ and -", found=repr(arch))


def add_teacher(root: str | os.PathLike[str], arch: str, info: TeacherInfo) -> None:
    """Notes a teacher, or makes sure that the one noted under this name is the same.

    Raises: PoolFormatError where another one is, or another process took a pool in a store over, see leases.
    """
    root = Place.of_named(root)
    known, file = read_teachers(root), root / "teachers.json"
    if arch in known and (known[arch].weights, known[arch].precision) != (info.weights, info.precision):
        words = ((t.model, t.pretrained, t.weights[:8], t.precision) for t in (known[arch], info))
        was, now = (" ".join(filter(None, said)) for said in words)
        remedy = "give this teacher another --arch"
        raise PoolFormatError(file, expected=f"{arch} to be {was}", found=now, remedy=remedy)
    if arch not in known:
        teachers = {**known, arch: info}
        confirm(root)
        file.write_json({name: teacher.model_dump() for name, teacher in sorted(teachers.items())})


def parquet_file(parquet: Place, size: int | None = None) -> pq.ParquetFile:
    """A parquet to read from, of which a store is asked for no more than is read.

    size: its bytes, for who knows them. Raises: OSError, ArrowException.
    """
    return pq.ParquetFile(parquet.open(in_places=True, size=size) if parquet.remote else parquet.path)


def _names(folder: Place) -> list[str]:
    """Place.names. Raises PoolFormatError where its store or disk fails."""
    with reading_pool(folder):
        return folder.names()


def _listed(folder: Place) -> dict[str, tuple[int, int | str]]:
    """Place.listed. Raises PoolFormatError where its store fails."""
    with reading_pool(folder):
        return folder.listed()


@contextmanager
def reading_pool(folder: Place) -> Iterator[None]:
    """Has what fails of a pool's store or disk end in a PoolFormatError."""
    try:
        yield
    except OSError as error:
        raise PoolFormatError(folder, expected="a pool that can be read", found=reason_of(error)) from error


def _files(folder: Place, ending: str) -> list[Place]:
    return [folder / name for name in _names(folder) if name.endswith(ending)]


def _columns_of(schema: pa.Schema) -> dict[str, str]:
    return {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)}


def _opened(parquet: Place, size: int | None = None) -> pq.ParquetFile:
    try:
        if not parquet.remote:
            expect_regular(parquet)
        file = parquet_file(parquet, size)
        _ = file.schema_arrow.names  # decodes them
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(parquet, error) from error
    return file


def _unreadable(parquet: Place, error: Exception) -> PoolFormatError:
    remedy = "start again when its store answers, or upload it again" if parquet.remote else "download it again"
    return PoolFormatError(parquet, expected="a parquet file", found=reason_of(error), remedy=remedy)
