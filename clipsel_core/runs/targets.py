"""How a target's embeddings are read: the named set of images that NormSim compares the pool with."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError, TargetError
from clipsel_core.files import portable_path, sha256_of
from clipsel_core.pool.check import read_uids
from clipsel_core.pool.embeddings import read_embeddings
from clipsel_core.pool.layout import Arch, Pool
from clipsel_core.pool.npz import read_array, read_members
from clipsel_core.runs.config import TargetInfo, TargetKind
from clipsel_core.scoring.targets import prepare_target

_ENDINGS = ".npy, .npz, .pt or .parquet"


def load_target(name: str, path: str | Path, pool: Pool, arch: Arch, root: Path) -> tuple[TargetInfo, torch.Tensor]:
    """A target's description and its embeddings, (M, D) float16 or float32 unit rows.

    path: a .npy of embeddings, or of uids of the pool (then their images are the target); a .npz or a .parquet, with
        #MEMBER or #COLUMN behind the path where it holds several; a .pt holding one tensor.
    root: the run's folder, from which the recorded path is counted.
    Raises: TargetError where the file cannot be read, has another width than the pool, or holds bad rows.
    """
    text, _, part = str(path).partition("#")
    file = Path(text)
    if not file.is_file():
        raise TargetError(file, expected=f"the target {name!r}", found="no such file")
    kind, rows = _read(file, part, pool, arch)
    tensor = prepare_target(torch.from_numpy(np.array(rows)), name=str(file), width=arch.width)
    recorded = portable_path(file, root) + (f"#{part}" if part else "")
    digest, (count, width) = sha256_of(file), tensor.shape
    info = TargetInfo(name=name, path=recorded, kind=kind, sha256=digest, rows=count, width=width)
    return info, tensor


def _read(file: Path, part: str, pool: Pool, arch: Arch) -> tuple[TargetKind, np.ndarray]:
    readers: dict[str, tuple[TargetKind, Callable[[Path, str, Arch], np.ndarray]]] = {
        ".npz": ("npz", _read_npz),
        ".pt": ("pt", _read_pt),
        ".parquet": ("parquet", _read_parquet),
    }
    ending = file.suffix.lower()
    try:
        if ending == ".npy":
            array = np.load(file, allow_pickle=False)
            if array.dtype == uids.UID_DTYPE:
                return "uids", _images_of(file, uids.unique(array), pool, arch)
            return "npy", array
        if ending not in readers:
            raise TargetError(file, expected=_ENDINGS, found=ending or "no ending")
        kind, read = readers[ending]
        return kind, read(file, part, arch)
    except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, pa.ArrowInvalid) as error:
        reason = (str(error) or type(error).__name__).split("\n")[0]
        raise TargetError(file, expected="embeddings of images", found=reason) from error


def _read_npz(file: Path, part: str, arch: Arch) -> np.ndarray:
    try:
        members = read_members(file)
    except PoolFormatError as error:
        raise TargetError(file, expected=error.expected, found=error.found) from error
    wanted = part or (next(iter(members)) if len(members) == 1 else arch.image_member)
    return read_array(file, members[_one_of(file, wanted, list(members))])


def _read_pt(file: Path, part: str, arch: Arch) -> np.ndarray:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds, and its texts advise to load the file unsafely
        remedy = "save the tensor with torch.save, or with numpy as .npy"
        raise TargetError(file, expected="a .pt of plain tensors", found="something else", remedy=remedy) from error
    if isinstance(loaded, dict):
        tensors = {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
        wanted = part or (next(iter(tensors)) if len(tensors) == 1 else arch.image_member)
        loaded = tensors[_one_of(file, wanted, list(tensors))]
    if not isinstance(loaded, torch.Tensor):
        raise TargetError(file, expected="a tensor", found=type(loaded).__name__)
    return (loaded.float() if loaded.dtype == torch.bfloat16 else loaded).numpy()


def _read_parquet(file: Path, part: str, arch: Arch) -> np.ndarray:
    schema = pq.read_schema(file)
    lists = [f.name for f in schema if pa.types.is_list(f.type) or pa.types.is_fixed_size_list(f.type)]
    wanted = part or (lists[0] if len(lists) == 1 else arch.image_member)
    column = pq.read_table(file, columns=[_one_of(file, wanted, lists)]).column(0).combine_chunks()
    lengths = set(column.value_lengths().to_pylist()) if pa.types.is_list(column.type) else {column.type.list_size}
    if column.null_count or len(lengths) != 1:
        raise TargetError(file, expected="lists of one length", found=f"lengths {sorted(map(str, lengths))[:5]}")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _one_of(file: Path, wanted: str, known: list[str]) -> str:
    if wanted in known:
        return wanted
    found = ", ".join(known) or "none"
    raise TargetError(file, expected=f"an array {wanted!r}", found=found, remedy="name one behind the path: FILE#NAME")


def _images_of(file: Path, wanted: np.ndarray, pool: Pool, arch: Arch) -> np.ndarray:
    """The image embeddings of these uids, (M, D), in the pool's order."""
    parts, found = [], 0
    for shard in pool.shards:
        rows = np.flatnonzero(uids.contains(wanted, read_uids(pool, shard)))
        if len(rows):
            parts.append(np.asarray(read_embeddings(shard, arch.image_member)[rows]))
            found += len(rows)
    if found != len(wanted):
        expected = f"{len(wanted):,} uids of the pool {pool.root}"
        raise TargetError(file, expected=expected, found=f"{len(wanted) - found:,} that it lacks")
    return np.concatenate(parts) if parts else np.empty((0, arch.width), np.float16)
