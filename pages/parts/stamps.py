"""When was a file or a folder changed last? What pages work out of files is kept as long as that stays the same.

On this machine it is looked up each time. A store is asked now and then, in the background: no page waits for it but
the first that asks for something in it. So a change there is noticed some seconds later, and later still where the
store takes long to answer.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from clipsel_core.cache import Recent
from clipsel_core.places import Place
from pages.parts import stores

Stamp = tuple[tuple[str, int, int], ...]

# A store is asked again after so many seconds, or so many times as long as it took to answer.
FRESH_S, _REST = 5.0, 20
_MOST_WATCHED = 256
_ABSENT, _UNKNOWN = (0, 0), (-1, 0)


@dataclass
class _Watched:
    """A file or folder in a store. found: how it was when it was looked at last. again_s: when it is next."""

    found: tuple[int, int] | None = None
    again_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


_watched: Recent[_Watched] = Recent(_MOST_WATCHED)


def of(root: Path | Place, *names: str) -> Stamp:
    """Changes whenever these files or folders in a folder do."""
    return tuple((name, *version_of(root / name)) for name in names)


def version_of(place: Path | Place) -> tuple[int, int]:
    """Two numbers that change whenever a file or a folder does; zeros where there is none.

    Of one in a store they are what was found when it was asked last; it is waited for where it never was.
    """
    if isinstance(place, Path) or not place.remote:
        try:
            stat = os.stat(place)
        except OSError:
            return _ABSENT
        return stat.st_mtime_ns, stat.st_size
    watched = _watched.get(place.address, _Watched)
    if watched.found is None:
        with watched.lock:
            if watched.found is None:
                _ask(place, watched)
    elif time.monotonic() >= watched.again_s and watched.lock.acquire(blocking=False):
        threading.Thread(target=_ask_and_release, args=(place, watched), name="look at a store", daemon=True).start()
    return watched.found or _UNKNOWN


def _ask_and_release(place: Place, watched: _Watched) -> None:
    try:
        _ask(place, watched)
    finally:
        watched.lock.release()


def _ask(place: Place, watched: _Watched) -> None:
    """Looks at something in a store; where that fails, what was known of it stays."""
    begun, patient, before = time.monotonic(), stores.bare(place).patient(1), watched.found
    try:
        listed = patient.listed()
        # Some stores list a file as the only one in it.
        found = hashlib.sha256(repr(listed or patient.stamp()).encode()).digest()
        watched.found = int.from_bytes(found[:7]), len(listed)
    except FileNotFoundError:
        watched.found = _ABSENT
    except OSError:
        pass
    if before not in (None, watched.found):
        stores.ask_anew(place)
    now = time.monotonic()
    watched.again_s = now + max(FRESH_S, _REST * (now - begun))
