"""How long does the arithmetic of `score` take alone: the same functions on the same rows, all of them in memory?

    python -m benchmarks.arithmetic POOL

prints the seconds; reading is not counted.
"""

from __future__ import annotations

import sys
import time

import torch

from clipsel_core.pool.embeddings import read_pairs
from clipsel_core.pool.layout import open_pool
from clipsel_core.runs.store import RunConfig
from clipsel_core.scoring.s_cliploss import clip_score, normalizer, s_cliploss


def seconds(root: str) -> float:
    """Seconds that the scores of a pool's pairs take with the options that `score` has unless told otherwise."""
    pool = open_pool(root)
    read = {shard.name: read_pairs(shard, pool.arch(None)) for shard in pool.shards}
    rows = {name: (torch.from_numpy(pairs.image), torch.from_numpy(pairs.text)) for name, pairs in read.items()}
    fields = RunConfig.model_fields
    options = {name: fields[name].default for name in ("temperature", "batch_size", "divisions", "seed")}
    image, text = next(iter(rows.values()))
    normalizer(image[:256], text[:256], name="first", **options)  # what is found out once per process
    start = time.perf_counter()
    for name, (image, text) in rows.items():
        s_cliploss(clip_score(image, text), normalizer(image, text, name=name, **options))
    return time.perf_counter() - start


if __name__ == "__main__":
    print(seconds(sys.argv[1]))
