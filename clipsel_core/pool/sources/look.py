"""What kind of source is this? Told by looking at it, or as somebody says."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pyarrow as pa

from clipsel_core.errors import PoolFormatError
from clipsel_core.places import PATIENT, Place, common_folder
from clipsel_core.pool.conventions import IMAGE_ENDINGS, IMAGES_END
from clipsel_core.pool.sources.arrays import open_arrays
from clipsel_core.pool.sources.image_tables import (
    is_saved,
    open_arrow,
    open_image_parquets,
    parquet_image_column,
    saved_files,
)
from clipsel_core.pool.sources.record import EMBEDDED, SOURCE_FORMATS, Source
from clipsel_core.pool.sources.samples import open_folder, open_tars
from clipsel_core.pool.sources.tables import (
    Delimited,
    guess_columns,
    open_tables,
    open_text,
    read_parquet_metadata,
    refuse_columns,
)

_TABLES = ("csv", "tsv", "jsonl", "parquet")


def open_source(
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    captions: bool = True,
) -> Source:
    """Opens a tar, a table, a parquet with images, or a folder of any of these or of embeddings; a path or a URL.

    A folder with img_emb/ in it is clip-retrieval's, one with tars is webdataset, one with .npy and no image is npy,
    one that Hugging Face's `datasets` saved is arrow; else one with a single table beside its images is that table, as
    are parquets with images and tables called metadata in inner folders; else it is images with a .txt each.
    kind: one of SOURCE_FORMATS, in place of looking. image_column, text_column: of a table. captions: False where the
        images alone are wanted: then a folder with images is these, and nothing needs a caption.
    Raises: PoolFormatError where it is none of these, is empty, or has no such columns.
    """
    if kind not in (None, *SOURCE_FORMATS):
        raise PoolFormatError("--format", expected=", ".join(SOURCE_FORMATS), found=str(kind))
    place = Place.of(path).patient(PATIENT)
    try:
        if not place.is_dir() and not place.is_file():
            raise PoolFormatError(path, expected="a file or a folder of images and captions", found="no such file")
        return _open(place, kind or _look(place, captions), image_column, text_column, captions)
    except (OSError, pa.ArrowException) as error:
        found = str(error).split("\n")[0]
        raise PoolFormatError(path, expected="files that can be read", found=found) from error


def open_files(paths: Sequence[Place], *, image_column: str | None = None) -> Source:
    """Opens the images of these tars, or of these parquets, without captions.

    Raises: PoolFormatError where one holds none, or they are of two kinds.
    """
    base, names = common_folder(paths)
    endings = {path.ending for path in paths}
    if len(endings) > 1:
        raise PoolFormatError(base, expected="files of one kind", found=" and ".join(sorted(endings)))
    if endings == {"tar"}:
        return open_tars(base, tuple(names), captions=False)
    column = parquet_image_column(paths[0], image_column)
    if not column:
        raise PoolFormatError(paths[0], expected="a column of images", found="none")
    return open_image_parquets(base, tuple(names), image=column, text=None, captions=False)


def _look(place: Place, captions: bool) -> str:
    if not place.is_dir():
        ending = place.ending
        if ending == "txt":
            # Flickr's captions come as a table in a .txt, by its first line.
            with open_text(place) as opened:
                table = Delimited(*opened, "csv")
            columns = guess_columns(place, table.names, image=None, text=None, needed=False)
            if columns.image and columns.text:
                return "tsv" if table.mark == "\t" else "csv"
        if ending in (*_TABLES, "arrow", "tar"):
            return "webdataset" if ending == "tar" else ending
        expected, remedy = "a .tar, .csv, .tsv, .jsonl, .parquet or .arrow, or a folder", "say which with --format"
        raise PoolFormatError(place, expected=expected, found=f".{ending}" if ending else "no ending", remedy=remedy)
    if (place / "img_emb").is_dir():
        return "clip-retrieval"
    if is_saved(place):
        return "arrow"
    if place.files(".tar"):
        return "webdataset"
    if not captions and place.files(*IMAGE_ENDINGS):
        return "folder"
    if place.files(".npy", deep=False) and not place.files(*IMAGE_ENDINGS):
        return "npy"
    tables = {kind: _names(place, kind) for kind in _TABLES}
    if tables["parquet"] and place.files(*IMAGE_ENDINGS):
        first = place / tables["parquet"][0]
        columns = guess_columns(first, read_parquet_metadata(first)[0].names, image=None, text=None, needed=False)
        if not parquet_image_column(first) and not columns.image:
            # img2dataset describes its folders of images in parquets beside them.
            tables["parquet"] = []
    there = [kind for kind, names in tables.items() if names]
    if len(there) == 1 and (len(tables[there[0]]) == 1 or there == ["parquet"]):
        return there[0]
    if there and not place.files(".txt"):
        found = ", ".join(name for kind in there for name in tables[kind][:3])
        raise PoolFormatError(place, expected="one table of captions", found=found, remedy="give the table instead")
    inner = [] if there or place.files(".txt") else [kind for kind in _TABLES if _inner_names(place, kind)]
    if len(inner) > 1:
        found = ", ".join(_inner_names(place, kind)[0] for kind in inner)
        raise PoolFormatError(place, expected="tables of one kind", found=found, remedy="say which with --format")
    return inner[0] if inner else "folder"


def _open(place: Place, kind: str, image: str | None, text: str | None, captions: bool) -> Source:
    folder = place.is_dir()
    base = place if folder else place.parent
    if kind in ("folder", "webdataset"):
        refuse_columns(kind, image, text)
    if kind in EMBEDDED:
        return open_arrays(place, kind, image=image, text=text)
    if kind == "folder":
        if not folder or not place.files(*IMAGE_ENDINGS):
            raise PoolFormatError(place, expected="a folder of images", found=f"none; {IMAGES_END}")
        return open_folder(place, captions=captions)
    if kind == "webdataset":
        tars = [name for name, _ in place.files(".tar")] if folder else [place.name]
        return open_tars(base, _some(place, tars, "*.tar"), captions=captions)
    if kind == "arrow":
        files = saved_files(place) if folder else [place.name]
        return open_arrow(base, _some(place, files, "a saved data set"), image=image, text=text, captions=captions)
    own = _names(place, kind) if folder else [place.name]
    names = _some(place, own or _inner_names(place, kind), f"*.{kind}")
    if kind == "parquet" and (column := parquet_image_column(base / names[0], image)):
        return open_image_parquets(base, names, image=column, text=text, captions=captions)
    if len(own) > 1:
        raise PoolFormatError(place, expected=f"one {kind}", found=f"{len(names)}", remedy="give one of them")
    return open_tables(base, names, kind, image=image, text=text, captions=captions)


def _inner_names(folder: Place, kind: str) -> list[str]:
    """Tables in inner folders: those called metadata, beside their images, or else parquets that hold the images."""
    found = [name for name, _ in folder.files(f".{kind}")]
    described = [name for name in found if name.rpartition("/")[2].lower() == f"metadata.{kind}"]
    if described and folder.files(*IMAGE_ENDINGS):
        return described
    return found if kind == "parquet" and found and parquet_image_column(folder / found[0]) else []


def _names(folder: Place, kind: str) -> list[str]:
    return [name for name, _ in folder.files(f".{kind}", deep=False)]


def _some(place: Place, names: list[str], expected: str) -> tuple[str, ...]:
    if not names:
        raise PoolFormatError(place, expected=expected, found="none", remedy="leave out --format to have it told")
    return tuple(names)
