"""Small sources of pictures and captions, good and bad, and a tiny teacher, for whoever tests making pools of them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import save_file

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {},
}


def write_teacher(folder: Path, seed: int) -> Path:
    """A random open_clip model as a folder that `local-dir:` takes."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**CONFIG["model_cfg"])
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def drawn(number: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A picture of its own for each number, coarse enough to survive a JPEG."""
    values = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size)


def encoded(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def image(number: int, kind: str = "JPEG") -> bytes:
    return encoded(drawn(number), kind)


def caption(number: int) -> str:
    return f"caption number {number}"


def write_tar(path: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Path:
    """members: contents by name, or pairs of both where a name is repeated."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def sample(number: int, kind: str = "JPEG", **facts: Any) -> dict[str, bytes]:
    """A pair as img2dataset writes it."""
    key = f"{number:09d}"
    ending = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[kind]
    facts = {"caption": caption(number), "key": key, "url": f"https://example.org/{number}", **facts}
    text = {f"{key}.txt": caption(number).encode(), f"{key}.json": json.dumps(facts).encode()}
    return {f"{key}.{ending}": image(number, kind), **text}


def write_tars(folder: Path, counts: tuple[int, ...] = (5, 4), **facts: Any) -> Path:
    """Tars of so many pairs each; pairs are numbered through."""
    number = 0
    for tar, count in enumerate(counts):
        members: dict[str, bytes] = {}
        for _ in range(count):
            members |= sample(number, ("JPEG", "PNG", "WEBP")[number % 3], **facts)
            number += 1
        write_tar(folder / f"{tar:05d}.tar", members)
    return folder


def save_to_disk(folder: Path, numbers: Iterable[int], files: int = 2, kind: str = "JPEG", **state: Any) -> Path:
    """A data set as Hugging Face's `datasets` saves it: streams of Arrow and what describes them."""
    folder.mkdir(parents=True)
    names = [f"data-{part:05d}-of-{files:05d}.arrow" for part in range(files)]
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    for part, name in enumerate(names):
        some = list(numbers)[part::files]
        images = pa.array([{"bytes": image(n, kind), "path": f"{n}.jpg"} for n in some], struct)
        table = pa.table({"uid": [f"{n:032x}" for n in some], "image": images, "text": [caption(n) for n in some]})
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            for batch in table.to_batches(max_chunksize=2):
                stream.write_batch(batch)
    state = {"_data_files": [{"filename": name} for name in names], "_format_type": None, "_split": "train", **state}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}, "splits": {}}))
    # What a later map() leaves there.
    (folder / "cache-0123456789abcdef.arrow").write_bytes(b"none of the data set's")
    return folder
