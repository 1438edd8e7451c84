"""What kind of source is this? Told by looking at it, or as somebody says."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.sources.folder import image_names, open_folder
from clipsel_core.pool.sources.image_parquet import holds_images, open_image_parquets
from clipsel_core.pool.sources.record import FORMATS, Source
from clipsel_core.pool.sources.table import open_table
from clipsel_core.pool.sources.tars import open_tars

_TABLES = ("csv", "tsv", "jsonl", "parquet")


def open_source(
    path: str | Path, *, kind: str | None = None, image_column: str | None = None, text_column: str | None = None
) -> Source:
    """Opens a tar, a table, a parquet with images, or a folder of any of these.

    A folder with tars in it is webdataset; else one with a single table beside its images is that table; else it is
    images with a .txt each. kind: one of FORMATS, in place of looking. image_column, text_column: of a table.
    Raises: PoolFormatError where it is none of these, is empty, or has no such columns.
    """
    path = Path(path)
    if kind not in (None, *FORMATS):
        raise PoolFormatError("--format", expected=", ".join(FORMATS), found=str(kind))
    if not path.exists():
        raise PoolFormatError(path, expected="a file or a folder of images and captions", found="no such file")
    try:
        return _open(path, kind or _look(path), image_column, text_column)
    except (OSError, pa.ArrowException) as error:
        found = str(error).split("\n")[0]
        raise PoolFormatError(path, expected="files that can be read", found=found) from error


def _look(path: Path) -> str:
    if path.is_file():
        ending = path.suffix.lower().removeprefix(".")
        if ending in _TABLES or ending == "tar":
            return "webdataset" if ending == "tar" else ending
        expected = "a .tar, .csv, .tsv, .jsonl or .parquet, or a folder"
        raise PoolFormatError(
            path, expected=expected, found=path.suffix or "no ending", remedy="say which with --format"
        )
    if next(path.rglob("*.tar"), None):
        return "webdataset"
    tables = {kind: _files(path, kind) for kind in _TABLES}
    there = [kind for kind, files in tables.items() if files]
    if len(there) == 1 and (len(tables[there[0]]) == 1 or there == ["parquet"]):
        return there[0]
    if there and not next(path.rglob("*.txt"), None):
        found = ", ".join(file.name for kind in there for file in tables[kind][:3])
        raise PoolFormatError(path, expected="one table of captions", found=found, remedy="give the table instead")
    return "folder"


def _open(path: Path, kind: str, image: str | None, text: str | None) -> Source:
    base = path if path.is_dir() else path.parent
    if kind == "folder":
        if not path.is_dir() or not image_names(path):
            raise PoolFormatError(path, expected="a folder of .jpg, .png or .webp", found="none")
        return open_folder(path)
    if kind == "webdataset":
        return open_tars(base, _some(path, sorted(path.rglob("*.tar")) if path.is_dir() else [path], "*.tar"))
    files = _some(path, _files(path, kind) if path.is_dir() else [path], f"*.{kind}")
    if kind == "parquet":
        schema = pq.read_schema(files[0])
        given = [image] if image and image in schema.names else []
        if any(holds_images(schema, name) for name in (given if image else schema.names)):
            return open_image_parquets(base, files, image=image, text=text)
    if len(files) > 1:
        raise PoolFormatError(path, expected=f"one {kind}", found=f"{len(files)}", remedy="give one of them")
    return open_table(files[0], kind, image=image, text=text)


def _files(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"*.{kind}"))


def _some(path: Path, files: list[Path], expected: str) -> list[Path]:
    if not files:
        raise PoolFormatError(path, expected=expected, found="none")
    return files
