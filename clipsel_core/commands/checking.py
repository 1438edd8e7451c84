"""What is there, and is it in order? A pool; and this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from clipsel_core.commands.options import PoolArgument
from clipsel_core.commands.printing import print_findings, print_pool
from clipsel_core.terminal import Meter, say


def inspect(
    pool: PoolArgument,
    quick: Annotated[bool, typer.Option("--quick", help="Read headers and uids, not every embedding.")] = False,
) -> None:
    """Print what a pool holds and what is wrong with it.

    Exit code 1 where scoring would stop at something.

    Example: clipsel inspect demo/pool
    """
    from clipsel_core.pool.inspect import inspect_pool
    from clipsel_core.pool.layout import open_pool

    opened = open_pool(pool)
    with Meter("inspecting", "pairs") as meter:
        report = inspect_pool(opened, values=not quick, progress=meter.update)
    print_pool(report)
    if report.stops:
        raise typer.Exit(1)


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
        print_findings(found)
    if any(finding.state == "wrong" for finding in found):
        raise typer.Exit(1)
