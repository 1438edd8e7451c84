"""How near does `embed` come to the teacher's own speed, what does it hold in memory, how quickly is an image found?"""

from __future__ import annotations

import io
import json
import multiprocessing
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from itertools import dropwhile, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import embed_device, process
from benchmarks.decoding import decode_all, wanted_of
from benchmarks.table import Row
from benchmarks.turns import median_ratio
from clipsel_core.pool.images import ImageIndex
from clipsel_core.pool.making.decode import Framing
from clipsel_core.pool.making.decoders import Preparer
from clipsel_core.pool.making.embed import Teacher, framing_of, load_teacher
from clipsel_core.pool.making.embedder import Embedder, compute_on_one_core, lane_batch_size, try_bf16
from clipsel_core.pool.making.packing import TarPacker, new_tar
from clipsel_core.pool.sources.look import open_source
from clipsel_core.pool.sources.record import Record, Source
from clipsel_core.tasks import in_batches

_Ready = Mapping[str, list[tuple[torch.Tensor, torch.Tensor]]]
"""A turn's batches of floats and tokens, as each way of running the model alone takes them."""

_SMALL_CONVOLUTIONAL = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 48, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "patch_size": None},
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
_PICTURES, _SIDE, _BATCH, _WORKERS = 250, 500, 64, 4
_FEW, MANY = 1000, 5000
# open_clip's smallest transformer, its smallest teacher of convolutions alone, and its smallest hybrid. They embed some
# twenty pairs a second: of the pairs each gets so many, a part of them in each turn.
LARGE = {"embed-vit": "ViT-B-32", "embed-rn50": "RN50", "embed-mobile": "MobileCLIP2-S0"}
FOR_A_LARGE_ONE = 512
_LARGE_TAR = 10**9

PARTS = ("embed-device", *LARGE, "embed-small", "embed-memory", "embed-image")


def measure(parts: Sequence[str] = PARTS, turns: int = 7, large: int = FOR_A_LARGE_ONE) -> list[Row]:
    """Rows for large teachers and a small one, for memory, and for finding one image of a large tar.

    large: pairs that a large teacher goes through, at most MANY, in up to three turns. The small one goes through
    all of them in each turn.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = root / "small-convolutional.json"
        config.write_text(json.dumps(_SMALL_CONVOLUTIONAL))
        _write_source(root / "many" / "0.tar", MANY)
        records = list((source := open_source(root / "many")).read(0))
        few = min(turns, 3)
        measured: dict[str, Callable[[], list[Row]]] = {
            "embed-device": lambda: embed_device.rows(source, records, _light_source(root), turns),
            **{
                part: partial(_speed_rows, model, source, list(in_batches(records[:large], -(-large // few))))
                for part, model in LARGE.items()
            },
            "embed-small": lambda: _speed_rows(str(config), source, [records] * turns),
            "embed-memory": lambda: [_memory_row(root, config)],
            "embed-image": lambda: _access_rows(root),
        }
        return [row for part in parts for row in measured[part]()]


def _speed_rows(model: str, source: Source, turns: Sequence[Sequence[Record]]) -> list[Row]:
    """Embedding, the model alone and decoding alone take turns on the same pairs. turns: the pairs of each turn."""
    teacher = load_teacher(model)
    times: dict[str, list[float]] = defaultdict(list)
    ready: _Ready = {}
    with ExitStack() as opened:
        contenders = _contenders(teacher, source, opened)
        warm = turns[0][:_BATCH]
        for turn, before in zip([warm, *turns], [None, warm, *turns], strict=False):
            if turn is not before:
                ready = _ready(teacher, source, turn)
            for what, run in contenders.items():
                start = time.perf_counter()
                run(turn, ready)
                if turn is not warm:
                    times[what].append((time.perf_counter() - start) / len(turn))
    pixels, captions = _pixels(teacher, source, warm)
    pairs = len({record.key for turn in turns for record in turn})
    return _rows_of(Path(model).stem, pairs, times, try_bf16(teacher, pixels, captions).furthest)


def _contenders(
    teacher: Teacher, source: Source, opened: ExitStack
) -> dict[str, Callable[[Sequence[Record], _Ready], object]]:
    """What takes turns, by name; each goes through all pairs of a turn."""
    exact, rounded = (
        opened.enter_context(Embedder(each, source, workers=_WORKERS, batch_size=_BATCH, most_pixels=10**8))
        for each in (teacher, replace(teacher, precision="bf16"))
    )
    cores = opened.enter_context(ThreadPoolExecutor(_WORKERS, initializer=compute_on_one_core))
    decoders = opened.enter_context(ProcessPoolExecutor(_WORKERS, multiprocessing.get_context("forkserver")))
    forward, preparer = partial(_forward, teacher), _preparer(source, framing_of(teacher))
    return {
        "embed": lambda turn, ready: exact.embed(_read_anew(source, turn), lambda *_: None, lambda *_: None),
        "model": lambda turn, ready: [forward(batch) for batch in ready["model"]],
        "a batch a core": lambda turn, ready: list(cores.map(forward, ready["a batch a core"])),
        "decoding": lambda turn, ready: decode_all(decoders, preparer, turn),
        "bf16": lambda turn, ready: rounded.embed(_read_anew(source, turn), lambda *_: None, lambda *_: None),
    }


def _read_anew(source: Source, turn: Sequence[Record]) -> Iterator[Record]:
    """The same records as the source gives them, for reading its tar belongs to embedding."""
    return islice(dropwhile(lambda record: record.key != turn[0].key, source.read(0)), len(turn))


def _rows_of(name: str, pairs: int, times: Mapping[str, list[float]], furthest: float) -> list[Row]:
    """The figures of a teacher. times: seconds a pair by what took them, a figure a turn."""
    own, fastest = median_ratio(times["model"], times["embed"]), median_ratio(times["a batch a core"], times["embed"])
    both = [one + other for one, other in zip(times["a batch a core"], times["decoding"], strict=True)]
    rates = {what: 1 / statistics.median(seconds) for what, seconds in times.items()}
    of_both = median_ratio(both, times["embed"])
    quicker = median_ratio(times["embed"], times["bf16"])
    return [
        Row(
            f"`embed` with {name}, {pairs:,} pairs, share of the model's own rate, all cores on a batch of {_BATCH}",
            f"{own:.2f} ({rates['embed']:,.0f} of {rates['model']:,.0f} pairs/s)",
            ">= 0.9",
            own >= 0.9,
        ),
        Row(
            "the same, of the model's rate with a batch a core",
            f"{fastest:.2f} (of {rates['a batch a core']:,.0f} pairs/s)",
        ),
        Row(
            f"the same, of what {_WORKERS} cores can do that decode ({rates['decoding']:,.0f} pairs/s) and compute",
            f"{of_both:.2f}",
            ">= 0.9",
            of_both >= 0.9,
        ),
        Row("the same in bf16, rate against float32", f"{quicker:.2f}x ({rates['bf16']:,.0f} pairs/s)"),
        Row(
            f"the same in bf16, largest 1 - cosine with float32, {_BATCH} pairs",
            f"{furthest:.1e}",
            "<= 2e-3",
            furthest <= 2e-3,
        ),
    ]


@torch.inference_mode()
def _forward(teacher: Teacher, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The model alone, on pixels and tokens that are ready."""
    pixels, tokens = batch
    teacher.model.encode_image(pixels, normalize=True)
    teacher.model.encode_text(tokens, normalize=True)


