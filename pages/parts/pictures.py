"""Which pictures does the server hand to browsers? Images that Pillow decodes to a sane size, and our drawings."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from clipsel_core.cache import Recent
from clipsel_core.errors import ClipselError, counted
from clipsel_core.pool.conventions import MEDIA_TYPES
from clipsel_core.pool.images import Images, OrderedImages, OutOfOrder, open_images
from clipsel_core.pool.making.decode import FORMATS, Unusable, decode, hush_pillow
from clipsel_core.tasks import Report, Task
from pages.parts import catalog, state
from pages.parts.catalog import Entry

_log = logging.getLogger(__name__)
_MOST_PIXELS = 64_000_000
# Formats that browsers do not show, and how large such a picture is shown instead.
_UNSEEN, _WIDEST = ("TIFF",), 4096
# Pixels that are decoded at once, at up to 16 bytes each: a larger picture is decoded while no other is.
_PIXELS_AT_ONCE = 16 << 20
_MOST_INDEXES, _MOST_DRAWINGS = 4, 64
_LOOK_AGAIN_S = 10.0
_PATIENCE_S = 2.0


class BeingFound(Exception):
    """It is not known yet where an image lies, or its store does not answer just now."""


class ImageFinder:
    """Where the images of a run's pool lie, being found, once for all who look. index: what was found; None before, and
    where the pool has none.

    In tars that nobody went through yet it may take a quarter of an hour; else it is a moment. search: a search through
    tars in a store, whose pictures are not in the order of the run's pairs; None where there was no need of one.
    """

    def __init__(self, entry: Entry) -> None:
        run = state.open_run(entry)
        self.index: Images | None = None
        self.pool = run.pool_root if run.may_read_pool else None
        self.work, self.search = Task(self._do), Task(self._go_through)
        self._entry, self._run, self._failed_s = entry, run, math.inf
        self._stamp = self._now()
        # Tars that are to be gone through, and whether a search has left since there is none.
        self._mixed, self._left, self._lock = set[int](), False, threading.Lock()

    @property
    def is_known(self) -> bool:
        """Whether it is known where all images lie that were asked for."""
        return self.work.finished and not self._mixed

    def holds(self) -> bool:
        """Whether the run and its pool are as they were, and it is too early to look again for what failed."""
        # A full disk gets room, a damaged tar is mended.
        return self._stamp == self._now() and time.monotonic() < self._failed_s + _LOOK_AGAIN_S

    def read(self, uid: str) -> bytes | None:
        """The stored bytes of a pair's image, None where there is none. Raises: BeingFound."""
        self.work.wait(_PATIENCE_S)
        if self.index is None and not (self.work.finished or self.work.error):
            raise BeingFound
        try:
            return self.index.read(uid) if self.index else None
        except OutOfOrder as error:
            if self._seek(error.tar):
                raise BeingFound from error
            return None
        except OSError as error:
            _log.warning("no image of %s just now: %s", uid, error)
            raise BeingFound from error

    def _seek(self, tar: int) -> bool:
        """Has a tar gone through; whether that is under way."""
        with self._lock:
            if self._left or self.search.error:
                self.search, self._left = Task(self._go_through), False
            self._mixed.add(tar)
            if not self.search.stopped:
                self.search.start()
            return not self.search.stopped

    def _go_through(self, report: Report) -> None:
        assert isinstance(self.index, OrderedImages)
        note = ""

        def gone(done: int, total: int, unit: str = "", said: str = "", /) -> None:
            report(done, total, unit, note)

        while (tar := self._next_tar()) is not None:
            left = len(self._mixed) - 1
            name = self.index.windows.tars[tar].place.name
            note = f"Finding images: {name} is gone through, whose order is not the pairs'"
            note += f"; {counted(left, 'tars')} left" if left else ""
            gone(0, 1)
            self.index.windows.go_through(tar, gone)
            self._mixed.discard(tar)

    def _next_tar(self) -> int | None:
        """The tar to go through; None where the search leaves, for which nobody can add one any more."""
        with self._lock:
            self._left = not self._mixed
            return min(self._mixed, default=None)

    def _do(self, report: Report) -> None:
        def gone(done: int, total: int, unit: str = "", note: str = "", /) -> None:
            report(done, total, unit, f"Finding images: {done:,} of {counted(total, unit)} gone through")

        try:
            if self.pool is None:
                return
            rows_of = None
            if self.pool.remote and (opening := state.opening(self._entry)):
                rows_of = opening.get().pool_rows_of
            pool = state.pool_at(self.pool)
            self.index = open_images(pool, self._run.cache_dir, gone, catalog.named_places(), rows_of)
        except (ClipselError, OSError) as error:
            _log.warning("no images for %s: %s", self._run.root, error)
            self._failed_s = time.monotonic()
            raise

    def _now(self) -> state.Stamp:
        of_run = state.files_stamp(self._run.root, "run.json")
        return of_run + state.files_stamp(self.pool, "shards", "images") if self.pool else of_run


