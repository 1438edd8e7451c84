"""Which runs may the dashboard show? Those under the data folder and those named when the server was started.

The answer lives in environment variables, so that the pages, the routes and the tests all see the same one:
CLIPSEL_RUNS (run folders, separated as in PATH) and CLIPSEL_DATA (the folder that is searched; by default data/ where
the server was started). A third, CLIPSEL_READ, names folders that jobs may read besides. Addresses in stores have
variables of their own, CLIPSEL_RUN_ADDRESSES and CLIPSEL_READ_ADDRESSES, with spaces between them.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from clipsel_core.errors import ClipselError, RunError
from clipsel_core.places import Place
from pages.parts import stores

# What pools, runs, recipes and exports may be called that the dashboard makes.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}")
_DEPTHS = ("*/run.json", "*/*/run.json", "*/*/*/run.json")
_FRESH_S = 2.0


@dataclass(frozen=True)
class Entry:
    """A run that may be shown. label: what people read and links hold; key: how routes name it."""

    label: str
    root: Place

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Place.of_named(self.root))

    @cached_property
    def key(self) -> str:
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Seen:
    """The runs that were found at some time, by key, and in which folders."""

    at_s: float = 0.0
    where: tuple[str | None, ...] = ()
    by_key: dict[str, Entry] = field(default_factory=dict)


_seen = _Seen()


def allow(runs: Iterable[str | os.PathLike[str]], read: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Names the run folders that may be shown beside those under the data folder, and what jobs may read besides.

    Both: folders, and addresses such as s3://bucket/folder.
    """
    named, shown = ([os.fspath(one).removeprefix("file://") for one in given] for given in (read, runs))
    os.environ["CLIPSEL_RUNS"] = os.pathsep.join(str(Path(run).absolute()) for run in shown if "://" not in run)
    os.environ["CLIPSEL_RUN_ADDRESSES"] = " ".join(run.rstrip("/") for run in shown if "://" in run)
    os.environ["CLIPSEL_READ"] = os.pathsep.join(str(Path(one).absolute()) for one in named if "://" not in one)
    os.environ["CLIPSEL_READ_ADDRESSES"] = " ".join(one for one in named if "://" in one)


def entries() -> list[Entry]:
    """The runs that may be shown: the named ones first, then those found, each once, labels distinct."""
    found: dict[str, str] = {}
    for root in _paths("CLIPSEL_RUNS"):
        short = root.is_absolute() and len(root.parts) > 2
        found.setdefault(str(root.resolve()), "/".join(root.parts[-2:]) if short else str(root))
    for address in run_addresses():
        found.setdefault(address, "/".join(address.partition("://")[2].split("/")[-2:]))
    data = data_folder().resolve()
    for path in sorted(file for depth in _DEPTHS for file in data.glob(depth)):
        root = path.parent.resolve()
        if root.is_relative_to(data):
            found.setdefault(str(root), root.relative_to(data).as_posix())
    labels = list(found.values())
    # A label that several runs share gives way to the full path.
    named = ((label if labels.count(label) == 1 else root, root) for root, label in found.items())
    return [Entry(label, place) for label, root in named if (place := _place(root)) is not None]


def _place(root: str) -> Place | None:
    """The place of a run; None where its store cannot be opened, which missing_runs says."""
    try:
        return stores.view(root) if "://" in root else Place.of_named(root)
    except ClipselError:
        return None


def check_within(run: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Makes sure that a folder of a run is not a link that leads out of the run and all that the server was told of.

    A store has no links. Raises: RunError where it does: nothing may be written there, or given out from there.
    """
    if Place.of_named(folder).remote:
        return
    real = Path(folder).resolve()
    if not any(real.is_relative_to(root.resolve()) for root in (Path(run), data_folder(), *readable_folders())):
        expected, remedy = "a folder within the run", "start the dashboard with --read FOLDER to allow it"
        raise RunError(folder, expected=expected, found=f"a link to {real}", remedy=remedy)


def missing_runs() -> dict[str, str]:
    """Folders and addresses that were named when the server was started and hold no run, and why, if that is known."""
    found = {str(root): "" for root in _paths("CLIPSEL_RUNS") if not (root / "run.json").is_file()}
    for address in run_addresses():
        try:
            if not (stores.view(address) / "run.json").exists():
                found[address] = ""
        except (ClipselError, OSError) as error:
            found[address] = str(error)
    return found


def run_addresses() -> list[str]:
    """Addresses of runs in stores that were named when the server was started."""
    return os.environ.get("CLIPSEL_RUN_ADDRESSES", "").split()


def by_key(key: str) -> Entry | None:
    """The run that a route names, or None where no such run may be shown."""
    global _seen
    where = tuple(map(os.environ.get, ("CLIPSEL_RUNS", "CLIPSEL_RUN_ADDRESSES", "CLIPSEL_DATA")))
    # A page of images asks for one run dozens of times within a second.
    if key not in _seen.by_key or _seen.where != where or time.monotonic() - _seen.at_s > _FRESH_S:
        _seen = _Seen(time.monotonic(), where, {entry.key: entry for entry in entries()})
    return _seen.by_key.get(key)


def data_folder() -> Path:
    """Where runs are looked for, and where the dashboard makes what it makes."""
    return Path(os.environ.get("CLIPSEL_DATA") or "data").absolute()


def readable_folders() -> list[Path]:
    """Folders that jobs may read besides the data folder and the runs on show."""
    return _paths("CLIPSEL_READ")


def readable_addresses() -> list[str]:
    """Addresses that were named with --read."""
    return os.environ.get("CLIPSEL_READ_ADDRESSES", "").split()


def named_addresses() -> list[str]:
    """Addresses below which all may be read: those of --read, and the folders that named runs in stores lie in.

    Whoever started the server trusts what lies there. Of a run that is all of a bucket, the run.
    """
    folders = ((address.rpartition("/")[0], address) for address in run_addresses())
    return [*readable_addresses(), *(run if folder.endswith("/") else folder for folder, run in folders)]


def named_places() -> list[str]:
    """The data folder, what was named with --read, and named_addresses."""
    return [*map(str, (data_folder(), *readable_folders())), *named_addresses()]


def jobs_folder() -> Path:
    """Where the jobs that were started from the dashboard are remembered."""
    return data_folder().absolute() / ".jobs"


def _paths(variable: str) -> list[Path]:
    return [Path(text) for text in os.environ.get(variable, "").split(os.pathsep) if text]
