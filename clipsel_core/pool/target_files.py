"""What is a target that somebody names, and what rows does it hold?

A path leads to files of embeddings or of uids, to a pool, or to pictures. All kinds are read here but torch's own .pt,
whose reader is handed in, so that pages can look without torch.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsel_core import reach, uids
from clipsel_core.errors import ClipselError, PoolFormatError, TargetError, UidError, reason_of
from clipsel_core.files import expect_regular, is_hidden
from clipsel_core.npy import map_npy, read_array, read_members
from clipsel_core.places import PATIENT, Place, expect_plain
from clipsel_core.pool.conventions import IMAGE_ENDINGS, find_column
from clipsel_core.pool.embeddings import read_embeddings
from clipsel_core.pool.layout import Arch, metadata_files, open_pool, parquet_file
from clipsel_core.pool.sources.image_tables import is_saved, parquet_image_column

_ENDINGS_SAID = ".npy, .npz, .pt, .pth or .parquet"
_ENDINGS = (".npy", ".npz", ".pt", ".pth", ".parquet")
# What embeddings of images are usually called in a file that holds several arrays.
_USUAL = (
    *("image_features", "image_embeddings", "image_embeds", "image_emb", "img_features", "img_embeddings", "img_emb"),
    *("features", "embeddings", "image", "img"),
)
_BRACES = re.compile(r"\{([^{}]*)\}")
_MOST_EXPANDED, _MOST_BRACES = 10_000, 4
# A computed second moment is symmetric, and has no negative eigenvalue, to this share of its size; one that was rounded
# further, to its type's precision.
_MOMENT_ROUNDING = 1e-5

ReadPt = Callable[[Place, str, str], np.ndarray]
"""Reads the array of a .pt: from the file, the part of it, and the usual name of a part."""


@dataclass(frozen=True)
class Given:
    """What was given as a target.

    place: the file, the folder or the pattern. part: what stood behind #. files: what is read, in the order of the
    names; none of a folder of loose pictures, and of a pool.
    """

    kind: Literal["files", "pool", "pictures"]
    place: Place
    part: str
    files: tuple[Place, ...] = ()


@dataclass(frozen=True)
class TargetRows:
    """What files hold, unchecked but for shapes.

    kind: what rows are: (M, D) floats as stored; uids, (M,) UID_DTYPE; or a moment, (D, D) floats.
    files: those that were read; counts: how many rows each has.
    """

    kind: Literal["embeddings", "uids", "moment"]
    rows: np.ndarray
    files: tuple[Place, ...]
    counts: tuple[int, ...]

    def place_of(self, row: int) -> str:
        """How an error names a row: by its file, and its number there."""
        ends = np.cumsum(self.counts)
        index = int(np.searchsorted(ends, row, side="right"))
        return f"{self.files[index]}, row {row - int(ends[index]) + self.counts[index]}"


def split_part(path: str | os.PathLike[str]) -> tuple[Place, str]:
    """The place and the part, "" for none, that PATH#PART means; a file's own name may hold # as well."""
    text = str(path)
    places = [len(text), *(place for place, sign in enumerate(text) if sign == "#")]
    end = next((place for place in places if text[:place] and files_at(text[:place])), None)
    end = places[min(1, len(places) - 1)] if end is None else end
    return Place.of(text[:end]), text[end + 1 :]


def files_at(path: str | os.PathLike[str]) -> list[Place]:
    """The file or folder at a path; or else the files that it means as a pattern, in the order of their names.

    As in a shell: *, ? and [0-9], and {a,b} and {0..4}, of which each name is meant whether it is there or not. None
    where nothing is there. Of an address the last part alone may be a pattern. Raises: OSError where a store fails.
    """
    place = Place.of(path).patient(PATIENT)
    if place.remote:
        if place.is_file() or place.is_dir():
            return [place]
        places = [place.parent / name for name in _expanded(place.name)]
        listed = place.parent.names() if any(glob.has_magic(one.name) for one in places) else []
        names = {name for one in places for name in (fnmatch.filter(listed, one.name) or [one.name])}
        files = [place.parent / name for name in sorted(names)]
        return files if any(file.is_file() for file in files) else []
    try:
        if os.path.exists(place):
            return [place]
        named = _expanded(place.path)
        found = {name for one in named for name in (glob.glob(one) if glob.has_magic(one) else [one])}
        shown = [name for name in sorted(found) if not is_hidden(os.path.basename(name)) and not os.path.isdir(name)]
        return list(map(Place.of, shown)) if any(map(os.path.exists, shown)) else []
    except (OSError, ValueError):  # too long for a path, or a zero byte
        return []