def _preparer(source: Source, framing: Framing | None) -> Preparer:
    assert framing is not None
    return Preparer(source.base, framing, framing.enough, 10**8)


def _pixels(teacher: Teacher, source: Source, records: Sequence[Record]) -> tuple[list[np.ndarray], list[str]]:
    prepared = map(_preparer(source, framing_of(teacher)), wanted_of(records))
    pixels = [item.pixels for item in prepared if not isinstance(item, str) and item.pixels is not None]
    return pixels, [record.caption for record in records]


def _ready(teacher: Teacher, source: Source, records: Sequence[Record]) -> _Ready:
    """Pixels and tokens for the model alone: as a loop over open_clip has them, and as `embed` has them."""
    pixels, captions = _pixels(teacher, source, records)

    def batches(size: int, layout: torch.memory_format) -> list[tuple[torch.Tensor, torch.Tensor]]:
        made = []
        for some, said in zip(in_batches(pixels, size), in_batches(captions, size), strict=True):
            floats = torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2).float().div_(255)
            made.append((floats.contiguous(memory_format=layout), teacher.tokenizer(said)))
        return made

    return {
        "model": batches(_BATCH, torch.contiguous_format),
        "a batch a core": batches(lane_batch_size(teacher, _BATCH), torch.channels_last),
    }


def _memory_row(root: Path, config: Path) -> Row:
    _write_source(root / "few" / "0.tar", _FEW)
    peaks = []
    for name in ("few", "many"):
        options = ["--model", str(config), "--arch", "a", "--shard-size", str(_FEW), "--workers", str(_WORKERS)]
        peaks.append(
            process.measure("clipsel_core", "embed", str(root / name), str(root / f"{name}-pool"), *options)[1]
        )
    said = f"{peaks[0]:.0f} and {peaks[1]:.0f} MiB"
    return Row(
        f"`embed`, peak with {_FEW:,} and {MANY:,} pairs, shards of {_FEW:,}",
        said,
        "+5 %",
        peaks[1] / peaks[0] <= 1.05,
    )


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


def _light_source(root: Path) -> Source:
    """Pairs whose pictures are as large as a teacher wants them, and smooth: hardly any work to decode."""
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).resize((224, 224))
    file = io.BytesIO()
    smooth.save(file, "JPEG", quality=50)
    _write_source(root / "light" / "0.tar", 2 * MANY, [file.getvalue()])
    return open_source(root / "light")


def _write_source(path: Path, pairs: int, pictures: Sequence[bytes] = ()) -> None:
    path.parent.mkdir()
    with new_tar(path) as packer:
        for _ in range(pairs):
            _add(packer, pictures)


def _add(packer: TarPacker, pictures: Sequence[bytes] = ()) -> None:
    number, pictures = packer.count, pictures or _pictures()
    caption = f"photograph {number} of a harbour at dusk, with boats and people on the quay"
    picture = pictures[number % len(pictures)]
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
