"""How is a pool made from the command line?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clipsel_core.terminal import Meter, complain, print_extended, print_made


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
        str, typer.Option(help="float32, bf16, fp16, or auto: the fastest of them that keeps the embeddings.")
    ] = "auto",
    check: Annotated[bool, typer.Option("--check", help="Look at the source alone, and write nothing.")] = False,
) -> None:
    """Make a pool of images and captions.

    Embeds them with an open_clip model. The images stay where they are. Embeddings that somebody else made (.npy pairs,
    clip-retrieval's output) are taken without a model.

    Started again, it goes on where it stopped. A second teacher adds its embeddings to the same shards; to those of a
    pool made elsewhere too, such as DataComp's, where SOURCE holds its images (POOL/shards) by uid or key.

    Example: python -m clipsel_core embed pictures/ /tmp/pool --model ViT-B-32 --pretrained openai --arch b32
    """
    from clipsel_core.errors import PoolFormatError
    from clipsel_core.pool.making.embed import load_teacher
    from clipsel_core.pool.making.extend import extend_pool, is_extendable
    from clipsel_core.pool.making.make import make_pool
    from clipsel_core.pool.making.precision import settle
    from clipsel_core.pool.sources.look import open_source
    from clipsel_core.runs.plan import resolve_device

    common: dict[str, Any] = {"arch": arch, "model": model or "", "pretrained": pretrained}
    common |= {"batch_size": batch_size, "workers": workers, "most_pixels": max_pixels}
    opened = open_source(source, kind=kind, image_column=image_column, text_column=text_column)
    complain(f"{source}: {opened.said}")
    if check:
        return
    teacher = None
    if model:
        teacher = load_teacher(model, pretrained=pretrained, device=resolve_device(device), precision=precision)
    if teacher and precision == "auto":
        teacher, trial = settle(teacher, opened, pool, arch, most_pixels=max_pixels)
        if trial:
            complain(f"{teacher.precision}: {trial.said}")
    if is_extendable(opened, pool):
        if teacher is None or pack:
            given = ("--model", "none") if teacher is None else ("no --pack", "it, and a pool that is there")
            raise PoolFormatError(pool, expected=given[0], found=given[1])
        with Meter("finding images") as finding, Meter("embedding", "pairs") as meter:
            extended = extend_pool(opened, pool, teacher, **common, finding=finding.update, progress=meter.update)
        print_extended(pool, arch, extended)
        return
    with Meter("embedding", counts="pairs") as meter:
        made = make_pool(
            opened,
            pool,
            teacher,
            **common,
            shard_size=shard_size,
            pack=pack,
            progress=lambda done, total, records: meter.update(done, total, counted=records),
        )
    print_made(pool, made)
