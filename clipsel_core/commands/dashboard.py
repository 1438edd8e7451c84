"""How is the dashboard opened from the command line?"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from clipsel_core.files import bundled
from clipsel_core.terminal import say


def app(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders to show beside those under data/.", show_default=False)
    ] = None,
    read: Annotated[
        list[str] | None,
        typer.Option(help="A folder, or an address, that jobs may read besides.", metavar="PLACE", show_default=False),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port to answer on.", show_default="8501")
    ] = None,
) -> None:
    """Open the dashboard.

    It shows the runs under the data folder and those named. The data folder is data/ in the current folder, or
    CLIPSEL_DATA; where it is missing or empty, the demo is copied into it.

    Example: clipsel app demo/run --port 8600
    """
    from clipsel_core.demo.copy import copy_demo

    data = Path(os.environ.get("CLIPSEL_DATA") or "data").absolute()
    if not runs and not (data.is_dir() and any(data.iterdir())):
        copy_demo(data / "demo")
        say(f"{data / 'demo'}: the demo")
    words = ["run", str(bundled() / "app.py"), *([f"--server.port={port}"] if port else [])]
    words += ["--", *(str(run.absolute()) for run in runs or ()), *(f"--read={place}" for place in read or ())]
    # The server takes this process's place: it gets the terminal's signals, and the shell gets its exit code.
    # -P: nothing that lies in the current folder is taken for a module.
    environment = {**os.environ, "CLIPSEL_DATA": str(data)}
    os.execve(sys.executable, [sys.executable, "-P", "-m", "streamlit", *words], environment)
