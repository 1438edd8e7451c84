"""How is a pool scored from the command line, and compared with more targets later?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from clipsel_core.commands.options import PoolArgument, RunArgument, targets_of
from clipsel_core.counts import counted
from clipsel_core.terminal import Meter, say


def score(
    pool: PoolArgument,
    run: RunArgument,
    arch: Annotated[
        str | None, typer.Option(help="The teacher's name in the pool.", show_default="the only one")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE of a target's image embeddings; repeat it for several.")
    ] = None,
    norm: Annotated[list[str], typer.Option(help="The p of each NormSim_p.")] = ["inf", "2"],  # noqa: B006 - nobody changes it
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
    precision: Annotated[str, typer.Option(help="exact, or bf16: the normalizer faster and rounded.")] = "exact",
    no_similarity_check: Annotated[
        bool, typer.Option("--no-similarity-check", help="Score shards whose stored similarities fit other rows.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Check all of this and what is there, and write nothing.")
    ] = False,
) -> None:
    """Score every pair of a pool.

    CLIPScore, s-CLIPLoss with both halves of its normalizer, and NormSim to each target.

    Started again, it goes on where it stopped; the scores are the same, byte for byte.

    Example: clipsel score demo/pool my_run --target task=demo/target/task.npy
    """
    from clipsel_core.runs.local import score as score_pool
    from clipsel_core.runs.plan import plan_run

    options: dict[str, Any] = {
        "arch": arch,
        "targets": targets_of(target or []),
        "norms": tuple(norm),
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
    if check:
        say(f"{run}: {counted(plan_run(pool, run, **options).config.pairs, 'pairs')} can be scored")
        return
    with Meter("scoring", "pairs") as meter:
        done = score_pool(
            pool, run, listener=lambda status: meter.update(status.pairs_done, status.pairs_total), **options
        )
    skipped = done.config.skipped_rows
    aside = f"; {skipped:,} set aside" if skipped else ""
    scaled = done.scaled_rows if done.config.on_bad_rows == "scale" else 0
    aside += f"; {scaled:,} scaled to unit length" if scaled else ""
    say(f"{run}: {counted(done.config.pairs, 'pairs')} scored{aside}")


def add_target(
    run: RunArgument,
    target: Annotated[
        list[str], typer.Option(help="NAME=FILE, as score takes it; repeat it for several.", show_default=False)
    ],
    norm: Annotated[
        list[str] | None, typer.Option(help="The p of each NormSim_p.", show_default="the run's, else inf and 2")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...", show_default="the run's")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check all of this and what is there, and write nothing.")
    ] = False,
) -> None:
    """Compare a finished run with one more target.

    NormSim of every pair to it becomes a metric like the others. The run's scores stay as they are.

    Started again, it goes on where it stopped.

    Example: clipsel add-target my_run --target more=demo/target/task.npy
    """
    from clipsel_core.runs.added import add_target as add
    from clipsel_core.runs.added import check_target

    for name, path in targets_of(target).items():
        if check:
            pairs = check_target(run, name, path, norms=norm, device=device).config.pairs
            say(f"{run}: {counted(pairs, 'pairs')} can be compared with {name}")
            continue
        with Meter(f"comparing with {name}", "pairs") as meter:
            done = add(run, name, path, norms=norm, device=device, progress=meter.update)
        metrics = next(added.metrics for added in done.added if added.target.name == name)
        say(f"{run}: {', '.join(metrics)} for {counted(done.config.pairs, 'pairs')}")
