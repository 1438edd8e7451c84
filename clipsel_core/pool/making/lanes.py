"""How do all cores work on one teacher? A batch each, so that none waits for another; a GPU has two batches at hand."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from clipsel_core.pool.making.embed import Teacher, caption_rows, image_rows

# Weights of a large teacher, or more.
_LARGE = 50_000_000
_ROWS_OF_A_LARGE_ONE = 16


class Lanes(AbstractContextManager):
    """Embeds several batches at once, each on a thread of its own. `depth` batches keep them busy.

    On a CPU each lane computes on one core. All cores on one batch would wait for the slowest of them after each
    product, and a core that other work shares, such as decoding, is slow.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher, self._threads = fitted(teacher), torch.get_num_threads()
        cpu = teacher.device.type == "cpu"
        count = self._threads if cpu else 2
        self.depth = count + 1
        self._pool = ThreadPoolExecutor(count, initializer=compute_on_one_core if cpu else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        # What a lane asked for became the default of threads that start later.
        torch.set_num_threads(self._threads)

    def embed(
        self, pixels: Sequence[np.ndarray], captions: Sequence[str] | np.ndarray
    ) -> Future[tuple[np.ndarray, np.ndarray]]:
        """What `embed_batch` gives, when it is there."""
        return self._pool.submit(embed_batch, self._teacher, pixels, captions)


def embed_batch(
    teacher: Teacher, pixels: Sequence[np.ndarray], captions: Sequence[str] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The embeddings of a batch's images and captions: two (B, D) float16, unit rows.

    pixels: as embed_pixels takes them, one by one. captions: or their tokens, as caption_rows takes them.
    """
    image = image_rows(teacher, torch.from_numpy(np.stack(pixels)))
    text = caption_rows(teacher, captions)
    return image.cpu().numpy(), text.cpu().numpy()


def rows_at_once(teacher: Teacher, batch_size: int) -> int:
    """Pairs to a lane's batch, given those that were asked for.

    A large teacher is as quick on a core with 16 of them, takes less memory so, and leaves fewer cores idle at a
    shard's end. A small one is quicker with more.
    """
    large = sum(weights.numel() for weights in teacher.model.parameters()) > _LARGE
    return min(batch_size, _ROWS_OF_A_LARGE_ONE) if large and teacher.device.type == "cpu" else batch_size


def fitted(teacher: Teacher) -> Teacher:
    """The teacher with its weights rounded once, where they would be for every batch: bf16 on a CPU. Else itself.

    Measured for ViT-B-32: twice as fast as float32, and four times as fast as rounding them for every batch.
    """
    if teacher.precision != "bf16" or teacher.device.type != "cpu":
        return teacher
    rounded: dict[int, Any] = {id(weights): weights for weights in teacher.model.parameters()}
    for module in teacher.model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            for weights in module.parameters(recurse=False):
                if weights.ndim > 1:
                    # Of weights that want no gradient torch makes a copy for each place of a sequence (`should_fold`).
                    rounded[id(weights)] = nn.Parameter(weights.detach().bfloat16(), requires_grad=True)
    return replace(teacher, model=copy.deepcopy(teacher.model, rounded))


def compute_on_one_core() -> None:
    """For a new thread: its torch starts no others."""
    torch.set_num_threads(1)
