"""What rows does a target's file hold? All kinds but torch's own .pt, so that pages can look without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipsel_core import uids
from clipsel_core.errors import ClipselError, PoolFormatError, TargetError, UidError, reason_of
from clipsel_core.files import expect_regular
from clipsel_core.npy import map_npy, read_array, read_members
from clipsel_core.pool.conventions import find_column

ENDINGS = ".npy, .npz, .pt, .pth or .parquet"
# What embeddings of images are usually called in a file that holds several arrays.
_USUAL = (
    *("image_features", "image_embeddings", "image_embeds", "image_emb", "img_features", "img_embeddings", "img_emb"),
    *("features", "embeddings", "image", "img"),
)


def split_part(path: str | Path) -> tuple[Path, str]:
    """The file and the part of it, "" for none, that FILE#PART means; a file's own name may hold # as well."""
    text = str(path)
    places = [len(text), *(place for place, sign in enumerate(text) if sign == "#")]
    end = next((place for place in places if Path(text[:place]).is_file()), places[min(1, len(places) - 1)])
    return Path(text[:end]), text[end + 1 :]


def read_target_rows(file: Path, part: str, usual: str) -> np.ndarray:
    """The array in a .npy, .npz or .parquet: embeddings, (M, D) as stored and unchecked, or uids, (M,) UID_DTYPE.

    A .npy and an unzipped .npz are mapped. Text, and a parquet's column uid where no column holds embeddings, are uids.
    part: the member or column to take, "" for the only one, else the `usual`, else one that is called as usual.
    Raises: TargetError where the file has another ending, cannot be read, lacks the part, or it is neither.
    """
    ending = file.suffix.lower()
    if ending not in (".npy", ".npz", ".parquet"):
        remedy = "save the tensor with numpy as .npy" if ending in (".pt", ".pth") else ""
        raise TargetError(file, expected=".npy, .npz or .parquet", found=file.suffix or "no ending", remedy=remedy)
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
def telling(file: Path) -> Iterator[None]:
    """Turns whatever a reader trips over into a TargetError that names the file."""
    try:
        yield
    except UidError as error:
        raise TargetError(f"{file}, {error.where}", expected=error.expected, found=error.found) from error
    except ClipselError:
        raise
    except Exception as error:  # what is damaged makes numpy, zipfile and pyarrow fail in a dozen ways
        raise TargetError(file, expected="embeddings of images", found=reason_of(error)) from error


def find_part(file: Path, part: str, known: Mapping[str, object], usual: str) -> str:
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


def _read_parquet(file: Path, part: str, usual: str) -> np.ndarray:
    expect_regular(file)
    parquet = pq.ParquetFile(file)
    schema = parquet.schema_arrow
    is_list = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    lists = {f.name: f for f in schema if any(is_kind(f.type) for is_kind in is_list)}
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
