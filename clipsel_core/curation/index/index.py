"""How does a run get its index, the order of every metric and of the uids, and how is it read?

    RUN/index/<stamp>/index.json        the metrics and their spans
    RUN/index/<stamp>/uids.npy          (N,) UID_DTYPE, in row order
    RUN/index/<stamp>/by-uid.npy        (N,) uint32, the rows in ascending order of their uids
    RUN/index/<stamp>/03-values.npy     and 03-codes, 03-order, 03-starts: the Ranking of the fourth metric
    RUN/index/<stamp>/from-00-01.npy    of two metrics that were counted together: PrefixCounts.sums
    RUN/index/<stamp>/gaps-00-01.npy    of two metrics that were ranked against each other: Disagreement.gaps
    RUN/index/<stamp>/map-<stamp>.npy   of the pairs on the map: their rows, in the order of its file

It is built once from the scores, kept beside them, and mapped from then on. The stamp changes with the run's score
files. The folder appears whole or not at all, can be deleted at any time, and is made again, the same to the byte.

Any number of servers may build at once: each fills a folder of its own and uses it at once; the first to have it on the
disk gives it its name, and the others throw theirs away. Where the run's folder cannot be written to, or the run is
small or still being scored, every metric is put in order in memory when it is first asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import re
import shutil
import threading
import uuid
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from clipsel_core import cache, files, tasks
from clipsel_core.curation.index import bitmaps, sorting
from clipsel_core.curation.index.ranking import Ranking
from clipsel_core.curation.index.score_table import ScoreFiles, ScoreTable
from clipsel_core.errors import counted
from clipsel_core.npy import is_as_saved, map_npy, save_checked
from clipsel_core.places import Place
from clipsel_core.runs.store import Run, files_at_once
from clipsel_core.tasks import Report, silent
from clipsel_core.uids import UID_DTYPE

_log = logging.getLogger(__name__)
_VERSION = 2
_DESCRIPTION, _UIDS, _BY_UID = "index.json", "uids.npy", "by-uid.npy"
_PARTS = {"values": np.float32, "codes": np.uint16, "order": np.uint32, "starts": np.int64}
_FEWEST_KEPT = 500_000
# What is held in memory while an index is built.
_BYTES_A_PAIR, _BYTES_A_METRIC, _MOST_AT_ONCE = 16, 10, 3
# What it takes on the disk a pair, and a pair and metric; with the scores that are fetched for it from a store.
_UIDS_BYTES, _METRIC_BYTES = 36, 14
_STAMP = re.compile(r"[0-9a-f]{16}")
_KEEPER = "keep index"

# The arrays that belong to a metric, or to the uids, by the names of their files.
Files = Mapping[str, Mapping[str, np.ndarray]]


class Index:
    """A run's pairs in order: the uids, and each metric's ranking. What is damaged is noticed when it is first asked
    for.

    folder: where it lies, as soon as it is safe on the disk. Any thread may call its methods.
    """

    def __init__(
        self, folder: Path, names: np.ndarray, by_uid: np.ndarray, rankings: Mapping[str, Ranking], files: Files
    ) -> None:
        self.folder = folder
        self._names, self._by_uid, self._rankings, self._files = names, by_uid, rankings, files
        self._lock = threading.Lock()
        self._found: dict[str, bool] = {}
        self.held: cache.Hold | None = None

    def ranking(self, metric: str) -> Ranking | None:
        """What belongs to a metric; None where it is damaged."""
        return self._rankings[metric] if self._is_whole(metric) else None

    def extent(self, metric: str) -> tuple[float, float]:
        """The span of a metric's finite scores."""
        return self._rankings[metric].low, self._rankings[metric].high

    @property
    def uids(self) -> np.ndarray | None:
        """The uids of all pairs, (N,) UID_DTYPE; None where they are damaged."""
        return self._names if self._is_whole(_UIDS) else None

    @property
    def by_uid(self) -> np.ndarray | None:
        """The rows in ascending order of their uids, (N,) uint32; None where they are damaged."""
        return self._by_uid if self._is_whole(_BY_UID) else None

    def rows_of(self, wanted: np.ndarray) -> np.ndarray | None:
        """The row of each uid, (M,) UID_DTYPE: (M,) int64, -1 where there is no such uid. Of repeated uids any row.

        None where the uids or their order are damaged.
        """
        if not (self._is_whole(_UIDS) and self._is_whole(_BY_UID)):
            return None
        return sorting.rows_of(self._names, self._by_uid, wanted, partial(_let_go, self._names))

    def _is_whole(self, part: str) -> bool:
        """Whether the files of a part hold what was written; where not, the next to open the run builds it again."""
        with self._lock:
            if part not in self._found:
                arrays = self._files[part]
                self._found[part] = whole = all(self._is_as_saved(name, array) for name, array in arrays.items())
                if not whole:
                    _log.warning("%s: damaged at %s; what it holds is read from the scores", self.folder, part)
                    (self.folder / _DESCRIPTION).unlink(missing_ok=True)
            return self._found[part]

    def _is_as_saved(self, name: str, array: np.ndarray) -> bool:
        try:
            found = is_as_saved(self.folder / name, array)
        except FileNotFoundError:  # Deleted meanwhile; what is mapped stays.
            return True
        if array is self._names:
            _let_go(array, 0, len(array))
        return found


