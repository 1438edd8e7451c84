"""What does RUN/index/ hold, and how is it read? The order of every metric and the uids, as arrays mapped from files.

    RUN/index/<stamp>/index.json        the metrics, their spans, and how many pairs each score file has
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
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clipsel_core.curation.index import passes, uid_order
from clipsel_core.curation.index.bins import MetricBins
from clipsel_core.curation.index.saving import save
from clipsel_core.uids import UID_DTYPE

_PARTS = {"values": np.float32, "codes": np.uint16, "order": np.uint32, "starts": np.int64}


@dataclass(frozen=True)
class Index:
    """A run's pairs in order. uids: (N,) UID_DTYPE. by_uid: (N,) uint32. bins: by metric.

    folder: where it lies, as soon as it is safe on the disk.
    """

    uids: np.ndarray
    by_uid: np.ndarray
    bins: Mapping[str, MetricBins]
    folder: Path

    def rows_of(self, wanted: np.ndarray) -> np.ndarray:
        """The row of each uid, (M,) UID_DTYPE: (M,) int64, -1 where there is no such uid. Of repeated uids any row."""
        return uid_order.rows_of(self.uids, self.by_uid, wanted, partial(_let_go, self.uids))


def write_uids(folder: Path, names: np.ndarray) -> None:
    """Writes the uids."""
    save(folder / "uids.npy", names)


def write_by_uid(folder: Path, by_uid: np.ndarray) -> None:
    """Writes their order."""
    save(folder / "by-uid.npy", by_uid)


def write_bins(folder: Path, place: int, bins: MetricBins) -> None:
    """Writes what belongs to one metric; place: of it among the run's."""
    for part in _PARTS:
        save(folder / f"{place:02d}-{part}.npy", getattr(bins, part))


def write_description(folder: Path, spans: Mapping[str, tuple[float, float]], rows: list[int]) -> None:
    """Writes index.json. spans: low and high of each metric, in the run's order. rows: of each score file."""
    metrics = [{"name": name, "low": low, "high": high} for name, (low, high) in spans.items()]
    said = {"pairs": sum(rows), "rows": rows, "metrics": metrics}
    (folder / "index.json").write_text(json.dumps(said) + "\n")


def read_rows(folder: Path, files: int) -> list[int] | None:
    """How many rows each of the score files had, so that nobody need look into them; None where that is not said."""
    try:
        rows = json.loads((folder / "index.json").read_text())["rows"]
        return rows if len(rows) == files and all(type(count) is int and count >= 0 for count in rows) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_index(folder: Path, metrics: tuple[str, ...], pairs: int) -> Index | None:
    """The index in a folder, mapped; None where there is none, or not of these metrics and pairs, or it is damaged."""
    try:
        said = json.loads((folder / "index.json").read_text())
        if said["pairs"] != pairs or tuple(metric["name"] for metric in said["metrics"]) != metrics:
            return None
        names, by_uid = _map(folder / "uids.npy", UID_DTYPE, pairs), _map(folder / "by-uid.npy", np.uint32, pairs)
        bins = {}
        for place, metric in enumerate(said["metrics"]):
            parts = {part: _map(folder / f"{place:02d}-{part}.npy", dtype) for part, dtype in _PARTS.items()}
            if not len(parts["values"]) == len(parts["codes"]) == pairs or parts["starts"][-1] != len(parts["order"]):
                return None
            bins[metric["name"]] = MetricBins(**parts, low=metric["low"], high=metric["high"])
        return Index(names, by_uid, bins, folder)
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError):
        return None


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
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if found.dtype != np.dtype(dtype) or found.ndim != 1 or (length is not None and len(found) != length):
        raise ValueError(f"{path}: dtype {found.dtype}, shape {found.shape}")
    return passes.read_only(found)
