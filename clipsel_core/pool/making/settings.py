"""May this process write into this folder, with these settings? One at a time, and as it was begun."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from clipsel_core import files
from clipsel_core.errors import PoolFormatError
from clipsel_core.leases import hold_place, join_lease
from clipsel_core.places import Place, why_unwritten
from clipsel_core.pool.layout import check_arch, metadata_files, reading_pool
from clipsel_core.pool.making.carried import ALL, NONE, is_own, names_in
from clipsel_core.pool.making.decode import MOST_PIXELS
from clipsel_core.pool.making.shard_files import SHARD_SIZE
from clipsel_core.pool.sources.record import EMBEDDED, Source

# What holds where nobody says, and what pools were begun with before they noted it.
_USUAL = {"pack": False, "shard_size": SHARD_SIZE, "most_pixels": MOST_PIXELS, "max_pixels": MOST_PIXELS}
_OPTIONS = {
    "kind": "--format",
    "shard_size": "--shard-size",
    "most_pixels": "--max-pixels",
    "max_pixels": "--max-pixels",
    "pack": "--pack",
    "columns": "--columns",
}


def is_extendable(source: Source, root: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a pool that embed did not make from this source, and the source may be its images.

    That is every pool made elsewhere; of embed's own those made of embeddings alone, where the source has images, and
    those whose tars, packed into shards/, are the source now.
    Raises: PoolFormatError where such a pool is not finished: its tars lack pairs, which would not be missed.
    """
    root = Place.of_named(root)
    if not metadata_files(root):
        return False
    begun = _begun(root / "embed" / "settings.json")
    if not begun:
        return True
    of_embeddings = begun.get("kind") in EMBEDDED and not source.embedded
    own = _is_same(source.base, root / "shards") or _is_same(source.base, root)
    if not of_embeddings and not (own and begun.get("pack")):
        return False
    folder = root / "embed"
    with reading_pool(folder):
        reports = [name for name in folder.names() if name.removesuffix(".json").isdigit()]
        is_whole = bool(reports) and json.loads((folder / reports[-1]).read())["last"]
    if not is_whole:
        remedy = "give the source it was begun with, to finish it first"
        raise PoolFormatError(root, expected="a finished pool", found="one that was stopped", remedy=remedy)
    return True


def settings_to_make(
    source: Source,
    root: str | os.PathLike[str],
    arch: str,
    *,
    teacher: bool,
    shard_size: int | None = None,
    most_pixels: int | None = None,
    pack: bool | None = None,
    columns: str | None = None,
) -> dict[str, Any]:
    """What decides which pair comes into which shard of a pool, and what is written of it. Writes nothing.

    teacher: whether there is one. shard_size, most_pixels, pack, columns: None for as the pool was begun, else as
        usual.
    Raises: PoolFormatError where they do not fit the source, the folder was begun with others, or is somebody else's.
    """
    root = Place.of_named(root)
    root.expect_written()
    with reading_pool(root):
        if root.is_file():
            raise PoolFormatError(root, expected="a folder for the pool", found="a file")
    check_arch(arch)
    if teacher == source.embedded:
        expected, found = ("no --model", "one") if teacher else ("--model", "none")
        remedy = "its embeddings are there already" if teacher else "say which teacher embeds it"
        raise PoolFormatError(source.base, expected=expected, found=found, remedy=remedy)
    if pack and source.embedded:
        raise PoolFormatError("--pack", expected="a source of images", found=f"{source.kind}, embeddings alone")
    path = root / "embed" / "settings.json"
    if not _begun(path) and metadata_files(root):
        remedy = "choose a new folder"
        raise PoolFormatError(root, expected="no pool, or one of embed's", found="another pool", remedy=remedy)
    for name in names_in(columns or ALL) or ():
        known = None if source.others is None else [column for column in source.others if not is_own(column)]
        if is_own(name) or (known is not None and name not in known):
            expected = f"all, none, or some of {', '.join(known or ())}" if known else "all, none, or further columns"
            found = f"{name!r}, which the pool has itself" if is_own(name) else repr(name)
            raise PoolFormatError("--columns", expected=expected, found=found)
    given = {"shard_size": shard_size, "most_pixels": most_pixels, "pack": pack, "columns": columns}
    settings = _settled(path, root, {"format": 1, "kind": source.kind, **given}, source)
    if settings["pack"] and _is_same(source.base, root):
        remedy = "the pool's tars would be taken for the source's"
        raise PoolFormatError(root, expected="another folder than the source's", found="the same", remedy=remedy)
    return settings


