"""What takes long the first time in a process? Importing and fetching the machine code of loops, done ahead here."""

from __future__ import annotations

import gc
import logging
import threading
import time

_log = logging.getLogger(__name__)
_LATER_S = 4.0


def warm_up() -> threading.Thread:
    """Starts doing it in a thread of its own, so that whoever asks first need not wait; not needed for anything."""
    thread = threading.Thread(target=_warm, name="warm up", daemon=True)
    thread.start()
    return thread


def _warm() -> None:
    try:
        import numba  # noqa: F401 - first, since it takes longest

        _run_loops()
        # Galleries and tables ask for it, Select does not: who opens that at once should not wait for it.
        time.sleep(_LATER_S)
        import pandas  # noqa: F401 - so that it is there

        # What was imported stays. Gone through for garbage again and again, it stops all sessions for 0.2 s each time.
        gc.collect()
        gc.freeze()
    except Exception:  # Whoever needs it meets the same, where it can be said.
        _log.debug("not warmed up", exc_info=True)


def _run_loops() -> None:
    """Asks a metric of two pairs what Select asks first."""
    import numpy as np

    from clipsel_core.curation.index import bitmaps
    from clipsel_core.curation.index.bins import FINE, MetricBins
    from clipsel_core.curation.index.passes import read_only
    from clipsel_core.curation.index.rank_counts import Members

    starts = np.concatenate([[0], np.ones(FINE - 1, np.int64), [2]])
    metric = MetricBins(
        values=read_only(np.array([0, 1], np.float32)),
        codes=read_only(np.array([0, FINE - 1], np.uint16)),
        order=read_only(np.array([0, 1], np.uint32)),
        starts=read_only(starts),
        low=0.0,
        high=1.0,
    )
    bits = bitmaps.pack(np.ones(2, bool))
    spread = metric.spread(bits)
    ranks = metric.ranks_of_top(Members(bits), spread, np.array([1]))
    metric.counts_from(metric.side(bits, 1, upwards=True), spread, ranks)
    metric.below(ranks)
    for rank in (0, 1, 2):
        metric.below_rank(metric.from_rank(bits, rank), rank)
    metric.codes_of(metric.scores_at(ranks))
