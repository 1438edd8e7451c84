"""Which recipes of published methods come with clipsel? One file each, in the folder `published` beside this module.

A file is a recipe behind comments that say, a line each, what it does, `source:`, `needs NAME: how to have it` for each
column and list that it uses, and what is to be known besides (`note:`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from clipsel_core.curation.recipes.recipe import Recipe, parse_recipe
from clipsel_core.errors import RecipeError, quoted

_FOLDER = Path(__file__).with_name("published")
_COMMENT = re.compile(r"# (?:(source|note|needs ([^:]+)): )?(.*)")


@dataclass(frozen=True)
class Published:
    """A published method's recipe. text: the whole file. about: what it does. needs: columns and lists, and how each is
    had. note: "" where nothing is to be said."""

    name: str
    text: str
    recipe: Recipe
    about: str
    source: str
    needs: dict[str, str]
    note: str

    def check_needs(self, known: Collection[str]) -> None:
        """Raises RecipeError where one of its columns or lists is none of these names; it says how that is had."""
        for name, how in self.needs.items():
            if name not in known:
                raise RecipeError(self.name, expected=name, found="no such column or list", remedy=how)

    @classmethod
    def read(cls, file: Path) -> Published:
        """Reads a file of the folder."""
        text = file.read_text(encoding="utf-8")
        said: dict[str, list[str]] = {}
        needs = {}
        for kind, needed, rest in (_COMMENT.fullmatch(line).groups() for line in text.splitlines() if line[0] == "#"):  # type: ignore[union-attr]
            if needed:
                needs[needed] = rest
            else:
                said.setdefault(kind or "about", []).append(rest)
        about, source, note = (" ".join(said.get(kind, ())) for kind in ("about", "source", "note"))
        return cls(file.stem, text, parse_recipe(text, file.name), about, source, needs, note)


@cache
def published_recipes() -> Mapping[str, Published]:
    """All of them by name, in alphabetical order. Read once in a process: a page asks at each of its reruns."""
    return {file.stem: Published.read(file) for file in sorted(_FOLDER.glob("*.yaml"))}


def published_recipe(name: str) -> Published:
    """One of them. Raises RecipeError where there is none of this name."""
    found = published_recipes()
    if name not in found:
        raise RecipeError("recipes", expected=f"one of {', '.join(found)}", found=quoted(name))
    return found[name]
