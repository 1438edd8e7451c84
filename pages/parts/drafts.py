"""Where is a draft kept that is too large for an address? Beside the data, under a name made of what it says.

A draft that was kept never changes: a link to it opens what it opened then, and two tabs cannot write into one. Those
that nobody has opened for the longest time are removed where there are too many.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

from clipsel_core.errors import RecipeError, reason_of
from clipsel_core.files import write_atomically
from pages.parts import catalog

_NAME = re.compile(r"k[0-9a-f]{32}")
_MOST_BYTES = 64_000_000
_MOST_KEPT_BYTES, _MOST_KEPT = 1_000_000_000, 20_000
# To look at all that is kept takes longer than to keep one more.
_KEPT_UNCOUNTED = 50
_REMEDY = "ask for the link again, or load a saved recipe"
_uncounted = 0


def is_name(told: str) -> bool:
    """Whether an address holds the name of a draft, and not the draft itself."""
    return bool(_NAME.fullmatch(told))


def keep(run: str, recipe: str) -> str | None:
    """Keeps a recipe (YAML) of a run, by its label, and returns its name.

    None where it is too large, or cannot be written.
    """
    data = f"{run}\n{recipe}".encode()
    name = f"k{hashlib.sha256(data).hexdigest()[:32]}"
    if len(data) > _MOST_BYTES:
        return None
    try:
        if not _file(name).exists():
            write_atomically(_file(name), lambda aside: aside.write_bytes(data))
            _tidy()
    except OSError:
        return None
    return name


def read(name: str, run: str) -> str:
    """The recipe (YAML) that was kept for a run. Raises RecipeError where it is gone, damaged, or for another run."""
    try:
        data = _file(name).read_bytes()
    except OSError as error:
        expected = "a recipe that this server keeps"
        raise RecipeError("link", expected=expected, found=reason_of(error), remedy=_REMEDY) from error
    if hashlib.sha256(data).hexdigest()[:32] != name[1:]:
        raise RecipeError("link", expected="a recipe as it was kept", found="a damaged one", remedy=_REMEDY)
    label, _, recipe = data.decode().partition("\n")
    if label != run:
        remedy = "open it with the run it was made for, or save the recipe there and copy its file"
        raise RecipeError("link", expected=f"a recipe for {run}", found="one for another run", remedy=remedy)
    with suppress(OSError):
        os.utime(_file(name))
    return recipe


def _file(name: str) -> Path:
    return catalog.data_folder() / ".drafts" / name


def _tidy() -> None:
    """Removes the drafts that were opened or kept longest ago, where there are too many or too large ones."""
    global _uncounted
    _uncounted -= 1
    if _uncounted > 0:
        return
    _uncounted = _KEPT_UNCOUNTED
    with os.scandir(_file("any").parent) as found:
        files = [(entry.stat().st_mtime_ns, entry.stat().st_size, entry.path) for entry in found if is_name(entry.name)]
    files.sort(reverse=True)
    sizes = accumulate(size for _, size, _ in files)
    for place, (size, (_, _, path)) in enumerate(zip(sizes, files, strict=True)):
        if place >= _MOST_KEPT or size > _MOST_KEPT_BYTES:
            Path(path).unlink(missing_ok=True)
