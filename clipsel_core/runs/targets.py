"""How a target's embeddings are read: the named set of images that NormSim compares the pool with."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from clipsel_core import uids
from clipsel_core.counts import counted
from clipsel_core.errors import TargetError
from clipsel_core.files import portable_path, sha256_of
from clipsel_core.pool.check import read_uids
from clipsel_core.pool.embeddings import read_embeddings
from clipsel_core.pool.layout import Arch, Pool
from clipsel_core.pool.target_files import ENDINGS, one_of, read_target_rows, telling
from clipsel_core.runs.config import NAME_PATTERN, TargetInfo, TargetKind
from clipsel_core.scoring.targets import prepare_target

_KINDS: dict[str, TargetKind] = {".npy": "npy", ".npz": "npz", ".pt": "pt", ".parquet": "parquet"}


def load_target(name: str, path: str | Path, pool: Pool, arch: Arch, root: Path) -> tuple[TargetInfo, torch.Tensor]:
    """A target's description and its embeddings, (M, D) float16 or float32 unit rows.

    path: a .npy of embeddings, or of uids of the pool (then their images are the target); a .npz or a .parquet, with
        #MEMBER or #COLUMN behind the path where it holds several; a .pt holding one tensor.
    root: the run's folder, from which the recorded path is counted.
    Raises: TargetError where the file cannot be read, has another width than the pool, or holds bad rows.
    """
    text, _, part = str(path).partition("#")
    file = Path(text)
    if not re.fullmatch(NAME_PATTERN, name):
        raise TargetError(f"target {name!r}", expected="a name of up to 64 letters, digits, _ and -", found=repr(name))
    if not file.is_file():
        raise TargetError(file, expected=f"the target {name!r}", found="no such file")
    kind, rows = _read(file, part, pool, arch)
    tensor = prepare_target(torch.from_numpy(np.array(rows)), name=str(file), width=arch.width)
    recorded = portable_path(file, root) + (f"#{part}" if part else "")
    digest, (count, width) = sha256_of(file), tensor.shape
    info = TargetInfo(name=name, path=recorded, kind=kind, sha256=digest, rows=count, width=width)
    return info, tensor


def _read(file: Path, part: str, pool: Pool, arch: Arch) -> tuple[TargetKind, np.ndarray]:
    kind = _KINDS.get(file.suffix.lower())
    if kind is None:
        raise TargetError(file, expected=ENDINGS, found=file.suffix or "no ending")
    with telling(file):
        if kind == "pt":
            return kind, _read_pt(file, part, arch)
        rows = read_target_rows(file, part, arch.image_member)
        if rows.dtype == uids.UID_DTYPE:
            return "uids", _images_of(file, uids.unique(rows), pool, arch)
        return kind, rows


def _read_pt(file: Path, part: str, arch: Arch) -> np.ndarray:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds, and its texts advise to load the file unsafely
        remedy = "save the tensor with torch.save, or with numpy as .npy"
        raise TargetError(file, expected="a .pt of plain tensors", found="something else", remedy=remedy) from error
    if isinstance(loaded, dict):
        tensors = {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
        wanted = part or (next(iter(tensors)) if len(tensors) == 1 else arch.image_member)
        loaded = tensors[one_of(file, wanted, list(tensors))]
    if not isinstance(loaded, torch.Tensor):
        raise TargetError(file, expected="a tensor", found=type(loaded).__name__)
    return (loaded.float() if loaded.dtype == torch.bfloat16 else loaded).numpy()


def _images_of(file: Path, wanted: np.ndarray, pool: Pool, arch: Arch) -> np.ndarray:
    """The image embeddings of these uids, (M, D), in the pool's order."""
    parts, found = [], 0
    for shard in pool.shards:
        rows = np.flatnonzero(uids.contains(wanted, read_uids(pool, shard)))
        if len(rows):
            parts.append(np.asarray(read_embeddings(shard, arch.image_member)[rows]))
            found += len(rows)
    if found != len(wanted):
        expected = f"{counted(len(wanted), 'uids')} of the pool {pool.root}"
        raise TargetError(file, expected=expected, found=f"{len(wanted) - found:,} that it lacks")
    return np.concatenate(parts) if parts else np.empty((0, arch.width), np.float16)
