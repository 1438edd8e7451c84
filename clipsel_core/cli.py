"""The command line: each command calls one function of the core and turns its errors into one line.

Exit codes: 0 done; 1 the work failed or the input is bad; 2 wrong usage.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from clipsel_core import __version__
from clipsel_core.errors import ClipselError
from clipsel_core.jobs.progress import State
from clipsel_core.terminal import (
    Meter,
    complain,
    print_commands,
    print_findings,
    print_found,
    print_funnel,
    print_made,
    print_overlap,
    print_pool,
    report_end,
    report_to,
    say,
)

if TYPE_CHECKING:
    import numpy as np

    from clipsel_core.curation.vectors import Side
    from clipsel_core.runs.store import Run

app = typer.Typer(
    help="Score pools of image-text pairs with a frozen CLIP, and select what to train on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
PoolArgument = Annotated[Path, typer.Argument(help="The pool's folder: metadata/, shards/.", show_default=False)]
RunArgument = Annotated[Path, typer.Argument(help="The run's folder.", show_default=False)]
# How a command ended, by its exit code: as others are told.
_ENDINGS: dict[object, tuple[State, str]] = {
    0: ("done", ""),
    2: ("failed", "wrong usage"),
    130: ("stopped", "interrupted; start it again to go on"),
}


def _print_version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
    status: Annotated[
        Path | None, typer.Option(help="A file that says, as JSON, how far the command is.", show_default=False)
    ] = None,
) -> None:
    """Score pools of image-text pairs with a frozen CLIP, and select what to train on."""
    if status:
        report_to(status)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if debug:
        os.environ["CLIPSEL_DEBUG"] = "1"


@app.command()
def inspect(
    pool: PoolArgument,
    quick: Annotated[bool, typer.Option("--quick", help="Read headers and uids, not every embedding.")] = False,
) -> None:
    """Print what a pool holds and what is wrong with it.

    Exit code 1 where scoring would stop at something.

    Example: python -m clipsel_core inspect data/demo/pool
    """
    from clipsel_core.pool.inspect import inspect_pool
    from clipsel_core.pool.layout import open_pool

    opened = open_pool(pool)
    with Meter("inspecting", "pairs") as meter:
        report = inspect_pool(opened, values=not quick, progress=meter.update)
    print_pool(report)
    if report.stops:
        raise typer.Exit(1)


@app.command()
def embed(
    source: Annotated[
        str, typer.Argument(help="Tars, images, a table or embeddings: a file, a folder or a URL.", show_default=False)
    ],
    pool: Annotated[Path, typer.Argument(help="The pool's folder: new, or begun by embed.", show_default=False)],
    arch: Annotated[str, typer.Option(help="The teacher's short name in the pool: l14, b32.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(help="A model of open_clip, its .json, or local-dir:FOLDER.", show_default="none, for embeddings"),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="A tag of open_clip, or a checkpoint.", show_default="random weights")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="webdataset, folder, csv, tsv, jsonl, parquet, clip-retrieval, npy.",
            show_default="told by looking",
        ),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="A table's column of paths or images.", show_default="guessed")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="A table's captions.", show_default="guessed")] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Pairs to a shard.")] = 100_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs to a batch of the teacher.")] = 64,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that decode.", show_default="one a core")
    ] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="Larger images are rejected.")] = 64_000_000,
    pack: Annotated[
        bool, typer.Option("--pack", help="Also write the pairs to POOL/shards/*.tar, images as they are.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[
        str, typer.Option(help="float32, bf16, fp16, or auto: on a GPU the fastest it has, else float32.")
    ] = "auto",
    check: Annotated[bool, typer.Option("--check", help="Look at the source alone, and write nothing.")] = False,
) -> None:
    """Make a pool of images and captions.

    Embeds them with an open_clip model. The images stay where they are. Embeddings that somebody else made (.npy pairs,
    clip-retrieval's output) are taken without a model.

    Started again, it goes on where it stopped. A second teacher adds its embeddings to the same shards.

    Example: python -m clipsel_core embed pictures/ /tmp/pool --model ViT-B-32 --pretrained openai --arch b32
    """
    from clipsel_core.pool.embed import load_teacher
    from clipsel_core.pool.make import make_pool
    from clipsel_core.pool.sources.look import open_source
    from clipsel_core.runs.plan import resolve_device

    opened = open_source(source, kind=kind, image_column=image_column, text_column=text_column)
    complain(f"{source}: {opened.said}")
    if check:
        return
    teacher = (
        load_teacher(model, pretrained=pretrained, device=resolve_device(device), precision=precision)
        if model
        else None
    )
    with Meter("embedding") as meter:
        made = make_pool(
            opened,
            pool,
            teacher,
            arch=arch,
            model=model or "",
            pretrained=pretrained,
            shard_size=shard_size,
            batch_size=batch_size,
            workers=workers,
            most_pixels=max_pixels,
            pack=pack,
            progress=meter.update,
        )
    print_made(pool, made)


@app.command()
def score(
    pool: PoolArgument,
    run: RunArgument,
    arch: Annotated[
        str | None, typer.Option(help="The teacher's name in the pool.", show_default="the only one")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE of a target's image embeddings; repeat it for several.")
    ] = None,
    norm: Annotated[list[str], typer.Option(help="The p of each NormSim_p.")] = ["inf", "2"],  # noqa: B006
    temperature: Annotated[
        float | None, typer.Option(help="tau: the teacher's temperature.", show_default="the pool's, else 0.01")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="B: pairs in a batch.")] = 32768,
    divisions: Annotated[int, typer.Option(help="K: random divisions into batches.")] = 10,
    seed: Annotated[int, typer.Option(help="Decides the divisions.")] = 0,
    mix_shards: Annotated[
        int, typer.Option(help="Shards that share their batches; more than 1 where files are sorted by source.")
    ] = 1,
    on_bad_rows: Annotated[
        str, typer.Option(help="error, or skip: set rows without a usable embedding aside.")
    ] = "error",
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda: every GPU, or some: cuda:0,cuda:2. One worker each.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="exact, or bf16: the normalizer faster and rounded.")] = "exact",
    check: Annotated[
        bool, typer.Option("--check", help="Check all of this and what is there, and write nothing.")
    ] = False,
) -> None:
    """Score every pair of a pool.

    CLIPScore, s-CLIPLoss with both halves of its normalizer, and NormSim to each target.

    Started again, it goes on where it stopped; the scores are the same, byte for byte.

    Example: python -m clipsel_core score data/demo/pool /tmp/run --target task=data/demo/target/task.npy
    """
    from clipsel_core.runs.local import score as score_pool
    from clipsel_core.runs.plan import plan_run

    options: dict[str, Any] = {
        "arch": arch,
        "targets": _targets(target or []),
        "norms": tuple(norm),
        "temperature": temperature,
        "batch_size": batch_size,
        "divisions": divisions,
        "seed": seed,
        "mix_shards": mix_shards,
        "on_bad_rows": on_bad_rows,
        "device": device,
        "precision": precision,
    }
    if check:
        say(f"{run}: {plan_run(pool, run, **options).config.pairs:,} pairs can be scored")
        return
    with Meter("scoring", "pairs") as meter:
        told = lambda status: meter.update(status.pairs_done, status.pairs_total)  # noqa: E731
        done = score_pool(pool, run, listener=told, **options)
    skipped = done.config.skipped_rows
    aside = f"; {skipped:,} set aside" if skipped else ""
    say(f"{run}: {done.config.pairs:,} pairs scored{aside}")


@app.command()
def add_target(
    run: RunArgument,
    target: Annotated[
        list[str], typer.Option(help="NAME=FILE, as score takes it; repeat it for several.", show_default=False)
    ],
    norm: Annotated[
        list[str] | None, typer.Option(help="The p of each NormSim_p.", show_default="the run's, else inf and 2")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...", show_default="the run's")] = None,
) -> None:
    """Compare a finished run with one more target.

    NormSim of every pair to it becomes a metric like the others. The run's scores stay as they are.

    Started again, it goes on where it stopped.

    Example: python -m clipsel_core add-target data/demo/run --target more=data/demo/target/task.npy
    """
    from clipsel_core.runs.added import add_target as add

    for name, path in _targets(target).items():
        with Meter(f"comparing with {name}", "pairs") as meter:
            done = add(run, name, path, norms=norm, device=device, progress=meter.update)
        metrics = next(added.metrics for added in done.added if added.target.name == name)
        say(f"{run}: {done.config.pairs:,} pairs have {', '.join(metrics)}")


@app.command()
def project(
    run: RunArgument,
    sample: Annotated[int, typer.Option(min=1, help="Pairs on the map.")] = 50_000,
    seed: Annotated[int, typer.Option(min=0, help="Decides the sample and the layout.")] = 0,
) -> None:
    """Lay a sample of a run's images out on a map.

    UMAP on the image embeddings: like lies near like.

    Example: python -m clipsel_core project /tmp/run --sample 20000
    """
    from clipsel_core.curation.projection import project as project_run
    from clipsel_core.runs.store import Run

    with Meter("projecting") as meter:
        progress = partial(_update_share, meter)
        path = project_run(Run.open(run), sample=sample, seed=seed, progress=progress)
    say(f"{path}: written")


@app.command()
def encode(
    run: RunArgument,
    text: Annotated[str, typer.Option(help="The text.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The embedding: a .npy.", show_default=False)],
) -> None:
    """Embed a text with the teacher of a run's pool.

    For searching: the .npy is what `search --vector` takes.

    Example: python -m clipsel_core encode data/demo/run --text "two red birds" --out /tmp/birds.npy
    """
    from clipsel_core.curation.searches import write_vector
    from clipsel_core.runs.store import Run

    write_vector(out, _query_of_text(Run.open(run), text))
    say(f"{out}: written")


@app.command()
def search(
    run: RunArgument,
    text: Annotated[str | None, typer.Option(help="What the pairs should show or say.", show_default=False)] = None,
    uid: Annotated[str | None, typer.Option(help="A pair that they should be like.", show_default=False)] = None,
    vector: Annotated[
        Path | None, typer.Option(help="A .npy of one embedding that they should be like.", show_default=False)
    ] = None,
    side: Annotated[str, typer.Option(help="What is compared with it: image or text.")] = "image",
    limit: Annotated[int, typer.Option(min=1, help="Pairs to find.")] = 100,
    among: Annotated[str, typer.Option(help="pool, or map: only the pairs on the run's map.")] = "pool",
    out: Annotated[
        Path | None, typer.Option(help="A file for them: .parquet, .csv, or .npy (a uid list).", show_default="printed")
    ] = None,
) -> None:
    """Find the pairs most like a text, a pair or an embedding.

    By cosine of the teacher's embeddings; prints uids and similarities, best first.

    --vector beside --text spares loading the teacher.

    Example: python -m clipsel_core search data/demo/run --text "two red birds" --limit 10
    """
    from clipsel_core.curation.searches import Asked, read_vector, search_run, write_search
    from clipsel_core.runs.store import Run

    given = [(name, value) for name, value in (("text", text), ("uid", uid), ("vector", vector)) if value is not None]
    if len(given) != 1 and [name for name, _ in given] != ["text", "vector"]:
        raise typer.BadParameter("give one of --text, --uid and --vector; or --text with its --vector")
    if side not in ("image", "text") or among not in ("pool", "map"):
        raise typer.BadParameter("--side is image or text, --among is pool or map")
    opened = Run.open(run)
    query = uid or (read_vector(vector) if vector else _query_of_text(opened, text or ""))
    with Meter("searching", "pairs") as meter:
        on_map = among == "map"
        found = search_run(opened, query, side=cast("Side", side), on_map=on_map, limit=limit, progress=meter.update)
    if out:
        (by, said) = given[0]
        write_search(out, found, Asked(query=str(said), by=by, side=side, among=among, pairs=found.pairs))
        say(f"{out}: {len(found.nearest):,} of {found.pairs:,} pairs")
    else:
        print_found(found.names, found.nearest.similarity)


@app.command()
def select(
    run: RunArgument,
    recipe: Annotated[Path, typer.Option(help="The recipe: a .yaml file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The subset: .npy, .parquet, .csv or .txt.", show_default=False)],
) -> None:
    """Write the uids that a recipe keeps.

    A manifest is written beside them: recipe, counts, thresholds, hashes.

    The .npy is what DataComp's resharder takes.

    Example: python -m clipsel_core select data/demo/run --recipe data/demo/run/recipes/two_steps.yaml --out subset.npy
    """
    from clipsel_core.curation.datacomp import reshard_command, train_command
    from clipsel_core.curation.export import export
    from clipsel_core.curation.recipe_files import load_recipe
    from clipsel_core.curation.selection import select as select_pairs
    from clipsel_core.runs.store import Run

    opened = Run.open(run)
    rule = load_recipe(recipe, metrics=opened.metrics)
    selection = select_pairs(opened, rule)
    export(opened, selection, rule, out)
    print_funnel(selection)
    say(f"{out}: {len(selection):,} uids")
    if out.suffix.lower() == ".npy":
        print_commands("with DataComp:", reshard_command(opened.pool_root, out), train_command(None, selection.total))


@app.command()
def export(
    run: RunArgument,
    recipe: Annotated[Path, typer.Option(help="The recipe: a .yaml file.", show_default=False)],
    shards: Annotated[Path, typer.Option(help="A new folder for the tars.", show_default=False)],
    pairs_per_shard: Annotated[int, typer.Option(min=1, help="Pairs to a tar.")] = 10_000,
    scores: Annotated[bool, typer.Option("--scores", help="Write each pair's scores into its json.")] = False,
) -> None:
    """Write the pairs that a recipe keeps as webdataset tars.

    Images are copied as they are, with caption and uid; those that cannot be read are listed. A manifest says how it
    was made.

    Started again, it goes on where it stopped.

    Example: python -m clipsel_core export data/demo/run --recipe data/demo/run/recipes/two_steps.yaml --shards /tmp/out
    """
    from clipsel_core.curation.datacomp import train_command
    from clipsel_core.curation.recipe_files import load_recipe
    from clipsel_core.curation.selection import select as select_pairs
    from clipsel_core.curation.shards import export_shards
    from clipsel_core.runs.store import Run

    opened = Run.open(run)
    rule = load_recipe(recipe, metrics=opened.metrics)
    selection = select_pairs(opened, rule)
    with Meter("exporting", "pairs") as meter:
        done = export_shards(
            opened,
            selection,
            rule,
            shards,
            pairs_per_shard=pairs_per_shard,
            scores=scores,
            progress=meter.update,
        )
    print_funnel(selection)
    say(f"{shards}: {done.written:,} pairs in {done.count:,} tar{'s' * (done.count != 1)}")
    if done.missing:
        say(f"images that could not be read: {done.missing:,}, listed in {shards / 'missing.txt'}")
    print_commands("with DataComp:", train_command(shards, selection.total))


@app.command()
def compare(
    run: RunArgument,
    selections: Annotated[
        list[Path], typer.Argument(help="Two or more: recipes (.yaml) and uid lists.", show_default=False)
    ],
) -> None:
    """Say what several selections have in common.

    Pairs in both of any two, as a count and as a share of either; of two recipes also what became of each step.

    Example: python -m clipsel_core compare data/demo/run data/demo/run/recipes/clip_score_30.yaml old_subset.npy
    """
    from clipsel_core.curation.difference import differences
    from clipsel_core.curation.overlap import of_list, of_recipe, overlap
    from clipsel_core.curation.queries import ScoreTable
    from clipsel_core.curation.recipe_files import load_recipe
    from clipsel_core.runs.store import Run

    if len(selections) < 2 or len(set(selections)) < len(selections):
        raise typer.BadParameter("two or more different files are needed", param_hint="SELECTIONS")
    opened = Run.open(run)
    table = ScoreTable.open(opened)
    recipes = {
        path: load_recipe(path, metrics=opened.metrics) for path in selections if path.suffix in (".yaml", ".yml")
    }
    picked = {
        str(path): of_recipe(table, recipes[path]) if path in recipes else of_list(table, path) for path in selections
    }
    print_overlap(overlap({name: found.mask for name, found in picked.items()}))
    for name, found in picked.items():
        if found.unknown:
            say(f"{name}: {found.unknown:,} more uids that this run lacks")
    if len(selections) == len(recipes) == 2:
        for change in differences(*recipes.values()):
            say(change.text)


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="A new or empty folder.", show_default=False)],
) -> None:
    """Build the demo from nothing.

    Draws its pairs, trains its teacher, embeds, scores and projects them.

    Takes some minutes; data/demo of this repository is what it builds.

    Example: python -m clipsel_core demo /tmp/demo
    """
    from clipsel_core.demo.build import build_demo

    build_demo(directory, progress=complain)
    say(f"{directory}: written")


@app.command()
def doctor(
    folder: Annotated[
        Path | None, typer.Option(help="Where teachers of your own are looked for.", show_default="data/")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Print what is installed, which devices there are, and which teachers are on disk.

    Exit code 1 where clipsel cannot work as it is.

    Example: python -m clipsel_core doctor --json
    """
    from clipsel_core.doctor import examine

    found = examine(folder or Path("data"))
    if as_json:
        say(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        print_findings(found)
    if any(finding.state == "wrong" for finding in found):
        raise typer.Exit(1)


def main() -> None:
    """Runs the command line and exits with its code. Asked to terminate, it ends as if interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except ClipselError as error:
        report_end("failed", str(error))
        if os.environ.get("CLIPSEL_DEBUG"):
            raise
        complain(str(error))
        sys.exit(1)
    except SystemExit as ending:
        report_end(*_ENDINGS.get(ending.code, ("failed", f"exit code {ending.code}")))
        raise
    except BaseException as error:
        report_end("failed", f"{type(error).__name__}: {error}")
        raise


def _update_share(meter: Meter, share: float, stage: str) -> None:
    meter.update(int(share * 1000), 1000, stage)


def _query_of_text(run: Run, text: str) -> np.ndarray:
    from clipsel_core.pool.query_text import query_of_text

    return query_of_text(text, run.pool_root, run.config.arch, run.config.width)


def _targets(options: list[str]) -> dict[str, str]:
    targets = {}
    for option in options:
        name, equals, path = option.partition("=")
        if not (equals and name and path):
            raise typer.BadParameter(f"{option!r} is not NAME=FILE", param_hint="--target")
        if name in targets:
            raise typer.BadParameter(f"two targets are named {name!r}", param_hint="--target")
        targets[name] = path
    return targets