_finders: Recent[ImageFinder] = Recent(_MOST_INDEXES)
_drawings: Recent[bytes] = Recent(_MOST_DRAWINGS)
_lock = threading.Lock()


def read(entry: Entry, uid: str) -> bytes | None:
    """The stored bytes of a pair's image, or None where the run's pool has none for this uid.

    Raises: BeingFound where nobody can tell yet.
    """
    return find_images(entry).read(uid)


def find_images(entry: Entry) -> ImageFinder:
    """Where the run's images lie, begun where nobody looked yet, and anew when run.json or one of the pool's folders
    changes."""
    with _lock:
        known = _finders.peek(entry.key)
        if known is None or not known.holds():
            if known is not None:
                known.work.stop()
                known.search.stop()
            known = _finders.put(entry.key, ImageFinder(entry))
    known.work.begin()
    return known


def shown(data: bytes) -> tuple[bytes, str] | None:
    """What to send a browser in place of stored bytes, and its media type: these bytes, or a JPEG where it would not
    show them. None for bytes that are no picture, are broken, or would unpack to something huge."""
    return _judged(data)[0]


def fault(data: bytes) -> str:
    """Why bytes are no picture that may be shown, in words; "" where they are one."""
    return _judged(data)[1]


def _judged(data: bytes) -> tuple[tuple[bytes, str] | None, str]:
    too_large = f"more than {_MOST_PIXELS:,} pixels"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            pixels, kind = picture.width * picture.height, picture.format or ""
        if pixels > _MOST_PIXELS:
            return None, too_large
        # What is decoded is let go before its room is.
        with _room.taken(pixels):
            return _decoders.submit(_decoded, data, kind).result(), ""
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None, too_large
    except UnidentifiedImageError:
        return None, f"bytes that are none of {', '.join(FORMATS)}"
    except Unusable as error:
        return None, str(error)
    except Exception as error:
        # Decoders of broken files raise whatever they like.
        return None, f"a broken one: {str(error)[:200]}"


def _decoded(data: bytes, kind: str) -> tuple[bytes, str]:
    """A picture's bytes once they were decoded, or a JPEG where browsers do not show the kind; and its media type."""
    if kind not in _UNSEEN:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            picture.load()
        # An MPO is a JPEG with others behind it.
        return data, MEDIA_TYPES.get(kind, "image/jpeg")
    drawn, file = decode(data, most_pixels=_MOST_PIXELS), io.BytesIO()
    drawn.thumbnail((_WIDEST, _WIDEST))
    drawn.save(file, "JPEG", quality=90)
    return file.getvalue(), "image/jpeg"


class _Room:
    """So much room for all threads together; who wants more than there is gets all of it, in the order of asking."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._turn, self._changed = threading.Lock(), threading.Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Waits until there is that much, and gives it back."""
        amount = min(amount, self._total)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify()


_room = _Room(_PIXELS_AT_ONCE)
# Few: the system's allocator keeps for each thread what it gave back.
_decoders = ThreadPoolExecutor(2, "decoding")
# Of broken pictures, and of those that are larger than may be shown, nothing need be said on the server's console.
hush_pillow()


def keep_drawing(png: bytes) -> str:
    """Keeps a picture that a page drew until the browser fetches it, and returns the address that it is fetched by.

    The same picture has the same address, seen from a page: also behind a proxy's path. A page says only that, so that
    it does not send the picture again with all else.
    """
    name = hashlib.sha256(png).hexdigest()[:32]
    _drawings.put(name, png)
    return f"./drawings/{name}"


def read_drawing(name: str) -> bytes | None:
    """The drawing of a name; None where nothing of that name was drawn lately."""
    return _drawings.peek(name)
