"""Where in tars do the images lie, by uid? Headers and json members are read; many tars by a process on each core.

    python -m clipsel_core.pool.tar_index TAR ...

prints the tables of these tars, one after the other, as a stream of Arrow's, each with what is wrong with its tar; else
the parts of an error, on stderr.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from clipsel_core import errors, uids
from clipsel_core.errors import ClipselError, LostWorkerError, PoolFormatError, counted, reason_of
from clipsel_core.places import Place
from clipsel_core.pool.conventions import padded_uid
from clipsel_core.pool.sources.members import Members, TarSample, TarSamples
from clipsel_core.processes import as_worker_error, child_environment, ending, module_command
from clipsel_core.tasks import allowed_cores, in_order

# Of tars that a process goes through: a few seconds of work, as it takes half a second to start.
_LEAST_BYTES, _MOST_BYTES, _MOST_TARS = 256 << 20, 2 << 30, 500
_EXPECTED = "a tar whose images can be found"
_SCHEMA = pa.schema(
    {"uid_hi": pa.uint64(), "uid_lo": pa.uint64(), "place": pa.int32(), "offset": pa.int64(), "length": pa.int64()}
    | dict.fromkeys(("json_offset", "json_length"), pa.int64())
)


class Indexed(NamedTuple):
    """A tar with its images: uid_hi, uid_lo, place (0), offset, length and where their json is.

    damage: what is wrong with the tar, where that is something; the images are those that were found all the same.
    """

    tar: Place
    images: pa.Table
    damage: str


def index_tars(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Indexed]:
    """Goes through each tar, in order. An image whose key has no json, or no uid in it, is left out.

    Raises: PoolFormatError on a tar that the disk does not give; LostWorkerError where a process ends before it is
        through.
    """
    tars, cores = list(map(Place.of_named, paths)), allowed_cores()
    groups = _groups(tars)
    if len(groups) < 2 or cores < 2:
        for tar in tars:
            batch, damage = _index_tar(tar)
            yield Indexed(tar, pa.Table.from_batches([batch]), damage)
        return
    processes, threads = _Processes(), ThreadPoolExecutor(cores)
    try:
        for group, found in in_order(groups, lambda group: threads.submit(_elsewhere, group, processes), 2 * cores):
            for tar, (batch, damage) in zip(group, found, strict=True):
                yield Indexed(tar, pa.Table.from_batches([batch]), damage)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        processes.end()


class _Processes:
    """Those at work, which can be ended all at once; then no other is started."""

    def __init__(self) -> None:
        self._lock, self._at_work, self._ended = Lock(), set[subprocess.Popen[bytes]](), False

    def run(self, command: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Runs a command to its end: its exit status, and what it printed to stdout and stderr."""
        with self._lock:
            if self._ended:
                return 1, b"", b""
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, env=child_environment(), stdout=pipe, stderr=pipe)
            self._at_work.add(process)
        with process:
            printed = process.communicate()
        self._at_work.discard(process)
        return process.returncode, *printed

    def end(self) -> None:
        """Ends those at work."""
        with self._lock:
            self._ended = True
            for process in list(self._at_work):
                process.kill()


def _groups(tars: Sequence[Place]) -> list[list[Place]]:
    """The tars, in order, as many together as are worth a process."""
    sizes = [tar.size() for tar in tars]
    enough = min(max(_LEAST_BYTES, sum(sizes) // (8 * allowed_cores())), _MOST_BYTES)
    groups: list[list[Place]] = []
    filled = enough
    for tar, size in zip(tars, sizes, strict=True):
        if filled >= enough or len(groups[-1]) >= _MOST_TARS:
            groups.append([])
            filled = 0
        groups[-1].append(tar)
        filled += size
    return groups


def _elsewhere(tars: list[Place], processes: _Processes) -> list[tuple[pa.RecordBatch, str]]:
    """What lies in tars, found by a process of its own. Not multiprocessing: it runs a server's main file again."""
    status, found, said = processes.run(module_command("clipsel_core.pool.tar_index", *map(str, tars)))
    if status == 0:
        return [
            (read.batch, read.custom_metadata[b"damage"].decode())
            for read in pa.ipc.open_stream(found).iter_batches_with_custom_metadata()
        ]
    try:
        error: Exception = errors.from_parts(json.loads(said.splitlines()[-1]))
    except (IndexError, ValueError):
        done = 0
        with suppress(pa.ArrowException, OSError):
            for _ in pa.ipc.open_stream(found):
                done += 1
        tar = tars[min(done, len(tars) - 1)]
        wrong, remedy = f"that its process ended {ending(status)}", "see whether memory runs out, then start again"
        error = LostWorkerError(tar, expected=_EXPECTED, found=wrong, remedy=remedy)
    raise error


def _index_tar(path: Place) -> tuple[pa.RecordBatch, str]:
    """The images of a tar and what is wrong with it."""
    images: list[tuple[str, int, int, int, int]] = []
    damage, left_out = "", list[TarSample]()
    try:
        with path.open(in_places=True) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            for sample in TarSamples(Members(file, size), size, captions=False):
                if sample.fault:
                    damage = damage or sample.fault * (not sample.key)
                    left_out.append(sample)
                elif sample.place and sample.json_place and (uid := padded_uid(sample.facts.get("uid"))):
                    images.append((uid, *sample.json_place, *sample.place))
    except OSError as error:
        # A pipe, say, would be waited for without end.
        if error.errno in (errno.EINVAL, errno.EISDIR):
            return _batch([]), f"it is {error.strerror}"
        raise PoolFormatError(
            path, expected="a whole tar", found=reason_of(error), remedy="download it again"
        ) from error
    if left_out and not damage:
        damage = f"{counted(len(left_out), 'images')} left out, first {left_out[0].key}: {left_out[0].fault}"
    return _batch(images), damage


def _batch(found: list[tuple[str, int, int, int, int]]) -> pa.RecordBatch:
    names, *places = zip(*found, strict=True) if found else ((), (), (), (), ())
    keys = uids.from_hex(list(names))
    columns = [keys["f0"].copy(), keys["f1"].copy(), np.zeros(len(keys), np.int32), *places[2:], *places[:2]]
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)


if __name__ == "__main__":
    try:
        with pa.ipc.new_stream(sys.stdout.buffer, _SCHEMA) as stream:
            for tar in sys.argv[1:]:
                with as_worker_error(tar, _EXPECTED):
                    batch, damage = _index_tar(Place.of_named(tar))
                    stream.write_batch(batch, custom_metadata={"damage": damage})
                # At once, so that what has come out tells which tar a process was at when it ended.
                sys.stdout.buffer.flush()
    except (ClipselError, OSError) as error:
        print(json.dumps(errors.parts(error)), file=sys.stderr)
        sys.exit(1)
