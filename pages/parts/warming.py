"""What takes long the first time in a process? Importing and fetching the machine code of loops, done ahead here.

First what a page is made of, while the browser fetches Streamlit's own files. What takes longer and few ask for at once
waits until the first page is there, which it would slow down.
"""

from __future__ import annotations

import gc
import importlib
import logging
import threading

from streamlit import delta_generator

_log = logging.getLogger(__name__)
_PAGE = ("pages.parts.links", "pages.parts.jobs.forms", "pages.parts.pair.galleries", "pages.parts.select.export")
# Where no page is asked for, and after one is drawn: its images come first.
_NO_PAGE_S, _IMAGES_S = 10.0, 1.0
_page_drawn = threading.Event()


def warm_up() -> threading.Thread:
    """Starts doing it in a thread of its own, so that whoever asks first need not wait; not needed for anything."""
    # Nothing of what is imported is garbage, and to look through it again and again takes a tenth of the time.
    gc.disable()
    # Streamlit warns whoever runs a page in a console. To find out it looks at the files of all modules, for 0.15 s.
    delta_generator._use_warning_has_been_displayed = True

    def warm() -> None:
        try:
            for module in _PAGE:
                importlib.import_module(module)
            if _page_drawn.wait(_NO_PAGE_S):
                threading.Event().wait(_IMAGES_S)
            import numba  # noqa: F401 - first, since it takes longest
            import numpy as np

            from clipsel_core.curation.index import bitmaps
            from clipsel_core.curation.index.ranking import PrefixCounts

            # What Select asks of a large run first: counts over bins, and along the order of another metric.
            bits = bitmaps.first(bitmaps.MANY)
            bitmaps.counts_by_code(np.zeros(bitmaps.MANY, np.uint16), bits)
            PrefixCounts.of(np.zeros(1, np.uint32), np.zeros(1, np.uint16), bits).from_rank(0)
            import pandas  # noqa: F401 - so that it is there

            # What was imported stays. Gone through for garbage again and again, it stops all sessions for 0.2 s each.
            gc.collect()
            gc.freeze()
        except Exception:  # Whoever needs it meets the same, where it can be said.
            _log.debug("not warmed up", exc_info=True)
        finally:
            gc.enable()

    thread = threading.Thread(target=warm, name="warm up", daemon=True)
    thread.start()
    return thread


def page_drawn() -> None:
    """Tells that a page is there."""
    _page_drawn.set()
