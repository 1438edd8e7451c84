"""What is a recipe? Steps that pick pairs, in the order they run, from the whole pool; disabled ones are left out."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

from pydantic import Field, PrivateAttr

from clipsel_core.curation.recipes.recipe_steps import (
    AnyStep,
    AtLeast,
    AtMost,
    Frozen,
    Intersect,
    KeepTop,
    Subtract,
    Union,
)
from clipsel_core.curation.recipes.recipe_yaml import shown
from clipsel_core.errors import RecipeError


class Recipe(Frozen):
    """Steps that pick pairs, in the order they run. Uid lists are looked for in `folder`."""

    name: Annotated[str, Field(max_length=200)] | None = None
    steps: Annotated[tuple[AnyStep, ...], Field(min_length=1)]
    _folder: Path = PrivateAttr(default_factory=Path)

    @property
    def folder(self) -> Path:
        """Where relative names of uid lists begin: the folder of the recipe's file."""
        return self._folder

    def in_folder(self, folder: Path) -> Recipe:
        """The same recipe with its uid lists looked for in another folder."""
        moved = self.model_copy()
        moved._folder = folder
        return moved

    def list_files(self) -> list[Path]:
        """The uid lists that the enabled steps read."""
        steps = (step for step in self.steps if step.enabled)
        return [
            self.folder / getattr(step, step.kind) for step in steps if isinstance(step, Intersect | Union | Subtract)
        ]


def check_metrics(recipe: Recipe, metrics: Collection[str]) -> None:
    """Raises RecipeError where a step asks for a metric that the run lacks."""
    for step in recipe.steps:
        if isinstance(step, KeepTop | AtLeast | AtMost) and step.metric not in metrics:
            expected = f"one of the run's metrics {', '.join(metrics)}"
            raise RecipeError(step.where, expected=expected, found=shown(step.metric))
