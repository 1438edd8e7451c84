"""How is the whole demo built from nothing? Teacher, pool, target, run, map, recipes: in this order."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from clipsel_core.curation.exploring.projection import project
from clipsel_core.curation.recipes.recipe_files import parse_recipe, save_recipe
from clipsel_core.demo.pairs import pool_pairs, target_pictures, training_pairs
from clipsel_core.demo.pool import shard_rows, write_pool, write_target
from clipsel_core.demo.teacher import TRAINING_PICTURES, load_demo_teacher, reproducible_torch, train_teacher
from clipsel_core.errors import RunError, reason_of
from clipsel_core.pool.making.embed import Teacher
from clipsel_core.runs.local import score
from clipsel_core.runs.store import Run

PAIRS = 3800
TARGET_IMAGES = 500
_PARTS = ("teacher", "pool", "target", "run")

RECIPES = {
    "clip_score_30": """\
name: CLIPScore, top 30 %
steps:
  - {metric: clip_score, keep_top: 0.30}
""",
    "s_cliploss_30": """\
name: s-CLIPLoss, top 30 %
steps:
  - {metric: s_cliploss, keep_top: 0.30}
""",
    "two_steps": """\
name: The paper's two steps
steps:
  - {metric: s_cliploss, keep_top: 0.30}
  - {metric: normsim_inf_task, keep_top: 0.20}
""",
}

Say = Callable[[str], None]


def build_demo(directory: str | Path, *, progress: Say | None = None) -> Run:
    """Build the demo below `directory`: teacher/, pool/, target/task.npy and the finished run/. Returns the run.

    Everything comes from fixed seeds: on the same machine and versions the files are the same, byte for byte, but for
    the run's status.json, which holds clock times. A teacher, pool or run that is there already is replaced.

    progress: called with a line of text when a stage begins, and now and then during training.
    Raises: RunError where the folder holds something else, or cannot be written.
    """
    directory, say = Path(directory), _timed(progress or (lambda line: None))
    _check_free(directory)
    say("drawing what the teacher learns from")
    train_teacher(directory / "teacher", training_pairs(TRAINING_PICTURES), progress=say)
    teacher = load_demo_teacher(directory / "teacher")
    build_pool(directory, teacher, say)
    return build_run(directory, teacher, say)


def _check_free(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        strange = next((path.name for path in sorted(directory.iterdir()) if path.name not in _PARTS), None)
    except OSError as error:
        found, remedy = reason_of(error), "choose another folder"
        raise RunError(directory, expected="a folder for the demo", found=found, remedy=remedy) from error
    if strange:
        remedy = "choose a new folder"
        raise RunError(directory, expected="an empty folder, or a demo", found=strange, remedy=remedy)


def build_pool(directory: Path, teacher: Teacher, say: Say) -> None:
    """Draw and embed pool/ and target/task.npy with a teacher that is there."""
    say(f"drawing and embedding {PAIRS:,} pairs")
    write_pool(directory / "pool", pool_pairs(PAIRS), teacher)
    say(f"drawing and embedding {TARGET_IMAGES} images of the target task")
    write_target(directory / "target" / "task.npy", target_pictures(TARGET_IMAGES), teacher)


def build_run(directory: Path, teacher: Teacher, say: Say) -> Run:
    """Score the pool into run/, lay out its map and save three recipes.

    The temperature is the teacher's own. The batch is as large as the smallest shard, of which the other shards are
    multiples: every pair meets equally many others, in every shard.
    """
    smallest = min(rows.stop - rows.start for rows in shard_rows(PAIRS))
    say(f"scoring with temperature {teacher.temperature:.4f} in batches of {smallest}")
    for old in (*(directory / "run").glob("scores/*.parquet"), directory / "run" / "run.json"):
        old.unlink(missing_ok=True)
    with reproducible_torch(seed=0):
        run = score(
            directory / "pool",
            directory / "run",
            targets={"task": directory / "target" / "task.npy"},
            temperature=round(teacher.temperature, 4),
            batch_size=smallest,
            device="cpu",
        )
    say("laying out the map")
    project(run)
    for name, text in RECIPES.items():
        save_recipe(parse_recipe(text, metrics=run.metrics), run.recipes_dir / f"{name}.yaml")
    say("done")
    return run


def _timed(say: Say) -> Say:
    """The same, with the seconds since now before each line."""
    start = time.monotonic()
    return lambda line: say(f"{time.monotonic() - start:5.0f} s  {line}")
