"""Which tile sizes suit a GPU and a width, and how are they remembered?

Tile sizes decide speed and the order in which sums are added, nothing else. They are timed once per device, width and
version of Triton and kept in a small JSON file in the user's cache folder, so that every process of a machine takes
the same ones; whether the kernels passed their check with them is kept beside. A cache that cannot be read, or says
what is no candidate, is ignored and written anew; one that cannot be written costs timing and check in every process.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipsel_core.errors import ScoringError
from clipsel_core.files import cache_folder, write_json

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TileSizes:
    """A block of products: rows of X, rows of Y, the step along D, and how the GPU shares the work of one block."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int

    def as_dict(self) -> dict[str, int]:
        """The sizes by name, for run.json and the cache."""
        return asdict(self)


# For Hopper first; the last ones fit GPUs with little shared memory. Every depth divides DEPTH.
CANDIDATES = (
    TileSizes(128, 256, 64, warps=8, stages=4),
    TileSizes(128, 256, 64, warps=8, stages=3),
    TileSizes(128, 128, 64, warps=4, stages=3),
    TileSizes(128, 128, 64, warps=8, stages=3),
    TileSizes(128, 128, 32, warps=4, stages=3),
    TileSizes(64, 64, 32, warps=4, stages=2),
)
DEPTH = 64

_FORMAT = 1
_guard = threading.Lock()
_chosen: dict[str, TileSizes] = {}


def fastest(key: str, measure: Callable[[TileSizes], float]) -> TileSizes:
    """The fastest candidate for a key that names device, width and version; measured once and remembered.

    measure: seconds with a candidate, inf where it does not fit the device.
    Raises: ScoringError where none fits.
    """
    with _guard:
        if key not in _chosen and (known := _read().get(key)):
            _chosen[key] = known
        elif key not in _chosen:
            seconds = {sizes: measure(sizes) for sizes in CANDIDATES}
            best = min(seconds, key=lambda sizes: seconds[sizes])
            if not math.isfinite(seconds[best]):
                expected, remedy = "a GPU that fits a tile", "impl tiled"
                raise ScoringError(key, expected=expected, found="none of the sizes fits", remedy=remedy)
            _log.info("%s: tiles of %s, %.2f ms", key, best, seconds[best] * 1e3)
            _keep("tiles", key, best.as_dict())
            _chosen[key] = best
        return _chosen[key]


def use(key: str, sizes: Mapping[str, int]) -> None:
    """Takes these sizes for a key in this process from now on, as a run that was begun with them asks.

    Raises: ScoringError on sizes that are no candidate.
    """
    found = _parse(sizes)
    if found is None:
        remedy = "score into another folder"
        raise ScoringError("tiles", expected="tile sizes of this version", found=f"{dict(sizes)}", remedy=remedy)
    with _guard:
        _chosen[key] = found


def cache_file() -> Path:
    """Where the sizes are kept."""
    return cache_folder() / "tiles.json"


def remembered(key: str, find_out: Callable[[], str]) -> str:
    """What find_out said of a key, kept in the same file: found out once."""
    with _guard:
        known = _kept("checks").get(key)
        if isinstance(known, str):
            return known
        said = find_out()
        _keep("checks", key, said)
        return said


def _read() -> dict[str, TileSizes]:
    """The cache's tile sizes that make sense."""
    parsed = {key: _parse(sizes) for key, sizes in _kept("tiles").items()}
    return {key: sizes for key, sizes in parsed.items() if sizes is not None}


def _keep(section: str, key: str, value: Any) -> None:
    tiles = {name: sizes.as_dict() for name, sizes in _read().items()}
    kept: dict[str, dict[str, Any]] = {"tiles": tiles, "checks": _kept("checks")}
    kept[section] = {**kept[section], key: value}
    try:
        write_json(cache_file(), {"format": _FORMAT, **kept})
    except OSError as error:
        _warn_of_cache(str(error))


def _kept(section: str) -> dict[str, Any]:
    try:
        kept: Any = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    entries = kept.get(section) if isinstance(kept, dict) and kept.get("format") == _FORMAT else None
    return entries if isinstance(entries, dict) else {}


def _parse(sizes: Any) -> TileSizes | None:
    return next((known for known in CANDIDATES if known.as_dict() == sizes), None)


@functools.cache
def _warn_of_cache(error: str) -> None:
    _log.warning("tile sizes and checks are not kept, so every process makes them anew: %s", error)
