"""How does what is given as a target become embeddings, or a second moment, that NormSim compares the pool with?

RUN/targets/<name>-<digest>.npy               embeddings of pictures that were given, made on the way
RUN/targets/<name>-<digest>_rejected.parquet  those of them that could not be embedded
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import torch

from clipsel_core import uids
from clipsel_core.errors import TargetError, counted
from clipsel_core.npy import map_npy
from clipsel_core.places import Place, common_folder
from clipsel_core.pool.conventions import IMAGE_ENDINGS
from clipsel_core.pool.embeddings import read_embeddings
from clipsel_core.pool.layout import Arch, Pool, expect_teacher, read_teachers, read_uids
from clipsel_core.pool.target_files import Given, find_part, find_target, read_target, telling
from clipsel_core.runs.store import NAME_PATTERN, FileInfo, TargetInfo, TargetKind
from clipsel_core.scoring.normsim import parse_norm, prepare_target
from clipsel_core.tasks import Report, allowed_cores

if TYPE_CHECKING:
    from clipsel_core.pool.sources.record import Source

_log = logging.getLogger(__name__)
_KINDS: dict[str, TargetKind] = {"npy": "npy", "npz": "npz", "pt": "pt", "pth": "pt", "parquet": "parquet"}
NOT_DECIDING = ("scaled", "teacher")
"""What a target's description says beyond what decides its scores."""


def load_target(
    name: str,
    path: str | os.PathLike[str],
    pool: Pool,
    arch: Arch,
    root: str | os.PathLike[str],
    *,
    device: str = "cpu",
    embedding: Report | None = None,
) -> tuple[TargetInfo, torch.Tensor]:
    """A target's description, and its embeddings, (M, D) float16 or float32 unit rows, or moment, (D, D) float64.

    path: a .npy of embeddings, or of uids of the pool (then their images are the target); a .npz or a .parquet, with
        #MEMBER or #COLUMN behind the path where it holds several; a .pt or .pth holding a tensor, or a dict with #KEY;
        a folder or a pattern of several; a symmetric D x D array in one of these, a second moment; another pool, with
        #ARCH for a teacher of another name; or pictures: a folder, tars or parquets.
    root: the run's folder, from which the recorded path is counted, and in which pictures' embeddings are kept.
    device: what pictures are embedded on. embedding: told how far that is. None for a look: nothing is embedded, a row
        of zeros stands for pictures that were not before, and what is unusual of the target is not logged.
    Raises: TargetError where the file cannot be read, has another width than the pool, or holds bad rows; TeacherError
        and PoolFormatError where pictures cannot be embedded.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise TargetError(f"target {name!r}", expected="a name of up to 64 letters, digits, _ and -", found=repr(name))
    given, root = find_target(path, name), Place.of_named(root)
    if given.kind == "pictures":
        return _load_pictures(name, given, pool, arch, root, device, embedding)
    if given.kind == "pool":
        _check_teacher(given, pool, arch)
    with telling(given.place):
        found = read_target(given, arch, _read_pt)
        kind: TargetKind = "pool" if given.kind == "pool" else _KINDS[found.files[0].ending]
        rows, place_of = found.rows, found.place_of
        if found.kind == "uids":
            kind, rows = "uids", _images_of(given.place, uids.distinct(rows, given.place), pool, arch)
    # In memory of its own and in this machine's byte order, as torch needs it.
    tensor = torch.from_numpy(np.require(rows, rows.dtype.newbyteorder("="), ["C", "W", "O"]))
    scaled = 0
    if found.kind == "moment":
        kind, tensor = "moment", tensor.double()
    else:
        named = place_of if found.kind == "embeddings" else None
        tensor, scaled = prepare_target(tensor, name=str(given.place), width=arch.width, where=named)
    recorded = given.place.relative_to(root) + (f"#{given.part}" if given.part else "")
    files, digest = tuple[FileInfo, ...](), ""
    if [file.address for file in found.files] == [given.place.address]:
        digest = given.place.sha256()
    else:
        base = common_folder(found.files)[0] if given.kind == "files" and not given.place.is_dir() else given.place
        files, digest = _listed(base, [os.path.relpath(file.path, base.path) for file in found.files])
    count, width = tensor.shape
    info = TargetInfo(
        name=name, path=recorded, kind=kind, sha256=digest, rows=count, width=width, scaled=scaled, files=files
    )
    if embedding and (info.kind == "moment" or info.files or scaled or count == width):
        _log.warning("target %s: %s", name, info.said)
    return info, tensor


def norms_of(info: TargetInfo, norms: Sequence[str]) -> list[str]:
    """Those p of a run's NormSim_p that a target has: a second moment has 2 alone."""
    return [p for p in norms if info.kind != "moment" or float(p) == 2]


def choose_norms(asked: Sequence[str] | None, usual: Sequence[str], targets: Sequence[TargetInfo]) -> tuple[str, ...]:
    """The p of each NormSim_p, each once and written one way. asked: None for the usual ones.

    Raises: ScoringError on what is no p, TargetError where another p than 2 is asked for of a second moment.
    """
    norms = tuple(dict.fromkeys(f"{parse_norm(p):g}" for p in (asked or usual)))
    moments = [target for target in targets if target.kind == "moment"]
    if moments and not asked:
        return norms if len(moments) < len(targets) else ("2",)
    if moments and (other := next((p for p in norms if p != "2"), None)):
        expected, remedy = "--norm 2, as it is a second moment", "leave --norm out, or give the embeddings themselves"
        raise TargetError(f"target {moments[0].name}", expected=expected, found=f"--norm {other}", remedy=remedy)
    return norms


