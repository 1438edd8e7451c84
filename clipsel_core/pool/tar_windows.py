"""Where in the tars of a store does a pair's image lie? It is looked for where its row is expected, by range reads.

To go through a tar takes a request for each of its images where it lies in a store. But the samples of a tar mostly
follow the rows of the pool's metadata. So a window of some hundred kB is read where a row is expected, the headers in
it are recognised, and the json beside each image tells which row that is: from there the next guess is better. Mostly
two or three windows do, and fewer the more were read before: what was met is kept in a SQLite database.

The tars of a pool are taken for one line of bytes, one behind the other. A *position* is a place on it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import sqlite3
import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from clipsel_core import tasks, uids
from clipsel_core.errors import UidError
from clipsel_core.places import Place
from clipsel_core.pool.conventions import LARGEST_JSON, padded_uid, split_key
from clipsel_core.pool.layout import Pool
from clipsel_core.pool.sources.members import DAMAGE, Members, TarMember, TarSamples, is_header
from clipsel_core.tasks import Report, silent

_log = logging.getLogger(__name__)
_BLOCK = 512
# A window holds so many samples of the usual size, and is no smaller or larger than this.
_SAMPLES, _LEAST, _MOST = 8, 1 << 15, 1 << 18
# Where no file begins in a window, more is read behind it, up to so many bytes: a picture is seldom larger.
_MOST_WITHOUT = 1 << 24
# Requests for what lies behind a window until one sample in it is whole: its json mostly comes after the picture.
_JUMPS, _JUMP = 4, 1 << 14
# Windows that are read for a row, and so many around where it should be, in a tar whose order does not quite hold.
_MOST_WINDOWS, _NEAR = 12, 6
# Windows whose bytes are kept: pictures that lie in them need no request.
_KEPT_WINDOWS = 64
# A tar that is gone through is read in so many places at once.
_SECTIONS = 16
_LARGEST_IMAGE = (1 << 31) - 1
# Whoever reads so many bytes reads on, as far as there is something.
_ON = 1 << 20
_WAIT_S = 10
_TABLE = (
    "CREATE TABLE samples (high INTEGER, low INTEGER, tar INTEGER, first INTEGER, last INTEGER, offset INTEGER, "
    "length INTEGER, json_offset INTEGER, json_length INTEGER, PRIMARY KEY (high, low, tar)) WITHOUT ROWID"
)
_Key = tuple[int, int]


class OutOfOrder(Exception):
    """A tar's samples do not follow the pool's rows, so that it would have to be gone through. tar: its number."""

    def __init__(self, tar: int) -> None:
        super().__init__(tar)
        self.tar = tar


class Spot(NamedTuple):
    """Where a pair's files lie. tar: its number. first, last: where their headers begin, and the next sample's.

    offset, length: of the image; json_offset, json_length: of the json beside it. All from the tar's beginning.
    """

    tar: int
    first: int
    last: int
    offset: int
    length: int
    json_offset: int
    json_length: int


@dataclass(frozen=True)
class _Tar:
    """A tar of the pool. start, end: its positions. stamp: changes whenever it does."""

    place: Place
    start: int
    size: int
    stamp: str

    @property
    def end(self) -> int:
        return self.start + self.size


class _Bounds(NamedTuple):
    """Rows of the pool, and the positions that they lie between."""

    first_row: int
    end_row: int
    begin: int
    end: int


class _Gap(NamedTuple):
    """What was not seen between two positions, and where to read in it. is_begin: whether a file begins at `at`."""

    at: int
    is_begin: bool
    begin: int
    end: int


class _Beyond(OSError):
    """What is asked for lies outside of what was read."""


class TarWindows:
    """The images in the tars of a pool in a store. Any thread may call its methods.

    rows_of: gives the pool's rows of uids, (M,) UID_DTYPE to (M,) int64, -1 where one is not known.
    """

    def __init__(self, pool: Pool, kept: Path, rows_of: Callable[[np.ndarray], np.ndarray]) -> None:
        """kept: the file in which lies what was met before.

        Raises: OSError where the store does not say how large the tars are.
        """
        self._rows_of, self._lock, self._going = rows_of, threading.RLock(), threading.Lock()
        self.tars = _sized(pool.tars)
        self._starts = [tar.start for tar in self.tars]
        self._bounds = _bounds(pool, self.tars)
        self._usual_size = self.tars[-1].end // max(pool.rows, 1)
        # By row: the row of a sample, its first position and its last. By position: what was seen of the line.
        self._met, self._seen = list[tuple[int, int, int]](), list[tuple[int, int]]()
        self._mixed, self._windows = set[int](), deque[tuple[int, bytes]](maxlen=_KEPT_WINDOWS)
        self._kept = _Kept(kept, self.tars)
        for number, group in groupby(self._kept.all(), key=lambda met: met[1].tar):
            met = list(group)
            self._take_in(number, met, [(spot.first, spot.last) for _, spot in met])

    def find(self, uid: str, tries: int = 1) -> Spot | None:
        """Where the image of a uid (hex) lies; None where it has none.

        tries: how often the store is asked, where it fails in passing.
        Raises: OutOfOrder where the order of the rows does not tell; OSError where the store fails.
        """
        try:
            names = uids.from_hex([uid])
        except UidError:
            return None
        [key] = names.tolist()
        if spot := self._kept.find(key):
            return spot
        row = int(self._rows_of(names)[0])
        bounds = next((one for one in self._bounds if one.first_row <= row < one.end_row), None)
        if bounds is None:
            return None
        last, back = (-1, -1), 0
        for _ in range(_MOST_WINDOWS):
            with self._lock:
                gap, begin, end = self._guess(row, bounds)
            if gap is None:
                return self._find_near(key, begin, end, bounds, tries)
            # Where a window began in the middle of a picture, what is sought lay before the first file in it.
            back = max(2 * back, self._width) if gap[2:] == last else 0
            floor = max(gap.begin, self._starts[self._tar_at(gap.at)])
            at = max(gap.at - back, floor)
            self._look(at, gap.is_begin or at == floor, tries)
            if spot := self._kept.find(key):
                return spot
            last = gap[2:]
        raise OutOfOrder(self._tar_at(begin))

    def read(self, spot: Spot, tries: int = 1) -> tuple[bytes, bytes]:
        """An image and the json beside it. Raises: OSError where the store fails."""
        tar = self.tars[spot.tar]
        spans = [(spot.offset, spot.length), (spot.json_offset, spot.json_length)]
        first, last = min(offset for offset, _ in spans), max(sum(span) for span in spans)
        with self._lock:
            windows = list(self._windows)
        for begin, held in windows:
            if begin <= tar.start + first and tar.start + last <= begin + len(held):
                break
        else:
            begin, held = tar.start + first, _read(tar.place.patient(tries), first, last - first)
        image, json = (held[tar.start + offset - begin :][:length] for offset, length in spans)
        return image, json

    def go_through(self, number: int, report: Report = silent) -> None:
        """Goes through the headers of a tar, in several places at once, and keeps what it finds.

        report: told how many bytes of how many lie behind. What it raises ends it. Raises: OSError where the store
            fails.
        """
        tar = self.tars[number]
        with self._going:
            if self._unseen(tar.start, tar.end, tar.start):
                self._go_through(number, report)

    def _go_through(self, number: int, report: Report) -> None:
        tar = self.tars[number]
        cuts = [tar.size // _BLOCK * part // _SECTIONS * _BLOCK for part in range(_SECTIONS)] + [tar.size]
        sections = [span for span in pairwise(cuts) if span[0] < span[1]]
        left, done = threading.Lock(), 0

        def go(section: tuple[int, int]) -> None:
            nonlocal done
            begin, end = section
            view = _View(tar.place, tar.size, begin, b"", jumps=tar.size)
            at = begin if begin == 0 else view.find_header(end)
            if at is not None:
                self._learn(number, *_parse(view, at, is_begin=begin == 0, until=end))
            with left:
                done += end - begin
                report(done, tar.size, "bytes")

        with ThreadPoolExecutor(_SECTIONS) as threads:
            tasks.in_threads(threads, go, sections)
        with self._lock:
            self._mixed.discard(number)
            _add_span(self._seen, tar.start, tar.end)

    def _guess(self, row: int, bounds: _Bounds) -> tuple[_Gap | None, int, int]:
        """Where to read for a row, None where all of it was seen; and between which positions it lies, as is known."""
        low_row, high_row, low, high = bounds.first_row - 1, bounds.end_row, bounds.begin, bounds.end
        place = bisect_left(self._met, (row,))
        if place and self._met[place - 1][0] > low_row:
            low_row, _, low = self._met[place - 1]
        if place < len(self._met) and self._met[place][0] < high_row:
            high_row, high, _ = self._met[place]
        share = (row - low_row - 0.5) / max(high_row - low_row - 1, 1)
        low, high = min(low, high), max(low, high)
        return self._unseen(low, high, low + round((high - low) * min(max(share, 0.0), 1.0))), low, high

    def _unseen(self, low: int, high: int, guess: int) -> _Gap | None:
        """What was not seen between two positions and is nearest to a third; read in it so that a window holds that."""
        place = max(bisect_right(self._seen, (low, high)) - 1, 0)
        gaps, at = list[tuple[int, int]](), low
        for begin, end in self._seen[place:]:
            if begin >= high:
                break
            if at < begin:
                gaps.append((at, begin))
            at = max(at, end)
        if at < high:
            gaps.append((at, high))
        if not gaps:
            return None
        begin, end = min(gaps, key=lambda gap: max(gap[0] - guess, guess - gap[1], 0))
        tar, half = self.tars[self._tar_at(guess)], self._width // 2
        # The end of a tar is filled up, so that the next one's beginning is no worse a guess.
        at = max(begin, tar.start, min(guess, end) - half)
        # What was seen ends with a sample, so that another begins where it ends.
        return _Gap(begin, True, begin, end) if at - begin < half else _Gap(at, at == tar.start, begin, end)

    def _find_near(self, key: _Key, begin: int, end: int, bounds: _Bounds, tries: int) -> Spot | None:
        """A pair that is not where its row should be: around there, where the rows of its tar are mixed."""
        number = self._tar_at(begin)
        if number not in self._mixed:
            return None
        for turn in range(_NEAR):
            with self._lock:
                low, high = self._seen_around(begin, end)
                # What took longer to be fetched comes later: mostly it lies behind.
                ahead = high < bounds.end and (turn % 3 < 2 or low <= bounds.begin)
                gap = self._unseen(bounds.begin, low, low - self._width // 2) if low > bounds.begin else None
            if not (ahead or gap):
                return None
            self._look(*((high, True) if ahead or gap is None else gap[:2]), tries)
            if spot := self._kept.find(key):
                return spot
        raise OutOfOrder(number)

    def _seen_around(self, begin: int, end: int) -> tuple[int, int]:
        place = bisect_right(self._seen, (begin, self.tars[-1].end)) - 1
        return self._seen[place] if place >= 0 and self._seen[place][1] >= end else (begin, end)

    def _look(self, position: int, is_begin: bool, tries: int) -> None:
        """Reads a window. is_begin: whether a file begins at its position."""
        number = self._tar_at(position)
        tar = self.tars[number]
        at = position - tar.start
        at -= 0 if is_begin else at % _BLOCK
        place = tar.place.patient(tries)
        data = _read(place, at, min(self._width, tar.size - at))
        view = _View(place, tar.size, at, data, jumps=_JUMPS)
        begin = at if is_begin else view.find_header(min(tar.size, at + _MOST_WITHOUT))
        if begin is None:
            raise OutOfOrder(number)
        with self._lock:
            self._windows.append((tar.start + at, data))
        self._learn(number, *_parse(view, begin, is_begin=is_begin))

    def _learn(self, number: int, seen: tuple[int, int], met: list[tuple[_Key, Spot]]) -> None:
        """Takes in what was met in a tar, in its order, and keeps it. seen: from where to where, in the tar."""
        met = [(key, spot._replace(tar=number)) for key, spot in met]
        self._kept.add(met)
        self._take_in(number, met, [seen])

    def _take_in(self, number: int, met: Sequence[tuple[_Key, Spot]], seen: Sequence[tuple[int, int]]) -> None:
        start = self.tars[number].start
        names = np.array([key for key, _ in met], uids.UID_DTYPE)
        rows = self._rows_of(names).tolist() if len(met) else []
        known = [
            (row, start + spot.first, start + spot.last) for row, (_, spot) in zip(rows, met, strict=True) if row >= 0
        ]
        with self._lock:
            if any(after[0] < before[0] for before, after in pairwise(known)):
                self._mixed.add(number)
            for one in known:
                place = bisect_left(self._met, one)
                if self._met[place : place + 1] != [one]:
                    self._met.insert(place, one)
            for begin, end in seen:
                _add_span(self._seen, start + begin, start + end)

    @property
    def _width(self) -> int:
        return min(max(_SAMPLES * self._usual_size, _LEAST), _MOST)

    def _tar_at(self, position: int) -> int:
        return min(max(bisect_right(self._starts, position) - 1, 0), len(self.tars) - 1)


class _View(io.RawIOBase):
    """What was read of a tar, as a file of its whole size. jumps: how often more is read where something else is asked.

    Raises: _Beyond where it is not; OSError where the store fails.
    """

    def __init__(self, place: Place, size: int, begin: int, data: bytes, *, jumps: int) -> None:
        self._place, self._size, self._begin, self._data = place, size, begin, data
        self.jumps, self._at = jumps, begin

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = (0, self._at, self._size)[whence] + offset
        return self._at

    def read(self, length: int = -1) -> bytes:
        rest = max(self._size - self._at, 0)
        length = rest if length < 0 else min(length, rest)
        end = self._begin + len(self._data)
        inside = self._begin <= self._at < end
        if length >= _ON:
            length = min(length, end - self._at if inside else _JUMP)
        if length and not (inside and self._at + length <= end):
            if self.jumps < 1:
                raise _Beyond
            tasks.check()
            self.jumps -= 1
            self._begin, self._data = self._at, _read(self._place, self._at, min(max(length, _JUMP), rest))
        data = self._data[self._at - self._begin :][:length]
        self._at += len(data)
        return data

    def find_header(self, end: int) -> int | None:
        """Where the next file's header is, before `end`; more and more is read for it. None where there is none."""
        at, step = self._begin, max(len(self._data), _JUMP)
        while at < end:
            if at + _BLOCK > self._begin + len(self._data):
                if at + _BLOCK > self._size:
                    return None
                tasks.check()
                self._begin, self._data = at, _read(self._place, at, min(step, self._size - at))
                step *= 2
            block = self._data[at - self._begin :][:_BLOCK]
            if is_header(block):
                return at
            at += _BLOCK
        return None


