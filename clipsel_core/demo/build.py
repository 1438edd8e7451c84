"""How is the whole demo built from nothing? Teacher, pool, target, run, map, recipes: in this order.

The pool is drawn, embedded and written in DataComp's layout.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsel_core.curation.exploring.map_layout import project
from clipsel_core.curation.recipes.recipe import parse_recipe, save_recipe
from clipsel_core.demo.pairs import Pair, Picture, draw_jpegs, pool_pairs, target_pictures, training_pairs
from clipsel_core.demo.scenes import SIDE
from clipsel_core.demo.teacher import TRAINING_PICTURES, load_demo_teacher, reproducible_torch, train_teacher
from clipsel_core.errors import PoolFormatError, RunError, reason_of
from clipsel_core.pool.making.embed import Teacher
from clipsel_core.pool.making.make import make_pool
from clipsel_core.pool.making.packing import new_tar, write_stats
from clipsel_core.pool.sources.look import open_source
from clipsel_core.runs.local import score
from clipsel_core.runs.store import Run, write_config
from clipsel_core.tasks import Report, part_of, silent

PAIRS = 3800
TARGET_IMAGES = 500
_PARTS = ("teacher", "pool", "target", "run")

ARCH = "demo"
"""The teacher's name in the pool."""

BATCH_SIZE = 256
"""Pairs to a batch; the last digits of embeddings depend on it."""

SHARD_SHARES = (0.4, 0.3, 0.2, 0.1)
"""Shards of different sizes, as pools have them; all are multiples of the smallest, so that their batches are alike."""

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


def build_demo(directory: str | Path, *, report: Report = silent) -> Run:
    """Build the demo below `directory`: teacher/, pool/, target/task.npy and the finished run/. Returns the run.

    Everything comes from fixed seeds: on the same machine and versions the files are the same, byte for byte, but for
    the run's status.json, which holds clock times. A teacher, pool or run that is there already is replaced.

    report: told, as its note, when a stage begins, and now and then during training.
    Raises: RunError where the folder holds something else, or cannot be written.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        strange = next((path.name for path in sorted(directory.iterdir()) if path.name not in _PARTS), None)
    except OSError as error:
        found, remedy = reason_of(error), "choose another folder"
        raise RunError(directory, expected="a folder for the demo", found=found, remedy=remedy) from error
    if strange:
        remedy = "choose a new folder"
        raise RunError(directory, expected="an empty folder, or a demo", found=strange, remedy=remedy)
    report(0, 100, "", "drawing what the teacher learns from")
    train_teacher(directory / "teacher", training_pairs(TRAINING_PICTURES), report=part_of(report, 0.1, 0.8))
    teacher = load_demo_teacher(directory / "teacher")
    report(80, 100, "", f"drawing and embedding {PAIRS:,} pairs and {TARGET_IMAGES} images of the target task")
    build_pool(directory, teacher)
    report(93, 100, "", f"scoring with temperature {teacher.temperature:.4f}, and laying out the map")
    run = build_run(directory, teacher)
    report(100, 100, "", "done")
    return run


def build_pool(directory: Path, teacher: Teacher) -> None:
    """Draw and embed pool/ and target/task.npy with a teacher that is there."""
    write_pool(directory / "pool", pool_pairs(PAIRS), teacher)
    write_target(directory / "target" / "task.npy", target_pictures(TARGET_IMAGES), teacher)


def build_run(directory: Path, teacher: Teacher) -> Run:
    """Score the pool into run/, lay out its map and save three recipes.

    The temperature is the teacher's own. The batch is as large as the smallest shard, of which the other shards are
    multiples: every pair meets equally many others, in every shard.
    """
    smallest = min(rows.stop - rows.start for rows in shard_rows(PAIRS))
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
    # The clock would make no two builds the same.
    write_config(run.root, run.config.model_copy(update={"outcome": None}))
    project(run)
    for name, text in RECIPES.items():
        save_recipe(parse_recipe(text, columns=run.metrics), run.recipes_dir / f"{name}.yaml")
    return run


def write_pool(root: Path, pairs: Sequence[Pair], teacher: Teacher) -> None:
    """Draw and embed the pairs and write them below `root`: metadata/*.parquet, metadata/*.npz, shards/*.tar."""
    jpegs = list(draw_jpegs([pair.picture for pair in pairs]))
    image, text = embed_pairs(teacher, jpegs, [pair.caption for pair in pairs])
    for folder in ("metadata", "shards"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(shard_rows(len(pairs))):
        name, here = f"{number:08d}", pairs[rows]
        similarity = np.einsum("nd,nd->n", image[rows].astype(np.float32), text[rows].astype(np.float32))
        columns = {
            "uid": [pair.uid for pair in here],
            "url": [f"https://example.org/demo/{pair.uid}.jpg" for pair in here],
            "text": [pair.caption for pair in here],
            "original_width": pa.array([SIDE] * len(here), pa.int64()),
            "original_height": pa.array([SIDE] * len(here), pa.int64()),
            f"clip_{ARCH}_similarity_score": pa.array(similarity, pa.float32()),
            "sha256": [hashlib.sha256(jpeg).hexdigest() for jpeg in jpegs[rows]],
            "fault": [pair.fault for pair in here],
        }
        pq.write_table(pa.table(columns), root / "metadata" / f"{name}.parquet", compression="zstd")
        arrays = {f"{ARCH}_img": image[rows], f"{ARCH}_txt": text[rows]}
        np.savez(root / "metadata" / f"{name}.npz", allow_pickle=False, **arrays)
        tar = root / "shards" / f"{name}.tar"
        with new_tar(tar) as packer:
            for row in range(rows.start, rows.stop):
                key, pair = f"{row:08d}", pairs[row]
                facts = {"uid": pair.uid, "key": key, "caption": pair.caption, "width": SIDE, "height": SIDE}
                packer.add(key, jpegs[row], pair.caption, facts)
        write_stats(tar, len(here))


def write_target(path: Path, pictures: Sequence[Picture], teacher: Teacher) -> None:
    """Draw and embed the pictures of the target task: a .npy of (M, D) float16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    jpegs = list(draw_jpegs(pictures))
    np.save(path, embed_pairs(teacher, jpegs, ["a picture"] * len(jpegs))[0])


def embed_pairs(teacher: Teacher, jpegs: Sequence[bytes], captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Embed pairs the way `embed` does: both sides, (N, D) float16, rows of unit length, in the pairs' order."""
    with tempfile.TemporaryDirectory() as folder:
        source, root = Path(folder) / "source", Path(folder) / "pool"
        source.mkdir()
        with new_tar(source / "0.tar") as packer:
            for number, (jpeg, caption) in enumerate(zip(jpegs, captions, strict=True)):
                packer.add(f"{number:08d}", jpeg, caption, {})
        with reproducible_torch(seed=0):
            make_pool(open_source(source), root, teacher, arch=ARCH, batch_size=BATCH_SIZE)
        with np.load(root / "metadata" / "00000000.npz") as arrays:
            image, text = arrays[f"{ARCH}_img"], arrays[f"{ARCH}_txt"]
    if len(image) != len(jpegs):
        raise PoolFormatError("the demo", expected=f"{len(jpegs):,} pairs embedded", found=f"{len(image):,}")
    return image, text


def shard_rows(count: int) -> list[slice]:
    """Which rows of the pool lie in each shard.

    >>> shard_rows(100)
    [slice(0, 40, None), slice(40, 70, None), slice(70, 90, None), slice(90, 100, None)]
    """
    ends = [round(count * share) for share in np.cumsum(SHARD_SHARES)]
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
