"""How fast is a pool opened in a store that speaks S3 and read from it, against bare ranges? How much longer do runs
from it and into it take?

The store is moto's server, a process of its own on the loopback address.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from benchmarks.pools import write_pool
from benchmarks.table import Row, at_least, at_most
from benchmarks.turns import median_ratio, take_turns
from clipsel_core.npy import Member
from clipsel_core.places import IN_FLIGHT
from clipsel_core.pool import layout
from clipsel_core.pool.embeddings import find_sides, read_pairs
from clipsel_core.pool.layout import open_pool
from clipsel_core.runs.local import score

_SHARDS, _ROWS = 4, 20_000
# As clipsel reads: both sides at once, so many pieces of so many bytes of each under way.
_PIECE, _IN_FLIGHT = 8 << 20, 8
_ADDRESS, _MANY_ADDRESS = "s3://bucket/pool", "s3://bucket/many"
# Of a large pool, of which only the ends of its parquets are read.
_MANY, _END = 1_000, 1 << 16
_SECONDS_TO_START = 60


def measure(rounds: int) -> list[Row]:
    """Rows for reading a shard of 20,000 pairs of width 768, for `score` of four of them, and for opening 1,000."""
    with tempfile.TemporaryDirectory() as folder, _store() as port:
        root = write_pool(Path(folder) / "pool", [_ROWS] * _SHARDS)
        fs = fsspec.filesystem("s3")
        fs.mkdir("bucket")
        fs.put(str(root), "bucket/pool", recursive=True)
        pool = open_pool(_ADDRESS)
        shard, arch = pool.shards[0], pool.arch()
        _, sides = find_sides(shard, arch)
        signed = fs.sign(f"bucket/pool/metadata/{shard.name}.npz", expiration=3600).partition(str(port))[2]
        times = take_turns(
            {
                "bare": lambda: _read_bare(port, signed, sides),
                "pairs": lambda: read_pairs(shard, arch),
            },
            rounds,
        )
        runs: dict[str, list[float]] = {"disk": [], "store": [], "into": []}
        for number in range(max(1, rounds // 2)):
            there = f"s3://bucket/runs/{number}"
            for name, address, run in (("disk", root, None), ("store", _ADDRESS, None), ("into", root, there)):
                start = time.perf_counter()
                score(address, run or Path(folder) / f"{name}{number}", device="cpu")
                runs[name].append(time.perf_counter() - start)
        opened = _open_many(fs, Path(folder), port, rounds)
    size = sum(side.dtype.itemsize * side.shape[0] * side.shape[1] for side in sides)
    bare = statistics.median(times["bare"])
    ratio, into = (
        statistics.median(there / here for here, there in zip(runs["disk"], runs[name], strict=True))
        for name in ("store", "into")
    )
    rate = median_ratio(times["bare"], times["pairs"])
    return [
        Row("a bare loop of parallel ranges from S3 on loopback", f"{size / bare / 2**20:.0f} MiB/s"),
        at_least("reading both sides of a shard, every row checked, rate against it", rate, 0.8, "x"),
        at_most(f"`score` of {_SHARDS} shards of {_ROWS:,} from S3, D = 768, time against from disk", ratio, 1.1, "x"),
        at_most("the same from disk into S3, time against onto disk", into, 1.1, "x"),
        Row("the same from disk", f"{statistics.median(runs['disk']):.0f} s"),
        Row(
            f"opening a pool of {_MANY:,} shards in S3, time against a bare loop over their ends",
            f"{median_ratio(opened['pool'], opened['bare']):.1f}x",
        ),
        Row("the bare loop, a shard", f"{statistics.median(opened['bare']) / _MANY * 1e3:.1f} ms"),
    ]


def _open_many(fs: Any, folder: Path, port: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of opening a pool of small shards in a store, and of reading the ends of its parquets, in turns."""
    root = write_pool(folder / "many", [100] * _MANY, width=8)
    for file in (root / "metadata").glob("*"):
        fs.pipe_file(f"bucket/many/metadata/{file.name}", file.read_bytes())
    signed = [
        (fs.sign(f"bucket/many/metadata/{file.name}", expiration=3600).partition(str(port))[2], file.stat().st_size)
        for file in (root / "metadata").glob("*.parquet")
    ]

    def read(path: str, size: int) -> None:
        first = max(0, size - _END)
        connection = HTTPConnection("127.0.0.1", port)
        connection.request("GET", path, headers={"Range": f"bytes={first}-{size - 1}"})
        assert len(connection.getresponse().read()) == size - first
        connection.close()

    def read_all() -> None:
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            list(threads.map(read, *zip(*signed, strict=True)))

    def open_anew() -> None:
        layout._open_stored.cache_clear()
        assert len(open_pool(_MANY_ADDRESS).shards) == _MANY

    return take_turns({"bare": read_all, "pool": open_anew}, rounds)


@contextmanager
def _store() -> Iterator[int]:
    """The port of a store on this machine, which s3:// leads to meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    address = f"http://127.0.0.1:{port}"
    key = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ENDPOINT_URL": address, **key}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + _SECONDS_TO_START
            while time.monotonic() < until:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield port
        finally:
            server.terminate()


def _read_bare(port: int, path: str, sides: tuple[Member, ...]) -> None:
    """Reads arrays in ranges, each straight into its place."""

    def read(piece: tuple[int, memoryview]) -> None:
        offset, out = piece
        connection = HTTPConnection("127.0.0.1", port)
        connection.request("GET", path, headers={"Range": f"bytes={offset}-{offset + len(out) - 1}"})
        answer, done = connection.getresponse(), 0
        while done < len(out) and (count := answer.readinto(out[done:])):
            done += count
        connection.close()
        assert done == len(out)

    pieces = []
    for side in sides:
        out = np.empty(side.shape, side.dtype).reshape(-1).view(np.uint8)
        assert side.offset is not None
        pieces += [(side.offset + at, out[at : at + _PIECE].data) for at in range(0, len(out), _PIECE)]
    with ThreadPoolExecutor(_IN_FLIGHT) as threads:
        list(threads.map(read, pieces))
