"""How is a pool scored from the command line, and how is a run looked at: mapped, searched, verified?"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table
from rich.text import Text

from clipsel_core.errors import PoolFormatError, RunError, counted, duration
from clipsel_core.places import Place
from clipsel_core.terminal import (
    A_PLACE,
    ClusterOption,
    CpusOption,
    Meter,
    PoolArgument,
    RunArgument,
    print_table,
    say,
)

if TYPE_CHECKING:
    import numpy as np

    from clipsel_core.curation.exploring.vectors import Side
    from clipsel_core.runs.plan import Plan
    from clipsel_core.runs.store import Run

CheckOption = Annotated[bool, typer.Option("--check", help="Check all of this and what is there, and write nothing.")]


def score(
    pool: PoolArgument,
    run: RunArgument,
    arch: Annotated[
        str | None, typer.Option(help="The teacher's name in the pool.", show_default="the only one")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=PATH: embeddings, uids, a second moment, a pool or pictures; repeat it for several targets."
        ),
    ] = None,
    norm: Annotated[
        list[str] | None,
        typer.Option(
            help="The p of each norm over a target's cosines.",
            show_default="inf and 2; 2 for a second moment",
        ),
    ] = None,
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
        str,
        typer.Option(
            help="error; skip: set rows without a usable embedding aside; scale: give rows of any length length 1."
        ),
    ] = "error",
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda: every GPU, or some: cuda:0,cuda:2. One worker each.")
    ] = "auto",
    cluster: ClusterOption = None,
    cpus_per_worker: CpusOption = None,
    precision: Annotated[str, typer.Option(help="exact, or bf16: the normalizer faster and rounded.")] = "exact",
    no_similarity_check: Annotated[
        bool, typer.Option("--no-similarity-check", help="Score shards whose stored similarities fit other rows.")
    ] = False,
    check: CheckOption = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Try for ten seconds how long it will take, and write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Score every pair of a pool.

    Each metric of the embeddings, and to each target how near a pair is to its images: clipsel columns lists them.

    Started again, it goes on where it stopped; the scores are the same, byte for byte.

    Example: clipsel score demo/pool my_run --target task=demo/target/task.npy
    """
    began_s = time.monotonic()
    if as_json and not plan:
        raise typer.BadParameter("give it with --plan", param_hint="--json")
    from clipsel_core.runs.local import score as score_pool
    from clipsel_core.runs.plan import plan_run
    from clipsel_core.workers import check_asked

    options: dict[str, Any] = {
        "arch": arch,
        "targets": _targets_of(target or []),
        "norms": tuple(norm) if norm else None,
        "temperature": temperature,
        "batch_size": batch_size,
        "divisions": divisions,
        "seed": seed,
        "mix_shards": mix_shards,
        "on_bad_rows": on_bad_rows,
        "device": device,
        "precision": precision,
        "check_similarity": not no_similarity_check,
    }
    if check or plan:
        check_asked(device, cluster, cpus_per_worker)
        planned = plan_run(pool, run, **options)
        for info in planned.config.targets if check else ():
            say(f"target {info.name}: {info.said}")
        if check:
            say(f"{run}: {counted(planned.config.pairs, 'pairs')} can be scored")
        if plan:
            _print_forecast(run, planned, began_s, cluster, cpus_per_worker, as_json)
        return
    with Meter("embedding pictures") as embedding, Meter("scoring") as meter:
        options |= {"cluster": cluster, "cpus_per_worker": cpus_per_worker}
        done = score_pool(pool, run, report=meter.report, embedding=embedding.report, **options)
    skipped = done.config.skipped_rows
    aside = f"; {skipped:,} set aside" if skipped else ""
    scaled = done.scaled_rows if done.config.on_bad_rows == "scale" else 0
    aside += f"; {scaled:,} scaled to unit length" if scaled else ""
    again = done.config.tried_again
    aside += f"; {counted(again, 'groups')} tried again" if again else ""
    say(f"{run}: {counted(done.config.pairs, 'pairs')} scored{aside}")


