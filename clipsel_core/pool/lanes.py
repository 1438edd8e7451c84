"""How do all cores work on one teacher? A batch each, so that none waits for another; a GPU has two batches at hand."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Self

import numpy as np
import torch

from clipsel_core.pool.embed import Teacher, caption_rows, image_rows

_LARGE = 50_000_000
_ROWS_OF_A_LARGE_ONE = 16


class Lanes(AbstractContextManager):
    """Embeds several batches at once, each on a thread of its own. `depth` batches keep them busy.

    On a CPU each lane computes on one core. All cores on one batch would wait for the slowest after each product, and
    cores that others use, such as those that decode, are slow: measured at a sixth of the speed under load.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher, self._threads = teacher, torch.get_num_threads()
        if teacher.device.type == "cpu":
            count, settle = self._threads, _compute_on_one_core
        else:
            count, settle = 2, None
        self.depth = count + 1
        self._pool = ThreadPoolExecutor(count, initializer=settle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        # What a lane asked for became the default of threads that start later.
        torch.set_num_threads(self._threads)

    def embed(self, pixels: Sequence[np.ndarray], captions: Sequence[str]) -> Future[tuple[np.ndarray, np.ndarray]]:
        """The embeddings of a batch's images and captions, when they are there: two (B, D) float16, unit rows."""
        return self._pool.submit(_rows, self._teacher, pixels, captions)


def rows_at_once(teacher: Teacher, batch_size: int) -> int:
    """Pairs to a lane's batch, given those that were asked for.

    A large teacher is as quick on a core with 16 of them, takes less memory so, and leaves fewer cores idle at a
    shard's end. A small one is quicker with more.
    """
    large = sum(weights.numel() for weights in teacher.model.parameters()) > _LARGE
    return min(batch_size, _ROWS_OF_A_LARGE_ONE) if large and teacher.device.type == "cpu" else batch_size


def _rows(teacher: Teacher, pixels: Sequence[np.ndarray], captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    image = image_rows(teacher, torch.from_numpy(np.stack(pixels)))
    text = caption_rows(teacher, captions)
    return image.cpu().numpy(), text.cpu().numpy()


def _compute_on_one_core() -> None:
    torch.set_num_threads(1)
