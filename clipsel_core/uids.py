"""How uids are held, compared and kept on disk.

A uid is 128 bits: 32 hex digits in text, with a UUID's dashes or without, and in memory one element of `UID_DTYPE`, its
high and low half. This is the dtype of DataComp's subset files. Everything here works on whole arrays; nothing loops
over uids in Python.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsel_core.errors import UidError, quoted, reason_of
from clipsel_core.npy import map_npy, write_npy

_log = logging.getLogger(__name__)
UID_DTYPE = np.dtype("u8,u8")
_DIGITS, _DASHED = 32, 36
_BLOCK = 1 << 20
_UUID = "^" + "-".join(f"([0-9A-Fa-f]{{{digits}}})" for digits in (8, 4, 4, 4, 12)) + "$"
# Random uids hardly ever share a high half. Short ones, padded with zeros, all share one: sorting serves them better.
_SHARED_HIGH_HALVES = 8

_NIBBLE = np.full(256, 255, np.uint8)
_NIBBLE[np.frombuffer(b"0123456789", np.uint8)] = np.arange(10)
_NIBBLE[np.frombuffer(b"abcdef", np.uint8)] = np.arange(10, 16)
_NIBBLE[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_null,
)


def from_hex(values) -> np.ndarray:
    """Uids of hex strings, in their order.

    values: (N,) strings of 1 to 32 hex digits, either case, padded with zeros on the left when short, or UUIDs with
        their dashes; a pyarrow array of text of any type, or anything that pyarrow makes strings of (list, pandas
        column, numpy strings). A pyarrow array of 16 bytes each is taken for UUIDs, the most significant byte first;
        where all bytes are printable ASCII, for text. Of structs of two uint64 the first is the high half.
    Returns: (N,) UID_DTYPE.
    Raises: UidError naming the first malformed value and its row, or the type of what is neither text nor UUIDs.

    >>> from_hex(["00000000000000010000000000000002", "A"]).tolist()
    [(1, 2), (0, 10)]
    """
    strings = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, pa.string())
    if isinstance(strings.type, pa.BaseExtensionType):
        strings = pc.cast(strings, strings.type.storage_type)
    if pa.types.is_struct(strings.type) and strings.type.num_fields == 2 and not strings.null_count:
        return from_columns(
            strings.combine_chunks().flatten() if isinstance(strings, pa.ChunkedArray) else strings.flatten()
        )
    if pa.types.is_binary(strings.type) or pa.types.is_large_binary(strings.type):
        # pandas writes bytes so, whatever their length.
        lengths = pc.min_max(pc.binary_length(strings)).as_py()
        if lengths["min"] == lengths["max"] == 16:
            strings = pc.cast(strings, pa.binary(16))
    out = np.empty((len(strings), 2), np.uint64)
    for start in range(0, len(strings), _BLOCK):
        block = strings.slice(start, _BLOCK)
        if strings.type == pa.binary(16):
            if block.null_count:
                _refuse(block, start, int(np.argmax(block.is_null().to_numpy(zero_copy_only=False))))
            if not ((raw := _octets(block)) - 0x20 < 0x5F).all():  # any that is not printable ASCII
                out[start : start + len(block)] = raw.view(">u8")
                continue
        out[start : start + len(block)] = _halves(block, start)
    return from_halves(out[:, 0], out[:, 1])


def from_array(array: np.ndarray) -> np.ndarray:
    """Uids of a numpy array, in its order: pairs of uint64, in either byte order, 16 bytes each, or text.

    array: (N,) of a dtype with two fields of uint64, or (N, 2) uint64; V16, or (N, 16) uint8, the most significant byte
        first; or (N,) strings as from_hex takes them.
    Returns: (N,) UID_DTYPE. Raises: UidError where it is another array, or a string is no uid.
    """
    fields = array.dtype.names or ()
    if (
        array.ndim == 1
        and len(fields) == 2
        and all(array.dtype[name].newbyteorder("=") == np.uint64 for name in fields)
    ):
        return from_halves(array[fields[0]], array[fields[1]])
    if array.ndim == 2 and array.shape[1] == 2 and array.dtype.newbyteorder("=") == np.uint64:
        return from_halves(array[:, 0], array[:, 1])
    octets = array if array.dtype == np.uint8 and array.ndim == 2 else None
    if array.dtype == np.dtype("V16") and array.ndim == 1:
        octets = np.ascontiguousarray(array).view(np.uint8).reshape(-1, 16)
    if octets is not None and octets.shape[1] == 16:
        halves = np.ascontiguousarray(octets).view(">u8")
        return from_halves(halves[:, 0], halves[:, 1])
    if array.ndim == 1 and array.dtype.kind in "US":
        return from_hex(pa.array(array.tolist(), pa.string() if array.dtype.kind == "U" else pa.binary()))
    found = f"shape {array.shape}, dtype {array.dtype}"[:80]
    raise UidError(
        "uids", expected="shape (N,), dtype u8,u8 or text", found=found, remedy="convert hex uids with from_hex"
    )


def to_hex(uids: np.ndarray) -> pa.StringArray:
    """The 32 lower-case hex digits of each uid, in order: (N,) UID_DTYPE to a pyarrow string array.

    >>> to_hex(from_hex(["Ab"])).to_pylist()
    ['000000000000000000000000000000ab']
    """
    digits = np.empty((len(uids), _DIGITS), np.uint8)
    for start in range(0, len(uids), _BLOCK):
        block = np.ascontiguousarray(uids[start : start + _BLOCK]).view(np.uint64).astype(">u8").view(np.uint8)
        octets = block.reshape(-1, 16)
        digits[start : start + _BLOCK, 0::2] = _HEX[octets >> 4]
        digits[start : start + _BLOCK, 1::2] = _HEX[octets & 15]
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_DIGITS), len(uids), [None, pa.py_buffer(digits)])
    return pc.cast(pc.cast(fixed, pa.binary()), pa.string())


def from_halves(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Uids of their halves: two (N,) uint64 arrays to (N,) UID_DTYPE."""
    out = np.empty(len(high), UID_DTYPE)
    out["f0"], out["f1"] = high, low
    return out


