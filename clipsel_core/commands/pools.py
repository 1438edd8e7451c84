"""How is a pool made and inspected from the command line?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from clipsel_core.errors import PoolFormatError, counted, quoted
from clipsel_core.places import Place
from clipsel_core.terminal import (
    A_PLACE,
    ClusterOption,
    CpusOption,
    Meter,
    PoolArgument,
    complain,
    conclude,
    print_table,
    say,
)

if TYPE_CHECKING:
    from clipsel_core.pool.making.embed import Teacher
    from clipsel_core.pool.making.extend import Extended
    from clipsel_core.pool.making.make import Made
    from clipsel_core.pool.sources.record import Source

_MOST_NAMES = 20

CheckOption = Annotated[bool, typer.Option("--check", help="Look at the source and the pool alone, and write nothing.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
ImageColumnOption = Annotated[
    str | None, typer.Option(help="A table's column of paths or images.", show_default="guessed")
]


def inspect(
    pool: PoolArgument,
    quick: Annotated[bool, typer.Option("--quick", help="Read headers and uids, not every embedding.")] = False,
    target: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Say what this path would be taken for as a target.", show_default=False),
    ] = None,
    arch: Annotated[
        str | None, typer.Option(help="The teacher that --target is compared by.", show_default="the only one")
    ] = None,
) -> None:
    """Print what a pool holds and what is wrong with it.

    Exit code 1 where scoring would stop at something. With --target it only says what a path would be taken for as a
    target of this pool.

    Example: clipsel inspect demo/pool
    """
    from clipsel_core.pool.inspect import inspect_pool
    from clipsel_core.pool.layout import open_pool

    opened = open_pool(pool)
    if target:
        from clipsel_core.runs.targets import load_target

        say(load_target("target", target, opened, opened.arch(arch), Place.of_named("."))[0].said)
        return
    with Meter("inspecting") as meter:
        report = inspect_pool(opened, values=not quick, report=meter.report)
    archs = ", ".join(f"{arch.name} (width {arch.width})" for arch in opened.archs.values())
    images = counted(len(opened.tars), "tars") if opened.tars else "none in shards/"
    images = "where they were, by the index in images/" if opened.indexes else images
    rows = [shard.rows for shard in opened.shards]
    span = counted(max(rows), "rows")
    span = span if min(rows) == max(rows) else f"{min(rows):,} to {span}"
    facts = {
        "shards": f"{len(rows):,} ({report.npz_count:,} with embeddings), {span}",
        "pairs": f"{opened.rows:,}",
        "teachers": archs or "none",
        "columns": ", ".join(opened.columns),
        "captions": opened.text_column or "none",
        "images": images,
        "problems": f"{len(report.problems):,}" if report.problems else "none",
    }
    table = Table(title=str(opened.root), title_justify="left", show_header=False)
    for name, fact in facts.items():
        table.add_row(name, Text(fact))
    print_table(table)
    for problem in report.problems:
        say(f"{'error' if problem.stops else 'note'}: {problem.text}")
    if report.stops:
        raise typer.Exit(1)


def embed(
    source: Annotated[
        str, typer.Argument(help="Tars, images, a table or embeddings: a file, a folder or a URL.", show_default=False)
    ],
    pool: Annotated[
        Place,
        typer.Argument(help="The pool's folder or address: new, begun by embed, or a pool to add to.", **A_PLACE),
    ],
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
            help="webdataset, folder, csv, tsv, jsonl, parquet, arrow, clip-retrieval, npy.",
            show_default="told by looking",
        ),
    ] = None,
    image_column: ImageColumnOption = None,
    text_column: Annotated[str | None, typer.Option(help="A table's captions.", show_default="guessed")] = None,
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="Pairs to a shard.", show_default="100000, or as begun")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs to a batch of the teacher.")] = 64,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that decode, of each worker.", show_default="one a core")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Larger images are rejected.", show_default="64000000, or as begun")
    ] = None,
    pack: Annotated[
        bool, typer.Option("--pack", help="Also write the pairs to POOL/shards/*.tar, images as they are.")
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Further columns of the source that the pool gets: all, none, or names such as lang,width.",
            show_default="all, or as begun",
        ),
    ] = None,
    device: DeviceOption = "auto",
    precision: Annotated[
        str, typer.Option(help="float32, bf16, fp16, or auto: the fastest of them that keeps the embeddings.")
    ] = "auto",
    cluster: ClusterOption = None,
    cpus_per_worker: CpusOption = None,
    check: CheckOption = False,
) -> None:
    """Make a pool of images and captions.

    Embeds them with an open_clip model. The images stay where they are. Embeddings that somebody else made (.npy pairs,
    clip-retrieval's output) are taken without a model.

    Started again, it goes on where it stopped. A second teacher adds its embeddings to the same shards; to those of a
    pool made elsewhere too, such as DataComp's, where SOURCE holds its images (POOL/shards) by uid or key.

    Example: clipsel embed pictures/ my_pool --model ViT-B-32 --pretrained openai --arch b32
    """
    from clipsel_core.pool.making.settings import is_extendable, settings_to_extend, settings_to_make
    from clipsel_core.pool.sources.look import open_source
    from clipsel_core.workers import check_asked

    if pretrained and not model:
        raise typer.BadParameter("it says which weights --model has: give both", param_hint="--pretrained")
    check_asked(device, cluster, cpus_per_worker)
    if cluster and not pool.remote:
        pool = Place.of_named(os.path.abspath(pool))
    place = Place.of(source).absolute() if cluster else source
    opened = open_source(place, kind=kind, image_column=image_column, text_column=text_column)
    complain(f"{source}: {opened.said}")
    shards: dict[str, Any] = {"shard_size": shard_size, "pack": pack or None, "columns": columns}
    joins = is_extendable(opened, pool)
    if joins:
        given = [f"--{name.replace('_', '-')}" for name, value in shards.items() if value is not None]
        if given or not model:
            expected, found = (f"no {given[0]}", "it, and a pool that is there") if given else ("--model", "none")
            raise PoolFormatError(pool, expected=expected, found=found)
        settings_to_extend(opened, pool, arch, max_pixels)
    else:
        settings_to_make(opened, pool, arch, teacher=bool(model), most_pixels=max_pixels, **shards)
    if check:
        return
    # Torch takes seconds to import; what is wrong with the rest is said before.
    from clipsel_core.pool.making.extend import extend_pool
    from clipsel_core.pool.making.make import make_pool

    common: dict[str, Any] = {"arch": arch, "model": model or "", "pretrained": pretrained}
    common |= {"batch_size": batch_size, "workers": workers, "most_pixels": max_pixels}
    common |= {"cluster": cluster, "cpus_per_worker": cpus_per_worker}
    teacher = _load(opened, pool, arch, model, pretrained, device, precision, max_pixels) if model else None
    if joins and teacher:
        with Meter("finding images") as finding, Meter("embedding") as meter:
            extended = extend_pool(opened, pool, teacher, **common, finding=finding.report, report=meter.report)
        _print_extended(pool, arch, extended)
        return
    with Meter("embedding") as meter:
        made = make_pool(opened, pool, teacher, **common, **shards, report=meter.report)
    _print_made(pool, made)


def embed_images(
    source: Annotated[
        str, typer.Argument(help="Images: a folder, tars, a parquet or a URL, as embed takes it.", show_default=False)
    ],
    out: Annotated[
        Place,
        typer.Argument(help="The embeddings: a .npy, a row an image.", **A_PLACE),
    ],
    like: Annotated[Place, typer.Option(help="The pool whose teacher embeds them.", **A_PLACE)],
    arch: Annotated[
        str | None, typer.Option(help="The teacher's name in the pool.", show_default="the only one")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The teacher, for a pool that does not know it, as embed takes it.", show_default="the pool's"
        ),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Its weights, as embed takes them.", show_default="the pool's")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--format", help="One of embed's formats of images.", show_default="told by looking"),
    ] = None,
    image_column: ImageColumnOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images to a batch of the teacher.")] = 64,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that decode.", show_default="one a core")
    ] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="Larger images are rejected.")] = 64_000_000,
    device: DeviceOption = "auto",
    check: CheckOption = False,
) -> None:
    """Embed images with the teacher of a pool. Captions are not needed.

    OUT is what `score --target` takes. Its rows are in the order of the source. Images that cannot be used are left out
    of it, counted, and listed in OUT_rejected.parquet.

    Example: clipsel embed-images demo/pool/shards images.npy --like demo/pool
    """
    from clipsel_core.pool.layout import expect_teacher, open_pool
    from clipsel_core.pool.sources.look import open_source
    from clipsel_core.runs.store import check_ending, check_outside

    if pretrained and not model:
        raise typer.BadParameter("it says which weights --model has: give both", param_hint="--pretrained")
    check_ending(out, ".npy")
    check_outside(out)
    opened = open_source(source, kind=kind, image_column=image_column, captions=False)
    complain(f"{source}: {opened.said}")
    pool = open_pool(like)
    teacher_arch = pool.arch(arch)
    if opened.embedded:
        raise PoolFormatError(source, expected="images", found=f"{opened.kind}: embeddings")
    if not model:
        expect_teacher(pool.root, teacher_arch.name, "say which with --model and --pretrained")
    if check:
        return
    from clipsel_core.pool.making.pictures import embed_pictures, load_teacher_of, rejected_file
    from clipsel_core.runs.plan import resolve_devices

    teacher = load_teacher_of(pool, teacher_arch, model=model, pretrained=pretrained, device=resolve_devices(device)[0])
    with Meter("embedding") as meter:
        embedded = embed_pictures(
            opened, teacher, batch_size=batch_size, workers=workers, most_pixels=max_pixels, report=meter.report
        )
    embedded.write(out)
    rejected = embedded.rejected.num_rows
    conclude(f"{out}: {len(embedded.rows):,} of {counted(len(embedded.rows) + rejected, 'images')} embedded")
    if rejected:
        conclude(f"rejected: {rejected:,}, listed in {rejected_file(out)}")
    for reason, count in embedded.reasons.most_common():
        conclude(f"  {count:,} {reason}")


def _load(
    source: Source,
    pool: Place,
    arch: str,
    model: str,
    pretrained: str | None,
    device: str,
    precision: str,
    max_pixels: int | None,
) -> Teacher:
    """The teacher on its device; where nobody says in which precision, in the one that a trial finds best."""
    from clipsel_core.pool.making.decode import MOST_PIXELS
    from clipsel_core.pool.making.embed import load_teacher
    from clipsel_core.pool.making.embedder import choose_precision
    from clipsel_core.runs.plan import resolve_devices

    teacher = load_teacher(model, pretrained=pretrained, device=resolve_devices(device)[0], precision=precision)
    if precision == "auto":
        teacher, trial = choose_precision(teacher, source, pool, arch, most_pixels=max_pixels or MOST_PIXELS)
        if trial:
            complain(f"computed in {teacher.precision}: {trial.said}")
    return teacher


def _print_made(root: Place, made: Made) -> None:
    """What `embed` made, and what it could not use."""
    rate = f"; {made.embedded:,} embedded now, {made.embedded / made.seconds:,.0f} pairs/s" if made.embedded else ""
    conclude(f"{root}: {made.kept:,} of {counted(made.read, 'pairs')} in {counted(made.shards, 'shards')}{rate}")
    if made.columns:
        conclude(f"{counted(len(made.columns), 'columns')} of the source in the pool: {_listed(made.columns)}")
    for reason, left_out in made.left_out.items():
        what, names = counted(len(left_out), "columns"), list(left_out)
        values = sum(left_out.values())
        said = f", {counted(values, 'values')}" if values else ""
        conclude(f"{what} left out, {reason}: {_listed(names)}{said}")
    if made.reasons:
        conclude(f"rejected: {sum(made.reasons.values()):,}, listed in {root / 'rejected.parquet'}")
    for reason, count in made.reasons.most_common():
        conclude(f"  {count:,} {reason}")
    if made.derived:
        conclude(
            f"uids that are neither 32 hex digits nor a UUID with dashes: {made.derived:,}; these pairs got a derived"
            " uid, and the source's own is in the column source_uid"
        )
    _print_again(made.tried_again)
    if made.repeated:
        conclude(f"uids that came again and were told apart: {made.repeated:,}, listed in {root / 'repeated.parquet'}")


def _print_again(times: int) -> None:
    if times:
        conclude(f"tried again, as a worker of the cluster was lost: {counted(times, 'shards')}")


def _listed(names: Sequence[str]) -> str:
    """The first of some names from outside, fit for a line."""
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(name if name.isprintable() else quoted(name) for name in names[:_MOST_NAMES]) + more


def _print_extended(root: Place, arch: str, extended: Extended) -> None:
    """What `embed` added to a pool that was there, and what it could not."""
    rate = (
        f"; {extended.embedded:,} now, {extended.embedded / extended.seconds:,.0f} pairs/s" if extended.embedded else ""
    )
    done = extended.pairs - extended.set_aside
    where = f"{counted(extended.pairs, 'pairs')} in {counted(extended.shards, 'shards')}"
    conclude(f"{root}: {arch} for {done:,} of {where}, by {extended.by}{rate}")
    _print_again(extended.tried_again)
    if extended.reasons:
        conclude(f"set aside: {extended.set_aside:,}, listed in {root / f'set_aside_{arch}.parquet'}")
        for reason, count in extended.reasons.most_common():
            conclude(f"  {count:,} {reason}")
        conclude(f"score --arch {arch} --on-bad-rows skip scores the others")
    if extended.strangers:
        conclude(f"images of the source that are none of the pool's: {extended.strangers:,}")
    if extended.repeated:
        conclude(f"images of pairs that had one already: {extended.repeated:,}; the first of each was taken")
