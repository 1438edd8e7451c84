"""How fast is this machine at scoring a pool, and how long will that take? Found out by trying, for some seconds.

Some shards are read as `score` reads them, and its kernels compute on what they hold, with the pool's width and
targets: on a part of a batch or of a target where the whole would take longer, which is counted up by operations.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipsel_core.errors import PoolFormatError, counted
from clipsel_core.places import Place
from clipsel_core.pool.embeddings import find_sides
from clipsel_core.pool.layout import Shard
from clipsel_core.runs.cost import GPUS, Expected, Part, Speed, Workload, count_work, expect
from clipsel_core.runs.groups import Embeddings, GroupScorer
from clipsel_core.runs.plan import Group, Plan, groups_left
from clipsel_core.runs.store import Planned, names_of_scored
from clipsel_core.scoring.normsim import are_few, normsim, normsim_2, second_moment
from clipsel_core.scoring.s_cliploss import clip_score, normalizer
from clipsel_core.scoring.threads import thread_count
from clipsel_core.tasks import Value
from clipsel_core.workers import AT_ONCE, Machines

_READING_S, _COMPUTING_S = 3.0, 6.0
_FORESEEING_S = 1.5
_WORTH_FORESEEING = 10**13  # operations: a minute of two cores
_FEWEST, _SHORTEST_S = 256, 0.2
_MOST_SHARDS, _MOST_TARGETS = 64, 4096


@dataclass(frozen=True)
class Forecast:
    """What scoring a pool, or what is left of it, will take.

    workers: that compute, cores: of each, 0 of a GPU; nodes: machines that read. work, speed, expected: see cost; by
    the clock, the load of other processes included. cpu_seconds: of all cores, which load hardly changes; None on GPUs.
    memory_bytes: of the process, or of each worker, at its highest. tried_shards: that were read for it;
    tried_bytes: of these; from_disk_bytes: of them came from the disk rather than from memory, None where the system
    does not say; tried_s: how long the probe took.
    """

    workers: int
    cores: int
    nodes: int
    work: Workload
    speed: Speed
    expected: Expected
    cpu_seconds: float | None
    memory_bytes: int
    tried_shards: tuple[str, ...]
    tried_bytes: int
    from_disk_bytes: int | None
    tried_s: float

    @property
    def on_gpus(self) -> bool:
        """Whether the workers are GPUs."""
        return self.cores == 0

    def on_gpu(self, name: str) -> Expected:
        """What one GPU of `cost.GPUS` is counted to take, where files come as fast as here."""
        return expect(self.work, GPUS[name].speed(self.speed.read_bytes_s))

    def as_dict(self) -> dict[str, Any]:
        """All of it, and the counted GPUs, for JSON."""
        counted = {name: self.on_gpu(name).as_dict() for name in GPUS}
        return {**asdict(self), "expected": self.expected.as_dict(), "counted": counted}


def bytes_of_pair(plan: Plan) -> int:
    """Of both embeddings of a pair, as the pool's first shard stores them."""
    return sum(side.dtype.itemsize for side in find_sides(plan.pool.shards[0], plan.arch)[1]) * plan.arch.width


def foresee(plan: Plan, on_cluster: bool) -> Planned:
    """What a run is to take, as run.json keeps it; the seconds by a short trial on drawn rows, where it pays."""
    work = count_work(plan.config, bytes_a_pair=bytes_of_pair(plan))
    planned = Planned(bytes_read=work.bytes_read, operations=work.all_operations)
    if on_cluster or work.all_operations < _WORTH_FORESEEING:
        return planned
    numbers = np.random.default_rng(0).standard_normal((2, min(work.largest, 8192), plan.arch.width), np.float32)
    sides = (torch.nn.functional.normalize(torch.from_numpy(side)) for side in numbers)
    image, text = (side.to(plan.devices[0], torch.float16) for side in sides)
    rates = _as_score_does(lambda: _arithmetic(plan, image, text, work, _FORESEEING_S))
    by_clock, by_core = (Speed(np.inf, found) for found in rates)
    found = {"seconds": round(expect(work, by_clock, workers=_workers_here(plan)).seconds, 1)}
    if _is_on_cpu(plan):
        found["cpu_seconds"] = round(expect(work, by_core).seconds, 1)
    return planned.model_copy(update=found)