def _print_forecast(
    run: Place, plan: Plan, began_s: float, cluster: str | None, cpus: int | None, as_json: bool
) -> None:
    """What scoring will take here, and what other GPUs are counted to take."""
    from clipsel_core.runs.cost import GPUS, SHARE_OF_PEAK, in_units
    from clipsel_core.runs.probe import forecast
    from clipsel_core.workers import Machines

    found = forecast(plan, began_s, Machines(plan.devices, cluster, cpus))
    if found is None:
        say("null" if as_json else f"{run}: everything is scored")
        return
    if as_json:
        say(json.dumps(found.as_dict(), indent=2))
        return
    work, expected, each = found.work, found.expected, "one GPU" if found.on_gpus else counted(found.cores, "cores")
    where = f"{counted(found.workers, 'workers')} of {each}"
    where += f" in {counted(found.nodes, 'nodes')}" if cluster else ""
    tried = f"{in_units(found.tried_bytes, 'B')} of {counted(len(found.tried_shards), 'shards')}"
    if found.from_disk_bytes is not None:
        tried += f", {in_units(found.from_disk_bytes, 'B')} of it from the disk"
    alone = ""
    if found.cpu_seconds is not None:
        alone_s = found.cpu_seconds / (found.workers * found.cores)
        alone = f"{duration(found.cpu_seconds)} of one core; {duration(alone_s)} where nothing else runs"
    rate = in_units(found.speed.read_bytes_s, "B/s")
    facts = {
        "to score": f"{counted(work.pairs, 'pairs')} in {counted(work.groups, 'groups')} of shards",
        "to read": f"{in_units(work.bytes_read, 'B')}: {duration(expected.reading_s)} at {rate}",
        "to compute": f"{in_units(work.all_operations, 'FLOP')}: {duration(expected.arithmetic_s)}",
        "time": f"{duration(expected.seconds)} with {where}, bound by {expected.bound_by}",
        "cores": alone,
        "memory": f"{in_units(found.memory_bytes, 'B')}{' for each worker' if found.workers > 1 else ''}",
        "tried": f"{duration(found.tried_s)}: {tried}",
    }
    table = Table(title=str(run), title_justify="left", show_header=False)
    for name, fact in facts.items():
        if fact:
            table.add_row(name, Text(fact))
    print_table(table)
    title = f"Counted, not measured: one GPU at {SHARE_OF_PEAK:.0%} of its published peak, reading as here"
    table = Table(title=title, title_justify="left")
    for column in ("GPU", "arithmetic", "time", "bound by", "to read, so that it never waits"):
        table.add_column(column)
    for name in GPUS:
        there = found.on_gpu(name)
        needed = in_units(work.bytes_read / there.arithmetic_s, "B/s")
        table.add_row(name, duration(there.arithmetic_s), duration(there.seconds), there.bound_by, needed)
    print_table(table)


def add_target(
    run: RunArgument,
    target: Annotated[
        list[str], typer.Option(help="NAME=PATH, as score takes it; repeat it for several.", show_default=False)
    ],
    norm: Annotated[
        list[str] | None,
        typer.Option(
            help="The p of each norm over a target's cosines.",
            show_default="the run's, else inf and 2; 2 for a second moment",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="As score takes it: one worker each.", show_default="the run's")
    ] = None,
    cluster: ClusterOption = None,
    cpus_per_worker: CpusOption = None,
    check: CheckOption = False,
) -> None:
    """Compare a finished run with one more target.

    How near every pair is to it becomes a metric like the others. The run's scores stay as they are.

    Started again, it goes on where it stopped.

    Example: clipsel add-target my_run --target more=demo/target/task.npy
    """
    from clipsel_core.runs.added import add_target as add
    from clipsel_core.runs.added import check_target
    from clipsel_core.runs.store import Run

    options: dict[str, Any] = {"norms": norm, "device": device}
    for name, path in _targets_of(target).items():
        if check:
            say(f"target {name}: {check_target(run, name, path, **options).said}")
            say(f"{run}: {counted(Run.open(run).config.pairs, 'pairs')} can be compared with {name}")
            continue
        with Meter("embedding pictures") as embedding, Meter(f"comparing with {name}") as meter:
            told: dict[str, Any] = {"report": meter.report, "embedding": embedding.report}
            done = add(run, name, path, cluster=cluster, cpus_per_worker=cpus_per_worker, **options, **told)
        added = next(added for added in done.added_targets if added.target.name == name)
        again = f"; {counted(added.tried_again, 'shards')} tried again" if added.tried_again else ""
        say(f"{run}: {', '.join(added.metrics)} for {counted(done.config.pairs, 'pairs')}{again}")


def _targets_of(options: list[str]) -> dict[str, str]:
    """The path of each target by its name, from NAME=PATH. Raises BadParameter on anything else, and a name twice."""
    targets = {}
    for option in options:
        name, equals, path = option.partition("=")
        if not (equals and name and path):
            raise typer.BadParameter(f"{option!r} is not NAME=PATH", param_hint="--target")
        if name in targets:
            several = "several files of one are a folder or a quoted pattern, 'part_{0..4}.pt'"
            raise typer.BadParameter(f"two targets are named {name!r}; {several}", param_hint="--target")
        targets[name] = path
    return targets


def project(
    run: RunArgument,
    sample: Annotated[int, typer.Option(min=1, help="Pairs on the map.")] = 50_000,
    seed: Annotated[int, typer.Option(min=0, help="Decides the sample and the layout.")] = 0,
) -> None:
    """Lay a sample of a run's images out on a map.

    UMAP on the image embeddings: like lies near like.

    Example: clipsel project my_run --sample 2000
    """
    from clipsel_core.curation.exploring.map_layout import project as project_run
    from clipsel_core.runs.store import Run

    with Meter("projecting") as meter:
        path = project_run(Run.open(run), sample=sample, seed=seed, report=meter.report)
    say(f"{path}: written")