def from_columns(columns: Sequence[pa.Array | pa.ChunkedArray | np.ndarray]) -> np.ndarray:
    """Uids of what a table has of them: one column, or two of their halves, the high one first.

    columns: one as from_hex or from_array takes it, or two of uint64 without nulls, (N,) each.
    Returns: (N,) UID_DTYPE. Raises: UidError where they are something else.
    """
    if len(columns) == 1:
        return from_array(columns[0]) if isinstance(columns[0], np.ndarray) else from_hex(columns[0])
    high, low = map(_half, columns)
    return from_halves(high, low)


def argsort(uids: np.ndarray) -> np.ndarray:
    """The order that sorts uids, (N,) int64; equal uids keep their order. N: below 2**32."""
    high = np.ascontiguousarray(uids["f0"])
    # Sorting plain numbers takes half as long as argsort: the upper 32 bits are compared, the lower ones hold the row.
    keys = (high & np.uint64(0xFFFFFFFF00000000)) | np.arange(len(high), dtype=np.uint64)
    keys.sort()
    order = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    keys >>= np.uint64(32)
    settle(order, np.flatnonzero(keys[1:] == keys[:-1]), uids)
    return order


def settle(order: np.ndarray, alike: np.ndarray, uids: np.ndarray) -> None:
    """Puts uids that begin alike in order, in place. order: (N,) integers, sorts them by their upper 32 bits.

    alike: (M,) int64, ascending: the places in the order whose uid begins as the next one's. By chance nearly all of
    them stand in twos, which need no sorting.
    """
    upper, lower = uids["f0"], uids["f1"]
    joined = np.diff(alike, prepend=-2) == 1
    in_twos = ~(joined | np.append(joined[1:], False)) if len(alike) else joined
    first = alike[in_twos]
    one, other = order[first], order[first + 1]
    ahead, behind = upper[one], upper[other]
    turned = np.flatnonzero((ahead > behind) | ((ahead == behind) & (lower[one] > lower[other])))
    order[first[turned]], order[first[turned] + 1] = other[turned], one[turned]
    places = np.union1d(alike[~in_twos], alike[~in_twos] + 1)
    tied = order[places]
    order[places] = tied[np.lexsort((lower[tied], upper[tied]))]


def sort(uids: np.ndarray) -> np.ndarray:
    """The uids in ascending order, repeats kept."""
    return _take(uids, argsort(uids))


def unique(uids: np.ndarray) -> np.ndarray:
    """The distinct uids in ascending order."""
    ordered = sort(uids)
    return ordered[~repeats(ordered)]


