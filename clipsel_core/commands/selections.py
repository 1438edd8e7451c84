"""What does a recipe keep of a run, where is it written to, and how do several selections differ?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from clipsel_core.errors import ExportError, counted, quoted
from clipsel_core.places import Place
from clipsel_core.terminal import A_PLACE, Meter, RunArgument, complain, print_table, say

if TYPE_CHECKING:
    from clipsel_core.curation.selecting.selection import Selection
    from clipsel_core.runs.store import Run

UnfinishedOption = Annotated[
    bool, typer.Option("--unfinished", help="Pick from the shards that are scored, where others are left to score.")
]
ReadOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A folder, or an address, that a pool of somebody else may have images in.",
        metavar="PATH",
        show_default=False,
    ),
]
SeenOption = Annotated[
    int | None,
    typer.Option(min=1, help="Samples that the training sees: epochs are noted.", show_default="what the recipe draws"),
]
RecipeOption = Annotated[Place, typer.Option(help="The recipe: a .yaml file.", **A_PLACE)]


def select(
    run: RunArgument,
    recipe: RecipeOption,
    out: Annotated[Place, typer.Option(help="The subset: .npy, .parquet, .csv or .txt.", **A_PLACE)],
    samples_seen: SeenOption = None,
    unfinished: UnfinishedOption = False,
) -> None:
    """Write the uids that a recipe keeps.

    A manifest is written beside them: recipe, counts, thresholds, hashes.

    The .npy is what DataComp's resharder takes.

    Example: clipsel select demo/run --recipe demo/run/recipes/two_steps.yaml --out subset.npy
    """
    from clipsel_core.curation.recipes.recipe import load_recipe
    from clipsel_core.curation.selecting.export import check_name, export, reshard_commands, train_commands
    from clipsel_core.curation.selecting.selection import select as select_pairs

    check_name(out)
    opened = _open_run(run, unfinished)
    rule = load_recipe(recipe)
    selection = select_pairs(opened, rule)
    _print_funnel(selection)
    manifest = export(opened, selection, rule, out, samples_seen=samples_seen)
    drawn = f", {counted(selection.samples, 'samples')}" if selection.counts is not None else ""
    say(f"{out}: {counted(len(selection), 'uids')}{drawn}")
    _print_epochs(manifest.content)
    if out.ending == "npy":
        lines = [*reshard_commands(opened.pool_address, out), *train_commands(None, selection.total)]
        _print_commands("with DataComp:", *lines)


def export(
    run: RunArgument,
    recipe: RecipeOption,
    shards: Annotated[Place, typer.Option(help="A new folder for the tars.", **A_PLACE)],
    pairs_per_shard: Annotated[int, typer.Option(min=1, help="Pairs to a tar.")] = 10_000,
    scores: Annotated[bool, typer.Option("--scores", help="Write the run's columns into each json, too.")] = False,
    read: ReadOption = None,
    samples_seen: SeenOption = None,
    unfinished: UnfinishedOption = False,
) -> None:
    """Write the pairs that a recipe keeps as webdataset tars.

    Images are copied as they are, with caption, uid, the pool's columns and what else the source's json says; those
    that training loaders do not read, like GIF and TIFF, become PNG. Those that cannot be read are listed. A manifest
    says how it was made.

    Started again, it goes on where it stopped.

    Example: clipsel export demo/run --recipe demo/run/recipes/two_steps.yaml --shards my_tars
    """
    from clipsel_core.curation.recipes.recipe import load_recipe
    from clipsel_core.curation.selecting.export import open_clip_commands, train_commands
    from clipsel_core.curation.selecting.selection import select as select_pairs
    from clipsel_core.curation.selecting.shards import export_shards

    opened = _open_run(run, unfinished)
    rule = load_recipe(recipe)
    selection = select_pairs(opened, rule)
    _print_funnel(selection)
    with Meter("finding images") as finding, Meter("exporting") as meter:
        done = export_shards(
            opened,
            selection,
            rule,
            shards,
            pairs_per_shard=pairs_per_shard,
            scores=scores,
            named=read or (),
            samples_seen=samples_seen,
            finding=finding.report,
            report=meter.report,
        )
    tars = [tar["file"] for tar in done["tars"]]
    things = "pairs" if selection.counts is None else "samples"
    say(f"{shards}: {done['written']:,} of {counted(selection.samples, things)} in {counted(len(tars), 'tars')}")
    if done["missing"]:
        say(f"without an image: {done['missing']:,}, listed in {shards / 'missing.txt'}")
    if done["unreadable"]:
        say(f"with an image that cannot be read: {done['unreadable']:,}, listed in {shards / 'unreadable.txt'}")
    if done["without_caption"]:
        say(f"with a caption that says nothing: {done['without_caption']:,}")
    if done["encoded_again"]:
        say(f"images encoded again as PNG, as loaders read jpg, png and webp alone: {done['encoded_again']:,}")
    _print_epochs(done)
    for name, pairs in done["json_stays"].items():
        say(f"another {quoted(name)} in the source's json, which stays: {counted(pairs, things)}")
    _print_commands("with DataComp:", *train_commands(shards, selection.total))
    _print_commands("with open_clip:", *open_clip_commands(shards, tars))


def recipes(
    action: Annotated[Literal["list", "show"], typer.Argument(help="list, or show: write one to the screen.")] = "list",
    name: Annotated[str | None, typer.Argument(help="The recipe to show.", show_default=False)] = None,
    run: Annotated[Place | None, typer.Option(help="A run: say which columns it lacks for each.", **A_PLACE)] = None,
) -> None:
    """List recipes of published methods, or write one.

    Each says where it was published, which columns it needs, and how a run comes to have them.

    Example: clipsel recipes show s_cliploss_30 > s_cliploss_30.yaml
    """
    from clipsel_core.curation.index.score_table import ScoreTable
    from clipsel_core.curation.recipes.published import published_recipe, published_recipes
    from clipsel_core.runs.store import Run

    if (action == "show") != (name is not None):
        raise typer.BadParameter("show needs a name, and list takes none", param_hint="NAME")
    if name is not None:
        typer.echo(published_recipe(name).text, nl=False)
        return
    columns = ScoreTable.open(Run.open(run)).columns if run else ()
    table = Table("recipe", "what it does", title_justify="left")
    table.add_column(f"{run} lacks" if run else "needs", overflow="fold")
    for known in published_recipes().values():
        table.add_row(known.name, known.about, "\n".join(one for one in known.needs if one not in columns))
    print_table(table)


def compare(
    run: RunArgument,
    selections: Annotated[
        list[Place],
        typer.Argument(help="Two or more: recipes (.yaml) and uid lists.", **A_PLACE),
    ],
    unfinished: UnfinishedOption = False,
) -> None:
    """Say what several selections have in common.

    Pairs in both of any two, as a count and as a share of either; of two recipes also what became of each step.

    Example: clipsel compare demo/run demo/run/recipes/clip_score_30.yaml subset.npy
    """
    from clipsel_core.curation.exploring.agreement import listed_pairs, overlap
    from clipsel_core.curation.index.score_table import ScoreTable
    from clipsel_core.curation.recipes.recipe import differences, load_recipe
    from clipsel_core.curation.selecting.selection import select as select_pairs

    if len(selections) < 2 or len(set(selections)) < len(selections):
        raise typer.BadParameter("two or more different files are needed", param_hint="SELECTIONS")
    opened = _open_run(run, unfinished)
    table = ScoreTable.open(opened)
    recipes = {path: load_recipe(path) for path in selections if path.ending in ("yaml", "yml")}
    picked = {path: select_pairs(opened, recipe, table).bits() for path, recipe in recipes.items()}
    lists = {path: listed_pairs(table, path) for path in selections if path not in recipes}
    picked |= {path: bits for path, (bits, _) in lists.items()}
    found = overlap({str(path): picked[path] for path in selections})
    shown = Table("selection", title_justify="left")
    shown.add_column("pairs", justify="right")
    for place, _ in enumerate(selections):
        shown.add_column(f"in {place + 1}", justify="right")
    for i, path in enumerate(selections):
        cells = []
        shared = zip(found.both[i], found.of_row[i], found.jaccard[i], strict=True)
        for j, (both, part, jaccard) in enumerate(shared):
            of_row = "-" if math.isnan(part) else f"{100 * part:.1f} %"
            cells.append("-" if i == j else f"{both:,}\n{of_row}\nJ {100 * jaccard:.1f} %")
        shown.add_row(Text(f"{i + 1}  {path.name}"), f"{found.sizes[i]:,}", *cells)
    print_table(shown)
    say("in k: pairs that selection k has too, their share of the row, and of both together (J, Jaccard)")
    for path, (_, unknown) in lists.items():
        if unknown:
            say(f"{path}: {counted(unknown, 'more uids')} that this run lacks")
    if empty := next((path for path in selections if not picked[path].any()), None):
        raise ExportError(empty, expected="a pair or more", found="none")
    if len(selections) == len(recipes) == 2:
        for change in differences(*recipes.values()):
            say(change.text)


def _open_run(root: Place, unfinished: bool) -> Run:
    """The run in a folder. Raises RunError where shards are left to score and nobody said `unfinished`."""
    from clipsel_core.runs.store import Run

    run = Run.open(root)
    if not unfinished:
        run.check_finished()
    elif not run.finished:
        said = f"{len(run.scored_shards):,} of {len(run.config.shards):,} shards are scored"
        complain(f"{root}: unfinished, {said}; shares and counts are of their pairs alone")
    return run


def _print_funnel(selection: Selection) -> None:
    """What each step of a recipe dropped."""
    table = Table("step", title_justify="left")
    for heading in ("kept", "dropped", "alone it drops", "threshold"):
        table.add_column(heading, justify="right")
    table.add_row("pool", f"{selection.total:,}", "", "", "")
    for step in selection.report:
        threshold = "" if step.threshold is None else f"{step.threshold:.6g}"
        table.add_row(Text(step.text), f"{step.kept_after:,}", f"{step.dropped:,}", f"{step.alone_drops:,}", threshold)
    print_table(table)


def _print_epochs(content: dict[str, Any]) -> None:
    """How often a training sees each sample, where the manifest says it."""
    if "epochs" in content:
        say(f"{counted(content['samples_seen'], 'samples')} seen: {content['epochs']:.4g} epochs")


def _print_commands(what: str, *lines: str) -> None:
    """Command lines to go on with, ready to paste."""
    say(what)
    for line in lines:
        say(f"  {line}")
