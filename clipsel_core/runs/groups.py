"""How is a group of shards scored? Embeddings in, a column a metric out, written for each shard."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from clipsel_core.errors import PoolFormatError
from clipsel_core.pool.embeddings import read_pairs
from clipsel_core.pool.layout import Arch, read_column, read_uids
from clipsel_core.runs.plan import Group, Plan
from clipsel_core.runs.store import UID_HALVES, SealedFiles
from clipsel_core.scoring.checks import telling_of_memory
from clipsel_core.scoring.normsim import are_few, metric_name, normsim, normsim_2, normsims_to_few, second_moment
from clipsel_core.scoring.reductions import use_tile_sizes
from clipsel_core.scoring.s_cliploss import clip_score, normalizer, s_cliploss
from clipsel_core.tasks import Report, check, part_of

_SIMILARITY = re.compile(r"clip_.+_similarity_score|similarity|clip_score|clip_similarity", re.IGNORECASE)
_FEWEST_TO_COMPARE, _LEAST_CORRELATION = 50, 0.2


@dataclass(frozen=True)
class Embeddings:
    """What a group's pairs are made of.

    image, text: (n, D), the group's usable rows, shard after shard, on the scorer's device.
    usable: (N,) bool of each shard, renormalised: rows of each shard that were scaled to unit length.
    """

    group: Group
    image: torch.Tensor
    text: torch.Tensor
    usable: tuple[np.ndarray, ...]
    renormalised: tuple[int, ...]


class GroupScorer:
    """Scores groups of shards of one plan on one device; what they share, such as a second moment, is computed once.

    A group's scores depend on the plan and the group alone, not on the order, the worker or which device of a kind.
    For several threads: one group is computed at a time, while others are read and written.
    """

    def __init__(self, plan: Plan, device: str) -> None:
        self._plan, self._device = plan, device
        # As much as is held at a time: what is computed, and what is read for after it.
        self._held, self._computing = threading.Semaphore(2), threading.Lock()
        self._files = SealedFiles(plan.root, plan.config)
        self._beside = torch.cuda.Stream(device) if torch.device(device).type == "cuda" else None
        if plan.config.tiles:
            use_tile_sizes(device, plan.config.width, plan.config.tiles)
        with telling_of_memory(device):
            self._normsims = NormSims(plan.targets, plan.config.norms, device)

    def score_and_write(self, group: Group, report: Report) -> None:
        """Scores a group and writes the scores of its shards that are left, NaN in rows set aside. report: as `score`.

        Raises: PoolFormatError on what cannot be scored, ScoringError where the device has no memory, OSError.
        """
        with self._held:
            check()
            pairs = self.read(group)
            with self._computing:
                check()
                metrics = self.score(pairs, report)
            masks, scaled = pairs.usable, pairs.renormalised
            del pairs
        self.write(group, metrics, masks, scaled)

    def write(
        self, group: Group, metrics: dict[str, torch.Tensor], masks: Sequence[np.ndarray], scaled: Sequence[int]
    ) -> None:
        """Writes the scores of a group's shards that are left. metrics: as `score` gives them; masks, scaled: of each
        shard, as Embeddings has them.

        Raises: OSError.
        """
        ends = np.cumsum([mask.sum() for mask in masks])
        for shard, usable, renormalised, end in zip(group.shards, masks, scaled, ends, strict=True):
            if shard in group.left:
                part, keys = slice(end - usable.sum(), end), read_uids(shard)
                columns = {name: keys[half].copy() for name, half in zip(UID_HALVES, ("f0", "f1"), strict=True)}
                for name in self._plan.config.metrics:
                    columns[name] = spread(metrics[name][part] if metrics else None, usable)
                counts = {"skipped": int((~usable).sum()), "renormalised": renormalised}
                self._files.write(shard.name, pa.table(columns), counts)

    def read(self, group: Group) -> Embeddings:
        """A group's embeddings, checked, on the device. May be called while another group is scored."""
        plan = self._plan
        room = np.empty if self._beside is None else self._pinned
        options: dict[str, Any] = {"on_bad_rows": plan.config.on_bad_rows, "room": room}
        parts = [read_pairs(shard, plan.arch, **options) for shard in group.shards]
        usable = tuple(part.usable for part in parts)
        sides = ([part.image for part in parts], [part.text for part in parts])
        with telling_of_memory(self._device):
            image, text = (_moved(usable_rows(side, usable), self._device, self._beside) for side in sides)
        return Embeddings(group, image, text, usable, tuple(part.renormalised for part in parts))

    def _pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Memory that files are read into and that a GPU copies from by itself."""
        with torch.cuda.device(self._device):
            return torch.empty(shape, dtype=getattr(torch, dtype.name), pin_memory=True).numpy()

    def score(self, pairs: Embeddings, report: Report) -> dict[str, torch.Tensor]:
        """The config's metrics of a group's usable rows: (n,) float32 each, on the CPU; none where there are no rows.

        report: told how much of the group's work is done.
        """
        with telling_of_memory(self._device):
            return self._metrics(pairs, report) if len(pairs.image) else {}

    def _metrics(self, pairs: Embeddings, report: Report) -> dict[str, torch.Tensor]:
        config, image, text = self._plan.config, pairs.image, pairs.text
        own = clip_score(image, text).cpu()
        if self._plan.check_similarity:
            _check_similarities(pairs, own.numpy(), self._plan.arch)
        # In products of embeddings. One batch is computed once, though it counts for every division.
        batches = -(-len(image) // config.batch_size)
        work = len(image) ** 2 * (config.divisions / batches if batches > 1 else 1)
        share = work / (work + self._normsims.work(len(image)))
        halves = normalizer(
            image,
            text,
            temperature=config.temperature,
            batch_size=config.batch_size,
            divisions=config.divisions,
            seed=config.seed,
            name=pairs.group.name,
            device=self._device,
            precision=config.precision,
            report=part_of(report, 0, share),
        )
        metrics = {
            "clip_score": own,
            "s_cliploss": s_cliploss(own, halves),
            "r_image": halves.r_image,
            "r_text": halves.r_text,
            "normalizer_se": halves.standard_error,
        }
        return metrics | self._normsims.of(image, part_of(report, share, 1))


class NormSims:
    """NormSim to some targets; what the shards share, a target's second moment, is computed once.

    targets: name to (M, D) embeddings, or to a second moment, (D, D) float64, for which 2 is the only p.
    norms: the p of each NormSim_p, as RunConfig has them.
    """

    def __init__(self, targets: Mapping[str, torch.Tensor], norms: Sequence[str], device: str) -> None:
        self._norms, self._device = [float(p) for p in norms], device
        self._moments = {name: rows for name, rows in targets.items() if rows.dtype == torch.float64}
        self._targets = {name: rows.to(device) for name, rows in targets.items() if name not in self._moments}
        self._asked = [(name, p) for name in targets for p in self._norms if p == 2 or name in self._targets]
        with_2 = {name: rows for name, rows in self._targets.items() if 2 in self._norms and not are_few(rows, device)}
        self._moments |= {name: second_moment(rows, device=device) for name, rows in with_2.items()}

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns that `of` gives, in their order."""
        return tuple(metric_name(p, target) for target, p in self._asked)

    def work(self, pairs: int) -> int:
        """How many products of embeddings so many pairs take."""
        return pairs * sum(map(len, self._targets.values())) * sum(p != 2 for p in self._norms)

    def of(self, image: torch.Tensor, report: Report) -> dict[str, torch.Tensor]:
        """Each metric of these images, (N, D) unit rows: (N,) float32."""
        found, done, work = {}, 0, max(1, self.work(len(image)))
        for target, p in self._asked:
            if p == 2 and target in self._moments:
                found[metric_name(p, target)] = normsim_2(image, self._moments[target], device=self._device)
                continue
            rows = self._targets[target]
            before, done = done, done + (len(image) * len(rows) if p != 2 else 0)
            told = part_of(report, before / work, done / work)
            found[metric_name(p, target)] = normsim(image, rows, p=p, device=self._device, report=told)
        return found

    @property
    def are_few(self) -> bool:
        """Whether all targets are so small that `in_one_pass` is the quickest."""
        return not self._moments and all(are_few(rows, self._device) for rows in self._targets.values())

    def in_one_pass(self, read: Callable[[slice, torch.Tensor], object], pairs: int) -> dict[str, torch.Tensor]:
        """Each metric, as `of`, of images that are read a block at a time; read: as in normsims_to_few."""
        (rows,) = self._targets.values()
        found = normsims_to_few(read, pairs, rows, self._norms)
        return dict(zip(self.metrics, found, strict=True))


