"""How is a pool made from the command line?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipsel_core.commands.printing import print_extended, print_made
from clipsel_core.terminal import Meter, complain

if TYPE_CHECKING:
    from clipsel_core.pool.making.embed import Teacher
    from clipsel_core.pool.sources.record import Source


def embed(
    source: Annotated[
        str, typer.Argument(help="Tars, images, a table or embeddings: a file, a folder or a URL.", show_default=False)
    ],
    pool: Annotated[
        Path, typer.Argument(help="The pool's folder: new, begun by embed, or a pool to add to.", show_default=False)
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
    image_column: Annotated[
        str | None, typer.Option(help="A table's column of paths or images.", show_default="guessed")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="A table's captions.", show_default="guessed")] = None,
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="Pairs to a shard.", show_default="100000, or as begun")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs to a batch of the teacher.")] = 64,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that decode.", show_default="one a core")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Larger images are rejected.", show_default="64000000, or as begun")
    ] = None,
    pack: Annotated[
        bool, typer.Option("--pack", help="Also write the pairs to POOL/shards/*.tar, images as they are.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[
        str, typer.Option(help="float32, bf16, fp16, or auto: the fastest of them that keeps the embeddings.")
    ] = "auto",
    check: Annotated[
        bool, typer.Option("--check", help="Look at the source and the pool alone, and write nothing.")
    ] = False,
) -> None:
    """Make a pool of images and captions.

    Embeds them with an open_clip model. The images stay where they are. Embeddings that somebody else made (.npy pairs,
    clip-retrieval's output) are taken without a model.

    Started again, it goes on where it stopped. A second teacher adds its embeddings to the same shards; to those of a
    pool made elsewhere too, such as DataComp's, where SOURCE holds its images (POOL/shards) by uid or key.

    Example: clipsel embed pictures/ my_pool --model ViT-B-32 --pretrained openai --arch b32
    """
    from clipsel_core.pool.making.claim import is_extendable, settings_to_make
    from clipsel_core.pool.sources.look import open_source

    if pretrained and not model:
        raise typer.BadParameter("it says which weights --model has: give both", param_hint="--pretrained")
    opened = open_source(source, kind=kind, image_column=image_column, text_column=text_column)
    complain(f"{source}: {opened.said}")
    shards: dict[str, Any] = {"shard_size": shard_size, "pack": pack or None}
    joins = is_extendable(opened, pool)
    if joins:
        _check_joining(opened, pool, arch, model, max_pixels, shards)
    else:
        settings_to_make(opened, pool, arch, teacher=bool(model), most_pixels=max_pixels, **shards)
    if check:
        return
    common: dict[str, Any] = {"arch": arch, "model": model or "", "pretrained": pretrained}
    common |= {"batch_size": batch_size, "workers": workers, "most_pixels": max_pixels}
    teacher = _load(opened, pool, arch, model, pretrained, device, precision, max_pixels) if model else None
    if joins:
        assert teacher is not None  # else joining was refused above
        _extend(opened, pool, teacher, common)
    else:
        _make(opened, pool, teacher, common | shards)


def _load(
    source: Source,
    pool: Path,
    arch: str,
    model: str,
    pretrained: str | None,
    device: str,
    precision: str,
    max_pixels: int | None,
) -> Teacher:
    """The teacher on its device; where nobody says in which precision, in the one that a trial finds best."""
    # Torch takes seconds to import; what is wrong with the rest is said before.
    from clipsel_core.pool.making.decode import MOST_PIXELS
    from clipsel_core.pool.making.embed import load_teacher
    from clipsel_core.pool.making.precision import settle
    from clipsel_core.runs.plan import resolve_device

    teacher = load_teacher(model, pretrained=pretrained, device=resolve_device(device), precision=precision)
    if precision == "auto":
        teacher, trial = settle(teacher, source, pool, arch, most_pixels=max_pixels or MOST_PIXELS)
        if trial:
            complain(f"computed in {teacher.precision}: {trial.said}")
    return teacher


def _extend(source: Source, pool: Path, teacher: Teacher, options: dict[str, Any]) -> None:
    """Adds a teacher to a pool that is there."""
    from clipsel_core.pool.making.extend import extend_pool

    with Meter("finding images") as finding, Meter("embedding", "pairs") as meter:
        extended = extend_pool(source, pool, teacher, **options, finding=finding.update, progress=meter.update)
    print_extended(pool, options["arch"], extended)


def _make(source: Source, pool: Path, teacher: Teacher | None, options: dict[str, Any]) -> None:
    """Makes a new pool, or goes on with one."""
    from clipsel_core.pool.making.make import make_pool

    with Meter("embedding", counts="pairs") as meter:

        def tell(done: int, total: int, records: int) -> None:
            meter.update(done, total, counted=records)

        made = make_pool(source, pool, teacher, **options, progress=tell)
    print_made(pool, made)


def _check_joining(
    source: Source, pool: Path, arch: str, model: str | None, max_pixels: int | None, shards: dict[str, Any]
) -> None:
    """Makes sure that nothing is asked for that cannot be where a teacher joins a pool. Raises: PoolFormatError."""
    from clipsel_core.errors import PoolFormatError
    from clipsel_core.pool.making.claim import settings_to_extend

    given = [f"--{name.replace('_', '-')}" for name, value in shards.items() if value is not None]
    if given or not model:
        expected, found = (f"no {given[0]}", "it, and a pool that is there") if given else ("--model", "none")
        raise PoolFormatError(pool, expected=expected, found=found)
    settings_to_extend(source, pool, arch, max_pixels)