def union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Uids in a or b: sorted, distinct."""
    return unique(np.concatenate([a, b]))


def contains(haystack: np.ndarray, needles: np.ndarray) -> np.ndarray:
    """Whether each needle is in the haystack: (N,) bool in the needles' order. Neither needs to be sorted."""
    known = unique(haystack)
    # Searching in ascending order keeps the searched part in cache: ten times faster at 10 million.
    order = argsort(needles)
    sought = _take(needles, order)
    known_high, high = np.ascontiguousarray(known["f0"]), np.ascontiguousarray(sought["f0"])
    position, last = np.searchsorted(known_high, high), np.searchsorted(known_high, high, side="right")
    if np.max(last - position, initial=0) > _SHARED_HIGH_HALVES:
        both = np.concatenate([known, sought])
        by_uid = np.lexsort((both["f1"], both["f0"]))
        run = np.cumsum(~repeats(both[by_uid])) - 1
        run_is_known = np.zeros(run[-1] + 1, bool)
        run_is_known[run[by_uid < len(known)]] = True
        hit = np.empty(len(both), bool)
        hit[by_uid] = run_is_known[run]
        hit = hit[len(known) :]
    else:
        hit = np.zeros(len(sought), bool)
        while (rows := np.flatnonzero(position < last)).size:
            hit[rows] |= known["f1"][position[rows]] == sought["f1"][rows]
            position[rows] += 1
    found = np.empty(len(needles), bool)
    found[order] = hit
    return found


def find_in_sorted(high: np.ndarray, low: np.ndarray, uids: np.ndarray) -> np.ndarray:
    """Where each uid stands among sorted ones, the first of several; -1 where it is none of them: (N,) int64.

    high, low: (M,) uint64, contiguous: the halves of those that are sorted. uids: (N,) UID_DTYPE.
    """
    first, last = (np.searchsorted(high, uids["f0"], side) for side in ("left", "right"))
    end = last.copy()
    # Uids that are counted up share their high half, all of them: the low one is sought by halving, all at once.
    while (open_ := first < last).any():
        middle = np.where(open_, (first + last) // 2, 0)
        below = open_ & (low[middle] < uids["f1"])
        first, last = np.where(below, middle + 1, first), np.where(open_ & ~below, middle, last)
    found = np.flatnonzero(first < end)
    out = np.full(len(uids), -1, np.int64)
    hits = found[low[first[found]] == uids["f1"][found]]
    out[hits] = first[hits]
    return out


class Growing:
    """Uids that more are added to again and again. Whether it has some takes no longer as it grows, or hardly.

    They lie in sorted levels, each larger than the next: of N uids there are log2(N) at most, and each uid is sorted as
    often. 16 bytes a uid.

    >>> known = Growing()
    >>> known.add(from_hex(["a", "b"]))
    >>> "a".zfill(32) in known, known.contains(from_hex(["c", "b"])).tolist()
    (True, [False, True])
    """

    def __init__(self) -> None:
        self._levels = list[tuple[np.ndarray, np.ndarray]]()  # the halves, as a search in a field would copy the field

    def add(self, uids: np.ndarray) -> None:
        """Adds some, (N,) UID_DTYPE in any order."""
        parts, size = [uids], len(uids)
        while self._levels and len(self._levels[-1][0]) <= size:
            parts.append(from_halves(*self._levels.pop()))
            size += len(parts[-1])
        if size:
            ordered = sort(np.concatenate(parts))
            self._levels.append((np.ascontiguousarray(ordered["f0"]), np.ascontiguousarray(ordered["f1"])))

    def contains(self, uids: np.ndarray) -> np.ndarray:
        """Whether it has each of some uids: (N,) bool in their order."""
        order = argsort(uids)  # in ascending order the searched part stays in cache
        sought, out = _take(uids, order), np.zeros(len(uids), bool)
        for high, low in self._levels:
            out[order] |= find_in_sorted(high, low, sought) >= 0
        return out

    def __contains__(self, name: str) -> bool:
        """Whether it has the uid of 32 hex digits."""
        upper, lower = (np.uint64(int(half, 16)) for half in (name[:16], name[16:]))
        for high, low in self._levels:
            first = high.searchsorted(upper)
            if first < len(high) and high[first] == upper:
                some = low[first : high.searchsorted(upper, "right")]
                at = some.searchsorted(lower)
                if at < len(some) and some[at] == lower:
                    return True
        return False


def repeats(ordered: np.ndarray) -> np.ndarray:
    """Whether each uid of a sorted array equals the one before it: (N,) bool."""
    out = np.zeros(len(ordered), bool)
    np.logical_and(ordered["f0"][1:] == ordered["f0"][:-1], ordered["f1"][1:] == ordered["f1"][:-1], out=out[1:])
    return out


def distinct(uids: np.ndarray, where: str | os.PathLike[str]) -> np.ndarray:
    """The same as `unique`; uids that repeat are counted in one logged warning. where: what they were read from."""
    once = unique(uids)
    if repeated := len(uids) - len(once):
        _log.warning("%s: %s of %s uids repeat others and count once", where, f"{repeated:,}", f"{len(uids):,}")
    return once


def read_subset(path: str | os.PathLike[str]) -> np.ndarray:
    """The uids of a .npy, as DataComp and `write_subset` write it: (N,) UID_DTYPE, ascending, distinct.

    Those of other writers may come in any order, in either byte order, as text, or repeat; see `distinct`.
    Raises: UidError where the file is not such an array.
    """
    return distinct(read_npy_uids(path), path)


def read_npy_uids(path: str | os.PathLike[str]) -> np.ndarray:
    """The uids of such a .npy as they stand there, in their order, with repeats. Raises: as read_subset."""
    try:
        return from_array(map_npy(path))
    except ValueError as error:
        found = reason_of(error)
        raise UidError(path, expected="a .npy of dtype u8,u8", found=found, remedy="export it again") from error
    except UidError as error:
        where = path if error.where == "uids" else f"{os.fspath(path)}, {error.where}"
        raise UidError(where, expected=error.expected, found=error.found, remedy=error.remedy) from error


def write_subset(path: str | os.PathLike[str], uids: np.ndarray) -> None:
    """Writes uids as the .npy that DataComp's resharder takes; the file appears whole or not at all.

    uids: (N,) UID_DTYPE, ascending and distinct.
    Raises: UidError where they are not.
    """
    high, low = uids["f0"], uids["f1"]
    ascending = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))
    if not ascending.all():
        row = int(np.argmin(ascending)) + 1
        found = f"a {'repeated' if uids[row] == uids[row - 1] else 'smaller'} uid at row {row}"
        raise UidError(path, expected="uids sorted and distinct", found=found, remedy="pass it through uids.unique")
    write_npy(Path(path), uids)