class _Listed:
    """Files of a tar that were met, as TarSamples takes them. texts: the json files' bytes, by their offsets."""

    def __init__(self, members: Sequence[TarMember], texts: dict[int, bytes], end: int) -> None:
        self._members, self._texts, self.end = members, texts, end

    def __iter__(self) -> Iterator[TarMember]:
        return iter(self._members)

    def read(self, member: TarMember, most: int = -1) -> bytes:
        return self._texts.get(member.offset, b"")

    def end_fault(self) -> str:
        return ""


def _parse(
    view: _View, at: int, *, is_begin: bool, until: int | None = None
) -> tuple[tuple[int, int], list[tuple[_Key, Spot]]]:
    """The samples from a header on that are whole, in the view or up to an offset, and from where to where they lie.

    is_begin: whether a sample begins there; else the first key's files are left out, of which some may lie before.
    """
    members = Members(cast(BinaryIO, view), view.seek(0, io.SEEK_END))
    members.end, begin = at, at
    # Of each run of files with one key: where it begins, and its files.
    runs, texts, key, ended = list[tuple[int, list[TarMember]]](), dict[int, bytes](), None, False
    try:
        for member in members:
            own, ending = split_key(member.name)
            if own != key:
                if len(runs) > (not is_begin) and until is None:
                    view.jumps = 0
                # Whoever begins there leaves out the first.
                if until is not None and runs and runs[-1][0] >= until:
                    break
                runs.append((begin, []))
                key = own
            runs[-1][1].append(member)
            if ending == ".json" and member.size <= LARGEST_JSON:
                texts[member.offset] = members.read(member)
            begin = members.end
        else:
            ended = not members.end_fault()
            begin = members.end
        runs.append((begin, []))
    except (_Beyond, *DAMAGE):
        pass
    runs = runs if is_begin else runs[1:]
    size = view.seek(0, io.SEEK_END)
    if len(runs) < 2:
        return (runs[0][0], size) if ended else (at, at), []
    first, last = runs[0][0], runs[-1][0]
    found = [member for _, files in runs[:-1] for member in files]
    starts = [start for start, _ in runs]
    met = list[tuple[_Key, Spot]]()
    for sample in TarSamples(cast(Members, _Listed(found, texts, last)), size, captions=False):
        if not sample.fault and sample.place and sample.json_place and (uid := padded_uid(sample.facts.get("uid"))):
            run = bisect_right(starts, sample.place[0]) - 1
            [key_of] = uids.from_hex([uid]).tolist()
            if sample.place[1] <= _LARGEST_IMAGE:
                met.append((key_of, Spot(0, starts[run], starts[run + 1], *sample.place, *sample.json_place)))
    return (first, size if ended else last), met


