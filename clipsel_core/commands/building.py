"""How is the demo built from the command line?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipsel_core.terminal import complain, say


def demo(
    directory: Annotated[Path, typer.Argument(help="A new or empty folder, or a demo to redo.", show_default=False)],
) -> None:
    """Build the demo from nothing.

    Draws its pairs, trains its teacher, embeds, scores and projects them.

    Takes some minutes; data/demo of this repository is what it builds.

    Example: python -m clipsel_core demo /tmp/demo
    """
    from clipsel_core.demo.build import build_demo

    build_demo(directory, progress=complain)
    say(f"{directory}: written")
