"""What does RUN/index/ hold, and how is it read? The order of every metric and the uids, as arrays mapped from files.

    RUN/index/<stamp>/index.json        the metrics and their spans
    RUN/index/<stamp>/uids.npy          (N,) UID_DTYPE, in row order
    RUN/index/<stamp>/by-uid.npy        (N,) uint32, the rows in ascending order of their uids
    RUN/index/<stamp>/03-values.npy     and 03-codes, 03-order, 03-starts: MetricBins of the fourth metric
    RUN/index/<stamp>/gaps-00-01.npy    of two metrics that were ranked against each other: Disagreement.gaps
    RUN/index/<stamp>/map-<stamp>.npy   of the pairs on the map: their rows, in the order of its file

The stamp changes with the run's score files. The folder appears whole or not at all, can be deleted at any time, and
is made again from the scores, the same to the byte.
"""

from __future__ import annotations

import json
import logging
import mmap
import threading
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clipsel_core.curation.index import passes, uid_order
from clipsel_core.curation.index.bins import MetricBins
from clipsel_core.curation.index.saving import is_as_saved, load, save
from clipsel_core.uids import UID_DTYPE

_log = logging.getLogger(__name__)
_DESCRIPTION, _UIDS, _BY_UID = "index.json", "uids.npy", "by-uid.npy"
# The arrays that belong to a metric, or to the uids, by the names of their files.
Files = Mapping[str, Mapping[str, np.ndarray]]
_PARTS = {"values": np.float32, "codes": np.uint16, "order": np.uint32, "starts": np.int64}


class Index:
    """A run's pairs in order: the uids, and each metric's bins. What is damaged is noticed when it is first asked for.

    folder: where it lies, as soon as it is safe on the disk. Any thread may call its methods.
    """

    def __init__(
        self, folder: Path, names: np.ndarray, by_uid: np.ndarray, bins: Mapping[str, MetricBins], files: Files
    ) -> None:
        self.folder = folder
        self._names, self._by_uid, self._bins, self._files = names, by_uid, bins, files
        self._lock = threading.Lock()
        self._found: dict[str, bool] = {}

    def bins(self, metric: str) -> MetricBins | None:
        """What belongs to a metric; None where it is damaged."""
        return self._bins[metric] if self._is_whole(metric) else None

    def extent(self, metric: str) -> tuple[float, float]:
        """The span of a metric's finite scores."""
        return self._bins[metric].low, self._bins[metric].high

    @property
    def uids(self) -> np.ndarray | None:
        """The uids of all pairs, (N,) UID_DTYPE; None where they are damaged."""
        return self._names if self._is_whole(_UIDS) else None

    def rows_of(self, wanted: np.ndarray) -> np.ndarray | None:
        """The row of each uid, (M,) UID_DTYPE: (M,) int64, -1 where there is no such uid. Of repeated uids any row.

        None where the uids or their order are damaged.
        """
        if not (self._is_whole(_UIDS) and self._is_whole(_BY_UID)):
            return None
        return uid_order.rows_of(self._names, self._by_uid, wanted, partial(_let_go, self._names))

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


def write_uids(folder: Path, names: np.ndarray) -> None:
    """Writes the uids."""
    save(folder / _UIDS, names)


def write_by_uid(folder: Path, by_uid: np.ndarray) -> None:
    """Writes their order."""
    save(folder / _BY_UID, by_uid)


def write_bins(folder: Path, place: int, bins: MetricBins) -> None:
    """Writes what belongs to one metric; place: of it among the run's."""
    for part in _PARTS:
        save(folder / f"{place:02d}-{part}.npy", getattr(bins, part))


def write_description(folder: Path, spans: Mapping[str, tuple[float, float]], pairs: int) -> None:
    """Writes index.json. spans: low and high of each metric, in the run's order. pairs: in the run."""
    metrics = [{"name": name, "low": low, "high": high} for name, (low, high) in spans.items()]
    said = {"pairs": pairs, "metrics": metrics}
    (folder / _DESCRIPTION).write_text(json.dumps({**said, "crc32": _checksum(said)}) + "\n")


def is_there(folder: Path) -> bool:
    """Whether an index was written to a folder; `read_index` says whether it can be used."""
    return (folder / _DESCRIPTION).is_file()


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
        files, bins = {_UIDS: {_UIDS: names}, _BY_UID: {_BY_UID: by_uid}}, {}
        for place, metric in enumerate(said["metrics"]):
            parts = {part: _map(folder / f"{place:02d}-{part}.npy", dtype) for part, dtype in _PARTS.items()}
            if not len(parts["values"]) == len(parts["codes"]) == pairs or parts["starts"][-1] != len(parts["order"]):
                return None
            bins[metric["name"]] = MetricBins(**parts, low=metric["low"], high=metric["high"])
            files[metric["name"]] = {f"{place:02d}-{part}.npy": array for part, array in parts.items()}
        return Index(folder, names, by_uid, bins, files)
    except (OSError, ValueError, LookupError, TypeError):
        return None


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


def _map(path: Path, dtype: np.dtype | type, length: int | None = None) -> np.ndarray:
    found = load(path, mapped=True)
    if found.dtype != np.dtype(dtype) or found.ndim != 1 or (length is not None and len(found) != length):
        raise ValueError(f"{path}: dtype {found.dtype}, shape {found.shape}")
    return passes.read_only(found)
