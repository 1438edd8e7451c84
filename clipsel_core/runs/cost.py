"""What does it cost to score a pool? What there is to read and to multiply, and how long that takes somewhere.

The counts follow from a run's description alone. How fast a machine is comes from `probe.py`, which measures it, or of
GPUs that are not here from published figures. Light: needs neither torch nor the pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from clipsel_core.runs.store import RunConfig

FEW_ROWS = 64
"""So small a target is multiplied with directly on a CPU, for p = 2 as well."""
SHARE_OF_PEAK = 0.5
"""The share of a GPU's published peak that its kernels are assumed to reach: two thirds of what cuBLAS does."""

Part = Literal["normalizer", "normsim", "normsim_2", "moment"]


@dataclass(frozen=True)
class Workload:
    """What there is to do.

    groups: shards that are divided together count as one. largest: pairs of the largest. bytes_read: of the embeddings.
    operations: floating point ones, a multiplication and an addition for each component of a product, by part: the
    normalizer, NormSim by products with the target's images, NormSim_2 by second moments, and computing these, which
    each worker does once.
    """

    pairs: int
    groups: int
    largest: int
    bytes_read: int
    operations: dict[Part, int]

    @property
    def all_operations(self) -> int:
        """Of all parts."""
        return sum(self.operations.values())


@dataclass(frozen=True)
class Speed:
    """How fast a worker is.

    read_bytes_s: bytes of embeddings that a machine reads in a second. operations_s: operations in a second, by part.
    other_s: seconds a pair for all that is no product: checking rows, CLIPScore, uids, writing; 0 where it is hidden.
    begin_s: seconds before the first shard.
    """

    read_bytes_s: float
    operations_s: Mapping[Part, float]
    other_s: float = 0.0
    begin_s: float = 0.0


@dataclass(frozen=True)
class Expected:
    """How long it takes: reading alone, arithmetic alone, and both, one behind the other."""

    reading_s: float
    arithmetic_s: float
    seconds: float

    @property
    def bound_by(self) -> str:
        """What the other waits for."""
        return "reading" if self.reading_s > self.arithmetic_s else "arithmetic"

    def as_dict(self) -> dict[str, float | str]:
        """All of it, for JSON."""
        return {**asdict(self), "bound_by": self.bound_by}


@dataclass(frozen=True)
class Gpu:
    """A GPU's published peaks, operations a second without sparsity: float16 on tensor cores, float32, float64."""

    float16: float
    float32: float
    float64: float

    def speed(self, read_bytes_s: float) -> Speed:
        """What it is counted to do at the assumed share of its peaks, where files come this fast."""
        peaks: dict[Part, float] = {
            "normalizer": self.float16,
            "normsim": self.float16,
            "normsim_2": self.float32,
            "moment": self.float64,
        }
        return Speed(read_bytes_s, {part: SHARE_OF_PEAK * peak for part, peak in peaks.items()})


GPUS = {
    "A100": Gpu(312e12, 19.5e12, 9.7e12),
    "H100": Gpu(989e12, 67e12, 34e12),
    "H200": Gpu(989e12, 67e12, 34e12),
}
"""Of the SXM modules, from NVIDIA's data sheets."""


def count_work(config: RunConfig, groups: Iterable[int] | None = None, *, bytes_a_pair: int | None = None) -> Workload:
    """What there is to do of a run.

    groups: pairs in each group of shards; None for all that the run has. bytes_a_pair: of both embeddings; None where
        they are float16.
    """
    if groups is None:
        rows, together = [shard.rows for shard in config.shards], config.mix_shards
        groups = [sum(rows[start : start + together]) for start in range(0, len(rows), together)]
    pairs = count = largest = products = 0
    for n in groups:
        pairs, count, largest = pairs + n, count + 1, max(largest, n)
        batches = max(1, -(-n // config.batch_size))
        size, larger = divmod(n, batches)  # batches differ by one pair at most
        squares = larger * (size + 1) ** 2 + (batches - larger) * size**2
        products += squares * (config.divisions if batches > 1 else 1)  # one batch is computed once
    width = config.width
    operations: dict[Part, int] = {"normalizer": 2 * width * products, "normsim": 0, "normsim_2": 0, "moment": 0}
    for target in config.targets:
        is_few = config.device == "cpu" and target.rows <= FEW_ROWS
        for p in config.norms:
            if float(p) == 2 and (target.kind == "moment" or not is_few):
                operations["normsim_2"] += 2 * width * width * pairs
                operations["moment"] += 0 if target.kind == "moment" else 2 * width * width * target.rows
            elif target.kind != "moment":
                operations["normsim"] += 2 * width * target.rows * pairs
    return Workload(pairs, count, largest, (bytes_a_pair or 4 * width) * pairs, operations)


def expect(work: Workload, speed: Speed, *, workers: float = 1, readers: float = 1) -> Expected:
    """How long the work takes. workers: how many of this speed compute; readers: how many machines read."""
    reading = work.bytes_read / speed.read_bytes_s / readers
    once = work.operations["moment"] / speed.operations_s["moment"] if work.operations["moment"] else 0.0
    every = (count / speed.operations_s[part] for part, count in work.operations.items() if count and part != "moment")
    arithmetic = (sum(every) + work.pairs * speed.other_s) / min(workers, max(1, work.groups)) + once
    return Expected(reading, arithmetic, speed.begin_s + max(reading, arithmetic))


def in_units(value: float, unit: str) -> str:
    """A number in the unit's thousands, millions and so on, three digits of it.

    >>> in_units(39_321_600_000_000, "B"), in_units(81, "B"), in_units(9.5e9, "B/s")
    ('39.3 TB', '81 B', '9.5 GB/s')
    """
    power = next((power for power in range(6, 0, -1) if value >= 1000**power), 0)
    return f"{value / 1000**power:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}{unit}"
