"""How do images and captions become embeddings? With any open_clip model, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import open_clip
import torch
from PIL import Image

Item = TypeVar("Item")


@dataclass(frozen=True)
class Teacher:
    """A CLIP ready to embed, with the preprocessing and the tokenizer that belong to it.

    width: the embedding width D. temperature: tau, the inverse of the learned logit scale.
    """

    model: open_clip.CLIP
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Callable[[Sequence[str]], torch.Tensor]
    device: torch.device

    @property
    def temperature(self) -> float:
        """What the teacher was trained to divide its cosines by: 0.01 for OpenAI's CLIP."""
        return float((-self.model.logit_scale.detach().float()).exp())


def load_teacher(model: str, *, pretrained: str | None = None, device: str = "cpu") -> Teacher:
    """Load a CLIP for inference.

    model, pretrained: names as open_clip knows them (`open_clip.list_pretrained()`), `pretrained` also as the path of a
    checkpoint; or `local-dir:FOLDER` for a folder with `open_clip_config.json` and a checkpoint.

    >>> load_teacher("ViT-B-32", pretrained="laion2b_s34b_b79k")  # doctest: +SKIP
    """
    network, _, preprocess = open_clip.create_model_and_transforms(model, pretrained=pretrained, device=device)
    return Teacher(network.eval(), preprocess, open_clip.get_tokenizer(model), torch.device(device))


def embed_images(teacher: Teacher, images: Iterable[Image.Image], *, batch_size: int = 256) -> np.ndarray:
    """Embed images, reading no more than a batch of them at a time. Returns (N, D) float16, rows of unit length."""
    rows = [np.empty((0, 0), np.float16)]
    for batch in _batches(images, batch_size):
        pixels = torch.stack([teacher.preprocess(image) for image in batch])
        rows.append(_embed(teacher, teacher.model.encode_image, pixels))
    return np.concatenate(rows[1:] or rows)


def embed_captions(teacher: Teacher, captions: Iterable[str], *, batch_size: int = 256) -> np.ndarray:
    """Embed captions, cut where the teacher's context ends. Returns (N, D) float16, rows of unit length."""
    rows = [np.empty((0, 0), np.float16)]
    for batch in _batches(captions, batch_size):
        rows.append(_embed(teacher, teacher.model.encode_text, teacher.tokenizer(batch)))
    return np.concatenate(rows[1:] or rows)


@torch.inference_mode()
def _embed(teacher: Teacher, encode: Callable[..., torch.Tensor], inputs: torch.Tensor) -> np.ndarray:
    embeddings: torch.Tensor = encode(inputs.to(teacher.device), normalize=True)
    return embeddings.to(torch.float16).cpu().numpy()


def _batches(items: Iterable[Item], batch_size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, batch_size)):
        yield batch
