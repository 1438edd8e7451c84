"""How does the demo come into a folder from the command line?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipsel_core.terminal import complain, say


def demo(
    directory: Annotated[
        Path, typer.Argument(help="A new or empty folder; with --build also a demo to redo.", show_default=False)
    ],
    build: Annotated[
        bool, typer.Option("--build", help="Draw and train it again from nothing, in some five minutes.")
    ] = False,
) -> None:
    """Copy the bundled demo into a folder.

    A pool of 3,800 drawn pairs, a target, the teacher that embedded them, and a finished run: 24 MB.

    With --build it is made again from nothing: draws the pairs, trains the teacher, embeds, scores and projects them.

    Example: clipsel demo demo
    """
    if build:
        from clipsel_core.demo.build import build_demo

        build_demo(directory, progress=complain)
        say(f"{directory}: written")
    else:
        from clipsel_core.demo.copy import copy_demo

        copy_demo(directory)
        say(f"{directory}: the demo is here; look at it with: clipsel app {directory / 'run'}")
