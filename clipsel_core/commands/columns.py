"""How is a column added to a run from the command line, and taken away?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Column, Table

from clipsel_core.errors import counted, things_of
from clipsel_core.places import Place
from clipsel_core.runs.columns import NEIGHBOUR_RANK, NORMSIM_2D
from clipsel_core.terminal import A_PLACE, ClusterOption, CpusOption, Meter, RunArgument, conclude, print_table, say

if TYPE_CHECKING:
    from clipsel_core.runs.store import AddedColumn

_NEAR = NEIGHBOUR_RANK.rstrip("_")


def _as_share(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise typer.BadParameter(f"{text!r} is no number") from error


def _in_order(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    if bounds and not bounds[0] <= bounds[1]:
        raise typer.BadParameter("the least comes first, and the most is no less")
    return bounds


def columns(run: RunArgument) -> None:
    """List the columns of a run and of its pool, and those that can be computed.

    Recipes and pages take every column that the run has. add-column adds the others.

    Example: clipsel columns demo/run
    """
    from clipsel_core.columns.adding import computable
    from clipsel_core.curation.index.score_table import ScoreTable
    from clipsel_core.runs.store import Run

    known = ScoreTable.open(Run.open(run)).columns
    table = Table(Column("column", no_wrap=True), "what it is")
    for one in known.values():
        said = [one.origin, one.kind, one.range, one.direction and f"{one.direction} is better"]
        table.add_row(one.name, f"{one.measures}\n{', '.join(filter(None, said))}")
    for name, measures in computable().items():
        if name not in known:
            table.add_row(name, f"{measures}\nnot there yet: add-column computes it")
    print_table(table)


def add_column(
    run: RunArgument,
    column: Annotated[
        list[str],
        typer.Argument(
            help="NAME=FILE#COLUMN, NAME=OTHER_RUN#COLUMN, or the name of what can be computed.", show_default=False
        ),
    ],
    missing: Annotated[
        Literal["nan", "error"], typer.Option(help="nan; error: refuse values that some of the run's pairs have not.")
    ] = "nan",
    direction: Annotated[
        Literal["higher", "lower"] | None,
        typer.Option(help="Which values are better: higher or lower.", show_default="the other run's, else neither"),
    ] = None,
    kind: Annotated[
        Literal["number", "category"] | None,
        typer.Option(help="number or category.", show_default="what the values' type says"),
    ] = None,
    title: Annotated[str, typer.Option(help="What people read in place of the name.", show_default=False)] = "",
    about: Annotated[str, typer.Option(help="What the column measures, in a sentence.", show_default=False)] = "",
    unit: Annotated[str, typer.Option(help="What the values are counted in, such as px.", show_default=False)] = "",
    between: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LEAST MOST",
            help="The least and the most value; others are refused.",
            show_default=False,
            callback=_in_order,
        ),
    ] = None,
    start: Annotated[
        Place | None, typer.Option(help=f"{NORMSIM_2D}: the recipe whose pairs it starts from.", **A_PLACE)
    ] = None,
    keep: Annotated[
        Decimal | None,
        typer.Option(
            help=f"{NORMSIM_2D}: the share of the pool that remains, such as 0.2.",
            show_default=False,
            parser=_as_share,
            metavar="SHARE",
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help=f"{NORMSIM_2D}: in how many rounds the pairs fall out.", show_default="500")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="PATH", help=f"{_NEAR}: the target, as score takes it.", show_default=False),
    ] = None,
    neighbours: Annotated[
        int | None, typer.Option(help=f"{_NEAR}: how many of each image of the target count.", show_default="100")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help=f"{NORMSIM_2D}, {_NEAR}: auto, cpu, cuda, cuda:1, ...", show_default="the run's"),
    ] = None,
    cluster: ClusterOption = None,
    cpus_per_worker: CpusOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the names and what the files hold, and write nothing.")
    ] = False,
) -> None:
    """Give a finished run one more column, or several: all of them, or none where one cannot be added.

    NAME=FILE#COLUMN takes values by uid from a parquet, csv, npy or npz, from a folder of these, or with * from several
    files; #COLUMN may be left out where the file has only one beside the uids. NAME=OTHER_RUN#COLUMN takes a column of
    another run of the pool.

    A name alone is computed from the pool: clipsel columns RUN lists what can be.

    Recipes and pages take it like a score. The run's scores stay as they are.

    Example: clipsel add-column my_run other_fit=demo/run#clip_score
    """
    from clipsel_core.columns import adding
    from clipsel_core.runs.store import Run

    names = [given.partition("=")[0] for given in column]
    imported = {name: given.partition("=")[2] for name, given in zip(names, column, strict=True) if "=" in given}
    if repeated := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise typer.BadParameter(f"two columns are named {repeated!r}", param_hint="COLUMN")
    given = {"--direction": direction, "--kind": kind, "--title": title, "--about": about, "--unit": unit}
    _check_used(given | {"--missing": missing == "error", "--between": between}, "NAME=FILE", bool(imported))
    _check_used({"--title": title, "--about": about}, "one column", len(column) == 1)
    falling: dict[str, Any] = {"--start": start, "--keep": keep, "--rounds": rounds}
    falling |= {"--cluster": cluster, "--cpus-per-worker": cpus_per_worker}
    computed = [name for name in names if name not in imported]
    near = [name for name in computed if name.startswith(NEIGHBOUR_RANK)]
    _check_used(falling, NORMSIM_2D, NORMSIM_2D in computed)
    _check_used({"--target": target, "--neighbours": neighbours}, f"{NEIGHBOUR_RANK}NAME", bool(near))
    _check_used({"--device": device}, f"{NORMSIM_2D} and {NEIGHBOUR_RANK}NAME", bool(near or NORMSIM_2D in computed))
    # What can be told at once is told before any of them is added.
    plans: dict[str, Callable[..., adding.Addition]] = {}
    for name in names:
        if name in imported:
            adding.check_import(run, name, imported[name], kind=kind)
        elif name == NORMSIM_2D:
            if start is None or keep is None:
                raise typer.BadParameter(f"{NORMSIM_2D} needs both", param_hint="--start, --keep")
            several: dict[str, Any] = {"device": device, "cluster": cluster, "cpus_per_worker": cpus_per_worker}
            plans[name] = partial(adding.plan_normsim_2d, run, name, start, keep, rounds=rounds or 500, **several)
        elif name in near:
            if target is None or len(near) > 1:
                raise typer.BadParameter(f"one {NEIGHBOUR_RANK}NAME needs one", param_hint="--target")
            plans[name] = partial(adding.plan_neighbours, run, name, target, most=neighbours or 100, device=device)
        else:
            adding.check_computed(run, name)
            plans[name] = partial(adding.plan_computed, name)
        if check:
            say(f"{run}: {name} can be added")
    if check:
        return
    said: dict[str, Any] = {"title": title, "measures": about, "direction": direction, "unit": unit}
    said |= dict(zip(("least", "most"), between, strict=True)) if between else {}
    said = {key: value for key, value in said.items() if value not in ("", None)}
    with ExitStack() as meters:
        additions = [plan(report=meters.enter_context(Meter(f"adding {name}")).report) for name, plan in plans.items()]
        if imported:
            report = meters.enter_context(Meter(f"adding {', '.join(imported)}")).report
            imports = adding.plan_imports(imported, missing=missing, kind=kind, report=report, **said)
            additions = [*imports, *additions]
        added = {each.column.name: each for each in adding.add_together(run, additions)}
    for name in names:
        conclude(f"{run}: {_summary(added[name], Run.open(run).config.pairs)}")


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


def _check_used(options: dict[str, Any], what: str, is_asked: bool) -> None:
    """Raises BadParameter where an option was given that says something of what is not asked for."""
    for option, value in options.items():
        if value and not is_asked:
            raise typer.BadParameter(f"it goes with {what}", param_hint=option)
