"""How is the whole demo built from nothing? Teacher, pool, target, run, map, recipes: in this order.

The teacher is a small open_clip model, trained on drawn scenes from a fixed seed. The pool is drawn, embedded and
written in DataComp's layout.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file

from clipsel_core.curation.exploring.map_layout import project
from clipsel_core.curation.recipes.recipe import parse_recipe, save_recipe
from clipsel_core.demo.pairs import Pair, Picture, draw_jpegs, pool_pairs, target_pictures, training_pairs
from clipsel_core.demo.scenes import SIDE
from clipsel_core.errors import PoolFormatError, RunError, reason_of
from clipsel_core.pool.making.embed import Teacher, load_teacher
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

THREADS = 2
"""Sums are split by thread, so the number of threads is part of what makes two builds the same."""

TRAINING_PICTURES = 20_000
TRAINING_STEPS = 1400
TRAINING_BATCH = 128
LEARNING_RATE = 2.5e-3
WARM_UP_STEPS = 40

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 48, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "patch_size": None},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resize_mode": "squash"},
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


def train_teacher(
    directory: Path,
    pairs: Sequence[Pair],
    *,
    steps: int = TRAINING_STEPS,
    batch_size: int = TRAINING_BATCH,
    seed: int = 0,
    report: Report = silent,
) -> None:
    """Train the teacher on these pairs and write its configuration and float16 weights into `directory`.

    report: told the steps that are done, and the loss in its note.
    Same pairs, steps, batch size and seed, on the same machine and versions: same bytes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    with reproducible_torch(seed):
        # Twice as fast as the usual order of dimensions for convolutions this narrow.
        model = open_clip.CLIP(**CONFIG["model_cfg"]).to(memory_format=torch.channels_last)
        vision, text = CONFIG["model_cfg"]["vision_cfg"], CONFIG["model_cfg"]["text_cfg"]
        preprocess = open_clip.image_transform(vision["image_size"], is_train=False, **CONFIG["preprocess_cfg"])
        # Each picture is drawn once: (P, 3, 48, 48) float16. Of each of the N pairs its picture's place and its tokens.
        places = {picture: place for place, picture in enumerate(dict.fromkeys(pair.picture for pair in pairs))}
        images = torch.stack([preprocess(Image.open(BytesIO(jpeg))).half() for jpeg in draw_jpegs(places)])
        tokenize = open_clip.SimpleTokenizer(context_length=text["context_length"])
        shown, tokens = [places[pair.picture] for pair in pairs], tokenize([pair.caption for pair in pairs])
        _fit(model, (images, torch.tensor(shown), tokens), steps, batch_size, report)
    weights = {
        name: (value.to(torch.float16) if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(weights, directory / "open_clip_model.safetensors")


def load_demo_teacher(directory: Path) -> Teacher:
    """The trained teacher in this folder."""
    return load_teacher(f"local-dir:{directory}")


@contextmanager
def reproducible_torch(seed: int) -> Iterator[None]:
    """Inside, torch draws from this seed, uses THREADS threads and only algorithms that repeat their results."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def _fit(
    model: torch.nn.Module,
    examples: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    steps: int,
    batch_size: int,
    report: Report,
) -> None:
    """Train with the contrastive loss on random batches; the learning rate warms up and then falls to nothing."""
    loss_of = open_clip.ClipLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=WARM_UP_STEPS)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - WARM_UP_STEPS))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm_up, fall], [WARM_UP_STEPS])
    images, places, tokens = examples
    model.train()
    for step in range(steps):
        batch = torch.randint(len(tokens), (batch_size,))
        seen = images[places[batch]].float()
        # Each mirrored or not, all moved by a pixel or two: no caption says left or right.
        mirrored = torch.rand(len(seen), 1, 1, 1) < 0.5
        moved = torch.roll(seen, torch.randint(-2, 3, (2,)).tolist(), dims=(2, 3))
        seen = torch.where(mirrored, moved.flip(3), moved).contiguous(memory_format=torch.channels_last)
        loss = loss_of(*model(seen, tokens[batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            said = f"training the teacher: step {step + 1} of {steps}, loss {loss.item():.2f}"
            report(step + 1, steps, "steps", said)