def must_build(run: Run, fewest: int = _FEWEST_KEPT) -> bool:
    """Whether open_indexed would have to build the run's index first, which takes a while."""
    if not _keeps(run, fewest):
        return False
    return not (run.index_dir / scores_fingerprint(run) / _DESCRIPTION).is_file()


def open_indexed(run: Run, fewest: int = _FEWEST_KEPT, report: Report = silent) -> ScoreTable:
    """The run's table with its index, which is built where it is not there yet or not of these scores any more.

    fewest: runs with fewer pairs keep none on disk. report: told how many columns are in order.
    Raises: RunError where no shard is finished or a file is damaged.
    """
    table = ScoreTable.open(run)
    if not _keeps(run, fewest):
        return table
    folder = run.index_dir / scores_fingerprint(run)
    try:
        held = cache.hold(run.cache_dir)
        found = read_index(folder, table.metrics, len(table))
        if found is None:
            cache.expect_room(run.cache_dir, len(table) * (_UIDS_BYTES + _METRIC_BYTES * len(table.metrics)))
            found = _build(table, folder, report)
        found.held = held
    except OSError as error:
        _log.warning("no index is kept in %s: %s", folder.parent, error)
        return table
    table.use(found)
    return table


def _keeps(run: Run, fewest: int) -> bool:
    """Whether a run has an index on the disk: one in a store in any case, whose scores would be fetched each time."""
    return run.pairs > 0 if run.root.remote else run.finished and run.pairs >= fewest


def wait_until_kept() -> None:
    """Waits until what was built is safe on the disk under its name."""
    for thread in threading.enumerate():
        if thread.name == _KEEPER:
            thread.join()


def scores_fingerprint(run: Run) -> str:
    """16 hex digits that change whenever the run's metrics or score files do."""
    shards = [shard.name for shard in run.scored_shards]
    # All files of a metric lie in one folder: asking for each one's path would take longer than looking at it.
    of_metrics = {run.file_with(metric, shard).parent for metric in run.metrics for shard in shards[:1]}
    folders = {folder: folder.path.removeprefix(f"{run.root.path}/") for folder in of_metrics}
    files, names = [], sorted(f"{shard}.parquet" for shard in shards)
    for folder, within in sorted(folders.items(), key=lambda item: item[1]):
        files += [(f"{within}/{name}", *stamp) for name, stamp in folder.stamps(names).items()]
    return hashlib.sha256(json.dumps([_VERSION, run.metrics, shards, files]).encode()).hexdigest()[:16]


def read_index(folder: Path, metrics: tuple[str, ...], pairs: int) -> Index | None:
    """The index in a folder, mapped; None where there is none, or not of these metrics and pairs, or it is damaged.

    Whether the numbers are as they were written is looked at when they are first asked for: see Index.
    """
    try:
        said = json.loads((folder / _DESCRIPTION).read_text())
        expected = {"pairs": pairs, "metrics": said["metrics"]}
        if {**expected, "crc32": _checksum(expected)} != said:
            return None
        if tuple(metric["name"] for metric in said["metrics"]) != metrics:
            return None
        names, by_uid = _map(folder / _UIDS, UID_DTYPE, pairs), _map(folder / _BY_UID, np.uint32, pairs)
        files, rankings = {_UIDS: {_UIDS: names}, _BY_UID: {_BY_UID: by_uid}}, {}
        for place, metric in enumerate(said["metrics"]):
            parts = {part: _map(folder / f"{place:02d}-{part}.npy", dtype) for part, dtype in _PARTS.items()}
            if not len(parts["values"]) == len(parts["codes"]) == pairs or parts["starts"][-1] != len(parts["order"]):
                return None
            rankings[metric["name"]] = Ranking(**parts, low=metric["low"], high=metric["high"])
            files[metric["name"]] = {f"{place:02d}-{part}.npy": array for part, array in parts.items()}
        return Index(folder, names, by_uid, rankings, files)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _map(path: Path, dtype: np.dtype | type, length: int | None = None) -> np.ndarray:
    found = map_npy(path)
    if found.dtype != np.dtype(dtype) or found.ndim != 1 or (length is not None and len(found) != length):
        raise ValueError(f"{path}: dtype {found.dtype}, shape {found.shape}")
    return bitmaps.read_only(found)


