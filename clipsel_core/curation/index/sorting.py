"""In what order do all pairs stand by a score or a uid? Every core sorts: groups of neighbours first, then each alone.

A record has 64 bits: the upper ones are the key, the lower ones say whose it is. All that is known before is a 16-bit
code of each pair that ascends with its key. Pairs with neighbouring codes make a group of a size that a core's cache
holds; one pass over the pairs lays each record into its group, and the groups are sorted by radix, side by side.
Nothing but that pass goes back and forth in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from clipsel_core import tasks
from clipsel_core.cores import allowed_cores
from clipsel_core.curation.index.passes import compiled, read_only

CODES = 65_536
_PARTS, _FEWEST_IN_PART = 32, 1 << 16
_GROUPS, _FEWEST_IN_GROUP = 1024, 1 << 16
_LARGEST_DIGIT = 2047
_WORKERS = allowed_cores()
_threads = ThreadPoolExecutor(_WORKERS, "sort")


@dataclass(frozen=True)
class Tally:
    """How many pairs have each code. codes: (N,) uint16. parts: where each part of the pairs begins, and N.

    counts: (P, 65536) int64, of each part.
    """

    codes: np.ndarray
    parts: tuple[int, ...]
    counts: np.ndarray

    @classmethod
    def of(cls, codes: np.ndarray) -> Tally:
        """The tally of some codes."""
        codes = read_only(codes)
        most = min(_PARTS, len(codes) // _FEWEST_IN_PART + 1)
        parts = tuple(len(codes) * part // most for part in range(most + 1))
        counts = np.zeros((most, CODES), np.int64)
        tasks.in_threads(_threads, lambda *part: _count(codes, *part), parts, parts[1:], counts)
        return cls(codes, parts, counts)


@dataclass(frozen=True)
class Groups:
    """Pairs with neighbouring codes, as many as a core's cache holds; one code alone may have more.

    tally: of all pairs. group_of: (65536,) int32, the group of each code, -1 for none. firsts: (G,) int64, the first
    code of each group. by_part: (G, P) int64, how many records each part has for it.
    """

    tally: Tally
    group_of: np.ndarray
    firsts: np.ndarray
    by_part: np.ndarray

    @classmethod
    def of(cls, tally: Tally, codes: int = CODES) -> Groups:
        """The groups of a tally. codes: pairs with a code below this have a record, the others none."""
        counts = tally.counts[:, :codes]
        behind = np.cumsum(counts.sum(0))
        size = max(int(behind[-1]) // _GROUPS, _FEWEST_IN_GROUP)
        group = (behind - 1) // size  # By the last of a code's pairs: a group holds so many, or one code holds more.
        firsts = np.flatnonzero(np.diff(group, prepend=-2))
        group_of = np.full(CODES, -1, np.int32)
        group_of[: len(group)] = np.cumsum(np.diff(group, prepend=group[0]) > 0)
        return cls(tally, read_only(group_of), firsts, np.add.reduceat(counts, firsts, axis=1).T)

    def sort(
        self,
        lay: Callable[[int, int, np.ndarray, np.ndarray], object],
        finish: Callable[[np.ndarray, np.ndarray, int], object],
        records: np.ndarray,
        lowest: int = 32,
        bits: int = 32,
    ) -> None:
        """Sorts records by their keys and has each sorted group finished; what counts as equal stays as it was.

        Both functions are asked from several threads.
        lay: given where a part of the pairs starts and stops, where this part's next record of each group goes (G,)
            int64, and the records; it lays the part's.
        finish: given a group's records when they are sorted, room for as many, and how many lie in groups before.
        records: (M,) uint64, room for all of them. lowest, bits: as in by_bits.
        """
        ends = np.cumsum(self.by_part).reshape(self.by_part.shape)
        places = np.ascontiguousarray((ends - self.by_part).T)
        parts = zip(self.tally.parts[:-1], self.tally.parts[1:], places, strict=True)
        tasks.in_threads(_threads, lambda part: lay(part[0], part[1], part[2], records), parts)
        stops = ends[:, -1].tolist()
        starts = [0, *stops[:-1]]
        room: SimpleQueue[np.ndarray] = SimpleQueue()
        for _ in range(_WORKERS):
            room.put(np.empty(max(np.subtract(stops, starts)), np.uint64))

        def settle(start: int, stop: int) -> None:
            other = room.get()
            by_bits(records[start:stop], other[: stop - start], lowest, bits)
            finish(records[start:stop], other[: stop - start], start)
            room.put(other)

        tasks.in_threads(_threads, settle, starts, stops)


def by_bits(records: np.ndarray, other: np.ndarray, lowest: int, bits: int) -> None:
    """Sorts some records by the highest so many bits that differ in them, but none below the lowest; in one thread.

    other: room for as many.
    """
    _sort(records, other, np.zeros(_LARGEST_DIGIT + 1, np.int64), lowest, bits)


@compiled
def _count(codes, start, stop, counts):
    for row in range(start, stop):
        counts[codes[row]] += 1


@compiled
def _sort(records, other, places, lowest, most):
    """By as few digits, of 11 bits at most, as the differing bits of the keys take; the lowest first."""
    differing = np.uint64(0)
    for record in records:
        differing |= record ^ records[0]
    low, high = np.uint64(lowest), np.uint64(lowest)
    while high < 64 and differing >> high:
        high += np.uint64(1)
    if high - low > np.uint64(most):
        low = high - np.uint64(most)
    turns = (high - low + np.uint64(10)) // np.uint64(11)
    bits = (high - low + turns - np.uint64(1)) // max(turns, np.uint64(1))
    mask = (np.uint64(1) << bits) - np.uint64(1)
    there, here = other, records
    for _ in range(turns):
        places[:] = 0
        for record in here:
            places[(record >> low) & mask] += 1
        before = 0
        for digit in range(mask + np.uint64(1)):
            places[digit], before = before, before + places[digit]
        for record in here:
            digit = (record >> low) & mask
            there[places[digit]] = record
            places[digit] += 1
        low += bits
        there, here = here, there
    if turns & np.uint64(1):
        records[:] = other
