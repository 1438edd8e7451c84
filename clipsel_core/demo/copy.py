"""How does the bundled demo come into a folder? Copied, whole or not at all, without what was made of it since."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from clipsel_core.errors import RunError, reason_of
from clipsel_core.files import bundled

# What the dashboard and the commands write beside a run; files whose names begin with a dot are locks and leftovers.
_MADE = ("added", "cache", "exports", "index", "lists", "searches", "targets", ".*")


def copy_demo(directory: str | Path) -> None:
    """Copy the bundled demo to `directory`: pool/, target/task.npy, teacher/ and the finished run/; 24 MB.

    directory: a new folder or an empty one.
    Raises: RunError where the folder holds something or cannot be written, or where no demo is bundled.
    """
    directory, source = Path(directory), bundled() / "data" / "demo"
    if not source.is_dir():
        remedy = "build one with: clipsel demo DIR --build"
        raise RunError(source, expected="the bundled demo", found="no such folder", remedy=remedy)
    target = directory.resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        there = sorted(path.name for path in directory.iterdir()) if directory.exists() else []
        # A shell that stands in the folder would stand in one that is gone.
        found = "the folder you are in" if target == Path.cwd() else there[0] if there else ""
        if found:
            remedy = "choose a new folder"
            raise RunError(directory, expected="a new or empty folder", found=found, remedy=remedy)
        try:
            shutil.copytree(source, partial, ignore=shutil.ignore_patterns(*_MADE))
            os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (OSError, shutil.Error) as error:
        found, remedy = reason_of(error), "choose another folder"
        raise RunError(directory, expected="a folder for the demo", found=found, remedy=remedy) from error
