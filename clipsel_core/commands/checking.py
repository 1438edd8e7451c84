"""What is there, and is it in order? A pool, a run, and this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from clipsel_core.commands.options import PoolArgument, RunArgument
from clipsel_core.commands.printing import print_findings, print_pool
from clipsel_core.counts import counted
from clipsel_core.terminal import Meter, agree, say


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


def verify(
    run: RunArgument,
    recompute: Annotated[
        int, typer.Option(min=0, help="Pairs to compute again from the pool: CLIPScore and NormSim in float64.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Decides which pairs.")] = 0,
) -> None:
    """Check that a run's files are as they were written.

    Reads every score, and picks every subset in exports/ again by its recipe.

    Exit code 1 where something is off.

    Example: clipsel verify demo/run --recompute 100
    """
    from clipsel_core.curation.selecting.verify import verify as verify_run
    from clipsel_core.runs.store import Run

    opened = Run.open(run)
    with Meter("reading", "files") as meter:
        found = verify_run(opened, recompute=recompute, seed=seed, progress=meter.update)
    for note in found.notes:
        say(f"note: {note}")
    for problem in found.problems:
        say(f"error: {problem}")
    if found.problems:
        raise typer.Exit(1)
    looked = [
        counted(opened.pairs, "pairs"),
        counted(found.files, "score files"),
        counted(found.exports, "exports"),
    ]
    agree(f"{run}: all as written: {', '.join([*looked, f'{found.pairs:,} pairs computed again'])}")


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
