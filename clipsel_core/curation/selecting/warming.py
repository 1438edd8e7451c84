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
    """Asks for what Select asks of a large run first: counts over bins, and along the order of another metric."""
    import numpy as np

    from clipsel_core.curation.index import bitmaps
    from clipsel_core.curation.index.prefix_counts import PrefixCounts

    bits = bitmaps.first(bitmaps.MANY)
    bitmaps.histogram(np.zeros(bitmaps.MANY, np.uint16), bits)
    PrefixCounts.of(np.zeros(1, np.uint32), np.zeros(1, np.uint16), bits).from_rank(0)
