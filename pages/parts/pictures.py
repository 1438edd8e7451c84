"""Which bytes may be shown as a pair's image? Only those that Pillow decodes to a picture of sane size."""

from __future__ import annotations

import io
import logging
import math
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from clipsel_core.curation.index.recent import Recent
from clipsel_core.errors import ClipselError
from clipsel_core.pool.images import ImageIndex, open_images
from clipsel_core.pool.layout import open_pool
from clipsel_core.runs.store import Run

_log = logging.getLogger(__name__)
_MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
_MOST_PIXELS = 64_000_000
_MOST_INDEXES = 4
_LOOK_AGAIN_S = 10.0


@dataclass(frozen=True)
class _Known:
    """An index, what was true of the run and its pool when it was opened, and until when nobody looks again."""

    stamp: tuple[int, ...]
    pool: Path
    index: ImageIndex | None
    until_s: float


_indexes: Recent[_Known] = Recent(_MOST_INDEXES)
_gates: dict[Path, threading.Lock] = {}
_lock = threading.Lock()


def read(root: Path, uid: str) -> bytes | None:
    """The stored bytes of a pair's image, or None where the run's pool has none for this uid."""
    index = _index(root)
    return index.read(uid) if index else None


def media_type(data: bytes) -> str | None:
    """The type of a picture, or None for bytes that are not one, are broken, or would unpack to something huge."""
    return _judged(data)[0]


def fault(data: bytes) -> str:
    """Why bytes are no picture that may be shown, in words; "" where they are one."""
    return _judged(data)[1]


def _judged(data: bytes) -> tuple[str | None, str]:
    too_large = f"more than {_MOST_PIXELS:,} pixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=list(_MEDIA_TYPES)) as picture:
                if picture.width * picture.height > _MOST_PIXELS:
                    return None, too_large
                picture.load()
                return _MEDIA_TYPES[picture.format or ""], ""
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None, too_large
    except UnidentifiedImageError:
        return None, f"bytes that are none of {', '.join(_MEDIA_TYPES)}"
    except (OSError, ValueError, SyntaxError) as error:
        return None, f"a broken one: {str(error)[:200]}"


def _index(root: Path) -> ImageIndex | None:
    """The index of the run's pool, opened once, and anew when run.json changes or one of the pool's folders does."""
    with _lock:
        gate = _gates.setdefault(root, threading.Lock())
    # To open one may take a minute: whoever wants another run's does not wait for it.
    with gate:
        known = _indexes.peek(root)
        if known is None or known.stamp != _stamp(root, known.pool) or time.monotonic() > known.until_s:
            run = Run.open(root)
            index, until_s = _open(run)
            known = _indexes.put(root, _Known(_stamp(root, run.pool_root), run.pool_root, index, until_s))
        return known.index


def _stamp(root: Path, pool: Path) -> tuple[int, ...]:
    return tuple(modified(path) for path in (root / "run.json", pool / "shards", pool / "images"))


def modified(path: Path) -> int:
    """When a file or folder was changed last, in nanoseconds; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _open(run: Run) -> tuple[ImageIndex | None, float]:
    try:
        return open_images(open_pool(run.pool_root), run.cache_dir), math.inf
    except (ClipselError, OSError) as error:
        _log.warning("no images for %s: %s", run.root, error)
        # A full disk gets room, a damaged tar is mended.
        return None, time.monotonic() + _LOOK_AGAIN_S
