"""How do images and captions become embeddings? With any open_clip model, in batches."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
import open_clip
import torch
from huggingface_hub import constants
from PIL import Image
from torchvision.transforms import CenterCrop, Normalize, Resize, ToTensor

from clipsel_core.errors import TeacherError
from clipsel_core.pool.layout import TeacherInfo
from clipsel_core.pool.making.decode import Framing, Tokens
from clipsel_core.tasks import in_batches

Precision = Literal["float32", "bf16", "fp16"]

_HUB_PATIENCE_S = 5
# What the hub's library, transformers and open_clip say, each in its way, where a file is not at hand.
_MISSED = ("offline", "connect", "download", "cache")


@dataclass(frozen=True)
class Teacher:
    """A CLIP ready to embed, with the preprocessing and the tokenizer that belong to it.

    precision: what it multiplies in; its weights stay float32, and embeddings are scaled to unit length in float32.
    """

    model: open_clip.CLIP
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Callable[[Sequence[str]], torch.Tensor]
    device: torch.device
    precision: Precision = "float32"

    @property
    def temperature(self) -> float:
        """What the teacher was trained to divide its cosines by: 0.01 for OpenAI's CLIP."""
        return float((-self.model.logit_scale.detach().float()).exp())


def load_teacher(model: str, *, pretrained: str | None = None, device: str = "cpu", precision: str = "auto") -> Teacher:
    """Load a CLIP for inference.

    precision: float32, bf16, fp16, or auto: on a GPU the fastest of them that it has, else float32; see precision.py.

    model, pretrained: names as open_clip knows them (`open_clip.list_pretrained()`), `pretrained` also as the path of a
    checkpoint, and `model` as that of an open_clip configuration (.json); or either of them `local-dir:FOLDER` for a
    folder with `open_clip_config.json` and a checkpoint. Without `pretrained` the weights are random, always the same.
    Raises: TeacherError where open_clip cannot load it, or the device cannot compute in this precision.

    >>> load_teacher("ViT-B-32", pretrained="laion2b_s34b_b79k")  # doctest: +SKIP
    """
    where = torch.device(device)
    computed = _precision(precision, where)
    asked = " ".join(filter(None, (model, pretrained)))
    try:
        name, pretrained = _named(model, pretrained)
        with reached_or_cached() if _is_in_hub(name, pretrained) else nullcontext():
            # First: it is soon there, or soon missed where it has to be downloaded.
            tokenizer = open_clip.get_tokenizer(name)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                # A text tower of Hugging Face's would bring weights of its own, if no checkpoint is named: all or none.
                network, _, preprocess = open_clip.create_model_and_transforms(
                    name,
                    pretrained=pretrained,
                    device=device,
                    require_pretrained=bool(pretrained) or ":" in name,
                    pretrained_text=False,
                )
        return Teacher(network.eval(), preprocess, tokenizer, where, computed)
    except Exception as error:
        # Configurations and checkpoints come from anywhere; open_clip, torch and safetensors each fail in their way.
        found = (str(error) or type(error).__name__).split("\n")[0][:300]
        remedy = "see open_clip.list_pretrained(), or give local-dir:FOLDER"
        if "huggingface.co" in found:
            remedy = "once it was downloaded it is kept; or give local-dir:FOLDER with its tokenizer and configuration"
        raise TeacherError(asked, expected="a teacher that open_clip can load", found=found, remedy=remedy) from error


def framing_of(teacher: Teacher) -> Framing | None:
    """How the teacher's preprocessing cuts and scales a picture, or None where it does so in ways of its own."""
    steps = list(getattr(teacher.preprocess, "transforms", []))
    if not (len(steps) >= 3 and isinstance(steps[0], Resize) and isinstance(steps[-1], Normalize)):
        return None
    if not isinstance(steps[-2], ToTensor):
        return None
    resize, resample = steps[0], Image.Resampling[steps[0].interpolation.name]
    if isinstance(resize.size, int | float) or len(resize.size) == 1:
        crop, side = steps[1], int(np.ravel(resize.size)[0])
        if not isinstance(crop, CenterCrop) or tuple(crop.size) != (side, side):
            return None
        return Framing(side, side, squash=False, resample=resample)
    height, width = resize.size
    return Framing(width, height, squash=True, resample=resample)