def _check_teacher(given: Given, pool: Pool, arch: Arch) -> None:
    """Raises TargetError where a pool that is a target is known to have been embedded by another teacher."""
    theirs, own = (read_teachers(root) for root in (given.place, pool.root))
    other, known = theirs.get(given.part or arch.name), own.get(arch.name)
    if other and known and other.weights and known.weights and other.weights != known.weights:
        found = " ".join(filter(None, (other.model, other.pretrained)))
        expected = f"embeddings by the pool's teacher, {known.model} {known.pretrained or ''}".strip()
        raise TargetError(given.place, expected=expected, found=f"{found}, with other weights")


def _load_pictures(
    name: str, given: Given, pool: Pool, arch: Arch, root: Place, device: str, embedding: Report | None
) -> tuple[TargetInfo, torch.Tensor]:
    """As load_target, of pictures: embedded into the run's folder, unless they were before."""
    # They import the libraries of teachers, which takes seconds.
    from clipsel_core.pool.making.pictures import embed_pictures, load_teacher_of, rejected_file

    remedy = "embed them with clipsel embed-images, which takes --model, and give its .npy"
    model, pretrained, weights = expect_teacher(pool.root, arch.name, remedy)
    source, folder, teacher = _pictures(given), root / "targets", " ".join(filter(None, (model, pretrained)))
    path = given.place.relative_to(root) + (f"#{given.part}" if given.part else "")
    said: dict[str, Any] = {"name": name, "kind": "pictures", "width": arch.width, "pictures": path, "teacher": teacher}
    file = None
    if embedding or any(re.fullmatch(rf"{name}-.*\.npy", known) for known in folder.names()):
        files, digest = _listed_source(source)
        file = folder / f"{name}-{_digest_of(f'{digest} {weights or teacher}')[:12]}.npy"
        if embedding and not file.exists():
            embed_pictures(source, load_teacher_of(pool, arch, device=device), report=embedding).write(file)
    if file is None or not file.exists():
        counting = source.glance or source.read
        pictures = sum(not record.fault for part in range(len(source.parts)) for record in counting(part))
        waiting = TargetInfo(path=path, sha256="", rows=max(1, pictures), **said)
        return waiting, torch.zeros((1, arch.width))
    with file.here() as here:
        rows, _ = prepare_target(torch.from_numpy(np.array(map_npy(here))), name=str(file), width=arch.width)
    listed, rejected = rejected_file(file), 0
    if listed.exists():
        with listed.here() as here:
            rejected = pq.read_metadata(here).num_rows
    info = TargetInfo(
        path=file.relative_to(root), sha256=file.sha256(), rows=len(rows), files=files, rejected=rejected, **said
    )
    if embedding:
        _log.warning("target %s: %s%s", name, info.said, f", listed in {listed}" if info.rejected else "")
    return info, rows


def _pictures(given: Given) -> Source:
    """The pictures that were given, without captions. Raises: PoolFormatError where they cannot be read."""
    from clipsel_core.pool.sources.look import open_files, open_source  # most targets are no pictures

    if given.files:
        return open_files(given.files, image_column=given.part or None)
    return open_source(given.place, image_column=given.part or None, captions=False)


def _listed_source(source: Source) -> tuple[tuple[FileInfo, ...], str]:
    """The files that pictures lie in, as _listed gives them; a folder's loose pictures are one entry."""
    loose = source.base.files(*IMAGE_ENDINGS) if source.kind == "folder" else []
    infos, digest = _listed(source.base, [name for name, _ in loose] or source.parts)
    if loose:
        infos = (FileInfo(name=".", size=sum(info.size for info in infos), sha256=digest),)
    return infos, digest


def _listed(base: Place, names: Sequence[str]) -> tuple[tuple[FileInfo, ...], str]:
    """Files in a folder with their sizes and hashes, and the SHA-256 of their listing."""

    def describe(name: str) -> FileInfo:
        size, digest = 0, ""
        with suppress(OSError):  # one that cannot be read cannot be embedded either, which is said then
            size, digest = (base / name).size(), (base / name).sha256()
        return FileInfo(name=name, size=size, sha256=digest)

    with ThreadPoolExecutor(allowed_cores()) as threads:
        infos = tuple(threads.map(describe, names))
    return infos, _digest_of("".join(f"{info.sha256}  {info.name}\n" for info in infos))


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _read_pt(file: Place, part: str, usual: str) -> np.ndarray:
    try:
        loaded = torch.load(file.open() if file.remote else file.path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds, and its texts advise to load the file unsafely
        remedy = "save the tensor with torch.save, or with numpy as .npy"
        raise TargetError(file, expected="a .pt of plain tensors", found="something else", remedy=remedy) from error
    if isinstance(loaded, dict):
        tensors = {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
        loaded = tensors[find_part(file, part, tensors, usual)]
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


def _images_of(file: Place, wanted: np.ndarray, pool: Pool, arch: Arch) -> np.ndarray:
    """The image embeddings of these uids, (M, D), in the pool's order."""
    parts, found = [], 0
    for shard in pool.shards:
        rows = np.flatnonzero(uids.contains(wanted, read_uids(shard)))
        if len(rows):
            parts.append(np.asarray(read_embeddings(shard, arch.image_member)[rows]))
            found += len(rows)
    if found != len(wanted):
        expected = f"{counted(len(wanted), 'uids')} of the pool {pool.root}"
        raise TargetError(file, expected=expected, found=f"{len(wanted) - found:,} that it lacks")
    return np.concatenate(parts) if parts else np.empty((0, arch.width), np.float16)
