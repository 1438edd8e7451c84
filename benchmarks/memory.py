"""How much memory does scoring take, and does it grow with the number of shards?"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
from pathlib import Path

import torch

from benchmarks import process
from benchmarks.pools import clip_like_pairs, write_pool
from benchmarks.table import Row, at_most
from clipsel_core.scoring.reductions import log_sum_exp

_FEW, _MANY, _ROWS = 4, 16, 3000


def measure() -> list[Row]:
    """Rows for whole runs with few and with many shards, and for one large batch."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = (_peak_of_run(Path(folder) / str(shards), shards) for shards in (_FEW, _MANY))
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        extra = fresh.apply(_extra_of_batch, (32768,))
    growth = many / few - 1
    return [
        Row(f"`score`, peak with {_FEW} and {_MANY} shards", f"{few:.0f} and {many:.0f} MiB", "+5 %", growth <= 0.05),
        at_most("extra memory for a batch of 32768 float16 pairs, D = 768", extra, 64, " MiB"),
    ]


def _peak_of_run(folder: Path, shards: int) -> float:
    """Peak resident memory of one `score`, MiB."""
    pool = write_pool(folder / "pool", [_ROWS] * shards)
    return process.measure(
        "clipsel_core", "score", str(pool), str(folder / "run"), "--device", "cpu", "--divisions", "2"
    )[1]


def _extra_of_batch(batch_size: int) -> float:
    """What one sweep adds to the resident memory at its highest, MiB."""
    image, text = (torch.from_numpy(rows) for rows in clip_like_pairs(batch_size, seed=1))
    log_sum_exp(image[:4096], text[:4096], temperature=0.01)
    before, highest, done = _resident_mib(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.01):
            highest = max(highest, _resident_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    log_sum_exp(image, text, temperature=0.01)
    done.set()
    watcher.join()
    return max(0.0, highest - before)


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
