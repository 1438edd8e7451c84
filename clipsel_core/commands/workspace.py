"""How does one begin: with the dashboard, the demo, and a look at what this machine has?"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from clipsel_core.cache import VARIABLE
from clipsel_core.errors import RunError, reason_of
from clipsel_core.files import bundled
from clipsel_core.places import protocol_of
from clipsel_core.terminal import Meter, print_table, say

# What the dashboard and the commands write beside a run; files whose names begin with a dot are locks and leftovers.
_MADE = ("added", "cache", "exports", "index", "lists", "searches", "targets", ".*")


def app(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Run folders, or addresses, to show beside those under data/.", show_default=False),
    ] = None,
    read: Annotated[
        list[str] | None,
        typer.Option(help="A folder, or an address, that jobs may read besides.", metavar="PATH", show_default=False),
    ] = None,
    cache_gb: Annotated[
        float | None,
        typer.Option(min=0, help="What the user's cache may take.", show_default="50, a quarter of its disk at most"),
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
    data = Path(os.environ.get("CLIPSEL_DATA") or "data").absolute()
    if not runs and not (data.is_dir() and any(data.iterdir())):
        copy_demo(data / "demo")
        say(f"{data / 'demo'}: the demo")
    words = ["run", str(bundled() / "app.py"), *([f"--server.port={port}"] if port else [])]
    words += [
        "--",
        *(run if protocol_of(run) else str(Path(run).absolute()) for run in runs or ()),
        *(f"--read={place}" for place in read or ()),
    ]
    # The server takes this process's place: it gets the terminal's signals, and the shell gets its exit code.
    # -P: nothing that lies in the current folder is taken for a module.
    environment = {**os.environ, "CLIPSEL_DATA": str(data)}
    if cache_gb is not None:
        environment[VARIABLE] = str(cache_gb)
    os.execve(sys.executable, [sys.executable, "-P", "-m", "streamlit", *words], environment)


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

        with Meter("building the demo") as meter:
            build_demo(directory, report=meter.report)
        say(f"{directory}: written")
    else:
        copy_demo(directory)
        say(f"{directory}: the demo is here; look at it with: clipsel app {directory / 'run'}")


def doctor(
    folder: Annotated[
        Path | None, typer.Option(help="Where teachers of your own are looked for.", show_default="data/")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Print the packages, devices and teachers that are here.

    Exit code 1 where clipsel cannot work as it is.

    Example: clipsel doctor --json
    """
    from clipsel_core.doctor import examine

    found = examine(folder or Path("data"))
    if as_json:
        say(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        table = Table(title="clipsel", title_justify="left", show_header=False)
        for _ in range(4):
            table.add_column(overflow="fold")
        marks = {"ok": "", "absent": "-", "wrong": "!"}
        before = ""
        for finding in found:
            if finding.area != before:
                table.add_section()
            cells = (finding.area if finding.area != before else "", finding.name)
            table.add_row(*map(Text, (*cells, f"{marks[finding.state]} {finding.value}".strip(), finding.remedy)))
            before = finding.area
        print_table(table)
    if any(finding.state == "wrong" for finding in found):
        raise typer.Exit(1)


def copy_demo(directory: str | Path) -> None:
    """Copy the bundled demo to `directory`: pool/, target/task.npy, teacher/ and the finished run/; 24 MB.

    directory: a new folder or an empty one.
    Raises: RunError where the folder holds something or cannot be written, or where no demo is bundled.
    """
    directory, source = Path(directory), bundled() / "data" / "demo"
    if not source.is_dir():
        remedy = "build one with: clipsel demo DIR --build"
        raise RunError(source, expected="the bundled demo", found="no such folder", remedy=remedy)
    target = directory.resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        there = sorted(path.name for path in directory.iterdir()) if directory.exists() else []
        # A shell that stands in the folder would stand in one that is gone.
        found = "the folder you are in" if target == Path.cwd() else there[0] if there else ""
        if found:
            remedy = "choose a new folder"
            raise RunError(directory, expected="a new or empty folder", found=found, remedy=remedy)
        try:
            shutil.copytree(source, partial, ignore=shutil.ignore_patterns(*_MADE))
            os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (OSError, shutil.Error) as error:
        found, remedy = reason_of(error), "choose another folder"
        raise RunError(directory, expected="a folder for the demo", found=found, remedy=remedy) from error
