"""Which of the values by uid belongs to which row of a run?

The run's uids lie in a table in memory, 20 bytes a pair, by a number that is mixed of their bits: the values pass by
once, in the order of their files, and each is put into its row. Where they come in the run's own order, as those of
another run of the pool do, there is no table: they are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from clipsel_core import uids
from clipsel_core.columns.keyed_values import KeyedGroup, KeyedValues, ValueKind
from clipsel_core.curation.index.bitmaps import compiled, on_all_cores
from clipsel_core.errors import ColumnError
from clipsel_core.runs.columns import MOST_CATEGORIES
from clipsel_core.runs.store import UID_HALVES, Run, SealedFiles, as_array
from clipsel_core.tasks import Report, allowed_cores, check, silent

# Values of a run are float32. This NaN, which no number is written as, stands where none was put yet.
_UNSEEN, _MISSING = np.uint32(0xFFFFFFFF), np.float32(np.nan).view(np.uint32)
# A part of the table is put in order in a core's cache, and searched by one thread.
_PAIRS_A_PART, _PAIRS_A_BUCKET, _MOST_PART_BITS, _MOST_BUCKET_BITS = 1 << 17, 4, 12, 16
_BLOCK = 1 << 22
# numpy moves the 16 bytes of a uid in one piece where it takes them for a complex number.
_WHOLE = np.complex128


@dataclass(frozen=True)
class ShardUids:
    """The uids of a run's pairs. sizes: the rows of each shard. read: those of a shard, (n,) UID_DTYPE, in row order.

    Any thread may read, and each shard is read several times.
    """

    sizes: Sequence[int]
    read: Callable[[int], np.ndarray]

    @classmethod
    def of(cls, run: Run) -> ShardUids:
        """Those of a run's finished shards, held against the seals of their files."""
        files, shards = SealedFiles(run.root, run.config), run.scored_shards

        def read(shard: int) -> np.ndarray:
            table = files.read(shards[shard].name, UID_HALVES)
            return uids.from_halves(*(as_array(table[half].combine_chunks()) for half in UID_HALVES))

        return cls([shard.rows for shard in shards], read)


@dataclass(frozen=True)
class Joined:
    """A column of a run. values: (N,) float32 in row order, NaN where there is none.

    categories: for a category the texts that occur, sorted; a value is the place in it. matched: pairs whose uid the
    file has. missing: pairs without a value, whether or not it has their uid. unknown: rows of the file whose uid the
    run lacks, which are only counted. repeated: rows whose uid stood in one before, with the same value or none.
    rounded: whole numbers that float32 does not hold, the run's or not.
    """

    values: np.ndarray
    kind: ValueKind
    categories: tuple[str, ...]
    matched: int
    missing: int
    unknown: int
    repeated: int
    rounded: int


def join_group(run: ShardUids, group: KeyedGroup, *, report: Report = silent) -> list[Joined]:
    """Puts the values of several columns of the same files, which are read once, into the rows of a run.

    The result depends on nothing but the two.

    run: fewer than 2**32 pairs. report: told how many rows of the files were read, of 0 where nobody knows how many
    there are.
    Raises: ColumnError where no uid is the run's, where one has two values, or where more than MOST_CATEGORIES texts
        differ; what reading either side raises.
    """
    keyed, codes = group.columns, [_Codes(column) for column in group.columns]
    bits = np.full((len(keyed), sum(run.sizes)), _UNSEEN, np.uint32)
    followed, table = _Follower(run), None
    counts, rounded, first, done = np.zeros(2, np.int64), np.zeros(len(keyed), np.int64), None, 0
    for batches in group.batches():
        check()
        names = batches[0].uids
        first = names[:1].copy() if first is None and len(names) else first
        new = np.empty((len(keyed), len(names)), np.uint32)
        for place, batch in enumerate(batches):
            numbers = codes[place].of(batch.values) if isinstance(batch.values, pa.Array) else batch.values
            # Minus zero is zero, and one NaN is as good as another.
            new[place] = np.where(np.isnan(numbers), _MISSING, (numbers + np.float32(0)).view(np.uint32))
        if table is None and followed.by(names):
            bits[:, followed.row - len(names) : followed.row] = new
        else:
            table = table or UidTable(run)
            *found, place, row, column = table.put(names, new, bits).tolist()
            if place >= 0:
                both = bits[column, row], new[column, place]
                raise _two_values(keyed[column], codes[column], names[place], *both)
            counts += found
        rounded += [batch.rounded for batch in batches]
        done += len(names)
        report(done, keyed[0].rows or 0, "values")
    unknown, repeated = counts.tolist()
    joined = []
    for place, column in enumerate(keyed):
        values, matched, missing = _finished(bits[place])
        if not matched:
            raise _no_common_uid(run, column, first)
        categories = codes[place].sort(values)
        counted = (matched, missing, unknown, repeated, int(rounded[place]))
        joined.append(Joined(values, column.kind, categories, *counted))
    return joined


