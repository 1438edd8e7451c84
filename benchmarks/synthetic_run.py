"""Writes a run folder with CLIP-like scores straight away, without a pool being scored: for benchmarks and tests.

    python -m benchmarks.synthetic_run DIR --rows 12800000 --shards 128

makes DIR/run and, unless --no-pool, DIR/pool with the matching metadata (uid, url, text, fault). With --on-map M the
run has a map of M pairs, and those and the first and last pairs by each metric have images, drawn from a small stock.
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.synthetic_map import add_map
from clipsel_core import uids
from clipsel_core.files import write_json
from clipsel_core.runs.store import Run, RunConfig, ShardInfo, TargetInfo, digest_of, score_file, sealed, write_config
from clipsel_core.tasks import allowed_cores

METRICS = ("clip_score", "s_cliploss", "r_image", "r_text", "normalizer_se", "normsim_inf_task", "normsim_2_task")
_FAULTS = np.array(["none", "wrong caption", "generic caption", "near duplicate"])
_WORDS = np.array(
    ["a", "the", "of", "for", "with", "red", "blue", "photo", "house", "dog", "car", "poster", "vintage", "new"]
)
# Below that many rows starting processes takes longer than writing.
_FEWEST_IN_PROCESSES = 1_000_000


def write_run(
    root: Path,
    *,
    rows: int,
    shards: int,
    seed: int = 0,
    bad: float = 0.0,
    decimals: int | None = None,
    pool: bool = True,
    targets: int = 1,
) -> Path:
    """Writes root/run (and root/pool), on all cores where it is large; returns root/run. Same arguments, same bytes.

    rows: pairs in all, spread over the shards so that sizes differ by one at most.
    bad: share of pairs set aside (NaN in every metric). decimals: rounds scores, so that many pairs tie; None leaves
    them as they are. pool: whether to write the metadata that captions are read from. targets: two columns each.
    """
    run = root / "run"
    (run / "scores").mkdir(parents=True)
    sizes = [rows // shards + (index < rows % shards) for index in range(shards)]
    config = _config([ShardInfo(name=_name(index), rows=size) for index, size in enumerate(sizes)], rows, seed, targets)
    write = partial(
        _write_shard, root, config.targets, seed=seed, bad=bad, decimals=decimals, pool=pool, digest=digest_of(config)
    )
    if rows < _FEWEST_IN_PROCESSES:
        skipped = list(map(write, range(shards), sizes))
    else:
        with ProcessPoolExecutor(allowed_cores(), multiprocessing.get_context("spawn")) as processes:
            skipped = list(processes.map(write, range(shards), sizes))
    write_config(run, config.model_copy(update={"skipped_rows": sum(skipped)}))
    status = {"state": "done", "pairs_done": rows, "pairs_total": rows, "message": "synthetic scores"}
    write_json(run / "status.json", status)
    return run


def _write_shard(
    root: Path,
    targets: tuple[TargetInfo, ...],
    index: int,
    count: int,
    *,
    seed: int,
    bad: float,
    decimals: int | None,
    pool: bool,
    digest: str,
) -> int:
    """Writes a shard, which depends on nothing but seed and index. Returns how many of its pairs were set aside."""
    draw = np.random.default_rng([seed, index])
    names = uids.from_halves(*draw.integers(0, 2**64, (2, count), dtype=np.uint64))
    scores = _scores(draw, count, decimals, targets)
    is_bad = draw.random(count) < bad
    for values in scores.values():
        values[is_bad] = np.nan
    columns = {"uid_hi": np.ascontiguousarray(names["f0"]), "uid_lo": np.ascontiguousarray(names["f1"]), **scores}
    table = sealed(pa.table(columns), _name(index), digest)
    pq.write_table(table, score_file(root / "run", _name(index)), use_dictionary=False)
    if pool:
        _write_metadata(root / "pool" / "metadata" / f"{_name(index)}.parquet", draw, names)
    return int(is_bad.sum())


def _name(index: int) -> str:
    return f"{index:08d}"


def _scores(
    draw: np.random.Generator, count: int, decimals: int | None, targets: tuple[TargetInfo, ...]
) -> dict[str, np.ndarray]:
    """Scores with the means, spreads and correlations usual at tau = 0.01 with OpenAI's CLIP."""
    fit, topic = draw.standard_normal((2, count), dtype=np.float32)
    noise = draw.standard_normal((6, count), dtype=np.float32)
    r_image = 0.105 + 0.015 * topic + 0.010 * fit + 0.006 * noise[0]
    r_text = 0.110 + 0.017 * topic + 0.008 * fit + 0.007 * noise[1]
    clip_score = 0.22 + 0.055 * fit + 0.025 * topic + 0.015 * noise[2]
    columns = {
        "clip_score": clip_score,
        "s_cliploss": clip_score - r_image - r_text,
        "r_image": r_image,
        "r_text": r_text,
        "normalizer_se": np.abs(0.0006 + 0.0002 * noise[3]),
        "normsim_inf_task": 0.62 + 0.06 * topic + 0.03 * fit + 0.05 * noise[4],
        "normsim_2_task": 310 + 20 * topic + 12 * noise[5],
    }
    for target in targets[1:]:
        near, alike = draw.standard_normal((2, count), dtype=np.float32)
        columns[f"normsim_inf_{target.name}"] = 0.62 + 0.06 * topic + 0.06 * near
        columns[f"normsim_2_{target.name}"] = 310 + 20 * topic + 12 * alike
    return columns if decimals is None else {name: values.round(decimals) for name, values in columns.items()}


def _write_metadata(path: Path, draw: np.random.Generator, names: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    hexes, count = uids.to_hex(names), len(names)
    texts = _WORDS[draw.integers(0, len(_WORDS), (count, 8))]
    columns = {
        "uid": hexes,
        "url": [f"https://images.example.org/{digits}.jpg" for digits in hexes.to_pylist()],
        "text": [f"{' '.join(words)} {row}" for row, words in enumerate(texts.tolist())],
        "original_width": draw.integers(100, 1200, count),
        "fault": _FAULTS[draw.choice(4, count, p=[0.6, 0.2, 0.15, 0.05])],
    }
    pq.write_table(pa.table(columns), path)


def _config(infos: list[ShardInfo], rows: int, seed: int, count: int) -> RunConfig:
    target = TargetInfo(name="task", path="target.npy", kind="npy", sha256="0" * 64, rows=1000, width=64)
    more = [target.model_copy(update={"name": f"task{number}"}) for number in range(2, count + 1)]
    return RunConfig(
        pool="../pool",
        arch="l14",
        seed=seed,
        on_bad_rows="skip",
        targets=(target, *more),
        shards=tuple(infos),
        pairs=rows,
        width=64,
        metrics=(*METRICS, *(f"normsim_{p}_{one.name}" for one in more for p in ("inf", "2"))),
    )


def main() -> None:
    """Writes what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--rows", type=int, default=12_800_000)
    parser.add_argument("--shards", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bad", type=float, default=0.0)
    parser.add_argument("--no-pool", action="store_true")
    parser.add_argument("--on-map", type=int, default=0, metavar="M")
    asked = parser.parse_args()
    pool = not asked.no_pool
    run = write_run(asked.root, rows=asked.rows, shards=asked.shards, seed=asked.seed, bad=asked.bad, pool=pool)
    if asked.on_map:
        add_map(Run.open(run), asked.on_map, asked.seed)
    print(run)


if __name__ == "__main__":
    main()
