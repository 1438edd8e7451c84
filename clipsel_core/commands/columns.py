"""How is a column added to a run from the command line, and taken away?"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from clipsel_core.errors import counted
from clipsel_core.terminal import Meter, RunArgument, say


def add_column(
    run: RunArgument,
    column: Annotated[
        list[str],
        typer.Argument(
            help="NAME=FILE[#COLUMN], NAME=OTHER_RUN#COLUMN, or a column that is computed.", show_default=False
        ),
    ],
    missing: Annotated[str, typer.Option(help="nan, or error: refuse a file that lacks values of some pairs.")] = "nan",
    direction: Annotated[
        str | None, typer.Option(help="Which values are better: higher or lower.", show_default="neither")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="number or category.", show_default="what the values' type says")
    ] = None,
    title: Annotated[str, typer.Option(help="What people read instead of the name.")] = "",
    about: Annotated[str, typer.Option(help="What the column measures, in a sentence.")] = "",
    start: Annotated[
        Path | None, typer.Option(help="normsim_2d: the recipe whose pairs it starts from.", show_default=False)
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="normsim_2d: the share of the pool that remains.", show_default=False)
    ] = None,
    rounds: Annotated[int, typer.Option(help="normsim_2d: in how many rounds pairs fall out.")] = 500,
    device: Annotated[
        str | None, typer.Option(help="normsim_2d: auto, cpu, cuda, ...", show_default="the run's")
    ] = None,
) -> None:
    """Give a finished run one more column.

    Values by uid from parquet, csv, npy or npz, or from another run of the pool; or what is computed:
    caption_characters, caption_words, caption_nonletters, caption_copies, url_host, and normsim_2d.

    Recipes and pages take it like a score.

    Example: clipsel add-column my_run dfn=dfn.parquet#score --direction higher
    """
    from clipsel_core.columns.adding import add_normsim_2d, compute_column, import_column
    from clipsel_core.runs.store import Run

    for option, value, allowed in (
        ("--missing", missing, ("nan", "error")),
        ("--direction", direction, (None, "higher", "lower")),
        ("--kind", kind, (None, "number", "category")),
    ):
        if value not in allowed:
            expected = ", ".join(name for name in allowed if name)
            raise typer.BadParameter(f"{value!r} is none of {expected}", param_hint=option)
    for given in column:
        name, equals, source = given.partition("=")
        with Meter(f"adding {name}") as meter:
            if equals:
                done = import_column(
                    run,
                    name,
                    source,
                    missing=cast(Any, missing),
                    kind=cast(Any, kind),
                    direction=cast(Any, direction),
                    title=title,
                    help_text=about,
                    report=meter.report,
                )
            elif name == "normsim_2d":
                if start is None or keep is None:
                    raise typer.BadParameter("normsim_2d needs both", param_hint="--start, --keep")
                done = add_normsim_2d(
                    run, name, start, _share_of(keep), rounds=rounds, device=device, report=meter.report
                )
            else:
                done = compute_column(run, name)
        others = {
            "without one": done.counts.get("missing", 0),
            "uids that the run lacks": done.counts.get("unknown", 0),
            "numbers rounded to float32": done.counts.get("rounded", 0),
        }
        said = "".join(f"; {number:,} {what}" for what, number in others.items() if number)
        valued = Run.open(run).config.pairs - done.counts.get("missing", 0)
        say(f"{run}: {name} for {counted(valued, 'pairs')}{said}")


def remove_column(
    run: RunArgument, name: Annotated[str, typer.Argument(help="The added column.", show_default=False)]
) -> None:
    """Take a column away that was added to a run. What was computed or scored stays.

    Example: clipsel remove-column my_run dfn
    """
    from clipsel_core.columns.adding import remove_column as remove

    remove(run, name)
    say(f"{run}: {name} removed")


def _share_of(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise typer.BadParameter(f"{text!r} is no number", param_hint="--keep") from error
