"""How is a run mapped and searched from the command line?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from clipsel_core.commands.options import RunArgument
from clipsel_core.commands.printing import print_found
from clipsel_core.counts import counted
from clipsel_core.errors import PoolFormatError, RunError
from clipsel_core.terminal import Meter, say

if TYPE_CHECKING:
    import numpy as np

    from clipsel_core.curation.exploring.vectors import Side
    from clipsel_core.runs.store import Run


def project(
    run: RunArgument,
    sample: Annotated[int, typer.Option(min=1, help="Pairs on the map.")] = 50_000,
    seed: Annotated[int, typer.Option(min=0, help="Decides the sample and the layout.")] = 0,
) -> None:
    """Lay a sample of a run's images out on a map.

    UMAP on the image embeddings: like lies near like.

    Example: clipsel project my_run --sample 2000
    """
    from clipsel_core.curation.exploring.projection import project as project_run
    from clipsel_core.runs.store import Run

    with Meter("projecting") as meter:
        progress = partial(_update_share, meter)
        path = project_run(Run.open(run), sample=sample, seed=seed, progress=progress)
    say(f"{path}: written")


def encode(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="The embedding: a .npy.", show_default=False)],
    text: Annotated[str | None, typer.Option(help="A text.", show_default=False)] = None,
    image: Annotated[Path | None, typer.Option(help="The file of a picture.", show_default=False)] = None,
) -> None:
    """Embed a text or a picture with the teacher of a run's pool.

    For searching: the .npy is what `search --vector` takes.

    Example: clipsel encode demo/run --text "two red birds" --out birds.npy
    """
    from clipsel_core.curation.exploring.searches import check_ending, write_vector
    from clipsel_core.runs.store import Run, check_outside

    if (text is None) == (image is None):
        raise typer.BadParameter("give one of --text and --image")
    check_ending(out, ".npy")
    check_outside(out)
    write_vector(out, _embedding_of(Run.open(run), text, image))
    say(f"{out}: written")


def search(
    run: RunArgument,
    text: Annotated[str | None, typer.Option(help="What the pairs should show or say.", show_default=False)] = None,
    image: Annotated[
        Path | None, typer.Option(help="The file of a picture that they should be like.", show_default=False)
    ] = None,
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
    """Find the pairs most like a text, a picture or a pair.

    Or like an embedding (--vector). By cosine of the teacher's embeddings; prints uids and similarities, best first.

    --vector beside --text or --image spares loading the teacher.

    Example: clipsel search demo/run --text "two red birds" --limit 10
    """
    from clipsel_core.curation.exploring.searches import (
        SearchQuery,
        check_ending,
        read_vector,
        search_run,
        write_search,
    )
    from clipsel_core.runs.store import Run, check_outside

    named = {"text": text, "image": image and image.name, "uid": uid, "vector": vector}
    given = [(name, value) for name, value in named.items() if value is not None]
    if len(given) != 1 and [name for name, _ in given] not in (["text", "vector"], ["image", "vector"]):
        raise typer.BadParameter(
            "give one of --text, --image, --uid and --vector; or one of the first with its --vector"
        )
    if side not in ("image", "text") or among not in ("pool", "map"):
        raise typer.BadParameter("--side is image or text, --among is pool or map")
    if out:
        check_ending(out)
        check_outside(out)
    opened = Run.open(run)
    query = uid or (read_vector(vector) if vector else _embedding_of(opened, text, image))
    with Meter("searching", "pairs") as meter:
        on_map = among == "map"
        found = search_run(opened, query, side=cast("Side", side), on_map=on_map, limit=limit, progress=meter.update)
    if not len(found.nearest):
        raise RunError(run, expected="a pair or more that is like it", found=f"none of {counted(found.pairs, 'pairs')}")
    if out:
        (by, said) = given[0]
        write_search(out, found, SearchQuery(query=str(said), by=by, side=side, among=among, pairs=found.pairs))
        say(f"{out}: {len(found.nearest):,} of {counted(found.pairs, 'pairs')}")
    else:
        print_found(found.names, found.nearest.similarity)


def _update_share(meter: Meter, share: float, stage: str) -> None:
    meter.update(int(share * 1000), 1000, stage)


def _embedding_of(run: Run, text: str | None, image: Path | None) -> np.ndarray:
    """The embedding of the one that is given."""
    from clipsel_core.pool.making.queries import QueryTeacher

    data = _bytes_of(image) if image else b""
    teacher = QueryTeacher.of_pool(run.pool_root, run.config.arch, run.config.width)
    return teacher.of_image(data, image) if image else teacher.of_text(text or "")


def _bytes_of(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise PoolFormatError(image, expected="a picture", found=error.strerror or str(error)) from error
