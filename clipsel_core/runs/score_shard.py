"""How one shard is scored: embeddings in, one table of scores out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from clipsel_core.pool.check import read_uids
from clipsel_core.pool.embeddings import read_pairs
from clipsel_core.pool.layout import Shard
from clipsel_core.runs.config import RunConfig
from clipsel_core.runs.plan import Plan
from clipsel_core.scoring.clip_score import clip_score
from clipsel_core.scoring.normsim import metric_name, normsim, normsim_2, second_moment
from clipsel_core.scoring.reductions import use_tile_sizes
from clipsel_core.scoring.s_cliploss import normalizer, s_cliploss

_COUNTS = b"clipsel_counts"


class ShardScorer:
    """Scores shards of one plan; what the shards share, such as a target's second moment, is computed once.

    A shard's scores depend on the plan and the shard alone, not on the order or the worker.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        if plan.config.tiles:
            use_tile_sizes(plan.config.device, plan.config.width, plan.config.tiles)
        self._norms = [float(p) for p in plan.config.norms]
        with_2 = plan.targets if 2 in self._norms else {}
        self._moments = {name: second_moment(rows, device=plan.config.device) for name, rows in with_2.items()}

    def score(self, shard: Shard, progress: Callable[[float], None]) -> pa.Table:
        """The shard's scores, a row a pair in the shard's order; rows that were set aside are NaN.

        progress: told the share of the shard's work that is done, in [0, 1].
        Returns: uid_hi, uid_lo (uint64) and the config's metrics (float32); counts in the schema's metadata.
        """
        config = self._plan.config
        pairs = read_pairs(self._plan.pool, shard, self._plan.arch, on_bad_rows=config.on_bad_rows)
        image, text = _usable(pairs.image, pairs.usable), _usable(pairs.text, pairs.usable)
        metrics = self._metrics(image, text, shard, progress) if len(image) else {}
        columns = {name: np.full(shard.rows, np.nan, np.float32) for name in config.metrics}
        for name, values in metrics.items():
            columns[name][pairs.usable] = values.numpy()
        keys = read_uids(self._plan.pool, shard)
        counts = {"skipped": int((~pairs.usable).sum()), "renormalised": pairs.renormalised}
        table = pa.table({"uid_hi": keys["f0"].copy(), "uid_lo": keys["f1"].copy(), **columns})
        return table.replace_schema_metadata({_COUNTS: json.dumps(counts)})

    def _metrics(
        self, image: torch.Tensor, text: torch.Tensor, shard: Shard, progress: Callable[[float], None]
    ) -> dict[str, torch.Tensor]:
        config = self._plan.config
        steps = _Steps(config, self._plan.targets, len(image), progress)
        halves = normalizer(
            image,
            text,
            temperature=config.temperature,
            batch_size=config.batch_size,
            divisions=config.divisions,
            seed=config.seed,
            name=shard.name,
            device=config.device,
            precision=config.precision,
            progress=steps.advance,
        )
        own = clip_score(image, text)
        metrics = {
            "clip_score": own,
            "s_cliploss": s_cliploss(own, halves),
            "r_image": halves.r_image,
            "r_text": halves.r_text,
            "normalizer_se": halves.standard_error,
        }
        for target, rows in self._plan.targets.items():
            for p in self._norms:
                metrics[metric_name(p, target)] = self._normsim(image, rows, target, p, steps)
        return metrics

    def _normsim(self, image: torch.Tensor, rows: torch.Tensor, target: str, p: float, steps: _Steps) -> torch.Tensor:
        device = self._plan.config.device
        if p == 2:
            return normsim_2(image, self._moments[target], device=device)
        return normsim(image, rows, p=p, device=device, progress=steps.advance_by(len(rows)))


class _Steps:
    """Turns what each metric reports into the share of the shard's work, counted in products of embeddings."""

    def __init__(
        self, config: RunConfig, targets: dict[str, torch.Tensor], pairs: int, progress: Callable[[float], None]
    ) -> None:
        batches = -(-pairs // config.batch_size)
        # One batch is computed once, though it counts for every division.
        self._batch = pairs / batches if batches > 1 else pairs / config.divisions
        sweeps = sum(len(rows) for rows in targets.values()) * sum(p != "2" for p in config.norms)
        self._total = pairs * (self._batch * config.divisions + sweeps)
        self._done, self._progress = 0.0, progress

    def advance(self, pairs: int) -> None:
        self._add(pairs * self._batch)

    def advance_by(self, width: int) -> Callable[[int], None]:
        return lambda pairs: self._add(pairs * width)

    def _add(self, products: float) -> None:
        self._done += products
        self._progress(min(1.0, self._done / self._total))


def read_counts(scores: Path) -> dict[str, int]:
    """What a finished shard's file says of its rows: how many were skipped, how many renormalised."""
    return json.loads(pq.read_schema(scores).metadata[_COUNTS])


def _usable(rows: np.ndarray, usable: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(rows) if usable.all() else rows[usable])
