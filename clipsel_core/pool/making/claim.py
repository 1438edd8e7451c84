"""May this process write into this folder, with these settings? One at a time, and as it was begun."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipsel_core import files
from clipsel_core.errors import PoolFormatError
from clipsel_core.files import write_json

# What pools were begun with before they noted it.
_USUAL = {"pack": False}


def begin(root: Path, settings: dict[str, Any]) -> None:
    """Notes what decides which pair comes into which shard, or makes sure that it is as noted.

    Raises: PoolFormatError where the folder was begun with others, or is a pool of somebody else's.
    """
    path = root / "embed" / "settings.json"
    if not path.exists() and next((root / "metadata").glob("*.parquet"), None):
        remedy = "choose a new folder"
        raise PoolFormatError(root, expected="no pool, or one of embed's", found="another pool", remedy=remedy)
    hold_to(path, root, settings)


def hold_to(path: Path, root: Path, settings: dict[str, Any]) -> None:
    """Notes settings where none are noted, or makes sure that they are as noted. Raises: PoolFormatError."""
    if not path.exists():
        write_json(path, settings)
        return
    try:
        begun = json.loads(path.read_bytes())
        changed = [name for name in settings if begun.get(name, _USUAL.get(name)) != settings[name]]
    except (ValueError, AttributeError) as error:
        raise PoolFormatError(path, expected="the settings of a pool", found=str(error)) from error
    if changed == ["signature"]:
        remedy = "give the same, or embed into another folder"
        raise PoolFormatError(root, expected="the source it was begun with", found="another", remedy=remedy)
    if changed:
        name = changed[0]
        remedy = "give it as before, or embed into another folder"
        expected = f"{name} {begun.get(name, _USUAL.get(name))}, as begun"
        raise PoolFormatError(root, expected=expected, found=str(settings[name]), remedy=remedy)


@contextmanager
def sole_worker(root: Path) -> Iterator[None]:
    """Holds the folder for this process, and clears what a killed one was writing.

    Raises: PoolFormatError where another process holds it.
    """
    remedy = "wait for it, or take another folder"
    found = "another process at work"
    busy = PoolFormatError(root, expected="a folder nobody writes into", found=found, remedy=remedy)
    with files.sole_worker(root, busy):
        folders = [root / name for name in ("metadata", "images", "embed", "shards")]
        files.remove_leftovers(root, *folders, *(root / "embed").glob("*/"))
        yield


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Holds a pool's folder, made if need be, as sole_worker; a disk that fails ends in a PoolFormatError."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with sole_worker(root):
            yield
    except OSError as error:
        remedy = "make room or choose another folder, then start again: finished shards are kept"
        where, found = error.filename or root, str(error.strerror or error)
        raise PoolFormatError(where, expected="to write the pool", found=found, remedy=remedy) from error
