"""Which agreements of two runs are known already? Kept in a small file beside the first, as long as neither changes."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np

from clipsel_core.curation.exploring.agreement import PERCENTS, Agreement
from clipsel_core.curation.index.indexing import stamp_of
from clipsel_core.files import write_json
from clipsel_core.runs.store import Run

_log = logging.getLogger(__name__)
_VERSION = 1


def file_of(first: Run, second: Run) -> Path:
    """Where the agreements of these two are kept; another file when the scores of either change."""
    said = [_VERSION, stamp_of(first), str(second.root.resolve()), stamp_of(second)]
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    return first.cache_dir / "agreement" / f"{digest[:32]}.json"


def read(path: Path) -> dict[str, Agreement]:
    """What is known, by metric; nothing where there is no such file or it cannot be understood."""
    try:
        said = json.loads(path.read_bytes())
        return {name: _agreement(**known) for name, known in said.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def keep(path: Path, found: dict[str, Agreement]) -> None:
    """Writes what is known. Where that cannot be done it is only logged: it can be worked out again."""
    said = {
        name: {
            "pairs": known.pairs,
            "spearman": _number(known.spearman),
            "overlap": [_number(share) for share in known.overlap],
        }
        for name, known in found.items()
    }
    try:
        write_json(path, said)
    except OSError as error:
        _log.warning("agreements are not kept in %s: %s", path, error)


def _agreement(pairs: int, spearman: float | None, overlap: list[float | None]) -> Agreement:
    shares = np.array([np.nan if share is None else share for share in overlap], np.float64)
    if len(shares) != len(PERCENTS):
        raise ValueError("an overlap for each percentage is expected")
    return Agreement(int(pairs), float("nan") if spearman is None else float(spearman), shares)


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else float(value)
