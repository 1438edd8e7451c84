"""How is the demo's teacher made? A small open_clip model, trained on drawn scenes from a fixed seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from clipsel_core.demo.pairs import Pair, draw_jpegs
from clipsel_core.pool.making.embed import Teacher, load_teacher
from clipsel_core.tasks import Report, silent

THREADS = 2
"""Sums are split by thread, so the number of threads is part of what makes two builds the same."""

TRAINING_PICTURES = 20_000
STEPS = 1400
BATCH_SIZE = 128
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


def train_teacher(
    directory: Path,
    pairs: Sequence[Pair],
    *,
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
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