def find_target(path: str | os.PathLike[str], name: str) -> Given:
    """What a path leads to, by its name and a look at parquets: PATH or PATH#PART.

    A file of embeddings or uids, a tar or a parquet of pictures, a pattern of several of one kind; a pool; a folder of
    pictures, with folders in it or none, or of files of embeddings. name: of the target, for errors.
    Raises: TargetError where nothing is there, it is none of these, or both pictures and embeddings.
    """
    expect_plain(str(path))
    with telling(path):
        place, part = split_part(path)
        files = files_at(place)
        is_folder = len(files) == 1 and place.is_dir()
    if is_folder:
        _check(place, name)
        if metadata_files(place):
            return Given("pool", place, part)
        files = [place / name for name in place.names() if Path(name).suffix.lower() in _ENDINGS]
        has_pictures = is_saved(place) or _lie_below(place, *IMAGE_ENDINGS, ".tar")
        if has_pictures:
            # A parquet without embeddings describes them, as img2dataset's does.
            files = [file for file in files if file.ending != "parquet" or _has_lists(file)]
        if not files and (has_pictures or _lie_below(place, ".parquet")):
            return Given("pictures", place, part)
        if has_pictures or not files:
            expected = f"pictures, a pool, or files that end in {_ENDINGS_SAID}"
            found, remedy = "none", ""
            if has_pictures:
                found, remedy = f"pictures and {files[0].name}", f"give the files alone: {place}/*.{files[0].ending}"
            raise TargetError(place, expected=expected, found=found, remedy=remedy)
    for file in files or [place]:
        _check(file, name)
    holding = {_holds_pictures(file, part): file for file in files}
    if len(holding) > 1:
        raise TargetError(holding[True], expected=f"embeddings, as in {holding[False]}", found="pictures")
    return Given("pictures" if True in holding else "files", place, part, tuple(files))


def read_target(given: Given, arch: Arch, read_pt: ReadPt | None = None) -> TargetRows:
    """The rows of files or of a pool, one file's below another's. A single .npy and an unzipped .npz are mapped.

    A single D x D array that is symmetric within rounding is a second moment. arch: of the pool that is compared with
    it. read_pt: None where no .pt can be read.
    Raises: TargetError naming the file that cannot be read, or does not fit the others or the pool's embeddings.
    """
    parts = (
        _read_pool(given, arch)
        if given.kind == "pool"
        else [(file, _read_file(file, given.part, arch.image_member, read_pt)) for file in given.files]
    )
    files, arrays = tuple(file for file, _ in parts), [rows for _, rows in parts]
    uids_first = arrays[0].dtype == uids.UID_DTYPE
    for file, rows in parts:
        if (rows.dtype == uids.UID_DTYPE) != uids_first:
            kinds = ("uids", "embeddings") if uids_first else ("embeddings", "uids")
            raise TargetError(file, expected=f"{kinds[0]}, as in {files[0]}", found=kinds[1])
        if uids_first:
            continue
        if rows.ndim != 2 or not len(rows):
            expected = f"a shape (M, {arch.width}) with at least one row"
            raise TargetError(file, expected=expected, found=f"{rows.shape}")
        if rows.shape[1] != arch.width:
            remedy = "embed the target with the pool's teacher"
            expected = f"width {arch.width}, as the pool's"
            raise TargetError(file, expected=expected, found=f"{rows.shape[1]}", remedy=remedy)
        if given.kind == "files" and _is_moment(file, rows):
            if len(parts) == 1:
                return TargetRows("moment", rows, files, (len(rows),))
            found, remedy = "a second moment", "give it alone"
            raise TargetError(file, expected=f"embeddings, as in {files[0]}", found=found, remedy=remedy)
    joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return TargetRows("uids" if uids_first else "embeddings", joined, files, tuple(map(len, arrays)))