def _half(column) -> np.ndarray:
    if isinstance(column, np.ndarray):
        kind, nulls = column.dtype, 0
    else:
        kind, nulls = column.type, column.null_count
    if nulls or kind not in (pa.uint64(), np.dtype("<u8"), np.dtype(">u8")):
        raise UidError("uids", expected="halves of uint64", found=f"{kind}{', some of them null' * bool(nulls)}")
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return column if isinstance(column, np.ndarray) else np.from_dlpack(column)  # to_numpy imports pandas


def _octets(block) -> np.ndarray:
    """The bytes of values of a fixed size, (N, size) uint8."""
    array = block.combine_chunks() if isinstance(block, pa.ChunkedArray) else block
    raw = np.frombuffer(array.buffers()[1], np.uint8).reshape(-1, array.type.byte_width)
    return raw[array.offset :][: len(array)]


def _as_text(block, first_row: int):
    """A block's values as strings."""
    if pa.types.is_string(block.type):
        return block
    inner = block.type.value_type if pa.types.is_dictionary(block.type) else block.type
    of_fixed_size = pa.types.is_fixed_size_binary(inner)
    if not of_fixed_size and not any(is_kind(inner) for is_kind in _TEXT_TYPES):
        raise UidError("uids", expected="text, or UUIDs of 16 bytes", found=str(block.type))
    try:
        # By way of the plain types: not every other one can be cast to every other.
        plain = pc.cast(pc.cast(block, inner), pa.binary() if of_fixed_size else pa.string())
        return pc.cast(plain, pa.string())
    except pa.ArrowInvalid as error:
        raise UidError(f"row {first_row} or later", expected="text", found=reason_of(error)) from error


def _halves(block, first_row: int) -> np.ndarray:
    block = _as_text(block, first_row)
    lengths = pc.binary_length(block)
    if pc.max(lengths).as_py() == _DASHED:
        block = pc.replace_substring_regex(block, _UUID, r"\1\2\3\4\5")
        lengths = pc.binary_length(block)
    ends = pc.min_max(lengths).as_py()  # looking at all in numpy imports pandas, which takes longer than a small shard
    if block.null_count or ends["min"] < 1 or ends["max"] > _DIGITS:
        found = lengths.to_numpy(zero_copy_only=False)
        _refuse(block, first_row, int(np.argmax(np.isnan(found) | (found < 1) | (found > _DIGITS))))
    padded = pc.ascii_lpad(block, _DIGITS, "0") if ends["min"] < _DIGITS else block
    nibbles = _NIBBLE[_octets(pc.cast(pc.cast(padded, pa.binary()), pa.binary(_DIGITS)))]
    malformed = (nibbles == 255).any(1)
    if malformed.any():
        _refuse(block, first_row, int(np.argmax(malformed)))
    octets = (nibbles[:, 0::2] << 4) | nibbles[:, 1::2]
    return np.ascontiguousarray(octets).view(">u8").astype(np.uint64)


def _refuse(block, first_row: int, row: int) -> None:
    found = quoted(block[row].as_py())
    raise UidError(f"row {first_row + row}", expected="a uid of 1 to 32 hex digits", found=found)


def _take(uids: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`uids[rows]`, four times as fast: numpy moves complex numbers, also 16 bytes, in one piece."""
    return np.ascontiguousarray(uids).view(np.complex128)[rows].view(UID_DTYPE)