def _check_similarities(pairs: Embeddings, computed: np.ndarray, arch: Arch) -> None:
    """Makes sure that similarities which the shards store belong to the embeddings' rows. computed: of usable rows.

    Raises: PoolFormatError naming the first shard where they do not.
    """
    first = 0
    for shard, usable in zip(pairs.group.shards, pairs.usable, strict=True):
        own = [name for name in shard.columns if name == arch.score_column]
        others = [name for name in shard.columns if _SIMILARITY.fullmatch(name) and name not in own]
        part, first = computed[first : first + usable.sum()], first + int(usable.sum())
        for name in own or others:
            try:
                stored = read_column(shard, name).to_numpy()[usable].astype(np.float64)
            except (PoolFormatError, ValueError, TypeError):
                continue
            if found := similarity_mismatch(part, stored, same_teacher=name in own):
                expected = f"similarities that follow the embeddings, as in {name}"
                remedy = "download its .npz and .parquet again, or give --no-similarity-check"
                raise PoolFormatError(f"shard {shard.name}", expected=expected, found=found, remedy=remedy)


def similarity_mismatch(computed: np.ndarray, stored: np.ndarray, *, same_teacher: bool) -> str:
    """Why similarities cannot be those of the same pairs, in a few words; nothing where they can.

    computed, stored: (n,) floats; pairs where one is not finite are left out, and fewer than 50 tell nothing. Of the
    same teacher they agree all but exactly, so a correlation r below 0.2 tells: for r = 0.9 in truth, 50 pairs give
    that once in 10^17 shards. Of another teacher r may be low in a pool that was filtered by either, so only rows that
    fit once they are shifted tell: r below 0.2 as they are, and above 0.3 and 6 / sqrt(n) some rows on. Unrelated
    numbers do that less than once in 10^6 shards, of whatever size.
    """
    both = np.isfinite(computed) & np.isfinite(stored)
    n = int(both.sum())
    if n < _FEWEST_TO_COMPARE or np.ptp(stored[both]) == 0 or np.ptp(computed[both]) == 0:
        return ""
    a, b = (np.where(both, values - values[both].mean(), 0.0) for values in (computed, stored))
    scale = np.sqrt((a @ a) * (b @ b))
    r = float(a @ b / scale)
    if r >= _LEAST_CORRELATION:
        return ""
    shifted = np.fft.irfft(np.fft.rfft(b) * np.conj(np.fft.rfft(a)), len(a)) / scale
    rows = int(np.argmax(shifted))
    if shifted[rows] > max(0.3, 6 / math.sqrt(n)):
        rows = rows if rows <= len(a) // 2 else rows - len(a)
        return f"a correlation of {r:.2f}, and of {shifted[rows]:.2f} with {abs(rows):,} rows between them"
    return f"a correlation of {r:.2f}" if same_teacher else ""