class _Kept:
    """Where samples lie, in a SQLite database that any number of processes add to; in memory where that fails.

    In it a tar is a number that its name and its stamp make, so that what lay in one that was changed is not found.
    """

    def __init__(self, path: Path, tars: Sequence[_Tar]) -> None:
        self._lock, self._own = threading.Lock(), dict[_Key, Spot]()
        self._names = [_number_of(tar) for tar in tars]
        self._tars = {name: number for number, name in enumerate(self._names)}
        self._database: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(path)
        except (OSError, sqlite3.Error) as error:
            self._fail(error)

    def find(self, key: _Key) -> Spot | None:
        """Where the pair with these halves of a uid lies; None where it was not met."""
        with self._lock:
            found = self._own.get(key)
            return found or next((spot for _, spot in self._asked("WHERE high = ? AND low = ?", _signed(key))), None)

    def all(self) -> list[tuple[_Key, Spot]]:
        """All samples, in their order in each tar."""
        with self._lock:
            return self._asked("ORDER BY tar, first", [])

    def add(self, met: Sequence[tuple[_Key, Spot]]) -> None:
        """Keeps samples; of several with the same uid in a tar the first."""
        with self._lock:
            if self._database is not None:
                rows = [(*_signed(key), self._names[spot.tar], *spot[1:]) for key, spot in met]
                try:
                    with self._database:
                        self._database.executemany("INSERT OR IGNORE INTO samples VALUES (?,?,?,?,?,?,?,?,?)", rows)
                    return
                except sqlite3.Error as error:
                    self._fail(error)
            for key, spot in met:
                self._own.setdefault(key, spot)

    def _asked(self, where: str, values: list[int]) -> list[tuple[_Key, Spot]]:
        if self._database is None:
            return []
        try:
            rows = self._database.execute(f"SELECT * FROM samples {where}", values).fetchall()
        except sqlite3.Error as error:
            self._fail(error)
            return []
        rows = [row for row in rows if row[2] in self._tars]
        halves = np.array([row[:2] for row in rows], np.int64).reshape(-1, 2).view(np.uint64).tolist()
        spots = (Spot(self._tars[row[2]], *row[3:]) for row in rows)
        return [((high, low), spot) for (high, low), spot in zip(halves, spots, strict=True)]

    def _fail(self, error: Exception) -> None:
        _log.warning("where images lie is not kept: %s", error)
        self._database = None


