"""How is a column added to a run from the command line, and taken away?"""

from __future__ import annotations

from contextlib import ExitStack
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipsel_core.errors import counted, things_of
from clipsel_core.terminal import Meter, RunArgument, say

if TYPE_CHECKING:
    from clipsel_core.runs.store import AddedColumn

_NORMSIM_2D = "normsim_2d"


def add_column(
    run: RunArgument,
    column: Annotated[
        list[str],
        typer.Argument(
            help="NAME=FILE#COLUMN, NAME=OTHER_RUN#COLUMN, or the name of what can be computed.", show_default=False
        ),
    ],
    missing: Annotated[
        str, typer.Option(help="nan; error: refuse values that some of the run's pairs have not.")
    ] = "nan",
    direction: Annotated[
        str | None,
        typer.Option(help="Which values are better: higher or lower.", show_default="the other run's, else neither"),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="number or category.", show_default="what the values' type says")
    ] = None,
    title: Annotated[str, typer.Option(help="What people read in place of the name.", show_default=False)] = "",
    about: Annotated[str, typer.Option(help="What the column measures, in a sentence.", show_default=False)] = "",
    start: Annotated[
        Path | None, typer.Option(help="normsim_2d: the recipe whose pairs it starts from.", show_default=False)
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="normsim_2d: the share of the pool that remains, such as 0.2.", show_default=False),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="normsim_2d: in how many rounds the pairs fall out.", show_default="500")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="normsim_2d: auto, cpu, cuda, cuda:1, ...", show_default="the run's")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the names and what the files hold, and write nothing.")
    ] = False,
) -> None:
    """Give a finished run one more column, or several: all of them, or none where one cannot be added.

    NAME=FILE#COLUMN takes values by uid from a parquet, csv, npy or npz, from a folder of these, or with * from several
    files; #COLUMN may be left out where the file has only one beside the uids. NAME=OTHER_RUN#COLUMN takes a column of
    another run of the pool.

    Computed from the pool: caption_characters, caption_words, caption_nonletters, caption_copies, image_copies and
    url_host; and normsim_2d, with --start and --keep.

    Recipes and pages take it like a score. The run's scores stay as they are.

    Example: clipsel add-column my_run other_fit=demo/run#clip_score
    """
    from clipsel_core.columns import adding
    from clipsel_core.runs.store import Run

    names = [given.partition("=")[0] for given in column]
    imported = {name: given.partition("=")[2] for name, given in zip(names, column, strict=True) if "=" in given}
    if repeated := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise typer.BadParameter(f"two columns are named {repeated!r}", param_hint="COLUMN")
    given = {"--direction": direction, "--kind": kind, "--title": title, "--about": about}
    _check_words("--missing", missing, "nan", "error")
    _check_words("--direction", direction, "higher", "lower")
    _check_words("--kind", kind, "number", "category")
    _check_used(given | {"--missing": missing == "error"}, "NAME=FILE", bool(imported))
    _check_used({"--title": title, "--about": about}, "one column", len(column) == 1)
    of_normsim = {"--start": start, "--keep": keep, "--rounds": rounds, "--device": device}
    _check_used(of_normsim, _NORMSIM_2D, _NORMSIM_2D in names and _NORMSIM_2D not in imported)
    share = _share_of(keep) if keep is not None else None
    # What can be told at once is told before any of them is added.
    options: dict[str, Any] = {"kind": kind}
    for name in names:
        if name in imported:
            adding.check_import(run, name, imported[name], **options)
        elif name != _NORMSIM_2D:
            adding.check_computed(run, name)
        elif start is None or share is None:
            raise typer.BadParameter("normsim_2d needs both", param_hint="--start, --keep")
        if check:
            say(f"{run}: {name} can be added")
    if check:
        return
    options |= {"missing": missing, "direction": direction, "title": title, "help_text": about}
    with ExitStack() as meters:
        reports = {name: meters.enter_context(Meter(f"adding {name}")).report for name in names if name not in imported}
        additions = [
            adding.plan_normsim_2d(run, name, start, share, rounds=rounds or 500, device=device, report=report)
            if name == _NORMSIM_2D and start and share is not None
            else adding.plan_computed(name, report=report)
            for name, report in reports.items()
        ]
        if imported:
            meter = meters.enter_context(Meter(f"adding {', '.join(imported)}"))
            additions = [*adding.plan_imports(imported, report=meter.report, **options), *additions]
        added = {each.column.name: each for each in adding.add_together(run, additions)}
    for name in names:
        say(f"{run}: {_summary(added[name], Run.open(run).config.pairs)}")


def remove_column(
    run: RunArgument, name: Annotated[str, typer.Argument(help="The column's name.", show_default=False)]
) -> None:
    """Take a column away from a run that add-column gave it. Scores, targets and the pool stay.

    Example: clipsel remove-column my_run other_fit
    """
    from clipsel_core.columns.adding import remove_column as remove

    remove(run, name)
    say(f"{run}: {name} removed")


def _summary(added: AddedColumn, pairs: int) -> str:
    """What was added, and what of the source or of the run found no partner. pairs: of the run."""
    counts = {key: added.counts.get(key, 0) for key in ("unknown", "repeated", "rounded")}
    words = {
        "unknown": f"{things_of(counts['unknown'], 'uids')} that the run lacks",
        "repeated": f"{things_of(counts['repeated'], 'rows')} that said the same again",
        "rounded": f"whole {things_of(counts['rounded'], 'numbers')} too long for float32, rounded",
    }
    valued, categories = pairs - added.counts.get("missing", 0), len(added.column.values)
    said = [f"{added.column.name} for {valued:,} of {counted(pairs, 'pairs')}"]
    if added.column.kind == "category":
        said[0] += f", in {categories:,} {'category' if categories == 1 else 'categories'}"
    return "; ".join([*said, *(f"{counts[key]:,} {text}" for key, text in words.items() if counts[key])])


def _check_words(option: str, value: str | None, *allowed: str) -> None:
    if value is not None and value not in allowed:
        raise typer.BadParameter(f"{value!r} is neither {' nor '.join(allowed)}", param_hint=option)


def _check_used(options: dict[str, Any], what: str, is_asked: bool) -> None:
    """Raises BadParameter where an option was given that says something of what is not asked for."""
    for option, value in options.items():
        if value and not is_asked:
            raise typer.BadParameter(f"it goes with {what}", param_hint=option)


def _share_of(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise typer.BadParameter(f"{text!r} is no number", param_hint="--keep") from error