def spread(values: torch.Tensor | None, usable: np.ndarray) -> np.ndarray:
    """Values of the usable rows at their places among all: (N,) float32, NaN where a row was set aside."""
    column = np.full(len(usable), np.nan, np.float32)
    if values is not None:
        column[usable] = values.numpy()
    return column


def usable_rows(parts: Sequence[np.ndarray], usable: Sequence[np.ndarray]) -> torch.Tensor:
    """The usable rows of all parts below each other; copied only where there is something to leave out or to join."""
    if len(parts) == 1 and usable[0].all():
        return torch.from_numpy(parts[0])
    ends = np.cumsum([mask.sum() for mask in usable])
    out = np.empty((ends[-1], parts[0].shape[1]), np.result_type(*parts))
    for part, mask, end in zip(parts, usable, ends, strict=True):
        out[end - mask.sum() : end] = part if mask.all() else part[mask]
    return torch.from_numpy(out)


def _moved(rows: torch.Tensor, device: str, beside: torch.cuda.Stream | None) -> torch.Tensor:
    """Rows on a device, copied while it computes; beside: the stream for that, None where there is nothing to copy."""
    if beside is None:
        return rows
    with torch.cuda.stream(beside):
        pinned = rows if rows.is_pinned() else rows.pin_memory()  # several shards, or rows left out, were joined
        moved = pinned.to(device, non_blocking=True)
    beside.synchronize()
    moved.record_stream(torch.cuda.default_stream(device))
    return moved