def weights_digest(teacher: Teacher) -> str:
    """32 hex digits that differ where any weight of two teachers does."""
    digest = blake2b(digest_size=16)
    for name, value in sorted(teacher.model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def teacher_info(teacher: Teacher, model: str, pretrained: str | None) -> TeacherInfo:
    """A teacher as pools remember it. model, pretrained: as load_teacher was given them; paths from the root on."""
    known = _known(model)
    return TeacherInfo(
        model=_from_the_root(model, known),
        pretrained=pretrained and _from_the_root(pretrained, known),
        temperature=float(f"{teacher.temperature:.6g}"),
        weights=weights_digest(teacher),
        precision=teacher.precision,
    )


def embed_images(teacher: Teacher, images: Iterable[Image.Image], *, batch_size: int = 256) -> np.ndarray:
    """Embed images, reading no more than a batch of them at a time. Returns (N, D) float16, rows of unit length."""
    rows = [
        embed_pixels(teacher, torch.stack([teacher.preprocess(image) for image in batch]))
        for batch in in_batches(images, batch_size)
    ]
    return np.concatenate(rows or [np.empty((0, 0), np.float16)])


def embed_pixels(teacher: Teacher, pixels: torch.Tensor) -> np.ndarray:
    """Embed a batch of images. Returns (B, D) float16, rows of unit length.

    pixels: (B, 3, H, W) float32 as the teacher's preprocessing leaves them, or (B, H, W, 3) uint8 as Framing does:
        a quarter as much to send to a device, which turns them into floats itself.
    """
    return _image_rows(teacher, pixels).cpu().numpy()


def embed_captions(teacher: Teacher, captions: Iterable[str], *, batch_size: int = 256) -> np.ndarray:
    """Embed captions, cut where the teacher's context ends. Returns (N, D) float16, rows of unit length."""
    rows = [_caption_rows(teacher, batch).cpu().numpy() for batch in in_batches(captions, batch_size)]
    return np.concatenate(rows or [np.empty((0, 0), np.float16)])


def embed_batch(
    teacher: Teacher, pixels: Sequence[np.ndarray], captions: Sequence[str] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Embed a batch's images and captions. Returns two (B, D) float16, rows of unit length.

    pixels: as embed_pixels takes them, one by one. captions: or their tokens, (B, L) int32 as Tokens gives them; where
        None the second has no columns.
    """
    image = _image_rows(teacher, torch.from_numpy(np.stack(pixels)))
    if captions is None:
        return image.cpu().numpy(), np.empty((len(image), 0), np.float16)
    # Both are under way on a device before either is waited for.
    text = _caption_rows(teacher, captions)
    return image.cpu().numpy(), text.cpu().numpy()


def _image_rows(teacher: Teacher, pixels: torch.Tensor) -> torch.Tensor:
    sent = _send(teacher, pixels)
    if sent.dtype == torch.uint8:
        normalize = teacher.preprocess.transforms[-1]  # type: ignore[attr-defined]
        mean, std = (
            torch.as_tensor(value, dtype=torch.float32).to(sent.device).view(1, 3, 1, 1)
            for value in (normalize.mean, normalize.std)
        )
        sent = sent.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
    return _embed(teacher, teacher.model.encode_image, sent)


def _caption_rows(teacher: Teacher, captions: Sequence[str] | np.ndarray) -> torch.Tensor:
    tokens = captions if isinstance(captions, np.ndarray) else Tokens(teacher.tokenizer)(captions)
    return _embed(teacher, teacher.model.encode_text, _send(teacher, torch.from_numpy(tokens)).long())


def _send(teacher: Teacher, inputs: torch.Tensor) -> torch.Tensor:
    """The inputs on the teacher's device, on their way to it while this process goes on."""
    if teacher.device.type == "cuda":
        inputs = inputs.pin_memory()
    return inputs.to(teacher.device, non_blocking=True)


@torch.inference_mode()
def _embed(teacher: Teacher, encode: Callable[..., torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(teacher.precision)
    with torch.autocast(teacher.device.type, kind) if kind else nullcontext():
        embeddings = encode(inputs)
    return torch.nn.functional.normalize(embeddings.float(), dim=-1).to(torch.float16)


def _precision(asked: str, device: torch.device) -> Precision:
    if asked == "auto":
        if device.type != "cuda":
            return "float32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    known = [name for name in get_args(Precision) if name != "fp16" or device.type != "cpu"]
    found: Precision | None = next((name for name in known if name == asked), None)
    if found is None:
        expected = f"auto, {', '.join(known)} on {device.type}"
        raise TeacherError("--precision", expected=expected, found=asked)
    return found


def _is_in_hub(name: str, pretrained: str | None) -> bool:
    """Whether a teacher has parts that huggingface.co has: all, weights by tag, or a tokenizer or text tower."""
    if ":" in name:
        return name.startswith("hf-hub:")
    text = (open_clip.get_model_config(name) or {}).get("text_cfg", {})
    named = [pretrained, text.get("hf_tokenizer_name"), text.get("hf_model_name")]
    return any(part and not Path(part).exists() for part in named)


def _known(model: str) -> set[str]:
    """The names of open_clip's own models, and of the tags that this one has."""
    return {*open_clip.list_models(), *open_clip.list_pretrained_tags_by_model(model)}


def _from_the_root(name: str, known: set[str]) -> str:
    """A model or a checkpoint as it is found from any folder."""
    path = name.removeprefix("local-dir:")
    if path == name and (name in known or not Path(name).exists()):
        return name
    return f"{'local-dir:' * (path != name)}{Path(path).absolute()}"


def _named(model: str, pretrained: str | None) -> tuple[str, str | None]:
    """Both names as open_clip takes them. Raises: ValueError, FileNotFoundError where it has no such model or tag."""
    known = _known(model)
    for given in (pretrained, model):
        # A folder that happens to be called as a tag is, `openai`, is not what was meant.
        if given and (given.startswith("local-dir:") or (given not in known and Path(given).is_dir())):
            return "local-dir:" + given.removeprefix("local-dir:"), None
    if model.endswith(".json"):
        if not Path(model).is_file():
            raise FileNotFoundError(f"no such file {model}")
        open_clip.add_model_config(Path(model))
        model = Path(model).stem
        if model not in open_clip.list_models():
            raise ValueError("a file without embed_dim, vision_cfg and text_cfg")
    if ":" not in model:
        models, tags = open_clip.list_models(), open_clip.list_pretrained_tags_by_model(model)
        if model.replace("/", "-") not in models:
            like = ", ".join(get_close_matches(model, models, 3, 0.5))
            raise ValueError("no model of that name" + (f", but {like}" if like else ""))
        if pretrained and pretrained.lower().replace("-", "_") not in tags and not Path(pretrained).exists():
            there = f"; {model} has {', '.join(tags)}" if tags else ""
            raise ValueError(f"neither a tag nor a file {pretrained}{there}")
    return model, pretrained


@contextmanager
def reached_or_cached() -> Iterator[None]:
    """Within it, the library of huggingface.co does without the network where there is none.

    It would ask for each file six times in half a minute, and open_clip for two files or more.
    Raises: ConnectionError where something is missed that only the hub has.
    """
    # Through a proxy a connection says nothing of the hub.
    as_usual = constants.HF_HUB_OFFLINE or bool(getproxies())
    if not as_usual:
        endpoint = urlsplit(constants.ENDPOINT)
        with suppress(OSError):
            port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
            socket.create_connection((endpoint.hostname or "", port), timeout=_HUB_PATIENCE_S).close()
            as_usual = True
    if as_usual:
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    except Exception as error:
        if not any(word in str(error).lower() for word in _MISSED):
            raise
        host = endpoint.hostname
        raise ConnectionError(f"no connection to {host}, and not all of it was downloaded before") from error
    finally:
        constants.HF_HUB_OFFLINE = False
