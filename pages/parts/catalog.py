"""Which runs may the dashboard show? Those under the data folder and those named when the server was started.

The answer lives in environment variables, so that the pages, the routes and the tests all see the same one:
CLIPSEL_RUNS (run folders, separated as in PATH) and CLIPSEL_DATA (the folder that is searched; by default data/ where
the server was started). A third, CLIPSEL_READ, names folders that jobs may read besides; a fourth,
CLIPSEL_READ_ADDRESSES, addresses, with spaces between them.
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

from clipsel_core.errors import RunError

# What pools, runs, recipes and exports may be called that the dashboard makes.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}")
_DEPTHS = ("*/run.json", "*/*/run.json", "*/*/*/run.json")
_FRESH_S = 2.0


@dataclass(frozen=True)
class Entry:
    """A run that may be shown. label: what people read and links hold; key: how routes name it."""

    label: str
    root: Path

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

    read: folders, and addresses such as s3://bucket/folder.
    """
    named = [os.fspath(one).removeprefix("file://") for one in read]
    os.environ["CLIPSEL_RUNS"] = os.pathsep.join(str(Path(run).absolute()) for run in runs)
    os.environ["CLIPSEL_READ"] = os.pathsep.join(str(Path(one).absolute()) for one in named if "://" not in one)
    os.environ["CLIPSEL_READ_ADDRESSES"] = " ".join(one for one in named if "://" in one)


def entries() -> list[Entry]:
    """The runs that may be shown: the named ones first, then those found, each once, labels distinct."""
    found: dict[Path, str] = {}
    for root in _paths("CLIPSEL_RUNS"):
        short = root.is_absolute() and len(root.parts) > 2
        found.setdefault(root.resolve(), "/".join(root.parts[-2:]) if short else str(root))
    data = data_folder().resolve()
    for path in sorted(file for depth in _DEPTHS for file in data.glob(depth)):
        root = path.parent.resolve()
        if root.is_relative_to(data):
            found.setdefault(root, root.relative_to(data).as_posix())
    labels = list(found.values())
    # A label that several runs share gives way to the full path.
    return [Entry(label if labels.count(label) == 1 else str(root), root) for root, label in found.items()]


def check_within(run: Path, folder: Path) -> None:
    """Makes sure that a folder of a run is not a link that leads out of the run and all that the server was told of.

    Raises: RunError where it does: nothing may be written there, or given out from there.
    """
    real = folder.resolve()
    if not any(real.is_relative_to(root.resolve()) for root in (run, data_folder(), *readable())):
        expected, remedy = "a folder within the run", "start the dashboard with --read FOLDER to allow it"
        raise RunError(folder, expected=expected, found=f"a link to {real}", remedy=remedy)


def missing_runs() -> list[Path]:
    """Folders that were named when the server was started and hold no run."""
    return [root for root in _paths("CLIPSEL_RUNS") if not (root / "run.json").is_file()]


def by_key(key: str) -> Entry | None:
    """The run that a route names, or None where no such run may be shown."""
    global _seen
    where = os.environ.get("CLIPSEL_RUNS"), os.environ.get("CLIPSEL_DATA")
    # A page of images asks for one run dozens of times within a second.
    if key not in _seen.by_key or _seen.where != where or time.monotonic() - _seen.at_s > _FRESH_S:
        _seen = _Seen(time.monotonic(), where, {entry.key: entry for entry in entries()})
    return _seen.by_key.get(key)


def data_folder() -> Path:
    """Where runs are looked for, and where the dashboard makes what it makes."""
    return Path(os.environ.get("CLIPSEL_DATA") or "data").absolute()


def readable() -> list[Path]:
    """Folders that jobs may read besides the data folder and the runs on show."""
    return _paths("CLIPSEL_READ")


def readable_addresses() -> list[str]:
    """Addresses below which jobs may read."""
    return os.environ.get("CLIPSEL_READ_ADDRESSES", "").split()


def named_places() -> list[str]:
    """The data folder, and what was named with --read: whoever started the server trusts what lies there."""
    return [*map(str, (data_folder(), *readable())), *readable_addresses()]


def jobs_folder() -> Path:
    """Where the jobs that were started from the dashboard are remembered."""
    return data_folder().absolute() / ".jobs"


def _paths(variable: str) -> list[Path]:
    return [Path(text) for text in os.environ.get(variable, "").split(os.pathsep) if text]
