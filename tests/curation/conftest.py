"""Small runs, written by hand as the scoring writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.synthetic_run import write_run
from clipsel_core import uids
from clipsel_core.files import write_json
from clipsel_core.runs.store import Run, RunConfig, ShardInfo, digest_of, score_file, sealed, write_config

Columns = Mapping[str, Sequence[float] | np.ndarray]


def make_uids(*numbers: int) -> np.ndarray:
    """Uids of small numbers: 7 is 00...07."""
    return uids.from_hex([f"{number:x}" for number in numbers])


def hand_run(
    root: Path,
    shards: Sequence[tuple[np.ndarray, Columns]],
    *,
    names: Sequence[str] | None = None,
    pool: str = "../pool",
    planned: int | None = None,
    divisions: int = 10,
) -> Run:
    """A run whose shards hold these uids and scores. planned: how many shards the run was to have; all by default."""
    names = names or [f"{index:08d}" for index in range(len(shards))]
    (root / "scores").mkdir(parents=True)
    infos = [ShardInfo(name=name, rows=len(pairs)) for name, (pairs, _) in zip(names, shards, strict=True)]
    infos += [ShardInfo(name=f"later-{index}", rows=5) for index in range((planned or len(infos)) - len(infos))]
    metrics = tuple(shards[0][1])
    config = RunConfig(pool=pool, arch="l14", shards=tuple(infos), pairs=sum(i.rows for i in infos), metrics=metrics)
    config = config.model_copy(update={"skipped_rows": 0, "width": 16, "divisions": divisions})
    for name, (names_of_pairs, columns) in zip(names, shards, strict=True):
        scores = {metric: np.asarray(values, np.float32) for metric, values in columns.items()}
        halves = {"uid_hi": names_of_pairs["f0"].copy(), "uid_lo": names_of_pairs["f1"].copy()}
        table = sealed(pa.table({**halves, **scores}), name, digest_of(config))
        pq.write_table(table, score_file(root, name))
    write_config(root, config)
    write_json(root / "status.json", {"state": "done"})
    return Run.open(root)


@pytest.fixture(scope="session")
def big_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """20,000 pairs in 7 shards of unequal size, some set aside, scores rounded so that many tie; with metadata."""
    root = tmp_path_factory.mktemp("synthetic")
    return Run.open(write_run(root, rows=20_003, shards=7, seed=3, bad=0.01, decimals=3))
