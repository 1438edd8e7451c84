"""How long does a search wait for the teacher, and how much memory does that cost? On the demo, or any other run.

    python -m benchmarks.searching [RUN]

The dashboard's process that holds the teacher is asked for a first text, which loads it, then for more texts and for
the pictures of as many pairs. Beside it the way without such a process: `encode`, started anew for one text.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.process import measure
from benchmarks.serving import Served
from clipsel_core import uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.jobs.encoders import TeacherName, encoder_of, end_all
from clipsel_core.pool.images import open_images
from clipsel_core.pool.layout import find_teacher, open_pool
from clipsel_core.runs.store import Run

_TIMES = 20
_DEMO = Path(__file__).parents[1] / "data" / "demo" / "run"


def main() -> None:
    """Prints a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, nargs="?", default=_DEMO)
    run = Run.open(parser.parse_args().run)
    found = find_teacher(run.pool_root, run.config.arch)
    if found is None:
        parser.error("nobody says which model embedded the pool")
    encoder = encoder_of(TeacherName(*found, run.config.width))
    with TemporaryDirectory() as folder:
        anew, _ = measure("clipsel_core", "encode", str(run.root), "--text=a text", f"--out={folder}/text.npy")
        pictures = _pictures(run, Path(folder))
    first = _seconds(encoder.text("two red birds"))
    texts = [_seconds(encoder.text(f"text number {number}")) for number in range(_TIMES)]
    seen = [_seconds(encoder.image(data)) for data in pictures]
    print(f"{'a process of its own for one text':<36}{anew:9.3f} s")
    print(f"{'the first text, the teacher loaded':<36}{first:9.3f} s")
    print(f"{'another text, median and longest':<36}{statistics.median(texts):9.4f} s{max(texts):9.4f} s")
    if seen:
        print(f"{'a picture, median and longest':<36}{statistics.median(seen):9.4f} s{max(seen):9.4f} s")
    if encoder.pid is not None:
        print(f"{'memory of the process at its highest':<36}{Served('', encoder.pid).memory_mib()[1]:9,.0f} MiB")
    print(f"{'load of the machine':<36}{os.getloadavg()[0]:9.1f}")
    end_all()


def _pictures(run: Run, cache: Path) -> list[bytes]:
    """The encoded images of a few pairs; none where the pool has none."""
    images = open_images(open_pool(run.pool_root), cache)
    names = uids.to_hex(ScoreTable.open(run).uids_at(np.arange(_TIMES))).to_pylist()
    read = [images.read(name) for name in names] if images else []
    return [data for data in read if data]


def _seconds(answer: Future[np.ndarray]) -> float:
    start = time.perf_counter()
    answer.result()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
