"""How do images and captions become embeddings? With any open_clip model, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import open_clip
import torch
from PIL import Image

from clipsel_core.errors import TeacherError

# Characters of a caption that are tokenized, for each token that the teacher takes. Of a word of 100 kB the tokenizer
# would otherwise join letters for hours, to keep 77 tokens of it.
_CHARACTERS_A_TOKEN = 32

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
    checkpoint, and `model` as that of an open_clip configuration (.json); or either of them `local-dir:FOLDER` for a
    folder with `open_clip_config.json` and a checkpoint. Without `pretrained` the weights are random, always the same.
    Raises: TeacherError where open_clip cannot load it.

    >>> load_teacher("ViT-B-32", pretrained="laion2b_s34b_b79k")  # doctest: +SKIP
    """
    try:
        name, pretrained = _named(model, pretrained)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network, _, preprocess = open_clip.create_model_and_transforms(
                name, pretrained=pretrained, device=device, require_pretrained=bool(pretrained) or ":" in name
            )
        return Teacher(network.eval(), preprocess, open_clip.get_tokenizer(name), torch.device(device))
    except Exception as error:
        # Configurations and checkpoints come from anywhere; open_clip, torch and safetensors each fail in their way.
        found = (str(error) or type(error).__name__).split("\n")[0][:300]
        where = " ".join(filter(None, (model, pretrained)))
        remedy = "see open_clip.list_pretrained(), or give local-dir:FOLDER"
        raise TeacherError(where, expected="a teacher that open_clip can load", found=found, remedy=remedy) from error


def weights_digest(teacher: Teacher) -> str:
    """32 hex digits that differ where any weight of two teachers does."""
    digest = blake2b(digest_size=16)
    for name, value in sorted(teacher.model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def embed_images(teacher: Teacher, images: Iterable[Image.Image], *, batch_size: int = 256) -> np.ndarray:
    """Embed images, reading no more than a batch of them at a time. Returns (N, D) float16, rows of unit length."""
    rows = [np.empty((0, 0), np.float16)]
    for batch in _batches(images, batch_size):
        rows.append(embed_pixels(teacher, torch.stack([teacher.preprocess(image) for image in batch])))
    return np.concatenate(rows[1:] or rows)


def embed_pixels(teacher: Teacher, pixels: torch.Tensor) -> np.ndarray:
    """Embed a batch of images that are preprocessed already: (B, 3, H, W) to (B, D) float16, rows of unit length."""
    return _embed(teacher, teacher.model.encode_image, pixels)


def embed_captions(teacher: Teacher, captions: Iterable[str], *, batch_size: int = 256) -> np.ndarray:
    """Embed captions, cut where the teacher's context ends. Returns (N, D) float16, rows of unit length."""
    longest = _CHARACTERS_A_TOKEN * getattr(teacher.tokenizer, "context_length", 77)
    rows = [np.empty((0, 0), np.float16)]
    for batch in _batches((caption[:longest] for caption in captions), batch_size):
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


def _named(model: str, pretrained: str | None) -> tuple[str, str | None]:
    """Both names as open_clip takes them."""
    for given in (pretrained, model):
        if given and (given.startswith("local-dir:") or Path(given).is_dir()):
            return "local-dir:" + given.removeprefix("local-dir:"), None
    if model.endswith(".json"):
        if not Path(model).is_file():
            raise FileNotFoundError(f"no such file {model}")
        open_clip.add_model_config(Path(model))
        model = Path(model).stem
        if model not in open_clip.list_models():
            raise ValueError("a file without embed_dim, vision_cfg and text_cfg")
    return model, pretrained