class UidTable:
    """Finds the rows of uids. It takes 20 bytes a pair, and 4 a bucket of four.

    A pair lies in the part, and within it in the bucket, that the upper bits of its mixed uid say.
    """

    def __init__(self, run: ShardUids) -> None:
        pairs, shards = sum(run.sizes), range(len(run.sizes))
        part_bits = min(max(pairs // _PAIRS_A_PART, 1).bit_length(), _MOST_PART_BITS)
        buckets = max(pairs >> part_bits, 1) // _PAIRS_A_BUCKET
        self._bucket_bits = min(buckets.bit_length(), _MOST_BUCKET_BITS)
        self._parts = 1 << part_bits
        self._shift = np.uint64(64 - part_bits - self._bucket_bits)
        self._uids = np.empty(pairs, uids.UID_DTYPE)
        self._rows = np.empty(pairs, np.uint32)
        self._starts = np.zeros((self._parts << self._bucket_bits) + 1, np.uint32)
        counts = np.array(on_all_cores(lambda shard: self._count(run.read(shard)), shards), np.int64)
        counts = counts.reshape(len(shards), self._parts)
        ends = np.cumsum(counts.T).reshape(self._parts, len(shards)).T
        firsts = np.cumsum([0, *run.sizes]).tolist()
        on_all_cores(
            lambda shard: self._spread(run.read(shard), firsts[shard], counts[shard], ends[shard] - counts[shard]),
            shards,
        )
        edges = [0, *np.cumsum(counts.sum(0)).tolist()]
        on_all_cores(self._order, range(self._parts), pairwise(edges))

    def put(self, keys: np.ndarray, new: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Puts values into the rows of their uids.

        keys: (B,) UID_DTYPE. new: (C, B) uint32, a float32's bits, of C columns. bits: (C, N) uint32, changed.
        Returns: int64; how many keys the run lacks, how many had their value before; the place of the first with
            another value than its row has, that row and the column; -1 three times where there is none.
        """
        buckets = self._bucket_of(keys)
        parts = (buckets >> np.uint32(self._bucket_bits)).astype(np.uint16)
        order = np.argsort(parts, kind="stable")
        # A thread has parts of its own: no two of them put values into the same row.
        parts = parts[order]
        cuts = np.linspace(0, len(order), 2 * allowed_cores() + 1).astype(np.int64)[1:-1]
        cuts = np.unique([0, *np.searchsorted(parts, parts[cuts]), len(order)]) if len(order) else np.zeros(1, np.int64)
        halves = np.ascontiguousarray(keys).view(np.uint64)
        table = (self._starts, self._uids.view(np.uint64), self._rows)
        found = np.array(
            on_all_cores(lambda cut: _put(order[cut[0] : cut[1]], buckets, halves, new, *table, bits), pairwise(cuts)),
            np.int64,
        ).reshape(-1, 5)
        twice = found[found[:, 2] >= 0]
        where = twice[np.argmin(twice[:, 2]), 2:] if len(twice) else (-1, -1, -1)
        return np.array([*found[:, :2].sum(0), *where])

    def _bucket_of(self, keys: np.ndarray) -> np.ndarray:
        """(B,) uint32: the part in the upper bits, the bucket in it in the lower."""
        mixed = keys["f1"] * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= keys["f0"]
        for factor in (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)):
            mixed ^= mixed >> np.uint64(29)
            mixed *= factor
        mixed ^= mixed >> np.uint64(32)
        return (mixed >> self._shift).astype(np.uint32)

    def _count(self, keys: np.ndarray) -> np.ndarray:
        return np.bincount(self._bucket_of(keys) >> np.uint32(self._bucket_bits), minlength=self._parts)

    def _spread(self, keys: np.ndarray, first: int, counts: np.ndarray, begins: np.ndarray) -> None:
        """Puts a shard's uids into their parts. first: its first row. counts, begins: how many go where in each."""
        check()
        order = np.argsort((self._bucket_of(keys) >> np.uint32(self._bucket_bits)).astype(np.uint16), kind="stable")
        places = np.arange(len(keys)) + np.repeat(begins - np.cumsum(counts) + counts, counts)
        self._uids.view(_WHOLE)[places] = keys.view(_WHOLE)[order]
        self._rows[places] = order + first

    def _order(self, part: int, ends: tuple[int, int]) -> None:
        """Puts a part's uids into their buckets, and notes where each begins."""
        check()
        here, buckets = slice(*ends), 1 << self._bucket_bits
        own = self._bucket_of(self._uids[here]) & np.uint32(buckets - 1)
        order = np.argsort(own.astype(np.uint16), kind="stable")
        for column in (self._uids.view(_WHOLE), self._rows):
            column[here] = column[here][order]
        counted = np.cumsum(np.bincount(own, minlength=buckets)) + ends[0]
        self._starts[part * buckets + 1 : (part + 1) * buckets + 1] = counted


class _Follower:
    """Tells whether uids come in a run's own order. row: of the run, which comes next."""

    def __init__(self, run: ShardUids) -> None:
        self._run, self._next = run, 0
        self._ahead = np.empty(0, uids.UID_DTYPE)
        self.row = 0

    def by(self, keys: np.ndarray) -> bool:
        """Whether these are the next; then those behind them are next."""
        parts, ahead = [self._ahead], len(self._ahead)
        while ahead < len(keys) and self._next < len(self._run.sizes):
            parts.append(self._run.read(self._next))
            ahead += len(parts[-1])
            self._next += 1
            if len(parts) == 2 and not _same(parts[1], keys[len(parts[0]) :]):
                break  # nothing more need be read to say no
        self._ahead = np.concatenate(parts)
        if not len(keys) <= len(self._ahead) or not _same(self._ahead, keys):
            return False
        self._ahead = self._ahead[len(keys) :]
        self.row += len(keys)
        return True


class _Codes:
    """Numbers texts in the order in which they come."""

    def __init__(self, keyed: KeyedValues) -> None:
        self._keyed, self._known = keyed, dict[str, int]()

    def of(self, texts: pa.DictionaryArray) -> np.ndarray:
        """The numbers of texts, (B,) float32, NaN for null."""
        numbers = [np.nan if text is None else self._number(text) for text in texts.dictionary.to_pylist()]
        places = as_array(texts.indices.fill_null(len(numbers)))
        return np.array([*numbers, np.nan], np.float32)[places]

    def text(self, number: float) -> str:
        """The text that a number stands for, quoted; of a number itself it is the number."""
        return repr(list(self._known)[int(number)]) if self._known else f"{number:g}"

    def sort(self, values: np.ndarray) -> tuple[str, ...]:
        """The texts that occur, sorted; afterwards values, (N,) float32, are the places in them."""
        if not self._known:
            return ()
        texts, counts = list(self._known), np.zeros(len(self._known), np.int64)
        blocks = [values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK)]
        for block in blocks:
            counts += np.bincount(block[~np.isnan(block)].astype(np.int64), minlength=len(texts))
        used = sorted(text for text, count in zip(texts, counts.tolist(), strict=True) if count)
        places = {text: place for place, text in enumerate(used)}
        numbers = np.array([places.get(text, np.nan) for text in texts], np.float32)
        for block in blocks:
            there = ~np.isnan(block)
            block[there] = numbers[block[there].astype(np.int64)]
        return tuple(used)

    def _number(self, text: str) -> int:
        number = self._known.setdefault(text, len(self._known))
        if number >= MOST_CATEGORIES:
            expected, found = f"at most {MOST_CATEGORIES:,} different texts", f"more in {self._keyed.column}"
            remedy = "name a column of numbers, or of texts that repeat"
            raise ColumnError(self._keyed.source, expected=expected, found=found, remedy=remedy)
        return number


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two lists of uids are the same as far as both go."""
    length = min(len(one), len(other))
    return bool((one[:length].view(np.uint64) == other[:length].view(np.uint64)).all())


def _finished(bits: np.ndarray) -> tuple[np.ndarray, int, int]:
    """The values, and how many rows were matched and how many have no value."""
    matched = missing = 0
    for start in range(0, len(bits), _BLOCK):
        block = bits[start : start + _BLOCK]
        unseen = block == _UNSEEN
        matched += len(block) - int(unseen.sum())
        block[unseen] = _MISSING
        missing += int((block == _MISSING).sum())
    return bits.view(np.float32), matched, missing


def _two_values(keyed: KeyedValues, codes: _Codes, uid: np.void, old: np.uint32, new: np.uint32) -> ColumnError:
    both = (codes.text(float(value.view(np.float32))) for value in (old, new))
    found = f"{' and '.join(both)} in {keyed.column} for {_hex(uid)}"
    return ColumnError(keyed.source, expected="one value a uid", found=found, remedy="remove all rows of it but one")


def _no_common_uid(run: ShardUids, keyed: KeyedValues, first: np.ndarray | None) -> ColumnError:
    shard = next((shard for shard, size in enumerate(run.sizes) if size), None)
    expected = "uids of the run" + ("" if shard is None else f", such as {_hex(run.read(shard)[0])}")
    found = "no rows" if first is None else f"none of them, but such as {_hex(first[0])}"
    return ColumnError(keyed.source, expected=expected, found=found, remedy="take the file that belongs to this pool")


def _hex(uid: np.void) -> str:
    return uids.to_hex(np.array([uid], uids.UID_DTYPE))[0].as_py()


@compiled
def _put(order, buckets, keys, new, starts, known, rows, bits):
    unknown, repeated, place_of_two, row_of_two, column_of_two = 0, 0, -1, -1, -1
    for place in order:
        bucket = buckets[place]
        is_known, is_repeated = False, False
        for entry in range(starts[bucket], starts[bucket + 1]):
            if known[2 * entry] != keys[2 * place] or known[2 * entry + 1] != keys[2 * place + 1]:
                continue
            row = rows[entry]
            is_known = True
            for column in range(len(new)):
                old, value = bits[column, row], new[column, place]
                is_repeated |= old != _UNSEEN
                if old in (_UNSEEN, _MISSING):
                    bits[column, row] = value
                elif value != old and value != _MISSING and (place_of_two < 0 or place < place_of_two):
                    place_of_two, row_of_two, column_of_two = place, row, column
        unknown += not is_known
        repeated += is_repeated
    return unknown, repeated, place_of_two, row_of_two, column_of_two
