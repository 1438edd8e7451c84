"""How near does `embed` come to the teacher's own speed, what does it hold in memory, how quickly is an image found?"""

from __future__ import annotations

import io
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import process
from benchmarks.table import Row
from clipsel_core.pool.ahead import in_batches
from clipsel_core.pool.embed import Teacher, framing_of, load_teacher
from clipsel_core.pool.embed_shard import Embedder
from clipsel_core.pool.images import ImageIndex
from clipsel_core.pool.packing import TarPacker, new_tar
from clipsel_core.pool.prepare import Preparer
from clipsel_core.pool.sources.look import open_source
from clipsel_core.pool.sources.record import Record, Source

_SMALL_CONVOLUTIONAL = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 48, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "patch_size": None},
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
_PICTURES, _SIDE, _BATCH, _WORKERS = 250, 500, 64, 4
_FEW, _MANY = 1000, 5000
_LARGE_TAR = 10**9


def measure(pairs: int = _MANY, turns: int = 10) -> list[Row]:
    """Rows for both teachers, for memory, and for finding one image of a large tar."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = root / "small-convolutional.json"
        config.write_text(json.dumps(_SMALL_CONVOLUTIONAL))
        _write_source(root / "many" / "0.tar", pairs)
        source = open_source(root / "many")
        rows = []
        for model in ("ViT-B-32", str(config)):
            rows += _speed_rows(Path(model).stem, load_teacher(model), source, pairs, turns)
        rows.append(_memory_row(root, config, pairs))
        rows += _access_rows(root)
    return rows


def _speed_rows(name: str, teacher: Teacher, source: Source, pairs: int, turns: int) -> list[Row]:
    """Embedding and the model alone take turns on the same stretches of pairs."""
    records = list(source.read(0))
    shares, rates, floors = [], [], []
    with Embedder(teacher, source, workers=_WORKERS, batch_size=_BATCH, most_pixels=10**8) as embedder:
        _embed_seconds(embedder, records[:_BATCH])
        for turn in islice(in_batches(records, max(1, pairs // turns)), turns):
            batches = list(_batches(teacher, source, turn))
            whole, alone = _embed_seconds(embedder, turn), _forward_seconds(teacher, batches)
            shares.append(alone / whole)
            rates.append(len(turn) / whole)
            decoding = _decode_seconds(teacher, source, turn[:_BATCH])
            floors.append(alone / (alone + decoding * len(turn) / _WORKERS))
    share, bound = statistics.median(shares), statistics.median(floors)
    found = f"{share:.2f} ({statistics.median(rates):.0f} pairs/s)"
    return [
        Row(f"`embed` with {name}, share of the model's own rate", found, ">= 0.9", share >= 0.9),
        Row(f"the same, if decoding on the same {_WORKERS} cores were all that it adds", f"{bound:.2f}"),
    ]


def _embed_seconds(embedder: Embedder, records: Sequence[Record]) -> float:
    start = time.perf_counter()
    embedder.embed(iter(records), lambda record: None, lambda kept, data: None)
    return time.perf_counter() - start


@torch.inference_mode()
def _forward_seconds(teacher: Teacher, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """The model alone, on pixels and tokens that are ready."""
    start = time.perf_counter()
    for pixels, tokens in batches:
        teacher.model.encode_image(pixels, normalize=True)
        teacher.model.encode_text(tokens, normalize=True)
    return time.perf_counter() - start


def _decode_seconds(teacher: Teacher, source: Source, records: Sequence[Record]) -> float:
    """What preparing an image costs one core."""
    preparer = _preparer(teacher, source)
    start = time.perf_counter()
    preparer.all(records)
    return (time.perf_counter() - start) / len(records)


def _preparer(teacher: Teacher, source: Source) -> Preparer:
    framing = framing_of(teacher)
    assert framing is not None
    return Preparer(source.base, framing, framing.enough, 10**8)


def _batches(
    teacher: Teacher, source: Source, records: Sequence[Record]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for batch in in_batches(records, _BATCH):
        prepared = _preparer(teacher, source).all(batch)
        pixels = torch.from_numpy(np.stack([item.pixels for item in prepared if not isinstance(item, str)]))
        floats = pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)
        yield floats, teacher.tokenizer([record.caption for record in batch])


def _memory_row(root: Path, config: Path, pairs: int) -> Row:
    few = min(_FEW, pairs // 5)
    _write_source(root / "few" / "0.tar", few)
    peaks = []
    for name in ("few", "many"):
        options = ["--model", str(config), "--arch", "a", "--shard-size", str(few), "--workers", str(_WORKERS)]
        peaks.append(
            process.measure("clipsel_core", "embed", str(root / name), str(root / f"{name}-pool"), *options)[1]
        )
    said = f"{peaks[0]:.0f} and {peaks[1]:.0f} MiB"
    return Row(f"`embed`, peak with {few:,} and {pairs:,} pairs", said, "+5 %", peaks[1] / peaks[0] <= 1.05)


def _access_rows(root: Path) -> list[Row]:
    tar = root / "large.tar"
    uids = []
    with new_tar(tar) as packer:
        while packer.offset < _LARGE_TAR:
            uids.append(f"{packer.count:032x}")
            _add(packer)
    index = ImageIndex.open([tar], root / "index.parquet")
    times = []
    for place in np.random.default_rng(0).integers(0, len(uids), 200):
        start = time.perf_counter()
        assert index.read(uids[place])
        times.append(1000 * (time.perf_counter() - start))
    slowest = max(times)
    found = f"{statistics.median(times):.2f} ms, {slowest:.2f} at most"
    return [Row(f"one image of a 1 GB tar of {len(uids):,} pairs by uid", found, "<= 5 ms", slowest <= 5)]


def _write_source(path: Path, pairs: int) -> None:
    path.parent.mkdir()
    with new_tar(path) as packer:
        for _ in range(pairs):
            _add(packer)


def _add(packer: TarPacker) -> None:
    number = packer.count
    caption = f"photograph {number} of a harbour at dusk, with boats and people on the quay"
    picture = _pictures()[number % _PICTURES]
    packer.add(f"{number:09d}", picture, caption, {"uid": f"{number:032x}", "caption": caption})


@cache
def _pictures() -> list[bytes]:
    """JPEGs of 500 x 500 pixels with the detail of photographs."""
    generator, made = np.random.default_rng(0), list[bytes]()
    for _ in range(_PICTURES):
        coarse = [Image.fromarray(generator.integers(0, 256, (side, side, 3), np.uint8)) for side in (4, 16, 64)]
        layers = [np.asarray(layer.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), np.float32) for layer in coarse]
        mixed = 0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2] + generator.normal(0, 6, (_SIDE, _SIDE, 1))
        file = io.BytesIO()
        Image.fromarray(np.uint8(np.clip(mixed, 0, 255))).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made
