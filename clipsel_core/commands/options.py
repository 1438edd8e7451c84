"""What do several commands take alike?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PoolArgument = Annotated[Path, typer.Argument(help="The pool's folder: metadata/, shards/.", show_default=False)]
RunArgument = Annotated[Path, typer.Argument(help="The run's folder.", show_default=False)]
RecipeOption = Annotated[Path, typer.Option(help="The recipe: a .yaml file.", show_default=False)]


def targets_of(options: list[str]) -> dict[str, str]:
    """The file of each target by its name, from NAME=FILE. Raises BadParameter on anything else, and a name twice."""
    targets = {}
    for option in options:
        name, equals, path = option.partition("=")
        if not (equals and name and path):
            raise typer.BadParameter(f"{option!r} is not NAME=FILE", param_hint="--target")
        if name in targets:
            raise typer.BadParameter(f"two targets are named {name!r}", param_hint="--target")
        targets[name] = path
    return targets
