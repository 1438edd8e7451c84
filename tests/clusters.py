"""A Ray cluster of nodes on this machine, and what becomes of its workers where they open a file."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests import traps

ENDS = "os.kill(os.getpid(), 9)"
# From then on the disk is full for whoever writes a table.
FILLS_UP = """
import pyarrow.parquet as pq
if not hasattr(pq, "write_to"):
    pq.write_to = pq.write_table
    def write_table(table, path, **options):
        path.unlink()
        path.symlink_to("/dev/full")  # which Arrow would remove
        pq.write_to(table, path, **options)
    pq.write_table = write_table
"""
# What a worker does where it opens the file; `once` is there until the first of them has come.
_ONCE = """
import os, time
try:
    os.rename({once!r}, {seen!r})
except OSError:
    pass
else:
    {end}
"""


class Trap:
    """What processes of a cluster do where they open a file. seen: is there once one of them was the first.

    environment: of the cluster.
    """

    def __init__(self, file: Path, folder: Path) -> None:
        self.file = file
        self.once, self.seen, self._script = (folder / name for name in ("once", "seen", "script.py"))
        self.clear()
        end = f"exec(compile(builtins.open({str(self._script)!r}).read(), 'script', 'exec'), {{'os': os}})"
        self.environment = traps.setting(file, folder / "hook", end)

    def clear(self) -> None:
        self._script.write_text("")
        for file in (self.once, self.seen):
            file.unlink(missing_ok=True)

    def always(self, end: str) -> None:
        self._script.write_text(end)

    def first_time(self, end: str) -> None:
        self.once.touch()
        self._script.write_text(_ONCE.format(once=str(self.once), seen=str(self.seen), end=end))


@contextmanager
def three_nodes(environment: Mapping[str, str]) -> Iterator[tuple[Any, Callable[[int], None]]]:
    """A cluster of a head, which computes nothing, and two nodes of one core; and what adds a node of some cores."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()

    def add(cores: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**environment, "RAY_USAGE_STATS_ENABLED": "0"}.items():
                patch.setenv(name, value)
            cluster.add_node(num_cpus=cores, object_store_memory=80 << 20, include_dashboard=False)

    try:
        for cores in (0, 1, 1):
            add(cores)
        yield cluster, add
    finally:
        cluster.shutdown()


def kill_an_actor(cluster: Any) -> list[int]:
    """Kills the first process of a cluster that is at work as an actor, if one is. Returns its number."""
    nodes = {node.all_processes["raylet"][0].process.pid for node in cluster.worker_nodes}
    for process in sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()):
        with suppress(OSError):
            parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
            if parent in nodes and Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::_Actor"):
                os.kill(process, signal.SIGKILL)
                return [process]
    return []
