"""A file that is the end of whatever process opens it, so that a process is killed at one place of its work."""

from __future__ import annotations

from pathlib import Path

_HOOK = """
import builtins, os, signal

def opened(file, *more, _open=builtins.open, **options):
    if str(file) == {trap!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return _open(file, *more, **options)

builtins.open = opened
"""


def setting(trap: Path, folder: Path) -> dict[str, str]:
    """The environment in which processes of Python are killed where they open `trap`. folder: for what it takes."""
    folder.mkdir()
    # Python imports a module of this name whenever it starts.
    (folder / "sitecustomize.py").write_text(_HOOK.format(trap=str(trap)))
    return {"PYTHONPATH": f"{folder}:{Path(__file__).parents[1]}"}
