"""What do several commands take alike?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipsel_core.terminal import complain

if TYPE_CHECKING:
    from clipsel_core.runs.store import Run

PoolArgument = Annotated[Path, typer.Argument(help="The pool's folder: metadata/, shards/.", show_default=False)]
RunArgument = Annotated[Path, typer.Argument(help="The run's folder.", show_default=False)]
UnfinishedOption = Annotated[
    bool, typer.Option("--unfinished", help="Pick from the shards that are scored, where others are left to score.")
]
ReadOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A folder, or an address, that a pool of somebody else may have images in.",
        metavar="PLACE",
        show_default=False,
    ),
]
RecipeOption = Annotated[Path, typer.Option(help="The recipe: a .yaml file.", show_default=False)]


def run_to_pick_from(root: Path, unfinished: bool) -> Run:
    """The run in a folder. Raises RunError where shards are left to score and nobody said `unfinished`."""
    from clipsel_core.runs.store import Run

    run = Run.open(root)
    if not unfinished:
        run.check_finished()
    elif not run.finished:
        said = f"{len(run.score_files):,} of {len(run.config.shards):,} shards are scored"
        complain(f"{root}: unfinished, {said}; shares and counts are of their pairs alone")
    return run


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