def encode(
    run: RunArgument,
    out: Annotated[Place, typer.Option(help="The embedding: a .npy.", **A_PLACE)],
    text: Annotated[str | None, typer.Option(help="A text.", show_default=False)] = None,
    image: Annotated[Path | None, typer.Option(help="The file of a picture.", show_default=False)] = None,
) -> None:
    """Embed a text or a picture with the teacher of a run's pool.

    For searching: the .npy is what `search --vector` takes.

    Example: clipsel encode demo/run --text "two red birds" --out birds.npy
    """
    from clipsel_core.npy import put_npy
    from clipsel_core.runs.store import Run, check_ending, check_outside

    if (text is None) == (image is None):
        raise typer.BadParameter("give one of --text and --image")
    check_ending(out, ".npy")
    check_outside(out)
    embedding = _embedding_of(Run.open(run), text, image)
    out.write(lambda aside: put_npy(aside, embedding))
    say(f"{out}: written")


def search(
    run: RunArgument,
    text: Annotated[str | None, typer.Option(help="What the pairs should show or say.", show_default=False)] = None,
    image: Annotated[
        Path | None, typer.Option(help="The file of a picture that they should be like.", show_default=False)
    ] = None,
    uid: Annotated[str | None, typer.Option(help="A pair that they should be like.", show_default=False)] = None,
    vector: Annotated[
        Place | None, typer.Option(help="A .npy of one embedding that they should be like.", **A_PLACE)
    ] = None,
    side: Annotated[str, typer.Option(help="What is compared with it: image or text.")] = "image",
    limit: Annotated[int, typer.Option(min=1, help="Pairs to find.")] = 100,
    among: Annotated[str, typer.Option(help="pool, or map: only the pairs on the run's map.")] = "pool",
    cluster: ClusterOption = None,
    cpus_per_worker: CpusOption = None,
    out: Annotated[
        Place | None,
        typer.Option(
            help="A file for them: .parquet, .csv, or .npy (a uid list).", **{**A_PLACE, "show_default": "printed"}
        ),
    ] = None,
) -> None:
    """Find the pairs most like a text, a picture or a pair.

    Or like an embedding (--vector). By cosine of the teacher's embeddings; prints uids and similarities, best first.

    --vector beside --text or --image spares loading the teacher.

    Example: clipsel search demo/run --text "two red birds" --limit 10
    """
    from clipsel_core.curation.exploring.searches import (
        RESULT_ENDINGS,
        SearchQuery,
        read_vector,
        search_run,
        write_search,
    )
    from clipsel_core.runs.store import Run, check_ending, check_outside

    named = {"text": text, "image": image and image.name, "uid": uid, "vector": vector}
    given = [(name, value) for name, value in named.items() if value is not None]
    if len(given) != 1 and [name for name, _ in given] not in (["text", "vector"], ["image", "vector"]):
        raise typer.BadParameter(
            "give one of --text, --image, --uid and --vector; or one of the first with its --vector"
        )
    if side not in ("image", "text") or among not in ("pool", "map"):
        raise typer.BadParameter("--side is image or text, --among is pool or map")
    if cluster and among == "map":
        raise typer.BadParameter("it goes with --among pool", param_hint="--cluster")
    if out:
        check_ending(out, *RESULT_ENDINGS)
        check_outside(out)
    opened = Run.open(run)
    query = uid if uid is not None else (read_vector(vector) if vector else _embedding_of(opened, text, image))
    with Meter("searching") as meter:
        options: dict[str, Any] = {"on_map": among == "map", "limit": limit, "report": meter.report}
        options |= {"cluster": cluster, "cpus_per_worker": cpus_per_worker}
        found = search_run(opened, query, side=cast("Side", side), **options)
    if not len(found.nearest):
        raise RunError(run, expected="a pair or more that is like it", found=f"none of {counted(found.pairs, 'pairs')}")
    if out:
        (by, said) = given[0]
        write_search(out, found, SearchQuery(query=str(said), by=by, side=side, among=among, pairs=found.pairs))
        say(f"{out}: {len(found.nearest):,} of {counted(found.pairs, 'pairs')}")
    else:
        for name, value in zip(found.names, found.nearest.similarity, strict=True):
            say(f"{name} {value:.6f}")


def _embedding_of(run: Run, text: str | None, image: Path | None) -> np.ndarray:
    """The embedding of the one that is given."""
    from clipsel_core.pool.making.queries import QueryTeacher

    try:
        data = image.read_bytes() if image else b""
    except OSError as error:
        raise PoolFormatError(image, expected="a picture", found=error.strerror or str(error)) from error
    teacher = QueryTeacher.of_pool(run.pool_root, run.config.arch, run.config.width)
    return teacher.of_image(data, image) if image else teacher.of_text(text or "")


def verify(
    run: RunArgument,
    recompute: Annotated[
        int, typer.Option(min=0, help="Pairs to compute again from the pool, in float64: every metric of theirs.")
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
    with Meter("reading") as meter:
        found = verify_run(opened, report=meter.report)
    if recompute and not found.problems:
        from clipsel_core.runs.recompute import recompute as recompute_pairs

        with Meter("computing") as meter:
            problems, notes = recompute_pairs(opened, recompute, seed=seed, report=meter.report)
        found.problems += problems
        found.notes += notes
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
    if recompute:
        looked.append(f"{min(recompute, opened.pairs):,} pairs computed again")
    say(f"{run}: all as written: {', '.join(looked)}", style="green")
