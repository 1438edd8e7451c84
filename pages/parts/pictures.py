"""Which bytes may be shown as a pair's image? Only those that Pillow decodes to a picture of sane size."""

from __future__ import annotations

import io
import logging
import math
import threading
import time
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from clipsel_core.counts import counted
from clipsel_core.curation.index.recent import Recent
from clipsel_core.errors import ClipselError
from clipsel_core.pool.images import ImageIndex, open_images
from clipsel_core.pool.layout import open_pool
from clipsel_core.runs.store import Run
from pages.parts import catalog
from pages.parts.background import Report, Work

_log = logging.getLogger(__name__)
_MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
_MOST_PIXELS = 64_000_000
_MOST_INDEXES = 4
_LOOK_AGAIN_S = 10.0
_PATIENCE_S = 2.0


class BeingFound(Exception):
    """It is not known yet where a run's images lie."""


class Finding:
    """Where the images of a run's pool lie, being found, once for all who look. index: what was found; None before, and
    where the pool has none.

    In tars that nobody went through yet it may take a quarter of an hour; else it is a moment.
    """

    def __init__(self, root: Path) -> None:
        run = Run.open(root)
        self.index: ImageIndex | None = None
        self.pool, self.work = run.pool_root, Work(self._do)
        self._run, self._stamp, self._failed_s = run, _stamp(root, run.pool_root), math.inf

    def holds(self) -> bool:
        """Whether the run and its pool are as they were, and it is too early to look again for what failed."""
        # A full disk gets room, a damaged tar is mended.
        as_it_was = self._stamp == _stamp(self._run.root, self.pool)
        return as_it_was and time.monotonic() < self._failed_s + _LOOK_AGAIN_S

    def _do(self, report: Report) -> None:
        def gone(done: int, total: int) -> None:
            said = f"Finding images: {done:,} of {counted(total, 'files')} gone through"
            report(done / max(total, 1), said)

        try:
            self.index = open_images(open_pool(self.pool), self._run.cache_dir, gone, catalog.named_places())
        except (ClipselError, OSError) as error:
            _log.warning("no images for %s: %s", self._run.root, error)
            self._failed_s = time.monotonic()
            raise


_findings: Recent[Finding] = Recent(_MOST_INDEXES)
_lock = threading.Lock()


def read(root: Path, uid: str) -> bytes | None:
    """The stored bytes of a pair's image, or None where the run's pool has none for this uid.

    Raises: BeingFound where nobody can tell yet.
    """
    finding = find(root)
    finding.work.wait(_PATIENCE_S)
    if finding.index is None and not (finding.work.finished or finding.work.error):
        raise BeingFound
    return finding.index.read(uid) if finding.index else None


def find(root: Path) -> Finding:
    """Where the run's images lie, begun where nobody looked yet, and anew when run.json or one of the pool's folders
    changes."""
    with _lock:
        known = _findings.peek(root)
        if known is None or not known.holds():
            if known is not None:
                known.work.stop()
            known = _findings.put(root, Finding(root))
    known.work.begin()
    return known


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


def _stamp(root: Path, pool: Path) -> tuple[int, ...]:
    return tuple(modified(path) for path in (root / "run.json", pool / "shards", pool / "images"))


def modified(path: Path) -> int:
    """When a file or folder was changed last, in nanoseconds; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