def _open(path: Path) -> sqlite3.Connection:
    """The database at a path; one with other tables, or that is none, is made anew. Raises: sqlite3.Error, OSError."""
    for is_last in (False, True):
        database = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
        try:
            with database:
                database.execute(_TABLE.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
            tables = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")]
            if tables == [_TABLE]:
                return database
        except sqlite3.OperationalError:
            database.close()
            raise
        except sqlite3.DatabaseError:
            if is_last:
                raise
        database.close()
        path.unlink(missing_ok=True)
    raise sqlite3.DatabaseError(f"{path} is changed by others")


def _number_of(tar: _Tar) -> int:
    digest = hashlib.sha256(f"{tar.place.name}\n{tar.size}\n{tar.stamp}".encode()).digest()
    return int.from_bytes(digest[:7])


def _signed(key: _Key) -> list[int]:
    """A uid's halves as SQLite has numbers."""
    return np.array(key, np.uint64).view(np.int64).tolist()


def _sized(tars: Sequence[Place]) -> list[_Tar]:
    """The tars one behind the other. Raises: OSError where the store does not say how large they are."""
    listed, found, start = tars[0].parent.listed(), list[_Tar](), 0
    for place in tars:
        size, version = listed.get(place.name, (0, ""))
        if not size:
            size, version = place.stamp()
        found.append(_Tar(place, start, size, str(version)))
        start += size
    return found


def _bounds(pool: Pool, tars: Sequence[_Tar]) -> list[_Bounds]:
    """Between which positions the pool's rows lie: a tar's, where each has the name of a shard; else all tars'."""
    rows, start = dict[str, tuple[int, int]](), 0
    for shard in pool.shards:
        rows[shard.name] = start, start + shard.rows
        start += shard.rows
    if all(tar.place.stem in rows for tar in tars):
        return [_Bounds(*rows[tar.place.stem], tar.start, tar.end) for tar in tars]
    return [_Bounds(0, start, 0, tars[-1].end)]


def _read(place: Place, offset: int, length: int) -> bytes:
    """So many bytes of a tar in a store. Raises: OSError where it gives fewer."""
    data = bytearray(length)
    if length:
        place.read_into(memoryview(data), offset)
    return bytes(data)


def _add_span(spans: list[tuple[int, int]], begin: int, end: int) -> None:
    """Adds a span to those that are sorted and do not touch."""
    if begin >= end:
        return
    first = bisect_left(spans, (begin,))
    if first and spans[first - 1][1] >= begin:
        first -= 1
        begin = spans[first][0]
    last = first
    while last < len(spans) and spans[last][0] <= end:
        end = max(end, spans[last][1])
        last += 1
    spans[first:last] = [(begin, end)]