def settings_to_extend(
    source: Source, root: str | os.PathLike[str], arch: str, max_pixels: int | None
) -> tuple[Place, dict[str, Any]]:
    """What decides how a teacher joins a pool that is there, and the file that notes it. Raises: PoolFormatError."""
    root = Place.of_named(root)
    root.expect_written()
    check_arch(arch)
    path = root / "embed" / arch / "settings.json"
    return path, _settled(path, root, {"format": 1, "max_pixels": max_pixels}, source)


@contextmanager
def hold_folder(root: Place) -> Iterator[None]:
    """Holds the folder for this process, and clears what a killed one was writing.

    Raises: PoolFormatError where another process holds it; of one in a store as hold_place.
    """
    with hold_place(root, _busy(root)):
        clear_pool(root)
        yield


def join_pool(root: Place, number: Place | None) -> None:
    """As leases.join_lease, of a pool."""
    join_lease(root, number, _busy(root))


def _busy(root: Place) -> PoolFormatError:
    expected, found = "a folder nobody writes into", "another process at work"
    return PoolFormatError(root, expected=expected, found=found, remedy="wait for it, or take another folder")


def pool_folders(pool: Place) -> list[Path]:
    """The folders of this machine that a pool's files are filled in; none of a pool in a store."""
    if pool.remote:
        return []
    root = Path(pool)
    return [root, *(root / name for name in ("metadata", "images", "embed", "shards")), *(root / "embed").glob("*/")]


def clear_pool(root: Place) -> None:
    """Clears what killed processes were writing into a pool; for whoever holds it alone."""
    files.remove_leftovers(*pool_folders(root))


@contextmanager
def hold_pool(root: Place) -> Iterator[None]:
    """Holds a pool's folder, made if need be, as hold_folder does.

    Raises: PoolFormatError also where a disk or the store fails.
    """
    try:
        with nullcontext() if root.remote else files.made_folder(Path(root)), hold_folder(root):
            yield
    except OSError as error:
        where, found, remedy = why_unwritten(root, error, "choose another folder")
        remedy += ": finished shards are kept"
        raise PoolFormatError(where, expected="to write the pool", found=found, remedy=remedy) from error


def _is_same(place: Place, other: Place) -> bool:
    return place.absolute().address == other.absolute().address


def _settled(path: Place, root: Place, settings: dict[str, Any], source: Source) -> dict[str, Any]:
    """Settings with the source's signature, as they are noted in a file, where one is; None stands for as noted.

    Raises: PoolFormatError where others are noted, or another source is.
    """

    def said(name: str, value: object) -> str:
        option = _OPTIONS.get(name, name)
        return f"{'no ' * (value is False)}{option}" if isinstance(value, bool) else f"{option} {value}"

    begun, described = _begun(path), f"{source.said}, {source.extent}"
    # Pools of earlier versions have none of their sources' columns.
    before = {**_USUAL, "columns": NONE if begun else ALL, **begun}
    now = {**settings, "signature": source.signature}
    now = {name: before.get(name) if value is None else value for name, value in now.items()}
    changed = [name for name in now if before.get(name) != now[name]] if begun else []
    if "signature" in changed:
        was = begun.get("source", "")
        found = described if was != described else "as many files and bytes, of other names, sizes or columns"
        expected = "the source it was begun with" + (f" ({was})" if was else "")
        remedy = "bring it back as it was, or embed into another folder"
        raise PoolFormatError(root, expected=expected, found=found if was else "another", remedy=remedy)
    if changed:
        remedy = "leave it out, or embed into another folder"
        expected, found = (said(changed[0], values.get(changed[0])) for values in (before, now))
        raise PoolFormatError(root, expected=f"{expected}, as begun", found=found, remedy=remedy)
    return {**now, "source": begun.get("source", described) if begun else described}


def _begun(path: Place) -> dict[str, Any]:
    """What is noted, nothing where nothing is. Raises: PoolFormatError where it cannot be read."""
    try:
        begun = json.loads(path.read())
    except FileNotFoundError:
        return {}
    except OSError as error:
        found = str(error.strerror or error)
        raise PoolFormatError(path, expected="a folder for the pool", found=found) from error
    except ValueError as error:
        raise PoolFormatError(path, expected="the settings of a pool", found=str(error)) from error
    if not isinstance(begun, dict):
        raise PoolFormatError(path, expected="the settings of a pool", found=type(begun).__name__)
    return begun
