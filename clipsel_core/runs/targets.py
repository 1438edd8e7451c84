"""How a target's embeddings are read: the named set of images that NormSim compares the pool with."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from clipsel_core import uids
from clipsel_core.errors import TargetError, counted, reason_of
from clipsel_core.files import expect_regular, portable_path, sha256_of
from clipsel_core.pool.embeddings import read_embeddings
from clipsel_core.pool.layout import Arch, Pool, read_uids
from clipsel_core.pool.target_files import ENDINGS, find_part, read_target_rows, split_part, telling
from clipsel_core.runs.store import NAME_PATTERN, TargetInfo, TargetKind
from clipsel_core.scoring.normsim import prepare_target

_KINDS: dict[str, TargetKind] = {".npy": "npy", ".npz": "npz", ".pt": "pt", ".pth": "pt", ".parquet": "parquet"}


def load_target(name: str, path: str | Path, pool: Pool, arch: Arch, root: Path) -> tuple[TargetInfo, torch.Tensor]:
    """A target's description and its embeddings, (M, D) float16 or float32 unit rows.

    path: a .npy of embeddings, or of uids of the pool (then their images are the target); a .npz or a .parquet, with
        #MEMBER or #COLUMN behind the path where it holds several; a .pt or .pth holding a tensor, or a dict with #KEY.
    root: the run's folder, from which the recorded path is counted.
    Raises: TargetError where the file cannot be read, has another width than the pool, or holds bad rows.
    """
    file, part = split_part(path)
    if not re.fullmatch(NAME_PATTERN, name):
        raise TargetError(f"target {name!r}", expected="a name of up to 64 letters, digits, _ and -", found=repr(name))
    try:
        expect_regular(file)
    except OSError as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else reason_of(error)
        raise TargetError(file, expected=f"the target {name!r}", found=found) from error
    kind = _KINDS.get(file.suffix.lower())
    if kind is None:
        raise TargetError(file, expected=ENDINGS, found=file.suffix or "no ending")
    with telling(file):
        rows = _read_pt(file, part, arch) if kind == "pt" else read_target_rows(file, part, arch.image_member)
        if rows.dtype == uids.UID_DTYPE:
            kind, rows = "uids", _images_of(file, uids.distinct(rows, file), pool, arch)
    # A copy in memory, of this machine's byte order, as torch needs it.
    tensor = prepare_target(
        torch.from_numpy(np.array(rows, rows.dtype.newbyteorder("="))), name=str(file), width=arch.width
    )
    recorded = portable_path(file, root) + (f"#{part}" if part else "")
    digest, (count, width) = sha256_of(file), tensor.shape
    info = TargetInfo(name=name, path=recorded, kind=kind, sha256=digest, rows=count, width=width)
    return info, tensor


def _read_pt(file: Path, part: str, arch: Arch) -> np.ndarray:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds, and its texts advise to load the file unsafely
        remedy = "save the tensor with torch.save, or with numpy as .npy"
        raise TargetError(file, expected="a .pt of plain tensors", found="something else", remedy=remedy) from error
    if isinstance(loaded, dict):
        tensors = {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
        loaded = tensors[find_part(file, part, tensors, arch.image_member)]
    if not isinstance(loaded, torch.Tensor):
        remedy = "save one tensor of a row an image, or a dict of tensors"
        raise TargetError(file, expected="a tensor", found=f"a {type(loaded).__name__}", remedy=remedy)
    tensor, said = loaded.detach(), str(loaded.dtype).removeprefix("torch.")
    for odd, found in ((tensor.is_meta, "one without values, of the device meta"), (tensor.is_quantized, said)):
        if odd:
            raise TargetError(file, expected="a tensor of floating numbers", found=found, remedy="save it as float32")
    if tensor.layout != torch.strided:
        found, remedy = "a sparse one", "save tensor.to_dense()"
        raise TargetError(file, expected="a dense tensor", found=found, remedy=remedy)
    if not tensor.is_floating_point():
        raise TargetError(file, expected="floating numbers", found=f"shape {tuple(tensor.shape)}, {said}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        found = f"shape {tuple(tensor.shape)} over {tensor.untyped_storage().nbytes():,} bytes"
        raise TargetError(file, expected="a value for each place", found=found, remedy="save tensor.contiguous()")
    # numpy knows neither bfloat16 nor the types of 8 bits.
    return (tensor if tensor.dtype in (torch.float16, torch.float32, torch.float64) else tensor.float()).numpy()


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
