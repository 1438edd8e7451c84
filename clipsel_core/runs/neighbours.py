"""Which of a run's pairs are among the nearest that a target's images have in the pool? DataComp's image-based filter
without its clusters.

For each image of the target the pairs with the largest cosines are kept while the pool is read once, block by block.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clipsel_core.pool.embeddings import ImageBlocks, at_unit_length
from clipsel_core.runs.added import scored_pool
from clipsel_core.runs.plan import resolve_devices
from clipsel_core.runs.store import Run, SealedFiles, as_array
from clipsel_core.scoring.checks import check_count, telling_of_memory
from clipsel_core.scoring.normsim import prepare_target
from clipsel_core.scoring.threads import for_each
from clipsel_core.tasks import Report, check, silent

# Images of the pool, and of the target, whose cosines are looked at together.
_BLOCK, _TILE = 8192, 1024


def neighbour_ranks(
    run: Run, target: Tensor, *, most: int = 100, device: str | None = None, report: Report = silent
) -> np.ndarray:
    """Each pair's best place among the nearest pairs of a target's images; 1 is the nearest. Lower is better.

    rank_i = min_m place of x_i . t_m among the x_j . t_m of all scored pairs j, in descending order; ties in any order.
    target: (M, D) unit rows, float16 or float32. most: how many neighbours of an image count, at least 1.
    device: None for the run's. report: told how many pairs of the pool were read.
    Returns: (N,) float32 from 1 to `most`; NaN for pairs that no image has among so many, and that were set aside.
    Memory: 12 bytes for each of M x `most`, and a block of the pool.
    Raises: ScoringError where `most` does not fit; TargetError where the target does not; RunError where the run is
        unfinished or its pool has changed; PoolFormatError where the pool cannot be read.
    """
    check_count("neighbours", most)
    (chosen, *_) = resolve_devices(device or run.config.device)
    on = torch.device(chosen)
    pool, arch = scored_pool(run)
    target = prepare_target(target, name="target", width=arch.width)[0].to(on, torch.float32)
    files = SealedFiles(run.root, run.config)
    best = torch.full((len(target), most), -torch.inf, device=on)
    rows = torch.full((len(target), most), -1, dtype=torch.int64, device=on)
    first = 0
    with telling_of_memory(chosen):
        for shard in pool.shards:
            scored = ~np.isnan(as_array(files.read(shard.name, ["clip_score"])["clip_score"].combine_chunks()))
            with ImageBlocks(shard, arch) as blocks:
                for start in range(0, blocks.rows, _BLOCK):
                    check()
                    stop = min(start + _BLOCK, blocks.rows)
                    inside = np.flatnonzero(scored[start:stop])
                    image = at_unit_length(blocks.read(slice(start, stop))[inside])
                    if len(image):
                        numbers = torch.from_numpy(inside + first + start).to(on)
                        _keep_nearest(best, rows, target, torch.from_numpy(image).to(on, torch.float32), numbers)
                    report(first + stop, run.config.pairs, "pairs")
            first += blocks.rows
    found = torch.full((first + 1,), torch.nan, device=on)  # the last for places that no pair took
    for place in range(most, 0, -1):
        found[rows[:, place - 1]] = place
    return found[:-1].cpu().numpy()


def _keep_nearest(best: Tensor, rows: Tensor, target: Tensor, image: Tensor, numbers: Tensor) -> None:
    """Takes some images of the pool among those that are nearest to each of the target.

    best, rows: (M, K), the largest cosines so far, descending, and whose they are. image: (n, D). numbers: (n,) int64.
    """
    most = best.shape[1]

    def look(tile: int, scratch: Tensor) -> None:
        here = slice(tile * _TILE, (tile + 1) * _TILE)
        rows_here = target[here]
        cosines = scratch[: len(rows_here) * len(image)].view(len(rows_here), len(image))
        torch.mm(rows_here, image.T, out=cosines)
        # Before long hardly any image of the target has a nearer one in a block.
        moved = torch.nonzero(cosines.amax(1) > best[here, -1]).squeeze(1)
        near, places = cosines[moved].topk(min(most, len(image)), dim=1)
        moved += here.start
        both = torch.cat([best[moved], near], 1)
        best[moved], order = both.topk(most, dim=1)
        rows[moved] = torch.cat([rows[moved], numbers[places]], 1).gather(1, order)

    for_each(look, -(-len(target) // _TILE), device=target.device, scratch=_TILE * _BLOCK)