def _checksum(said: Any) -> int:
    return zlib.crc32(json.dumps(said).encode())


def _let_go(array: np.ndarray, start: int, stop: int) -> None:
    """Lets pages of a mapped file go: looking for many uids touches them all, 16 bytes a pair. They can come back."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        ahead = array.ctypes.data - np.frombuffer(owner, np.uint8).ctypes.data
        first = (ahead + start * array.itemsize) // mmap.PAGESIZE * mmap.PAGESIZE
        owner.madvise(mmap.MADV_DONTNEED, first, ahead + stop * array.itemsize - first)


def _build(table: ScoreTable, folder: Path, report: Report) -> Index:
    """Fills a folder aside, which is used from then on; it gets its name when a power cut cannot harm it any more."""
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    holding = ExitStack()
    try:
        holding.enter_context(files.locked(aside, is_folder=True))
        files.remove_abandoned(folder.parent)
        if table.run.root.remote:
            fetched = aside / "fetched"
            _fill(table, _fetch(table.files, fetched, report), aside, report)
            shutil.rmtree(fetched)
        else:
            _fill(table, table.files, aside, report)
        found = read_index(aside, table.metrics, len(table))
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


def _fetch(scores: ScoreFiles, folder: Path, report: Report) -> ScoreFiles:
    """Copies a run's score files from its store into a folder, each once, and opens them there."""
    run, done, lock = scores.run, count(1), threading.Lock()
    wanted = {run.file_with(metric, shard) for metric in run.metrics for shard in scores.shard_names}
    start = f"{run.root.path}/"

    def fetch(file: Place) -> None:
        copy = folder / file.path.removeprefix(start)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read())
        with lock:
            number = next(done)
            report(number, len(wanted), "files", f"Fetching scores: {number:,} of {counted(len(wanted), 'files')} …")

    with ThreadPoolExecutor(files_at_once(run.root)) as threads:
        tasks.in_threads(threads, fetch, sorted(wanted, key=lambda file: file.path))
    here = replace(run, root=Place.of_named(folder))
    return ScoreFiles(here, scores.shards)


def _fill(table: ScoreTable, scores: ScoreFiles, folder: Path, report: Report) -> None:
    """Puts uids and metrics in order one after another, on all cores; meanwhile the next is read, the last written."""
    done, columns = count(1), 1 + len(table.metrics)

    def add_metric(place: int) -> dict[str, Any]:
        metric = table.metrics[place]
        ranking = Ranking.of(scores.column(metric), sorter)
        for part in _PARTS:
            save_checked(folder / f"{place:02d}-{part}.npy", getattr(ranking, part))
        report(next(done), columns, "columns")
        return {"name": metric, "low": ranking.low, "high": ranking.high}

    # As many are read, put in order and written side by side as a quarter of the memory holds.
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    at_once = min(_MOST_AT_ONCE, (memory // 4 // max(len(table), 1) - _BYTES_A_PAIR) // _BYTES_A_METRIC)
    with ThreadPoolExecutor(1) as for_uids, ThreadPoolExecutor(max(1, at_once)) as threads:
        names = scores.uids()
        writing = for_uids.submit(tasks.carried(save_checked), folder / _UIDS, names)
        by_uid = sorting.order_by_uid(names)
        del names
        sorter = sorting.Sorter(by_uid)
        save_checked(folder / _BY_UID, by_uid)
        report(next(done), columns, "columns")
        said = {"pairs": len(table), "metrics": list(threads.map(tasks.carried(add_metric), range(columns - 1)))}
        writing.result()
    (folder / _DESCRIPTION).write_text(json.dumps({**said, "crc32": _checksum(said)}) + "\n")


def _keep(aside: Path, folder: Path, metrics: tuple[str, ...], pairs: int, holding: ExitStack) -> None:
    """Has a folder written to the disk, gives it its name, and takes away indexes of what the scores were before."""
    try:
        _sync(aside)
        if read_index(folder, metrics, pairs) is None:
            shutil.rmtree(folder, ignore_errors=True)
            try:
                os.rename(aside, folder)
            except OSError:
                if not folder.is_dir():  # Else another server was quicker, with the same bytes.
                    raise
        for other in folder.parent.iterdir():
            if _STAMP.fullmatch(other.name) and other != folder:
                shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        _log.warning("no index is kept in %s: %s", folder.parent, error)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        holding.close()


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
