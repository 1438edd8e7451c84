"""How one shard is scored: embeddings in, one table of scores out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from clipsel_core.pool.check import read_uids
from clipsel_core.pool.embeddings import read_pairs
from clipsel_core.pool.layout import Pool, Shard
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
        self._normsims = NormSims(plan.targets, plan.config.norms, plan.config.device)

    def score(self, shard: Shard, progress: Callable[[float], None]) -> pa.Table:
        """The shard's scores, a row a pair in the shard's order; rows that were set aside are NaN.

        progress: told the share of the shard's work that is done, in [0, 1].
        Returns: uid_hi, uid_lo (uint64) and the config's metrics (float32); counts in the schema's metadata.
        """
        config = self._plan.config
        pairs = read_pairs(self._plan.pool, shard, self._plan.arch, on_bad_rows=config.on_bad_rows)
        image, text = usable_rows(pairs.image, pairs.usable), usable_rows(pairs.text, pairs.usable)
        metrics = self._metrics(image, text, shard, progress) if len(image) else {}
        columns = {name: spread(metrics.get(name), pairs.usable) for name in config.metrics}
        counts = {"skipped": int((~pairs.usable).sum()), "renormalised": pairs.renormalised}
        table = with_uids(self._plan.pool, shard, columns)
        return table.replace_schema_metadata({_COUNTS: json.dumps(counts)})

    def _metrics(
        self, image: torch.Tensor, text: torch.Tensor, shard: Shard, progress: Callable[[float], None]
    ) -> dict[str, torch.Tensor]:
        config = self._plan.config
        steps = _Steps(config, self._normsims.work(len(image)), len(image), progress)
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
        return metrics | self._normsims.of(image, steps.add)


class NormSims:
    """NormSim to some targets; what the shards share, a target's second moment, is computed once.

    targets: name to (M, D) embeddings. norms: the p of each NormSim_p, as RunConfig has them.
    """

    def __init__(self, targets: Mapping[str, torch.Tensor], norms: Sequence[str], device: str) -> None:
        self._targets, self._norms, self._device = targets, [float(p) for p in norms], device
        with_2 = targets if 2 in self._norms else {}
        self._moments = {name: second_moment(rows, device=device) for name, rows in with_2.items()}

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns that `of` gives, in their order."""
        return tuple(metric_name(p, target) for target in self._targets for p in self._norms)

    def work(self, pairs: int) -> int:
        """How many products of embeddings so many pairs take, as `of` reports them."""
        return pairs * sum(map(len, self._targets.values())) * sum(p != 2 for p in self._norms)

    def of(self, image: torch.Tensor, progress: Callable[[float], None]) -> dict[str, torch.Tensor]:
        """Each metric of these images, (N, D) unit rows: (N,) float32. progress: told the products done since."""
        return {metric_name(p, t): self._one(image, t, p, progress) for t in self._targets for p in self._norms}

    def _one(self, image: torch.Tensor, target: str, p: float, progress: Callable[[float], None]) -> torch.Tensor:
        if p == 2:
            return normsim_2(image, self._moments[target], device=self._device)
        rows = self._targets[target]
        return normsim(image, rows, p=p, device=self._device, progress=lambda pairs: progress(pairs * len(rows)))


def with_uids(pool: Pool, shard: Shard, columns: Mapping[str, np.ndarray]) -> pa.Table:
    """A table of a shard's uids, uid_hi and uid_lo (uint64), and these columns beside them."""
    keys = read_uids(pool, shard)
    return pa.table({"uid_hi": keys["f0"].copy(), "uid_lo": keys["f1"].copy(), **columns})


def spread(values: torch.Tensor | None, usable: np.ndarray) -> np.ndarray:
    """Values of the usable rows at their places among all: (N,) float32, NaN where a row was set aside."""
    column = np.full(len(usable), np.nan, np.float32)
    if values is not None:
        column[usable] = values.numpy()
    return column


def usable_rows(rows: np.ndarray, usable: np.ndarray) -> torch.Tensor:
    """The rows that can be scored, as a tensor of their own."""
    return torch.from_numpy(np.array(rows) if usable.all() else rows[usable])


class _Steps:
    """Turns what each metric reports into the share of the shard's work, counted in products of embeddings."""

    def __init__(self, config: RunConfig, sweeps: int, pairs: int, progress: Callable[[float], None]) -> None:
        batches = -(-pairs // config.batch_size)
        # One batch is computed once, though it counts for every division.
        self._batch = pairs / batches if batches > 1 else pairs / config.divisions
        self._total = pairs * self._batch * config.divisions + sweeps
        self._done, self._progress = 0.0, progress

    def advance(self, pairs: int) -> None:
        self.add(pairs * self._batch)

    def add(self, products: float) -> None:
        self._done += products
        self._progress(min(1.0, self._done / self._total))


def read_counts(scores: Path) -> dict[str, int]:
    """What a finished shard's file says of its rows: how many were skipped, how many renormalised."""
    return json.loads(pq.read_schema(scores).metadata[_COUNTS])
