"""A file that is the end of whatever process opens it, so that a process ends at one place of its work."""

from __future__ import annotations

from pathlib import Path

_HOOK = """
import builtins, os

def trapped(opening):
    def opened(file, *more, **options):
        if os.path.realpath(str(file)) == {trap!r}:
            {end}
        return opening(file, *more, **options)
    return opened

builtins.open, os.open = trapped(builtins.open), trapped(os.open)
"""


def setting(trap: Path, folder: Path, end: str = "os.kill(os.getpid(), 9)") -> dict[str, str]:
    """The environment in which processes of Python are killed where they open `trap`. folder: for what it takes.

    end: what happens there instead, in Python.
    """
    folder.mkdir()
    # Python imports a module of this name whenever it starts.
    (folder / "sitecustomize.py").write_text(_HOOK.format(trap=str(trap.resolve()), end=end))
    return {"PYTHONPATH": f"{folder}:{Path(__file__).parents[1]}"}
