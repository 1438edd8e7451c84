"""How does a run get its index? Built once from its scores, kept beside it, and made anew when the scores change.

Any number of servers may build at once: each fills a folder of its own and uses it at once; the first to have it on the
disk gives it its name, and the others throw theirs away. Where the run's folder cannot be written to, or the run is
small or still being scored, every metric is put in order in memory when it is first asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from clipsel_core import files, tasks
from clipsel_core.curation.index import index, uid_order
from clipsel_core.curation.index.bins import MetricBins
from clipsel_core.curation.index.score_order import Sorter
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.runs.store import Run
from clipsel_core.tasks import Report, silent

_log = logging.getLogger(__name__)
_VERSION = 2
_FEWEST_KEPT = 500_000
_BYTES_A_PAIR, _BYTES_A_METRIC, _MOST_AT_ONCE = 12, 10, 3
_STAMP = re.compile(r"[0-9a-f]{16}")
_KEEPER = "keep index"


def must_build(run: Run, fewest: int = _FEWEST_KEPT) -> bool:
    """Whether open_indexed would have to build the run's index first, which takes a while."""
    if not run.finished or run.pairs < fewest:
        return False
    return not index.is_there(run.root / "index" / stamp_of(run))


def open_indexed(run: Run, fewest: int = _FEWEST_KEPT, report: Report = silent) -> ScoreTable:
    """The run's table with its index, which is built where it is not there yet or not of these scores any more.

    fewest: runs with fewer pairs keep none on disk. report: told how many columns are in order.
    Raises: RunError where no shard is finished or a file is damaged.
    """
    if not run.finished or run.pairs < fewest:
        return ScoreTable.open(run)
    folder = run.root / "index" / stamp_of(run)
    table = ScoreTable.open(run)
    found = index.read_index(folder, table.metrics, len(table))
    if found is None:
        try:
            found = _build(table, folder, report)
        except OSError as error:
            _log.warning("no index is kept in %s: %s", folder.parent, error)
            return table
    table.use(found)
    return table


def wait_until_kept() -> None:
    """Waits until what was built is safe on the disk under its name."""
    for thread in threading.enumerate():
        if thread.name == _KEEPER:
            thread.join()


def stamp_of(run: Run) -> str:
    """16 hex digits that change whenever the run's metrics or score files do."""
    shards = [file.stem for file in run.score_files]
    # All files of a metric lie in one folder: asking for each one's path would take longer than looking at it.
    folders = sorted({run.file_with(metric, shard).parent for metric in run.metrics for shard in shards[:1]})
    files = []
    for folder in folders:
        within = folder.relative_to(run.root).as_posix()
        for name in sorted(f"{shard}.parquet" for shard in shards):
            stat = os.stat(folder / name)
            files.append((f"{within}/{name}", stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(json.dumps([_VERSION, run.metrics, shards, files]).encode()).hexdigest()[:16]


def _build(table: ScoreTable, folder: Path, report: Report) -> index.Index:
    """Fills a folder aside, which is used from then on; it gets its name when a power cut cannot harm it any more."""
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    aside.mkdir(parents=True)
    holding = ExitStack()
    try:
        holding.enter_context(files.held(aside))
        files.remove_abandoned(folder.parent)
        _fill(table, aside, report)
        found = index.read_index(aside, table.metrics, len(table))
        if found is None:
            raise OSError(f"{aside}: not what was written")
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        holding.close()
        raise
    # Not a daemon: a command that ends first waits for it.
    threading.Thread(target=_keep, args=(aside, folder, table.metrics, len(table), holding), name=_KEEPER).start()
    found.folder = folder
    return found


def _keep(aside: Path, folder: Path, metrics: tuple[str, ...], pairs: int, holding: ExitStack) -> None:
    """Has a folder written to the disk, gives it its name, and takes away indexes of what the scores were before."""
    try:
        _sync(aside)
        if index.read_index(folder, metrics, pairs) is None:
            shutil.rmtree(folder, ignore_errors=True)
            _rename(aside, folder)
        _tidy(folder)
    except OSError as error:
        _log.warning("no index is kept in %s: %s", folder.parent, error)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        holding.close()


class _Room(NamedTuple):
    """Memory for one ordering after another, as new memory costs more than sorting. (N,) each."""

    values: np.ndarray
    codes: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, pairs: int) -> _Room:
        return cls(np.empty(pairs, np.float32), np.empty(pairs, np.uint16), np.empty(pairs, np.uint32))


@contextmanager
def _lent(rooms: SimpleQueue[_Room]) -> Iterator[_Room]:
    """A room while it is worked in; whatever happens there, the next one who waits gets it."""
    room = rooms.get()
    try:
        yield room
    finally:
        rooms.put(room)


def _fill(table: ScoreTable, folder: Path, report: Report) -> None:
    """Puts uids and metrics in order one after another, on all cores; meanwhile the next is read, the last written."""
    at_once, records = _at_once(len(table)), np.empty(len(table), np.uint64)
    rooms: SimpleQueue[_Room] = SimpleQueue()
    for _ in range(at_once):
        rooms.put(_Room.of(len(table)))
    uids_read, sorting = threading.Event(), threading.Lock()
    written, columns = count(1), 1 + len(table.metrics)

    def add_uids() -> Sorter:
        with _lent(rooms) as room:
            try:
                names = table.uids()
            finally:
                uids_read.set()
            writing = for_uids.submit(tasks.carried(index.write_uids), folder, names)
            by_uid = uid_order.order_by_uid(names, records, room.codes, room.order)
            sorter = Sorter(by_uid, records)
            index.write_by_uid(folder, by_uid)
        writing.result()
        report(next(written), columns, "columns")
        return sorter

    def add_metric(place: int) -> tuple[float, float]:
        uids_read.wait()  # Reading a metric beside them would keep the longer work waiting.
        with _lent(rooms) as room:
            values = table.files.column(table.metrics[place], room.values)
            sorter = ordered.result()
            with sorting:
                bins = MetricBins.of(values, sorter, room.codes, room.order)
            index.write_bins(folder, place, bins)
        report(next(written), columns, "columns")
        return bins.low, bins.high

    with ThreadPoolExecutor(2) as for_uids, ThreadPoolExecutor(at_once) as threads:
        ordered = for_uids.submit(tasks.carried(add_uids))
        spans = list(threads.map(tasks.carried(add_metric), range(len(table.metrics))))
    index.write_description(folder, dict(zip(table.metrics, spans, strict=True)), len(table))


def _at_once(pairs: int) -> int:
    """Metrics that are read, put in order and written side by side: as many as a quarter of the memory holds."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(max(1, min(_MOST_AT_ONCE, (memory // 4 // max(pairs, 1) - _BYTES_A_PAIR) // _BYTES_A_METRIC)))


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def _rename(aside: Path, folder: Path) -> None:
    try:
        os.rename(aside, folder)
    except OSError:
        if not folder.is_dir():  # Else another server was quicker, with the same bytes.
            raise


def _tidy(folder: Path) -> None:
    """Takes away older indexes."""
    for other in folder.parent.iterdir():
        if _STAMP.fullmatch(other.name) and other != folder:
            shutil.rmtree(other, ignore_errors=True)