def read_target_rows(file: Place, part: str, usual: str) -> np.ndarray:
    """The array in a .npy, .npz or .parquet: embeddings, (M, D) as stored and unchecked, or uids, (M,) UID_DTYPE.

    A .npy and an unzipped .npz are mapped. Text, and a parquet's column uid where no column holds embeddings, are uids.
    part: the member or column to take, "" for the only one, else the `usual`, else one that is called as usual.
    Raises: TargetError where the file has another ending, cannot be read, lacks the part, or it is neither.
    """
    ending = f".{file.ending}"
    if ending not in (".npy", ".npz", ".parquet"):
        remedy = "save the tensor with numpy as .npy" if ending in (".pt", ".pth") else ""
        raise TargetError(file, expected=".npy, .npz or .parquet", found=file.ending or "no ending", remedy=remedy)
    with telling(file):
        if ending == ".npz":
            try:
                members = read_members(file)
                rows = read_array(file, members[find_part(file, part, members, usual)])
            except PoolFormatError as error:
                raise TargetError(file, expected=error.expected, found=error.found) from error
        else:
            rows = map_npy(file) if ending == ".npy" else _read_parquet(file, part, usual)
        if rows.dtype.kind == "f" and rows.dtype.itemsize <= 8:
            return rows
        if rows.dtype.kind in "iub" and not rows.dtype.names:
            raise TargetError(file, expected="floating numbers", found=f"shape {rows.shape}, dtype {rows.dtype}")
        return uids.from_array(rows)


@contextmanager
def telling(file: str | os.PathLike[str]) -> Iterator[None]:
    """Turns whatever a reader trips over into a TargetError that names the file."""
    try:
        yield
    except UidError as error:
        raise TargetError(f"{file}, {error.where}", expected=error.expected, found=error.found) from error
    except ClipselError:
        raise
    except Exception as error:  # what is damaged makes numpy, zipfile and pyarrow fail in a dozen ways
        raise TargetError(file, expected="embeddings of images", found=reason_of(error)) from error


def find_part(file: Place, part: str, known: Mapping[str, object], usual: str) -> str:
    """The part of a file to take: that which was asked for, the only one, or one that is called as usual.

    Raises: TargetError naming those there are.
    """
    if part in known:
        return part
    found = part or (next(iter(known)) if len(known) == 1 else find_column(known, (usual.lower(), *_USUAL)))
    if found in known:
        return str(found)
    names = ", ".join(name[:40] for name in list(known)[:20]) or "none"
    remedy = "name one behind the path: FILE#NAME"
    raise TargetError(file, expected=f"an array {part or usual!r}", found=names, remedy=remedy)


def _read_parquet(file: Place, part: str, usual: str) -> np.ndarray:
    parquet = parquet_file(file)
    schema = parquet.schema_arrow
    lists = {f.name: f for f in schema if _is_list(f.type)}
    uid = find_column(schema.names, ["uid"])
    if part in ("", uid) and not lists and uid:
        return uids.from_hex(parquet.read([uid]).column(0))
    column = parquet.read([find_part(file, part, lists, usual)]).column(0)
    kind = column.type
    if not pa.types.is_floating(kind.value_type):
        raise TargetError(file, expected="lists of floating numbers", found=str(kind))
    lengths = pc.min_max(pc.list_value_length(column)).as_py() if not pa.types.is_fixed_size_list(kind) else {}
    if column.null_count or lengths.get("min") != lengths.get("max"):
        found = "an empty row" if column.null_count else f"{lengths['min']} to {lengths['max']}"
        raise TargetError(file, expected="lists of one length", found=found)
    flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(flat).reshape(len(column), -1) if len(column) else np.empty((0, 0), np.float32)