def forecast(plan: Plan, began_s: float, machines: Machines) -> Forecast | None:
    """Tries for about ten seconds how long what is left of a plan will take; None where nothing is. Writes no run.

    began_s: time.monotonic() when the command began: what has passed since comes before the first shard every time.
    machines: of a cluster, each worker is taken to be as fast as as many of this machine's cores, or as its GPU, and
        each node to read as fast as this machine.
    Raises: what reading a shard raises; RunError where there is no such cluster.
    """
    shards = plan.pool.shards
    groups = groups_left(shards, plan.config.mix_shards, names_of_scored(plan.root, plan.config.shards))
    if not groups:
        return None
    rows = [sum(shard.rows for shard in group.shards) for group in groups]
    work, tried_s = count_work(plan.config, rows, bytes_a_pair=bytes_of_pair(plan)), time.monotonic()
    workers, cores, nodes = _workers_here(plan), thread_count(), 1
    share = float(workers)
    if machines.cluster:
        from clipsel_core.cluster import room_in

        workers, cores, nodes = room_in(machines)
        share = workers * cores / thread_count() if cores else workers
    began_s = tried_s - began_s
    resident = _resident_bytes()
    read = _as_score_does(lambda: _Reading(plan, [shard for group in groups for shard in group.shards]))
    by_clock, by_core = _as_score_does(lambda: _arithmetic(plan, read.image, read.text, work, _COMPUTING_S))
    on_cpu, other_s = _is_on_cpu(plan), read.other_cpu_s / read.pairs
    speed = Speed(read.bytes / read.seconds, by_clock, other_s / thread_count() if on_cpu else 0.0, began_s)
    cpu = expect(work, Speed(np.inf, by_core, other_s))
    size = -(-work.largest // -(-work.largest // plan.config.batch_size))
    # Two groups are held, of one a batch as well; a column of float64 and one of float32 for each score.
    pair = read.bytes // read.pairs
    memory = resident + pair * (2 * work.largest + size) + 12 * len(plan.config.metrics) * work.largest
    return Forecast(
        workers=workers,
        cores=cores if on_cpu else 0,
        nodes=nodes,
        work=work,
        speed=speed,
        expected=expect(work, speed, workers=share, readers=nodes),
        cpu_seconds=cpu.seconds if on_cpu else None,
        memory_bytes=max(memory, _peak_bytes()),
        tried_shards=tuple(read.names),
        tried_bytes=read.bytes,
        from_disk_bytes=read.from_disk,
        tried_s=time.monotonic() - tried_s,
    )


def _as_score_does(work: Callable[[], Value]) -> Value:
    """Does the work in one of as many threads as `score` has. Where torch has more threads than there are cores, those
    that wait sleep; with fewer they are busy meanwhile, which costs a small shard more than its arithmetic does.
    """
    together = threading.Barrier(AT_ONCE)

    def begin() -> None:
        together.wait()
        torch.ones(1 << 20).sum()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        wait([threads.submit(begin) for _ in range(AT_ONCE)])
        return threads.submit(work).result()


class _Reading:
    """Some shards of a pool, read for some seconds as `score` reads them, and their scores written to a folder aside.

    bytes, pairs: that were read in so many seconds; other_cpu_s: seconds of a core for it, CLIPScore and writing.
    image, text: the usable rows of the last one that has any, on the device.
    Raises: PoolFormatError where none of them has any.
    """

    def __init__(self, plan: Plan, shards: Sequence[Shard]) -> None:
        self.bytes = self.pairs = 0
        self.seconds = self.other_cpu_s = 0.0
        self.names: list[str] = []
        last: Embeddings | None = None
        device, per_pair = plan.devices[0], bytes_of_pair(plan)
        disk = None if plan.pool.root.remote else _from_disk()
        places = np.linspace(0, len(shards) - 1, min(len(shards), _MOST_SHARDS)).astype(int)
        with tempfile.TemporaryDirectory() as aside:
            scorer = GroupScorer(replace(plan, root=Place.of_named(aside), targets={}), device)
            for shard in (shards[place] for place in dict.fromkeys(places)):
                _forget(shard)
                group, cpu_s, clock = Group((shard,), (shard,)), time.process_time(), time.monotonic()
                found = scorer.read(group)
                self.seconds += time.monotonic() - clock
                metrics = {}
                if len(found.image):
                    metrics, last = dict.fromkeys(plan.config.metrics, clip_score(found.image, found.text).cpu()), found
                scorer.write(group, metrics, found.usable, found.renormalised)
                self.other_cpu_s += time.process_time() - cpu_s
                self.bytes, self.pairs = self.bytes + per_pair * shard.rows, self.pairs + shard.rows
                self.names.append(shard.name)
                if self.seconds > _READING_S and last:
                    break
        if last is None:
            tried, remedy = f"none in {counted(len(self.names), 'shards')}", "see what clipsel inspect says"
            raise PoolFormatError(plan.pool.root, expected="a pair that can be scored", found=tried, remedy=remedy)
        self.image, self.text = last.image, last.text
        self.from_disk = None if disk is None else (_from_disk() or 0) - disk


def _arithmetic(
    plan: Plan, image: torch.Tensor, text: torch.Tensor, work: Workload, seconds: float
) -> tuple[dict[Part, float], dict[Part, float]]:
    """Operations of each part that there is in a second of the clock, and in a second of a core.

    image, text: some rows. seconds: for how long it is tried, about.
    """
    config, device = plan.config, plan.devices[0]
    parts = [part for part, operations in work.operations.items() if operations]
    width, each_s = plan.arch.width, seconds / len(parts)
    most = -(-work.largest // -(-work.largest // config.batch_size))
    rows = torch.arange(most, device=image.device) % len(image)
    image, text = image[rows], text[rows]
    found: dict[Part, tuple[float, float]] = {}
    options: dict[str, Any] = {"temperature": config.temperature, "precision": config.precision, "device": device}
    options |= {"divisions": 1, "seed": 0, "name": "probe"}

    def normalize(n: int) -> None:
        normalizer(image[:n], text[:n], batch_size=n, **options)

    found["normalizer"] = _operations_s(normalize, lambda n: 2 * width * n * n, most, each_s)
    tensors = [rows for rows in plan.targets.values() if rows.dtype != torch.float64]
    target = max(tensors, key=len)[:_MOST_TARGETS].to(device) if tensors else torch.empty(0)
    norms = [float(p) for p in config.norms if float(p) != 2 or are_few(target, device)]
    if "normsim" in parts:

        def compare(n: int) -> None:
            for p in norms:
                normsim(image[:n], target, p=p, device=device)

        once = 2 * width * len(target) * len(norms)
        found["normsim"] = _operations_s(compare, lambda n: once * n, most, each_s)
    if "moment" in parts:
        found["moment"] = _operations_s(
            lambda n: second_moment(target[:n], device=device), lambda n: 2 * width * width * n, len(target), each_s
        )
    if "normsim_2" in parts:
        moment = torch.eye(width, dtype=torch.float64)
        found["normsim_2"] = _operations_s(
            lambda n: normsim_2(image[:n], moment, device=device), lambda n: 2 * width * width * n, most, each_s
        )
    return {part: rates[0] for part, rates in found.items()}, {part: rates[1] for part, rates in found.items()}


def _operations_s(
    work: Callable[[int], object], operations: Callable[[int], int], most: int, seconds: float
) -> tuple[float, float]:
    """Operations in a second of the clock and of a core, with as many rows, up to the most, as the time allows."""
    rows = min(most, _FEWEST)
    work(rows)  # what is found out once per process
    began = time.monotonic()
    while True:
        took: list[float] = []
        worked: list[float] = []
        until = time.monotonic() + _SHORTEST_S
        while not took or time.monotonic() < until:
            clock, cpu = time.monotonic(), time.process_time()
            work(rows)
            took.append(time.monotonic() - clock)
            worked.append(time.process_time() - cpu)
        by_clock, by_core = (operations(rows) / max(statistics.median(some), 1e-9) for some in (took, worked))
        more = min(most, 2 * rows)
        if rows == most or time.monotonic() - began + operations(more) / by_clock > seconds:
            return by_clock, by_core
        rows = more


def _is_on_cpu(plan: Plan) -> bool:
    return torch.device(plan.devices[0]).type == "cpu"


def _workers_here(plan: Plan) -> int:
    """Workers that compute side by side; those on the CPU share its cores, and are as fast as one."""
    return 1 if _is_on_cpu(plan) else len(plan.devices)


def _forget(shard: Shard) -> None:
    """Has the system forget what it holds of a shard's embeddings in memory, where it can be told."""
    if shard.npz is not None and not shard.npz.remote and hasattr(os, "posix_fadvise"):
        with open(shard.npz.path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _from_disk() -> int | None:
    """Bytes that came from a disk for this process until now; None where the system does not say."""
    try:
        said = Path("/proc/self/io").read_text()
    except OSError:
        return None
    return int(next(line.split()[1] for line in said.splitlines() if line.startswith("read_bytes:")))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _resident_bytes() -> int:
    """What this process holds now; at its highest until now, where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _peak_bytes()