def _expanded(text: str) -> list[str]:
    """What {a,b} and {0..4} in a name stand for."""
    found = _BRACES.search(text)
    if not found or text.count("{") > _MOST_BRACES:
        return [text]
    span = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", found[1])
    words = found[1].split(",")
    if span and 0 <= int(span[2]) - int(span[1]) < _MOST_EXPANDED:
        digits = len(span[1]) if span[1].startswith("0") else 0
        words = [str(number).zfill(digits) for number in range(int(span[1]), int(span[2]) + 1)]
    elif len(words) == 1:
        return [text]
    named = (one for word in words for one in _expanded(text[: found.start()] + word + text[found.end() :]))
    return [one for _, one in zip(range(_MOST_EXPANDED), named, strict=False)]


def _check(path: Place, name: str) -> None:
    """Makes sure that a file or a folder may be read, is there, and ends as it should. Raises TargetError."""
    try:
        if path.remote and not path.is_dir() and not path.is_file():
            raise FileNotFoundError
        if not path.remote:
            reach.check_place(os.path.abspath(path))
            if not os.path.isdir(path):
                expect_regular(path)
        if path.is_dir():
            return
    except OSError as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else reason_of(error)
        raise TargetError(path, expected=f"the target {name!r}", found=found) from error
    if f".{path.ending}" not in (*_ENDINGS, ".tar"):
        raise TargetError(path, expected=_ENDINGS_SAID, found=f".{path.ending}" if path.ending else "no ending")


def _lie_below(folder: Place, *endings: str) -> bool:
    """Whether a folder has a file with such a name, at any depth; hidden ones do not count."""
    if folder.remote:
        return bool(folder.files(*endings))
    for _, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        if any(name.lower().endswith(endings) and not is_hidden(name) for name in names):
            return True
    return False


def _holds_pictures(file: Place, part: str) -> bool:
    """Whether a file is a tar, or a parquet whose pictures are asked for, or which has neither embeddings nor uids."""
    if file.ending != "parquet":
        return file.ending == "tar"
    with telling(file):
        if not part and (_has_lists(file) or find_column(parquet_file(file).schema_arrow.names, ["uid"])):
            return False
        return bool(parquet_image_column(file, part or None))


def _read_file(file: Place, part: str, usual: str, read_pt: ReadPt | None) -> np.ndarray:
    if read_pt and file.ending in ("pt", "pth"):
        with telling(file):
            return read_pt(file, part, usual)
    return read_target_rows(file, part, usual)


def _read_pool(given: Given, arch: Arch) -> list[tuple[Place, np.ndarray]]:
    """The image embeddings of a pool's shards, each with its file."""
    pool = open_pool(given.place)
    own = pool.arch(given.part or (arch.name if arch.name in pool.archs else None))
    found = []
    for shard in pool.shards:
        rows = read_embeddings(shard, own.image_member)
        if len(rows):
            found.append((shard.npz or shard.parquet, rows))
    if not found:
        raise TargetError(given.place, expected="images", found="a pool without any")
    return found


def _is_moment(file: Place, rows: np.ndarray) -> bool:
    """Whether a D x D array, D > 1, is symmetric within rounding. Raises TargetError where no such moment can be."""
    if rows.shape[0] != rows.shape[1] or len(rows) < 2:
        return False
    exact = rows.astype(np.float64)
    rounding = max(_MOMENT_ROUNDING, float(np.finfo(rows.dtype).eps))
    # Written so that NaN is not symmetric.
    if not np.abs(exact - exact.T).max() <= rounding * np.abs(exact).max():
        return False
    least, size = float(np.linalg.eigvalsh((exact + exact.T) / 2)[0]), float(np.linalg.norm(exact))
    if least < -rounding * size or not size:
        expected = "a second moment, as it is symmetric: no negative eigenvalue"
        raise TargetError(file, expected=expected, found=f"{least:.3g}" if size else "only zeros")
    return True


def _has_lists(file: Place) -> bool:
    with telling(file):
        return any(map(_is_list, parquet_file(file).schema_arrow.types))


def _is_list(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))
